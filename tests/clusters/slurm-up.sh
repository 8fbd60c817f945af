#!/bin/bash
# A real Slurm cluster of NODES virtual nodes on this one machine: own munge key, own ports, everything under BASE.
#   BASE=/tmp/x NODES=2 CPUS=4 MIN_JOB_AGE=600 CONTROLLER_PORT=16817 FIRST_NODE_PORT=18001 ./slurm-up.sh; . $BASE/env
# Needs root, the packages slurmctld, slurmd, slurm-client, slurm-wlm-basic-plugins and munge, and something mounted
# on /sys/fs/cgroup; no systemd, no cgroups of its own. All of it listens on 127.0.0.1 only.
set -euo pipefail
: "${BASE:?is the directory of the cluster}"
NODES=${NODES:-2} CPUS=${CPUS:-4} MIN_JOB_AGE=${MIN_JOB_AGE:-600} CONTROLLER_PORT=${CONTROLLER_PORT:-16817} FIRST_NODE_PORT=${FIRST_NODE_PORT:-18001}
host=$(hostname -s)
export SLURM_CONF=$BASE/etc/slurm.conf PATH=$PATH:/usr/sbin:/sbin

mkdir -p "$BASE"/{etc,run,log,state,spool}
chmod 755 "$BASE" "$BASE"/*
(umask 077; head -c 128 /dev/urandom >"$BASE/etc/munge.key")
chmod 400 "$BASE/etc/munge.key"
# --force: a test's directory lies below one that others may write to
munged --force --key-file="$BASE/etc/munge.key" --socket="$BASE/run/munge.sock" --pid-file="$BASE/run/munged.pid" \
    --log-file="$BASE/log/munged.log" --seed-file="$BASE/run/munge.seed" 2>>"$BASE/log/munged.err"

cat >"$SLURM_CONF" <<CONF
ClusterName=lab
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$CONTROLLER_PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$BASE/run/munge.sock,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
TmpFS=$BASE/tmp/%n
StateSaveLocation=$BASE/state
SlurmdSpoolDir=$BASE/spool/%n
SlurmctldPidFile=$BASE/run/slurmctld.pid
SlurmdPidFile=$BASE/run/slurmd.%n.pid
SlurmctldLogFile=$BASE/log/slurmctld.log
SlurmdLogFile=$BASE/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=pmi2
ReturnToService=2
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,defer_batch
PropagateResourceLimits=NONE
KillWait=5
MinJobAge=$MIN_JOB_AGE
InactiveLimit=0
Waittime=0
SlurmdTimeout=10
SlurmctldTimeout=30
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
NodeName=n[1-$NODES] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$FIRST_NODE_PORT-$((FIRST_NODE_PORT + NODES - 1))] CPUS
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF
# more CPUs are declared than there are
sed -i "s/ CPUS$/ CPUs=$CPUS Sockets=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=1000 State=UNKNOWN/" "$SLURM_CONF"
echo "export SLURM_CONF=$SLURM_CONF" >"$BASE/env"

slurmctld -c >>"$BASE/log/slurmctld.err" 2>&1
for i in $(seq "$NODES"); do # one that does not start shows below
    mkdir -p "$BASE/spool/n$i" "$BASE/tmp/n$i"
    slurmd -N "n$i" >>"$BASE/log/slurmd.err" 2>&1 || true
done
for _ in $(seq 200); do
    [ "$(sinfo -h -N -p debug -t idle -o %N 2>/dev/null | wc -l)" = "$NODES" ] && exit 0
    sleep 0.1
done
echo "Slurm has not come up:" >&2
tail -n 20 "$BASE"/log/* >&2
exit 1
