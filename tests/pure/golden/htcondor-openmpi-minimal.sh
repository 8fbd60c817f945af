#!/bin/bash
# What HTCondor is told is in the submit description beside this file.

# sweep.py as one farm: 8 ranks on 2 nodes, under HTCondor.
# Written by `mpiflow submit`. `mpiflow status` says how it stands, `mpiflow logs -f` shows what it prints.

# A job has no environment but what its description says: the shell's own PATH would end with it, and MPIs want a home.
export PATH HOME=${HOME:-~}
# The parallel universe starts this script on every machine: an sshd on each lets mpiexec, on the first, reach the others.
libexec=$(condor_config_val libexec) || exit
source "$libexec/sshd.sh" "$_CONDOR_PROCNO" "$_CONDOR_NPROCS"
if [ "$_CONDOR_PROCNO" -ne 0 ]; then
    wait  # until HTCondor ends it together with the first
    sshd_cleanup
    exit 0
fi
hosts=$_CONDOR_SCRATCH_DIR/hosts
sort -n "$_CONDOR_SCRATCH_DIR/contact" | awk '{print $2 ":4"}' >"$hosts" || exit
sed 's/:/ slots=/' "$hosts" >"$hosts.openmpi"
export HYDRA_LAUNCHER=ssh HYDRA_LAUNCHER_EXEC=$libexec/condor_ssh HYDRA_HOST_FILE=$hosts
export I_MPI_HYDRA_BOOTSTRAP=ssh I_MPI_HYDRA_BOOTSTRAP_EXEC=$libexec/condor_ssh I_MPI_HYDRA_HOST_FILE=$hosts
export PRTE_MCA_plm_ssh_agent=$libexec/condor_ssh PRTE_MCA_prte_default_hostfile=$hosts.openmpi
export OMPI_MCA_plm_rsh_agent=$libexec/condor_ssh OMPI_MCA_orte_default_hostfile=$hosts.openmpi

job=${MPIFLOW_JOB:-0} index=''
output=/lus/project/runinfo/jobs  # there all of this job is kept
cd -- /lus/project || exit
mkdir -p -- "$output" || exit

# How often it has been started. A job that goes on after its time was over counts on.
attempt=1
count=$output/attempts${index:+.$index}
[ ! -s "$count" ] || attempt=$(($(<"$count") + 1))
echo "$attempt" >"$count" || exit
trap 'echo "$job $attempt $?" >>"$output/ended"' EXIT
exec >"$output/sweep.$job.$attempt.out" 2>"$output/sweep.$job.$attempt.err" || exit

# --- the environment
if [ -x /lus/env/bin/mpiexec ]; then  # an MPI that was installed beside the interpreter
    PATH=/lus/env/bin:$PATH
fi

# --- what runs on every rank, and what starts the ranks
python=/lus/env/bin/python
interpreter=("$python")
launch=(mpiexec -n 8 --bind-to none)
case $(mpiexec --version 2>&1) in
    *' '[1-4].*) ;;
    *) launch+=(--with-ft ulfm) ;;
esac
[ "$(id -u)" -ne 0 ] || launch+=(--allow-run-as-root)
for variable in PATH LD_LIBRARY_PATH PYTHONPATH VIRTUAL_ENV CONDA_PREFIX; do
    [ -z "${!variable-}" ] || launch+=(-x "$variable")
done
launch+=(--oversubscribe)
if ! command -v "${launch[0]}" >/dev/null; then
    echo "mpiflow: ${launch[0]} is not there on $(hostname): PATH is $PATH" >&2
    exit 127
fi

# --- the run. What the batch system has to say is passed on to the farm, once there is one.
farm='' told='' heard=''
tell() {
    told=$1 heard=$1
    [ -z "$farm" ] || kill -s "$1" "$farm"
}
trap 'tell USR1' USR1  # the time is nearly over
trap 'tell TERM' TERM

# A few seconds that save hours: do all ranks see the directories, and are they one world?
check() {
    # Not by a command of its own: Open MPI 5 may hang when all that it has started ends within a moment.
    "${launch[@]}" sh -c 'code=0
    for place in "$1" "$2"; do
        [ -d "$place" ] || { echo "mpiflow: the directory $place is not there on $(hostname)" >&2; code=73; }
    done
    shift 2
    [ "$code" -ne 0 ] || exec "$@"
    "$@"  # or the other ranks would wait for this one
    sleep 2  # some launchers end what has not left yet when one rank fails, and make a code of their own of it
    exit "$code"' sh "$PWD" "$output" "${interpreter[@]}" -m mpiflow doctor --quick </dev/null
}
check
code=$?
if [ "$told" = USR1 ]; then
    code=85
elif [ "$told" = TERM ]; then
    code=143
elif [ "$code" -le 1 ]; then  # 1: not as it should be, and no reason not to run
    "$python" -m mpiflow supervise --relaunches 3 -- \
        "${launch[@]}" "${interpreter[@]}" -m mpiflow \
        sweep.py &
    farm=$!
    [ -z "$told" ] || tell "$told"
    while heard=''; wait "$farm"; code=$?; [ -n "$heard" ]; do :; done  # a signal ends the wait, not the farm
    farm=''
    [ "$told" != USR1 ] || [ "$code" -ne 138 ] || code=85  # it was told before it could listen
else
    echo "mpiflow: the check before the run failed with code $code, so there is no run; see above" >&2
fi

# --- the end: 85 says that there is more to do
if [ "$code" -eq 85 ] && [ "$attempt" -le 10 ]; then
    exit 85  # the submit description says that the job then goes on
fi
rm -f -- "$count"
[ "$code" -ne 85 ] || code=86  # with 85 HTCondor would run it again
exit "$code"
