#!/bin/bash
#$ -S /bin/bash
#$ -N sweep-42
#$ -o /lus/project/runinfo/jobs/sweep-42.log
#$ -j y
#$ -r y
#$ -V
#$ -pe rr 128
#$ -l h_rt=2:00:00
#$ -l s_rt=1:55:00
#$ -P m1234
#$ -q regular
#$ -ar 12
#$ -l arch=lx-amd64
#$ -l matlab=2
#$ -M somebody@example.org
#$ -m bea
#$ -l gpu=1
#$ -l mem_free=2048M
#$ -l exclusive=true
#$ -l scratch=10G

# my sweep.py as one farm: 32 ranks on 4 nodes, under Grid Engine.
# Written by `mpiflow submit`. `mpiflow status` says how it stands, `mpiflow logs -f` shows what it prints.

job=$JOB_ID index=''
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
case $(mpiexec --version 2>&1) in  # whose it is decides how it is told
    *'Intel(R) MPI'*)
        launch=(mpiexec -genvall -n 32)
        awk '$2 >= 4 {print $1 ":" int($2 / 4)}' "$PE_HOSTFILE" >"$output/hosts.$job" || exit
        launch+=(-f "$output/hosts.$job")
        ;;
    *HYDRA*)
        launch=(mpiexec -n 32)
        awk '$2 >= 4 {print $1 ":" int($2 / 4)}' "$PE_HOSTFILE" >"$output/hosts.$job" || exit
        launch+=(-f "$output/hosts.$job")
        ;;
    *'Open MPI'* | *OpenRTE* | *PRRTE*)
        launch=(mpiexec -n 32 --bind-to none)
        case $(mpiexec --version 2>&1) in
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
        awk '$2 >= 4 {print $1 " slots=" int($2 / 4)}' "$PE_HOSTFILE" >"$output/hosts.$job" || exit
        launch+=(--hostfile "$output/hosts.$job")
        ;;
    *)
        launch=(mpiexec -n 32)
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
    exit 99  # Grid Engine then runs the same job again: the journal has what is done
fi
rm -f -- "$count"
case $code in
    99 | 100)  # with the first Grid Engine would run it again for ever, with the second keep it in the queue
        echo "mpiflow: the farm ended with code $code, which would mean something else to Grid Engine: the job's is 1" >&2
        code=1
        ;;
esac
exit "$code"
