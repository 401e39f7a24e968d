#!/usr/bin/env bash
# Removes what tests left behind: plugins, containers, volumes, networks, engines, network namespaces, processes,
# folders. All of it is named dso-test-<process id of the test>-…, and what belongs to a test that still runs stays.
#
#   tests/support/sweep.sh           everything of tests that have ended
#   tests/support/sweep.sh NAME      everything whose name is NAME or begins with NAME-, whoever it belongs to
#
# The test harness calls this too, when a value goes out of scope. Status 1 if something could not be removed.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit

name=${1:-}
failed=0

main() {
    sweep_system_engine
    sweep_engines
    sweep_processes
    sweep_folders
    exit $failed
}

# Is this name to be removed?
mine() {
    if [ -n "$name" ]; then
        case $1 in "$name" | "$name"[-_:/]*) return 0 ;; *) return 1 ;; esac
    fi
    case $1 in dso-test-[0-9]*) ;; *) return 1 ;; esac
    local owner=${1#dso-test-}
    owner=${owner%%[!0-9]*}
    # A process of that number that is no test has come by the number since.
    ! readlink "/proc/$owner/exe" 2>/dev/null | grep -q '/target/.*/deps/'
}

fail() {
    echo "sweep: $1" >&2
    failed=1
}

# each FUNCTION: with the first of two words of each line, the second of which is the name. Not in a pipe: a failure
# must be remembered here.
each() {
    local object key
    while read -r object key; do
        if mine "$key"; then "$1" "$object"; fi
    done
}

sweep_system_engine() {
    command -v docker >/dev/null && docker version >/dev/null 2>&1 || return 0
    each remove_container < <(docker ps -a --format '{{.ID}} {{.Names}}')
    each remove_volume < <(docker volume ls --format '{{.Name}} {{.Name}}')
    each remove_plugin < <(docker plugin ls --format '{{.Name}} {{.Name}}')
    each remove_network < <(docker network ls --format '{{.ID}} {{.Name}}')
    each remove_image < <(docker images --format '{{.Repository}}:{{.Tag}} {{.Repository}}')
    # A volume that outlives its plugin is a line in the engine's books alone.
    each remove_volume_at_last < <(docker volume ls --format '{{.Name}} {{.Name}}')
}

# A replacement has the anonymous volumes of what it replaced by their names, and `-v` leaves those.
remove_container() {
    local mounts='{{range .Mounts}}{{if eq .Type "volume"}}{{println .Name}}{{end}}{{end}}' anonymous
    anonymous=$(docker inspect -f "$mounts" "$1" 2>/dev/null | grep -xE '[0-9a-f]{64}' || true)
    docker rm -fv "$1" >/dev/null || fail "container $1 stays"
    if [ -n "$anonymous" ]; then xargs docker volume rm -f <<<"$anonymous" >/dev/null 2>&1 || true; fi
}
remove_volume() { docker volume rm -f "$1" >/dev/null 2>&1; }
remove_volume_at_last() { docker volume rm -f "$1" >/dev/null || fail "volume $1 stays"; }
remove_image() { docker rmi -f "$1" >/dev/null || fail "image $1 stays"; }
remove_network() { docker network rm "$1" >/dev/null || fail "network $1 stays"; }

# Containers and volumes that use the plugin may have any name.
remove_plugin() {
    local volume container
    for volume in $(docker volume ls -q --filter "driver=$1"); do
        for container in $(docker ps -aq --filter "volume=$volume"); do remove_container "$container"; done
        docker volume rm -f "$volume" >/dev/null 2>&1
    done
    docker plugin disable -f "$1" >/dev/null 2>&1
    docker plugin rm -f "$1" >/dev/null || fail "plugin $1 stays"
}

# Engines of tests: tests/support/engine.rs says what is where.
sweep_engines() {
    local run key
    for run in /run/dso-test-*; do
        key=${run##*/}
        if [ -d "$run" ] && mine "$key"; then remove_engine "$key"; fi
    done
    for key in $(ip netns list 2>/dev/null | grep -o '^dso-test-[^ ]*'); do
        if mine "$key"; then ip netns delete "$key" || fail "network namespace $key stays"; fi
    done
}

remove_engine() {
    local run=/run/$1 data shim
    data=$(cat "$run/data-root" 2>/dev/null)
    # The engine itself ends what runs in it best.
    if [ -S "$run/docker.sock" ]; then
        export DOCKER_HOST=unix://$run/docker.sock
        if timeout 5 docker version >/dev/null 2>&1; then
            timeout 20 sh -c 'docker ps -q | xargs -r docker rm -fv' >/dev/null 2>&1
            timeout 20 sh -c 'docker plugin ls -q | xargs -r docker plugin disable -f' >/dev/null 2>&1
        fi
        unset DOCKER_HOST
    fi
    end "$(processes "$1" dockerd)" TERM
    # Without it the shims go on, and without them the processes in their containers: these first.
    for shim in $(processes "$1" containerd-shim); do
        end "$(cat /proc/"$shim"/task/*/children 2>/dev/null)" KILL
        end "$shim" KILL
    done
    end "$(processes "$1" containerd)" TERM
    unmount_below "$run"
    if [ -n "$data" ]; then
        unmount_below "$data"
        rm -rf "$data" || fail "$data stays"
    fi
    rm -rf "$run" || fail "$run stays"
}

# processes NAME [PROGRAM]: those which the test started under that name, by the environment that the harness gives
# them and that their own children have too. What runs in a container has another.
processes() {
    local environ pid
    # shellcheck disable=SC2013 # no blanks in these names
    for environ in $(grep -lz "^DSO_TEST=$1\$" /proc/[0-9]*/environ 2>/dev/null); do
        pid=${environ#/proc/} pid=${pid%/environ}
        if [ -z "${2:-}" ] || grep -q "^${2:0:15}" "/proc/$pid/comm" 2>/dev/null; then echo "$pid"; fi
    done
}

# end "PIDS" SIGNAL: and wait; by force after 10 s.
end() {
    local pid
    for pid in $1; do
        kill "-$2" "$pid" 2>/dev/null || continue
        for _ in $(seq 200); do
            running "$pid" || break
            sleep 0.05
        done
        if running "$pid"; then kill -KILL "$pid" 2>/dev/null; fi
    done
}

# A zombie has ended; its parent will fetch it.
running() { [ -e "/proc/$1/stat" ] && ! grep -q '^State:.*Z' "/proc/$1/status" 2>/dev/null; }

# The folder itself may be one: an engine binds its data root on itself.
unmount_below() {
    awk -v top="$1" '$5 == top || index($5, top "/") == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r point; do
        umount -l "$point"
    done
}

# Servers of tests, such as Vault and the registry.
sweep_processes() {
    local key
    for key in $(grep -hzo '^DSO_TEST=dso-test-.*$' /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n' | sort -u); do
        if mine "${key#*=}"; then end "$(processes "${key#*=}")" TERM; fi
    done
}

sweep_folders() {
    local folder
    for folder in target/world/run/dso-test-*; do
        if [ -e "$folder" ] && mine "${folder##*/}"; then
            unmount_below "$PWD/$folder"
            rm -rf "$folder" || fail "$folder stays"
        fi
    done
}

main
