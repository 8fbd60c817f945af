#!/bin/bash
# Powers off the virtual hosts of netns-up.sh and removes what it has made. As root.
set -u
BASE=${BASE:-/var/tmp/virtual-hosts} BRIDGE=${BRIDGE:-vhosts0}
export PATH=$PATH:/usr/sbin:/sbin
for file in "$BASE"/n*/pid; do
    [ -s "$file" ] || continue
    first=$(cat "$file")
    # Its number may be another process's by now.
    tr '\0' ' ' <"/proc/$first/cmdline" 2>/dev/null | grep -qF "$BASE/init" || continue
    kill -KILL "$first"
    for _ in $(seq 100); do kill -0 "$first" 2>/dev/null || break; sleep 0.05; done
done
for link in $(ip -o link show master "$BRIDGE" 2>/dev/null | awk -F'[ :@]+' '{print $2}'); do
    ip link del "$link" 2>/dev/null || true # gone with its host already
done
if ip link show "$BRIDGE" >/dev/null 2>&1; then ip link del "$BRIDGE"; fi
rm -rf "$BASE"
