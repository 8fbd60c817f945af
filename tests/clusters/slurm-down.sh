#!/bin/bash
# End what slurm-up.sh has started in BASE, by the process ids that it wrote there, and what its jobs have left.
set -u
: "${BASE:?is the directory of the cluster}"
export SLURM_CONF=$BASE/etc/slurm.conf PATH=$PATH:/usr/sbin:/sbin
runs() { [ -n "$(tr -d '\0' <"/proc/$1/cmdline" 2>/dev/null)" ]; } # one that nobody has reaped has none
is_ours() { # process ids are used again: the name must be one of Slurm's, and the configuration this one
    case "$(cat "/proc/$1/comm" 2>/dev/null)" in
        munged) return 0 ;;
        slurmctld | slurmd | slurmstepd) tr '\0' '\n' <"/proc/$1/environ" 2>/dev/null | grep -qx "SLURM_CONF=$SLURM_CONF" ;;
        *) return 1 ;;
    esac
}
end() {
    local file pid
    for file in "$@"; do
        [ -s "$file" ] || continue
        pid=$(cat "$file")
        is_ours "$pid" || continue
        kill -TERM "$pid"
        for _ in $(seq 50); do runs "$pid" || break; sleep 0.1; done
        kill -KILL "$pid" 2>/dev/null
    done
}
timeout 5 scancel -s KILL --state=RUNNING >/dev/null 2>&1
timeout 5 scancel -u "$(id -un)" >/dev/null 2>&1
end "$BASE"/run/slurmd.*.pid
end "$BASE/run/slurmctld.pid"
end "$BASE/run/munged.pid"
for entry in /proc/[0-9]*; do # daemons of job steps outlive the one that started them
    pid=${entry#/proc/}
    [ "$(cat "$entry/comm" 2>/dev/null)" = slurmstepd ] && is_ours "$pid" && kill -KILL "$pid"
done
exit 0
