#!/usr/bin/env bash
# Newer engines beside the system's: Debian's packages of other suites, unpacked into a folder and run from there.
#
#   tests/support/engines.sh fetch VERSION             unpack it into target/world/engines/VERSION, if it is not there
#   tests/support/engines.sh with VERSION COMMAND…     run COMMAND against that engine, and remove the engine again
#   tests/support/engines.sh versions                  which there are
#
# COMMAND finds the engine, which has the tests' images, by DOCKER_HOST, and runs in the engine's network namespace, so that a server of a test on
# 127.0.0.1 is reached by the engine and its plugins too. DSO_TEST_ENGINE tells tests that start an engine of their own.
#
# The system's apt, packages and engine stay as they are: the mirror is the one that this machine's apt is configured
# for, its lists go to a folder of our own, and nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."

engines=$PWD/target/world/engines

main() {
    local verb=${1:-}
    case $verb:$# in
    fetch:2) fetch "$2" ;;
    versions:1) echo 28.5 26.1 ;;
    with:[3-9] | with:[1-9][0-9]) shift && with "$@" ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
}

# The Debian suite that has the version.
suite_of() {
    case $1 in
    28.5) echo forky ;;
    26.1) echo trixie ;;
    *) die "no engine $1 is known here; there are: $("$0" versions)" ;;
    esac
}

die() {
    echo "engines: $1" >&2
    exit 1
}

fetch() {
    local version=$1 suite target=$engines/$1
    suite=$(suite_of "$version")
    mkdir -p "$engines"
    exec 8>"$engines/lock"
    flock 8
    if [ ! -x "$target/usr/sbin/dockerd" ]; then
        configure_apt "$suite"
        download "$version" "$suite"
        rm -rf "$target.new"
        for package in "$engines/apt-$suite"/archives/*.deb; do dpkg -x "$package" "$target.new"; done
        # It leads to a package that is not here; the system's docker-init does the same.
        rm -f "$target.new/usr/bin/docker-init"
        rm -rf "$target" "$engines/apt-$suite"
        mv "$target.new" "$target"
    fi
    exec 8>&-
    "$target/usr/sbin/dockerd" --version >/dev/null || die "$target/usr/sbin/dockerd does not run here"
}

# An apt with another suite of the same mirror, and with state of its own.
configure_apt() {
    local suite=$1 apt=$engines/apt-$1 mirror keys
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "Debian" && $2 !~ /-/ { print $3; exit }')
    [ -n "$mirror" ] || die "this machine's apt knows no Debian mirror (apt-get update may be all it takes)"
    rm -rf "$apt"
    mkdir -p "$apt"/{lists,archives}/partial "$apt/etc"
    : >"$apt/status"
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    if [ -e "$keys" ]; then keys=" signed-by=$keys"; else keys=; fi
    echo "deb [target=Packages lang=none$keys] $mirror $suite main" >"$apt/sources.list"
    cat >"$apt/apt.conf" <<END
Dir::State "$apt";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "root";
END
}

download() {
    local version=$1 suite=$2 apt=$engines/apt-$2 found
    export APT_CONFIG=$apt/apt.conf
    apt-get update >"$apt/log" 2>&1 || die "apt-get update of $suite failed; see $apt/log"
    found=$(apt-cache show --no-all-versions docker.io | sed -n 's/^Version: //p')
    case $found in
    "$version".*) ;;
    *) die "Debian $suite has docker.io ${found:-not at all}, not $version: another suite or version belongs into suite_of" ;;
    esac
    (cd "$apt/archives" && apt-get download docker.io containerd >>"$apt/log" 2>&1) ||
        die "docker.io and containerd of $suite cannot be fetched; see $apt/log"
    unset APT_CONFIG
}

# The name is the work tree's own, and not one that the sweep takes for a test's that has ended.
name_of() { echo "dso-test-engine-$1-$(printf %s "$PWD" | cksum | cut -d' ' -f1)"; }

with() {
    local version=$1 status=0
    shift
    fetch "$version"
    # Two at once in one work tree would remove each other's engine. The command must not keep the lock.
    exec 7>"$engines/$version.lock"
    flock --nonblock 7 || die "another run in this work tree uses engine $version"
    name=$(name_of "$version")
    # What a run that was killed left behind.
    tests/support/sweep.sh "$name"
    trap 'unset DOCKER_HOST; tests/support/sweep.sh "$name" 7>&-' EXIT
    trap 'exit 130' INT TERM
    start "$version" 7>&-
    export DOCKER_HOST=unix:///run/$name/docker.sock DSO_TEST_ENGINE=$version
    tests/support/world.sh 7>&-
    nsenter --net="/run/netns/$name" "$@" 7>&- || status=$?
    exit $status
}

# As tests/support/own_engine.rs does, where the reasons are.
start() {
    local run=/run/$name folder=$PWD/target/world/run/$name program=$engines/$1/usr
    mkdir -p "$run" "$folder"
    echo "$folder/data" >"$run/data-root"
    echo '{}' >"$run/daemon.json"
    ip netns add "$name"
    ip -n "$name" link set lo up
    env -u DOCKER_HOST DSO_TEST="$name" PATH="$program/bin:$program/sbin:$PATH" \
        nsenter --net="/run/netns/$name" "$program/sbin/dockerd" \
        --config-file="$run/daemon.json" --host="unix://$run/docker.sock" --pidfile="$run/docker.pid" \
        --data-root="$folder/data" --exec-root="$run" \
        --containerd-namespace="$name" --containerd-plugins-namespace="plugins.$name" \
        --storage-driver=vfs --bridge=none --iptables=false --ip-forward=false --ip-masq=false \
        >"$folder/dockerd.log" 2>&1 </dev/null &
    for _ in $(seq 300); do
        if DOCKER_HOST=unix://$run/docker.sock docker version >/dev/null 2>&1; then return; fi
        kill -0 $! 2>/dev/null || break
        sleep 0.1
    done
    tail -20 "$folder/dockerd.log" >&2
    die "engine $1 does not answer; the end of its log is above"
}

main "$@"
