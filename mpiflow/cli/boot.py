"""The first seconds of a rank, in the one order that works.

1. Signals: what the launcher passes on must not end a rank; rank 0 decides, and tells the others.
2. The guardian, where one helps: what the launcher has started stays behind, and this goes on as its child.
3. The zygote is forked: before MPI, before any thread.
4. MPI_Init, watched: a rank that fails before it leaves the others in it for ever.
5. The launcher's word is held against MPI's: when it started several ranks and MPI knows of one, the library
   and the launcher do not fit, and every rank would run the whole script.
6. Rank 0 goes on with the command line, the others become workers. One that cannot, for want of a module on its
   node, says so and stays, out of service: its end would be the end of the job.

And the last second: MPI_Finalize, then a normal exit (MPICH tells its launcher from libc's exit()). Not after a
rank has been lost: then the ranks leave one by one, without a word to MPI.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from _thread import start_new_thread

from mpiflow import linux
from mpiflow.comm.launcher import meet_front, said
from mpiflow.linux import share_of_cores, signal
from mpiflow.worker.environment import forget_launcher
from mpiflow.worker.guardian import Guardian, fork_guardian
from mpiflow.worker.zygote import Zygote, fork_zygote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mpiflow.comm.launcher import Launched
    from mpiflow.comm.mpi import MPIComm

#: Seconds for MPI_Init, and for each rank; ``--init-timeout`` sets the first.
INIT_TIMEOUT, INIT_TIMEOUT_A_RANK = 120.0, 0.1
#: Seconds for MPI_Finalize, where no guardian sees to it.
FINALIZE_WITHIN = 30.0
#: Commands after which options may go on, and options with no value behind them: `mpiflow.cli.arguments` has them all,
#: and a parser, which is too much for every rank to load. A test holds the two together.
_TAKING_OPTIONS = ("run", "batch", "doctor", "perf")
_WITHOUT_VALUE = (
    "-h", "--help", "--version", "--as-parsl", "--fresh", "--checkpoint-all", "--trust", "--no-guardian",
    "--no-progress", "--quick", "--resume", "--resume-failed",
)  # fmt: skip
#: Signals that a launcher or batch system passes on to every rank.
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


def start_rank(arguments: list[str]) -> int:
    """Be a rank of a job, from its first line to its exit code.

    Parameters
    ----------
    arguments : list of str
        The command line after ``-m mpiflow``.
    """
    launched = said(os.environ)
    for number in PASSED_ON:
        signal.signal(number, signal.SIG_IGN)
    timeout, guarded = _early_options(arguments)
    guardian = fork_guardian(os.environ) if guarded else Guardian()
    if launched is not None and launched.name.startswith("Open MPI"):
        # Its daemon, once killed, leaves the ranks behind for good; hydra's and srun's take theirs along.
        linux.die_with_parent(signal.SIGKILL, os.getppid())
    zygote = fork_zygote()
    size = _initialize(launched, timeout)
    guardian.tell("started")
    if launched is not None and (launched.size or 1) > 1 and size == 1:
        return _refuse(launched, guardian)
    interrupt, front = os.environ.get("MPIFLOW_INTERRUPT", "INT"), os.environ.get("MPIFLOW_FRONT", "")
    named = os.environ.get("MPIFLOW_VERDICT", "")
    protection = _protection(guardian)
    forget_launcher()
    from mpiflow.comm import world
    from mpiflow.comm.mpi import MPIComm
    from mpiflow.comm.segments import private, shared

    comm = MPIComm(lambda rank: private if rank == 0 else shared, guardian.inside)
    nearby = world.on_this_node()
    if protection:
        world.unlink_files()
    cores = share_of_cores(len(nearby))
    if comm.rank == 0:
        from mpiflow.cli.rank0 import Job, run_rank0, take_signals
        from mpiflow.cli.verdict import Verdict

        take_signals(interrupt)
        meet_front(front)
        verdict = Verdict(named)
        verdict.began()
        code = run_rank0(arguments, Job(comm, zygote, launched, protection, verdict, nearby))
        verdict.ended(code)
    else:
        workers = [rank for rank in nearby if rank > 0]
        code = _work(comm, zygote, cores, (workers.index(comm.rank), len(workers)), guardian)
    return _leave(comm, code, guardian)


def _early_options(arguments: list[str]) -> tuple[float, bool]:
    """What every rank has to know before there is a rank 0, which checks it later.

    Returns
    -------
    seconds : float
        That MPI_Init may take.
    guarded : bool
        Whether a guardian is wanted, where one helps.
    """
    seconds, guarded, command = INIT_TIMEOUT, True, ""
    words = iter(arguments)
    for word in words:
        if not word.startswith("-") or word in ("-", "--"):
            if command or word not in _TAKING_OPTIONS:
                break  # the script, or what a batch is to run: what follows is its own
            command = word
            continue
        option, given, value = word.partition("=")
        attached = given or (len(word) > 2 and not word.startswith("--"))  # -n8
        if not attached and option not in _WITHOUT_VALUE:
            value = next(words, "")
        if option == "--init-timeout" and value.isdecimal():
            seconds = float(value)
        elif option == "--no-guardian":
            guarded = False
    return seconds, guarded


def _initialize(launched: Launched | None, timeout: float) -> int:
    """MPI_Init, ended with a traceback when it does not come back; the size of MPI's world."""
    ranks = (launched.size or 1) if launched is not None else 1
    faulthandler.dump_traceback_later(timeout + INIT_TIMEOUT_A_RANK * ranks, exit=True)
    from mpiflow.comm import world

    faulthandler.cancel_dump_traceback_later()
    return world.size()


