#!/bin/bash
# A real Grid Engine cell on this machine, a qmaster and one execd: own root and ports, everything under BASE.
#   BASE=/tmp/x SLOTS=8 MASTER_PORT=16444 EXEC_PORT=16445 ./sge-up.sh; . $BASE/env
# Needs root and the packages gridengine-master, gridengine-exec and gridengine-client, installed with the answer "no"
# to gridengineconfig. Parallel environment: mpi. Its daemons listen on all addresses; they cannot be told otherwise.
set -euo pipefail
: "${BASE:?is the directory of the cell}"
SLOTS=${SLOTS:-8} MASTER_PORT=${MASTER_PORT:-16444} EXEC_PORT=${EXEC_PORT:-16445}
export PATH=$PATH:/usr/sbin:/sbin
export SGE_ROOT=$BASE/root SGE_CELL=default SGE_QMASTER_PORT=$MASTER_PORT SGE_EXECD_PORT=$EXEC_PORT
host=$(hostname -s) lib=/usr/lib/gridengine share=/usr/share/gridengine
common=$SGE_ROOT/default/common log=$BASE/run/log
arch=$($share/util/arch)

mkdir -p "$SGE_ROOT"/{bin,utilbin,lib} "$common" "$BASE"/{run,qmaster/job_scripts,spooldb,execd}
chmod 755 "$BASE"
for d in bin utilbin lib; do ln -sfn $lib "$SGE_ROOT/$d/$arch"; done
ln -sfn $share/util "$SGE_ROOT/util"
# the machine's own name as Grid Engine shall know it, though it may resolve to 127.0.0.1
echo "$host localhost $(hostname)" | tr ' ' '\n' | awk '!seen[$0]++' | paste -sd' ' >"$common/host_aliases"
echo "$host" >"$common/act_qmaster"
cat >"$common/bootstrap" <<CONF
admin_user              none
default_domain          none
ignore_fqdn             true
spooling_method         berkeleydb
spooling_lib            libspoolb
spooling_params         $BASE/spooldb
binary_path             $lib
qmaster_spool_dir       $BASE/qmaster
security_mode           none
listener_threads        2
worker_threads          2
scheduler_threads       1
CONF
# quick in all it does, and for root's jobs too
sed -e "s#^execd_spool_dir .*#execd_spool_dir $BASE/execd#" -e 's#^min_uid .*#min_uid 0#;s#^min_gid .*#min_gid 0#' \
    -e 's#^shell_start_mode .*#shell_start_mode unix_behavior#' -e 's#^load_report_time .*#load_report_time 00:00:02#' \
    -e 's#^mailer .*#mailer /bin/true#' -e 's#^administrator_mail .*#administrator_mail none#' \
    -e 's#flush_time=00:00:15#flush_time=00:00:01#' $share/default-configuration >"$BASE/run/configuration"
{
    $lib/spoolinit berkeleydb libspoolb "$BASE/spooldb" init
    $lib/spooldefaults configuration "$BASE/run/configuration"
    $lib/spooldefaults complexes $share/util/resources/centry
    $lib/spooldefaults usersets $share/util/resources/usersets
    $lib/spooldefaults managers "$(id -un)"
} >"$log" 2>&1
echo "export SGE_ROOT=$SGE_ROOT SGE_CELL=default SGE_QMASTER_PORT=$MASTER_PORT SGE_EXECD_PORT=$EXEC_PORT" >"$BASE/env"

$lib/sge_qmaster >>"$log" 2>&1
for _ in $(seq 200); do qconf -sconf >/dev/null 2>&1 && break; sleep 0.1; done
cp "$BASE/qmaster/qmaster.pid" "$BASE/run/qmaster.pid"
says() { qconf "$@" >>"$log" 2>&1; }
says -ah "$host" || true # it may be there already
says -as "$host" || true
qconf -ssconf | sed -e 's#^schedule_interval .*#schedule_interval 0:0:1#' -e 's#^flush_submit_sec .*#flush_submit_sec 1#' \
    -e 's#^flush_finish_sec .*#flush_finish_sec 1#' -e 's#^job_load_adjustments .*#job_load_adjustments NONE#' \
    >"$BASE/run/scheduler"
says -Msconf "$BASE/run/scheduler"
cat >"$BASE/run/environment" <<'CONF'
pe_name            mpi
slots              9999
user_lists         NONE
xuser_lists        NONE
start_proc_args    NONE
stop_proc_args     NONE
allocation_rule    $fill_up
control_slaves     TRUE
job_is_first_task  FALSE
urgency_slots      min
accounting_summary TRUE
qsort_args         NONE
CONF
says -Ap "$BASE/run/environment"
printf 'group_name @allhosts\nhostlist %s\n' "$host" >"$BASE/run/group"
says -Ahgrp "$BASE/run/group"
{
    printf '%s\n' "qname all.q" "hostlist @allhosts" "seq_no 0" "priority 0" "nsuspend 1" "suspend_interval 00:05:00" \
        "min_cpu_interval 00:05:00" "processors UNDEFINED" "qtype BATCH INTERACTIVE" "pe_list mpi" "rerun FALSE" \
        "slots $SLOTS" "tmpdir /tmp" "shell /bin/bash" "shell_start_mode unix_behavior" "notify 00:00:05" \
        "initial_state default"
    for field in load_thresholds suspend_thresholds ckpt_list prolog epilog starter_method suspend_method resume_method \
        terminate_method owner_list user_lists xuser_lists subordinate_list complex_values projects xprojects calendar; do
        echo "$field NONE"
    done
    for kind in rt cpu fsize data stack core rss vmem; do printf '%s INFINITY\n' "s_$kind" "h_$kind"; done
} >"$BASE/run/queue"
says -Aq "$BASE/run/queue"
SGE_EXECD_PIDFILE="$BASE/run/execd.pid" $lib/sge_execd >>"$log" 2>&1
for _ in $(seq 300); do
    qstat -f 2>/dev/null | awk '/^all.q@/ && $6 == "" && $4 != "-NA-" { up = 1 } END { exit !up }' && exit 0
    sleep 0.1
done
echo "Grid Engine has not come up:" >&2
tail -n 20 "$log" "$BASE/qmaster/messages" >&2
qstat -f >&2
exit 1
