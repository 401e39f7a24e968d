#!/usr/bin/env bash
# Assembles what `docker plugin create` and the Dockerfile take: DIR/config.json and DIR/rootfs.
#
#   plugin/rootfs.sh BINARY DIR
#
# PLUGIN_MARK    text for /etc/dso-build in the rootfs. The engine refuses a second plugin of identical
#                content, and one whose creation failed halfway: another mark is another content.
# ROOTFS_LIMIT   largest size in bytes; unset for no limit.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# = 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
binary=$1 dir=$2
[ -f "$binary" ] || { echo "rootfs: $binary is not there: build it first (cargo build)" >&2; exit 1; }

# The shared libraries are copied from the machine that builds, because dso is linked dynamically. A static
# glibc binary still loads libnss_* and the libc of the very same build at run time to resolve a name, and
# so could not reach a provider by name. Since glibc 2.34 `files` and `dns` are in libc itself; before, they
# are files of their own, which no ldd shows.
libraries() {
    local libc
    ldd "$binary" | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) .*/\1/p'
    libc=$(ldd "$binary" | sed -n 's/.*libc\.so\.6 => \(\/[^ ]*\) .*/\1/p')
    for name in libnss_files.so.2 libnss_dns.so.2 libresolv.so.2; do
        if [ -e "${libc%/*}/$name" ]; then echo "${libc%/*}/$name"; fi
    done
}

rm -rf "$dir.new"
root=$dir.new/rootfs
# Every mount's destination; /run/docker/plugins is where the engine looks for the socket, /data the propagated
# mount, /run/dso the place of mounts that the host shall not see.
mkdir -p "$root"/{data,etc/dso,host/etc,host/run,run/docker/plugins,run/dso,tmp,proc,sys,dev}
chmod 0700 "$root/run/dso"
chmod 1777 "$root/tmp"

install -m 0755 "$binary" "$root/dso"
# A release build has no symbols; those of a dev build are most of it.
if command -v strip >/dev/null; then strip "$root/dso"; fi
libraries | sort -u | while read -r library; do
    mkdir -p "$root${library%/*}"
    install -m 0755 "$library" "$root$library"
done

printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
printf 'root:x:0:0:root:/:/dso\n' >"$root/etc/passwd"
printf 'root:x:0:\n' >"$root/etc/group"
# The engine binds the host's files on these two.
: >"$root/etc/hosts"
: >"$root/etc/resolv.conf"
printf '%s\n' "${PLUGIN_MARK:-$(git describe --always --dirty 2>/dev/null || echo unknown)}" >"$root/etc/dso-build"
cp config.json "$dir.new/config.json"

size=$(du -sb "$root" | cut -f1)
if [ -n "${ROOTFS_LIMIT:-}" ] && [ "$size" -gt "$ROOTFS_LIMIT" ]; then
    echo "rootfs: $size bytes are over the limit of $ROOTFS_LIMIT; the largest files:" >&2
    find "$root" -type f -printf '%s %P\n' | sort -rn | head -5 >&2
    exit 1
fi
mkdir -p "$dir"
rm -rf "$dir/rootfs"
mv "$root" "$dir/rootfs"
mv "$dir.new/config.json" "$dir/config.json"
rmdir "$dir.new"
echo "rootfs: $dir/rootfs, $((size / 1024)) KiB"
