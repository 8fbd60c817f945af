#!/bin/bash
#PBS -S /bin/bash
#PBS -N sweep
#PBS -l select=2:ncpus=4:mpiprocs=4
#PBS -l place=scatter
#PBS -l walltime=1:00:00
#PBS -m n
#PBS -j oe
#PBS -o /lus/project/runinfo/jobs/
#PBS -r y

# sweep.py as one farm: 8 ranks on 2 nodes, under PBS.
# Written by `mpiflow submit`. `mpiflow status` says how it stands, `mpiflow logs -f` shows what it prints.

job=$PBS_JOBID index=''
# The nodes can often not ask PBS when the time is over, and it sends no warning.
over=$(date -d "@$(($(date +%s) + 3600))" +%FT%T%:z)
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
case $(mpirun --version 2>&1) in  # whose it is decides how it is told
    *'Intel(R) MPI'*)
        launch=(mpirun -genvall -n 8 -ppn 4)
        ;;
    *HYDRA*)
        launch=(mpirun -n 8 -ppn 4)
        ;;
    *'Open MPI'* | *OpenRTE* | *PRRTE*)
        launch=(mpirun -n 8 --bind-to none)
        case $(mpirun --version 2>&1) in
            *' '[1-4].*) ;;
            *) launch+=(--with-ft ulfm) ;;
        esac
        [ "$(id -u)" -ne 0 ] || launch+=(--allow-run-as-root)
        for variable in PATH LD_LIBRARY_PATH PYTHONPATH VIRTUAL_ENV CONDA_PREFIX; do
            [ -z "${!variable-}" ] || launch+=(-x "$variable")
        done
        launch+=(--hostfile "$PBS_NODEFILE" --map-by ppr:4:node)
        ;;
    *PALS*)
        launch=(mpirun -n 8 --ppn 4 --envall)
        ;;
    *)
        launch=(mpirun -n 8)
        ;;
esac
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
        "${launch[@]}" "${interpreter[@]}" -m mpiflow --deadline "$over" --drain-before 120 \
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
    # Only operators may put a job into the queue again: another is submitted, which begins when this one has ended.
    PATH=$PATH:${PBS_O_PATH-}
    if next=$(qsub -W "depend=afterany:$PBS_JOBID" "$output/job.sh"); then
        echo "$next" >>"$output/successors"
        exit 85
    fi
    echo "mpiflow: no successor could be submitted from here; \`qsub $output/job.sh\` goes on, or submit with --chain" >&2
fi
rm -f -- "$count"
exit "$code"
