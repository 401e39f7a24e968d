#!/usr/bin/env bash
# Pushes the plugin to a registry and leaves nothing of it on this machine.
#
#   plugin/push.sh HOST:PORT/NAME:TAG DIR     (DIR as plugin/rootfs.sh leaves it)
set -euo pipefail

name=$1 dir=$2
. "$(dirname "$0")/engine.sh"
need_engine

case $name in
*/*) ;;
*) echo "plugin-push: say where to: make plugin-push PLUGIN=host:port/name:tag" >&2; exit 2 ;;
esac
if docker plugin inspect "$name" >/dev/null 2>&1; then
    echo "plugin-push: $name is installed on this engine: remove it first (docker plugin rm -f $name)" >&2
    exit 1
fi

docker plugin create "$name" "$dir" >/dev/null
trap 'docker plugin rm -f "$name" >/dev/null' EXIT
docker plugin push "$name"
echo "plugin-push: on another host: docker plugin install $name"
