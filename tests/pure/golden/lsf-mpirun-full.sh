#!/bin/bash
#BSUB -J sweep-42
#BSUB -o /lus/project/runinfo/jobs/sweep-42.%J.log
#BSUB -n 128
#BSUB -R "span[ptile=32]"
#BSUB -W 2:00
#BSUB -wa USR1
#BSUB -wt 5
#BSUB -Q 85
#BSUB -P m1234
#BSUB -q regular
#BSUB -sla gold
#BSUB -U "user1#0"
#BSUB -R "select[hname!='n7']"
#BSUB -Lp matlab
#BSUB -u somebody@example.org
#BSUB -B
#BSUB -N
#BSUB -gpu "num=8/host"
#BSUB -R "rusage[mem=65536MB/host]"
#BSUB -x
#BSUB -alloc_flags smt4

# my sweep.py as one farm: 32 ranks on 4 nodes, under LSF.
# Written by `mpiflow submit`. `mpiflow status` says how it stands, `mpiflow logs -f` shows what it prints.

job=$LSB_JOBID index=''
output=/lus/project/runinfo/jobs  # there all of this job is kept
cd -- /lus/project || exit
mkdir -p -- "$output" || exit

# How often it has been started. A job that goes on after its time was over counts on.
attempt=1
count=$output/attempts${index:+.$index}
[ ! -s "$count" ] || attempt=$(($(<"$count") + 1))
echo "$attempt" >"$count" || exit
trap 'echo "$job $attempt $?" >>"$output/ended"' EXIT
exec >"$output/sweep-42.$job.$attempt.out" 2>"$output/sweep-42.$job.$attempt.err" || exit

# --- the environment
declare -A before  # Open MPI passes on what it is told to: that will be what is new
for variable in $(compgen -e); do before[$variable]=${!variable}; done
source '/lus/set up.sh' || exit
type module >/dev/null 2>&1 || source /etc/profile
module load cray-mpich/8.1 craype || exit
source /lus/env/bin/activate || exit
if [ -x /lus/env/bin/mpiexec ]; then  # an MPI that was installed beside the interpreter
    PATH=/lus/env/bin:$PATH
fi

# --- what runs on every rank, and what starts the ranks
python=/lus/env/bin/python
interpreter=("$python")
case $(mpirun --version 2>&1) in  # whose it is decides how it is told
    *'Intel(R) MPI'*)
        launch=(mpirun -genvall -n 32 -ppn 8)
        ;;
    *HYDRA*)
        launch=(mpirun -n 32 -ppn 8)
        ;;
    *'Open MPI'* | *OpenRTE* | *PRRTE*)
        launch=(mpirun -n 32 --bind-to none)
        case $(mpirun --version 2>&1) in
            *' '[1-4].*) ;;
            *) launch+=(--with-ft ulfm) ;;
        esac
        [ "$(id -u)" -ne 0 ] || launch+=(--allow-run-as-root)
        for variable in PATH LD_LIBRARY_PATH PYTHONPATH VIRTUAL_ENV CONDA_PREFIX; do
            [ -z "${!variable-}" ] || launch+=(-x "$variable")
        done
        for variable in $(compgen -e); do  # what the set-up has changed
            case $variable in PATH | LD_LIBRARY_PATH | PYTHONPATH | VIRTUAL_ENV | CONDA_PREFIX | PWD | OLDPWD | SHLVL | _) continue ;; esac
            [ "${before[$variable]-}" = "${!variable}" ] || launch+=(-x "$variable")
        done
        launch+=(--hostfile "$LSB_DJOB_HOSTFILE" --map-by ppr:8:node:OVERSUBSCRIBE)
        ;;
    *)
        launch=(mpirun -n 32)
        ;;
esac
launch+=(--verbose)
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
    "$python" -m mpiflow supervise --relaunches 5 -- \
        "${launch[@]}" "${interpreter[@]}" -m mpiflow --runners-per-rank 2 --checkpoint-all \
        'my sweep.py' --steps 10 'two words' '$(no command)' 'it'"'"'s "quoted"' &
    farm=$!
    [ -z "$told" ] || tell "$told"
    while heard=''; wait "$farm"; code=$?; [ -n "$heard" ]; do :; done  # a signal ends the wait, not the farm
    farm=''
    [ "$told" != USR1 ] || [ "$code" -ne 138 ] || code=85  # it was told before it could listen
else
    echo "mpiflow: the check before the run failed with code $code, so there is no run; see above" >&2
fi

# --- the end: 85 says that there is more to do
if [ "$code" -eq 85 ] && [ "$attempt" -le 20 ]; then
    exit 85  # LSF (-Q 85) then runs the same job again: the journal has what is done
fi
rm -f -- "$count"
[ "$code" -ne 85 ] || code=86  # with 85 LSF would run it again
exit "$code"
