"""The first seconds of a rank, in the one order that works.

1. Signals: what the launcher passes on must not end a rank; rank 0 decides, and tells the others.
2. The zygote is forked: before MPI, before any thread.
3. MPI_Init, watched: a rank that fails before it leaves the others in it for ever.
4. The launcher's word is held against MPI's: when it started several ranks and MPI knows of one, the library
   and the launcher do not fit, and every rank would run the whole script.
5. Rank 0 goes on with the command line, the others become workers.

And the last second: MPI_Finalize, then a normal exit (MPICH tells its launcher from libc's exit()).
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys

from mpiflow import linux
from mpiflow.comm.launcher import meet_front, said
from mpiflow.worker.cpus import share_of_cores
from mpiflow.worker.environment import forget_launcher
from mpiflow.worker.zygote import Zygote, fork_zygote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mpiflow.comm.launcher import Launched
    from mpiflow.comm.mpi import MPIComm

#: Exit code of a start in which every rank found a world of its own.
WORLDS_OF_ONE = 72
#: Seconds for MPI_Init, and for each rank; ``--init-timeout`` sets the first.
INIT_TIMEOUT, INIT_TIMEOUT_A_RANK = 120.0, 0.1
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
    if launched is not None and launched.name.startswith("Open MPI"):
        # Its daemon, once killed, leaves the ranks behind for good; hydra's and srun's take theirs along.
        linux.die_with_parent(signal.SIGKILL, os.getppid())
    zygote = fork_zygote()
    size = _initialize(launched, _init_timeout(arguments))
    if launched is not None and (launched.size or 1) > 1 and size == 1:
        return _refuse(launched)
    interrupt, front = os.environ.get("MPIFLOW_INTERRUPT", "INT"), os.environ.get("MPIFLOW_FRONT", "")
    protection = _protection()
    forget_launcher()
    from mpiflow.comm import world
    from mpiflow.comm.mpi import MPIComm
    from mpiflow.comm.segments import private, shared

    comm = MPIComm(lambda rank: private if rank == 0 else shared)
    ranks, workers = world.on_this_node()
    cores = share_of_cores(ranks)
    if comm.rank == 0:
        from mpiflow.cli.rank0 import run_rank0, take_signals

        take_signals(interrupt)
        meet_front(front)
        code = run_rank0(arguments, comm, zygote, launched, protection)
    else:
        code = _work(comm, zygote, cores, (workers.index(comm.rank), len(workers)))
    return _leave(comm, code)


def _init_timeout(arguments: list[str]) -> float:
    """The one option that every rank has to know before there is a rank 0; checked by rank 0 later."""
    before = ""
    for word in arguments:
        option, _, value = word.partition("=")
        if before == "--init-timeout":
            option, value = before, word
        if option == "--init-timeout" and value.isdecimal():
            return float(value)
        if not word.startswith("-") and not before.startswith("-"):
            break  # neither an option nor the value of one: the script, and what follows is its own
        before = word
    return INIT_TIMEOUT


def _initialize(launched: Launched | None, timeout: float) -> int:
    """MPI_Init, ended with a traceback when it does not come back; the size of MPI's world."""
    ranks = (launched.size or 1) if launched is not None else 1
    faulthandler.dump_traceback_later(timeout + INIT_TIMEOUT_A_RANK * ranks, exit=True)
    from mpiflow.comm import world

    faulthandler.cancel_dump_traceback_later()
    return world.size()


def _protection() -> str:
    """What this launch offers against the loss of a rank, read before the launcher's variables go."""
    if os.environ.get("OMPI_MCA_mpi_ft_enable") in ("1", "true"):
        return "ULFM"
    return "PMI" if "PMI_FD" in os.environ else ""


def _refuse(launched: Launched) -> int:
    """Every rank is a world of its own: say so once, and let no copy run the script."""
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


def _work(comm: MPIComm, zygote: Zygote, cores: int, place: tuple[int, int]) -> int:
    """A worker's life."""
    from mpiflow.errors import FarmLost
    from mpiflow.worker.worker import describe_rank, serve

    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # standard input is the script's
    os.close(nothing)
    try:
        serve(comm, zygote, describe_rank(comm.rank), cores, place)
    except FarmLost:  # rank 0 has gone, or MPI is no longer usable: nothing is left to do here
        zygote.close()
    return 0


def _leave(comm: MPIComm, code: int) -> int:
    """Say good-bye to MPI; the exit code."""
    from mpiflow.comm import world

    sys.stdout.flush()
    sys.stderr.flush()
    if comm.broken:
        os._exit(code)  # MPI_Finalize waits for every rank, and one of them is lost
    world.finalize()
    if comm.rank > 0:
        linux.exit_now(code)  # a thread that some task has left in this rank may not hold up the job
    return code