def _protection(guardian: Guardian) -> str:
    """What this launch offers against the loss of a rank, read before the launcher's variables go."""
    if os.environ.get("OMPI_MCA_mpi_ft_enable") in ("1", "true"):
        return "ULFM"
    return "guardian" if guardian.there else ""


def _refuse(launched: Launched, guardian: Guardian) -> int:
    """Every rank is a world of its own: say so once, and let no copy run the script."""
    from mpiflow.exitcodes import WORLDS_OF_ONE  # here, and RELAUNCH below: one file less for every rank to open

    guardian.tell(f"finalized {WORLDS_OF_ONE}")
    if launched.rank == 0:
        from mpiflow.comm import world

        paths = ", ".join(linux.loaded_libraries("libmpi")) or "not known"
        print(
            f"mpiflow: {launched.name} started {launched.size} ranks, but MPI sees one rank in each of them.\n"
            f"  loaded MPI:  {world.library().name}\n"
            f"  its library: {paths}\n"
            f"  launcher:    {launched.name}\n"
            f"  The launcher belongs to another MPI than the one that Python loads. Start with the launcher of\n"
            f"  the loaded MPI, or `python -m mpiflow -n {launched.size} script.py`, which finds it; under srun "
            f"give the\n  matching --mpi= (MPICH: pmi2, Open MPI: pmix); or install mpi4py for the launcher's MPI.",
            file=sys.stderr,
            flush=True,
        )
    return WORLDS_OF_ONE


def _work(comm: MPIComm, zygote: Zygote, cores: int, place: tuple[int, int], guardian: Guardian) -> int:
    """A worker's life; its exit code, which is nobody's but where rank 0 has none any more."""
    from mpiflow.errors import FarmLost

    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # standard input is the script's
    os.close(nothing)
    try:
        try:
            from mpiflow.worker.worker import describe_rank, serve
        except ImportError:
            return _stay_out(comm)
        serve(comm, zygote, describe_rank(comm.rank), cores, place, guardian)
    except FarmLost:  # rank 0 has gone, or MPI is no longer usable: nothing is left to do here
        from mpiflow.exitcodes import RELAUNCH

        comm.hurt = True
        zygote.close()
        return RELAUNCH
    return 0


def _stay_out(comm: MPIComm) -> int:
    """Tell rank 0 why this rank cannot work, and wait for the end of the job."""
    import pickle
    import traceback

    from mpiflow.comm import wire
    from mpiflow.errors import FarmLost

    said = {"rank": comm.rank, "host": os.uname().nodename, "pid": os.getpid(), "failed": traceback.format_exc()}
    comm.send(0, wire.record(wire.HELLO, pickle.dumps(said, 5)))
    while True:
        for _, head, _ in comm.poll():
            for aid, _, _, _, kind, _, _, _ in wire.records(head):
                if kind == wire.QUIT:
                    comm.send(0, wire.record(wire.BYE))
                elif kind == wire.LEAVE:
                    comm.hurt = comm.hurt or bool(aid)
                    return 0
        if comm.lost:
            raise FarmLost("rank 0 is lost")
        time.sleep(0.005)


def _leave_by_force(code: int) -> None:
    """Leave in the midst of MPI_Finalize, which waits for a rank that has died in it."""
    time.sleep(FINALIZE_WITHIN)
    os._exit(code)


def _leave(comm: MPIComm, code: int, guardian: Guardian) -> int:
    """Say good-bye to MPI; the exit code."""
    from mpiflow.comm import world

    sys.stdout.flush()
    sys.stderr.flush()
    if comm.hurt:  # MPI_Finalize waits for every rank, and one of them is lost
        guardian.tell(f"abort {code}" if comm.rank == 0 else f"leave {code}")
        os._exit(code)
    guardian.tell(f"finalized {code}")
    if not guardian.there:
        start_new_thread(_leave_by_force, (code,))
    if not world.finalize():
        os._exit(code)
    if comm.rank > 0:
        linux.exit_now(code)  # a thread that some task has left in this rank may not hold up the job
    return code
