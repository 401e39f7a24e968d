#!/usr/bin/env bash
# Creates and enables the plugin on the engine that DOCKER_HOST or the default socket gives.
#
#   plugin/install.sh NAME DIR [SETTING=value…]     (DIR as plugin/rootfs.sh leaves it)
#
# An older plugin of that name goes first, if nothing uses it. Its settings go with it.
set -euo pipefail

name=$1 dir=$2
shift 2
. "$(dirname "$0")/engine.sh"
need_engine

if docker plugin inspect "$name" >/dev/null 2>&1; then
    if [ "$(docker plugin inspect -f '{{.Enabled}}' "$name")" = true ]; then
        # Without -f the engine refuses while a volume of the plugin is in use.
        docker plugin disable "$name" >/dev/null || {
            echo "plugin: $name is in use and was left as it is. Remove what uses it first, volumes:" >&2
            docker volume ls --quiet --filter "driver=$name" | sed 's/^/  /' >&2
            exit 1
        }
    fi
    docker plugin rm "$name" >/dev/null
    echo "plugin: removed the older $name"
fi

docker plugin create "$name" "$dir" >/dev/null
if [ $# -gt 0 ]; then docker plugin set "$name" "$@"; fi
docker plugin enable "$name" >/dev/null || {
    echo "plugin: $name was created but does not start; the reason is in the engine's log" >&2
    docker plugin rm -f "$name" >/dev/null
    exit 1
}
echo "plugin: $name is enabled"
