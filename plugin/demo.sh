#!/usr/bin/env bash
# `make demo`: a secret is served and rotated in a real container, with the embedded store, and all is removed again.
# What is shown is what runs; only the values come in by a pipe, so that they are in no process's arguments.
set -euo pipefail
cd "$(dirname "$0")/.."
. plugin/engine.sh

plugin=${PLUGIN:-dso:latest} profile=${PROFILE:-release}
container=dso-demo volume=dso-demo-secrets image=dso-demo:latest
file=/run/secrets/db_password
made=() config=

main() {
    need_engine
    refuse_what_is_taken
    trap clean_up EXIT
    trap 'exit 130' INT TERM

    say "1. Build dso, and install it as a plugin of this engine"
    config=$(mktemp -d)
    make --no-print-directory rootfs PROFILE="$profile" PLUGIN="$plugin"
    made+=("plugin $plugin")
    plugin/install.sh "$plugin" "target/plugin/$profile" "config.source=$config" DSO_REFRESH=1s
    build_image

    say "2. Put a secret into the embedded store: one encrypted file in a folder of the host"
    local first second
    first=$(random) second=$(random)
    set_secret "$first"

    say "3. Run a container with it. The image is built FROM scratch: one program, no shell, nothing of dso"
    made+=("volume $volume" "container $container")
    show docker run --detach --name "$container" \
        --mount "type=volume,source=$volume,volume-driver=$plugin,target=/run/secrets,volume-opt=file.db_password=local://demo/db#password" \
        "$image" watch "$file" 600
    wait_for_log "$first"
    echo "   The first thing that the container's first process read was the value, $first:"
    show docker logs "$container"

    say "4. Docker does not know the value; what the container has is read-only, in RAM, and never swapped"
    echo "   The value is in $(inspect_everything | count "$first") lines of what docker inspect tells of container, volume and plugin."
    show docker exec "$container" /probe cat /proc/self/mounts | grep -e '\$ docker' -e ' /run/secrets '

    say "5. Change the secret while the container runs"
    local start=$EPOCHREALTIME
    set_secret "$second"
    wait_for_log "$second"
    echo "   After $(((${EPOCHREALTIME/[.,]/} - ${start/[.,]/}) / 1000)) ms the same process, not restarted, read $second:"
    show docker logs "$container"

    say "6. What dso says of the volume"
    show docker volume inspect "$volume" --format '{{range $name, $value := .Status}}{{$name}}: {{json $value}}{{println}}{{end}}'
    say "Done; removing all of it"
}

say() { printf '\n\033[1m%s\033[0m\n' "$1"; }

show() {
    local word
    printf '   $'
    for word in "$@"; do
        case $word in *[[:space:]\{\#]*) printf ' %s' "${word@Q}" ;; *) printf ' %s' "$word" ;; esac
    done
    printf '\n'
    "$@" 2>&1 | indent
}

indent() { sed '/^$/d; s/^/   /'; }

refuse_what_is_taken() {
    if docker plugin inspect "$plugin" >/dev/null 2>&1; then
        echo "The plugin $plugin is installed here, and the demo leaves it alone. Give the demo another name: make demo PLUGIN=dso-demo:latest" >&2
        exit 1
    fi
    if docker container inspect "$container" >/dev/null 2>&1 || docker volume inspect "$volume" >/dev/null 2>&1; then
        echo "There is a container $container or a volume $volume here, which the demo would make: remove it first." >&2
        exit 1
    fi
}

random() { od -An -N12 -tx1 /dev/urandom | tr -d ' \n'; }

set_secret() {
    echo "   $ docker dso secret set demo/db#password     (the value comes on stdin)"
    printf %s "$1" | "target/$(if [ "$profile" = dev ]; then echo debug; else echo "$profile"; fi)/docker-dso" \
        --config-dir "$config" secret set demo/db#password 2>&1 | indent
}

# The patterns come on a file descriptor: not in an argument.
count() { grep -cFf <(printf '%s\n' "$1") || true; }

wait_for_log() {
    local _
    for _ in $(seq 150); do
        if [ "$(docker logs "$container" 2>&1 | count "$1")" != 0 ]; then return; fi
        if [ "$(docker container inspect -f '{{.State.Running}}' "$container")" != true ]; then break; fi
        sleep 0.1
    done
    echo "The container has not read the value after 15 s; its log:" >&2
    docker logs "$container" >&2
    exit 1
}

inspect_everything() { docker inspect "$container" && docker volume inspect "$volume" && docker plugin inspect "$plugin"; }

# The program that reads in the container; see tests/support/probe.rs.
build_image() {
    local folder=$config/image
    mkdir "$folder"
    rustc --edition 2024 -O -C target-feature=+crt-static -C panic=abort -C strip=symbols \
        -o "$folder/probe" tests/support/probe.rs
    made+=("image $image")
    tar -C "$folder" -c probe | docker import --change 'ENTRYPOINT ["/probe"]' - "$image" >/dev/null
    rm -r "$folder"
}

# Only what this run made, the last first; also after a failure or an interrupt.
clean_up() {
    local status=$? at what name
    trap '' INT TERM
    for ((at = ${#made[@]} - 1; at >= 0; at--)); do
        read -r what name <<<"${made[at]}"
        case $what in
        container) docker rm --force "$name" ;;
        volume) docker volume rm --force "$name" ;;
        image) docker rmi "$name" ;;
        plugin) docker plugin rm --force "$name" ;;
        esac >/dev/null 2>&1 || true
    done
    rm -rf "$config"
    exit "$status"
}

main
