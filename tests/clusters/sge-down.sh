#!/bin/bash
# End what sge-up.sh has started in BASE, by the process ids that it wrote there, and the shepherds of its jobs.
set -u
: "${BASE:?is the directory of the cell}"
[ -f "$BASE/env" ] && . "$BASE/env"
runs() { [ -n "$(tr -d '\0' <"/proc/$1/cmdline" 2>/dev/null)" ]; } # one that nobody has reaped has none
is_ours() { # process ids are used again
    case "$(cat "/proc/$1/comm" 2>/dev/null)" in sge_qmaster | sge_execd) ;; *) return 1 ;; esac
    tr '\0' '\n' <"/proc/$1/environ" 2>/dev/null | grep -qx "SGE_ROOT=$SGE_ROOT"
}
timeout 5 qdel -f -u '*' >/dev/null 2>&1
for _ in $(seq 30); do [ -z "$(timeout 5 qstat -u '*' 2>/dev/null)" ] && break; sleep 0.1; done
for file in "$BASE/run/execd.pid" "$BASE/run/qmaster.pid"; do
    [ -s "$file" ] || continue
    pid=$(cat "$file")
    is_ours "$pid" || continue
    kill -TERM "$pid"
    for _ in $(seq 20); do runs "$pid" || break; sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null # the qmaster takes a minute to leave by itself
done
for entry in /proc/[0-9]*; do
    [ "$(cat "$entry/comm" 2>/dev/null)" = sge_shepherd ] || continue
    case "$(readlink "$entry/cwd")" in "$BASE"/*) kill -KILL "${entry#/proc/}" ;; esac
done
exit 0
