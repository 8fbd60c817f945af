#!/bin/bash
# Virtual hosts n1 … nN on this machine, to be cut off, healed and powered off. As root; Debian packages only.
#
#   NODES=3 BASE=/var/tmp/virtual-hosts ./netns-up.sh     # again: nothing happens if they are up
#   $BASE/bin/on n1 COMMAND…                              # run on n1, in this directory and environment
#   $BASE/bin/ssh n2 COMMAND…                             # what a launcher takes for ssh: from here, not from a host
#   $BASE/bin/node cut|heal|off n2                        # network off and on; power off
#   ./netns-down.sh                                       # all of it away
#
# Another BASE, BRIDGE (at most 12 letters) and NET make further ones beside them.
#
# A host has its own network, host name, process numbers, System V IPC, /dev/shm and /run. It shares the files of this
# machine, as the nodes of a cluster share a file system; /tmp too, where interpreters may lie, so bin/ssh gives TMPDIR
# of its own. The network is NET.i on a bridge that leads nowhere else; this machine is on it as NET.254, so launchers
# are started from here. Powering a host off kills its first process, and the kernel ends the rest.
#
# There is no sshd: `bin/ssh` enters the host's namespaces, and refuses when the host is cut off or gone, as ssh does
# after its time-out. That connection itself cannot be cut. What launchers and MPI say goes over the bridge, and can.
set -euo pipefail
BASE=${BASE:-/var/tmp/virtual-hosts} NODES=${NODES:-3} NET=${NET:-10.77.0} BRIDGE=${BRIDGE:-vhosts0}
export PATH=$PATH:/usr/sbin:/sbin

need=
command -v ip >/dev/null || need="$need iproute2"
command -v nsenter >/dev/null || need="$need util-linux"
[ -z "$need" ] || apt-get install -y -qq --no-install-recommends $need >/dev/null

lives() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }
up=1
for i in $(seq "$NODES"); do lives "$BASE/n$i/pid" || up=0; done
if [ $up = 1 ] && ip link show "$BRIDGE" >/dev/null 2>&1; then exit 0; fi
BASE=$BASE BRIDGE=$BRIDGE "$(dirname "$(readlink -f "$0")")/netns-down.sh"

mkdir -p "$BASE/bin"
{ echo "127.0.0.1 localhost"; echo "$NET.254 $(hostname)"; for i in $(seq "$NODES"); do echo "$NET.$i n$i"; done; } >"$BASE/hosts"

# The first process of a host: mounts what is its own, then waits and reaps for ever.
cat >"$BASE/init" <<'INIT'
#!/bin/bash
set -e
base=$1 name=$2
hostname "$name"
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount --bind "$base/hosts" /etc/hosts
if [ -e /etc/nsswitch.conf ]; then
    sed 's/^hosts:.*/hosts: files/' /etc/nsswitch.conf >"$base/$name/nsswitch.conf"
    mount --bind "$base/$name/nsswitch.conf" /etc/nsswitch.conf
fi
touch "$base/$name/booted"
trap : TERM INT HUP
while :; do sleep 3600 & wait $! || :; done
INIT

cat >"$BASE/bin/on" <<ON
#!/bin/bash
name=\$1; shift
first=\$(cat "$BASE/\$name/pid" 2>/dev/null) && kill -0 "\$first" 2>/dev/null || { echo "on: no host \$name" >&2; exit 255; }
exec nsenter -t "\$first" -m -u -i -n -p -r --wdns="\$PWD" -- "\$@"
ON

cat >"$BASE/bin/ssh" <<SSH
#!/bin/bash
# Options are taken and dropped; the command goes to a shell with a clean environment, as ssh does it.
while [ \$# -gt 0 ]; do
    case \$1 in -[bcDEeFIiJLlmOopQRSWw]) shift 2 ;; --) shift; break ;; -*) shift ;; *) break ;; esac
done
name=\${1##*@}; shift
first=\$(cat "$BASE/\$name/pid" 2>/dev/null)
if [ -e "$BASE/\$name/cut" ] || ! kill -0 "\$first" 2>/dev/null; then
    sleep 3
    echo "ssh: connect to host \$name port 22: No route to host" >&2
    exit 255
fi
exec nsenter -t "\$first" -m -u -i -n -p -r --wdns="\$HOME" -- \\
    env -i HOME="\$HOME" USER=root LOGNAME=root SHELL=/bin/bash PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \\
    \${KEPT:+KEPT="\$KEPT"} /bin/bash -c "\$*"
SSH

cat >"$BASE/bin/node" <<NODE
#!/bin/bash
what=\$1; shift
for name; do
    link=$BRIDGE.\${name#n}
    case \$what in
    cut) touch "$BASE/\$name/cut"; ip link set "\$link" down ;;
    heal) ip link set "\$link" up; rm -f "$BASE/\$name/cut" ;;
    off) ip link set "\$link" down 2>/dev/null; kill -KILL "\$(cat "$BASE/\$name/pid")" ;;
    *) echo "node: cut|heal|off HOST…" >&2; exit 2 ;;
    esac
done
NODE
chmod +x "$BASE/init" "$BASE"/bin/*

ip link add "$BRIDGE" type bridge forward_delay 0
ip addr add "$NET.254/24" dev "$BRIDGE"
ip link set "$BRIDGE" up
for i in $(seq "$NODES"); do
    name=n$i
    mkdir -p "$BASE/$name/tmp"
    setsid unshare --net --uts --mount --ipc --pid --fork --mount-proc --propagation private -- \
        "$BASE/init" "$BASE" "$name" </dev/null >"$BASE/$name/log" 2>&1 &
    outer=$!
    for _ in $(seq 1000); do [ -e "$BASE/$name/booted" ] && break; sleep 0.01; done
    [ -e "$BASE/$name/booted" ] || { echo "netns: $name did not boot: $(cat "$BASE/$name/log")" >&2; exit 1; }
    # The first process of a host is the only child of unshare.
    first=$(cat "/proc/$outer/task/$outer/children")
    echo "${first%% *}" >"$BASE/$name/pid"
    ip link add "$BRIDGE.$i" type veth peer name eth0 netns "${first%% *}"
    ip link set "$BRIDGE.$i" master "$BRIDGE" up
    "$BASE/bin/on" "$name" ip link set lo up
    "$BASE/bin/on" "$name" ip addr add "$NET.$i/24" dev eth0
    "$BASE/bin/on" "$name" ip link set eth0 up
done
