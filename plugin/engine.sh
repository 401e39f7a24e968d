# shellcheck shell=bash
# Read by the scripts beside it.

# Ends the script with one line on how to get an engine, where none answers.
need_engine() {
    if ! command -v docker >/dev/null; then
        echo "No docker here: install Docker Engine (Debian: apt-get install docker.io), as root, and try again." >&2
        exit 1
    fi
    local answer
    if ! answer=$(docker version --format '{{.Server.Os}}' 2>&1); then
        case $answer in
        *"ermission denied"*) echo "The Docker engine is there but not for this user: run this as root." >&2 ;;
        *) echo "No Docker engine answers at ${DOCKER_HOST:-its default socket}: start one (systemctl start docker, or dockerd as root), or set DOCKER_HOST." >&2 ;;
        esac
        exit 1
    fi
}
