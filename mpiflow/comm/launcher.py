"""What the launcher tells a process through its environment, before MPI is loaded.

Every rank imports this module first of all, so it imports next to nothing.

Launchers nest one way round only: an mpiexec may itself have been started by srun, flux or PALS, never the
other way. Its variables are therefore believed first, and those of the batch system last. Under hydra in a
Slurm allocation, for instance, ``SLURM_STEP_NUM_TASKS`` counts hydra's own proxies and not the ranks.
"""

from __future__ import annotations

import os
from collections import namedtuple

TYPE_CHECKING = False  # typing's constant, without importing typing on every rank
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NamedTuple

    class Launched(NamedTuple):
        """What a launcher said: its name, this process's rank, and how many ranks it started."""

        name: str
        rank: int
        size: int | None

else:
    Launched = namedtuple("Launched", ["name", "rank", "size"])
    Launched.__doc__ = "What a launcher said: its name, this process's rank, and how many ranks it started."

# Slurm numbers its own pseudo steps (the batch script, salloc's shell, the external step) from the top of
# 32 bits; what runs in one of those was not started by srun as one of several.
_FIRST_PSEUDO_STEP = 0xFFFFFFF0

#: Prefixes of the variables by which a launcher tells a rank who it is and how to reach its peers.
#:
#: They are for that one rank. A process below it that finds them takes itself for the same rank: a plain
#: ``python -c "from mpi4py import MPI"`` in a task fails under MPICH and hangs the whole job under Open MPI.
#: What describes the job and not the step (``SLURM_JOB_ID``, ``SLURM_NTASKS``, ``PBS_*``, ``FLUX_URI``)
#: stays: a task may ask for it, and may start ranks of its own with it.
#:
#: ``OMPI_``, ``PRTE_`` and ``HYDRA_`` take a user's own settings (``OMPI_MCA_btl=...``) with them. prterun
#: hands its command line to the ranks as ``OMPI_MCA_*`` too (``OMPI_MCA_mpi_ft_enable``,
#: ``OMPI_MCA_num_procs``), the two cannot be told apart by name, and a stray one steers the MPI of a task.
#: What is in `ALLOWED` stays as well: no launcher sets it, and without it a task of root, as in most containers, may
#: not start Open MPI's mpiexec, though the user has said that it may.
SCRUBBED = (
    "PMI_",
    "PMI2_",
    "PMIX_",
    "OMPI_",
    "PRTE_",
    "OPAL_",
    "HYDRA_",
    "HYDI_",
    "GFORKER_",
    "MPIEXEC_",
    "MPI_LOCAL",
    "MV2_COMM_WORLD_",
    "PALS_",
    "JSM_",
    "ALPS_APP_",
    "FLUX_TASK_",
    "SLURM_STEP",
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "SLURM_NODEID",
    "SLURM_TASK_PID",
    "SLURM_GTIDS",
    "SLURM_SRUN_COMM_",
    "SLURM_LAUNCH_NODE_",
    "SLURM_CPU_BIND",  # an srun in a task would bind its own tasks to this rank's cores
    "SLURM_MPI_TYPE",
    "SLURM_PMI",
    "MPIFLOW_INTERRUPT",  # these are meant for the rank 0 of this launch, not for a farm started by a task
    "MPIFLOW_FRONT",
    "MPIFLOW_VERDICT",
)
ALLOWED = frozenset(
    {
        "OMPI_ALLOW_RUN_AS_ROOT",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
        "PRTE_ALLOW_RUN_AS_ROOT",
        "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM",
    }
)


def said(environ: Mapping[str, str]) -> Launched | None:
    """What the launcher of this process says about it, or None when no launcher started it.

    Parameters
    ----------
    environ : mapping of str to str
        The environment, as it was before `SCRUBBED` variables were taken out.

    Returns
    -------
    Launched or None
        ``size`` is None where the launcher does not tell it (aprun). Values that are not numbers, or a rank
        outside the size, count as not said.
    """
    for name, ranks, sizes in _sources(environ):
        rank = _first_number(environ, ranks)
        size = _first_number(environ, sizes)
        if rank is None or (size is None and sizes):
            continue
        if size is None or rank < size:
            return Launched(name, rank, size)
    return None


def meet_front(meeting: str) -> None:
    """Rank 0: take over standard input, and say that signals are welcome from now on.

    A ``python -m mpiflow -n 8`` that starts the launcher on this machine offers both by way of two pipes.
    Standard input through a launcher is not to be had whole: hydra ends a job that has not read the first
    64 KiB at once, and Open MPI 5 never tells the end of it. And a signal that comes before there is anyone
    to take it would be lost, or kill the ranks and have the launcher talk about it.

    Parameters
    ----------
    meeting : str
        Value of ``MPIFLOW_FRONT``, from before `SCRUBBED` variables were taken out: host, process and the
        descriptors of the pipes in it. Empty, or of another host: there is no one to meet.
    """
    host, _, place = meeting.partition(":")
    if host != os.uname().nodename:
        return
    process, typed, ready = place.split(":")
    standard_input = os.open(f"/proc/{process}/fd/{typed}", os.O_RDONLY)
    os.dup2(standard_input, 0)
    os.close(standard_input)
    door = os.open(f"/proc/{process}/fd/{ready}", os.O_WRONLY)
    os.write(door, b"\0")
    os.close(door)


def is_launcher_variable(name: str) -> bool:
    """Whether task processes, and rank 0 after MPI_Init, must lose this variable.

    Parameters
    ----------
    name : str
        Name of an environment variable.
    """
    return name.startswith(SCRUBBED) and name not in ALLOWED


def _sources(environ: Mapping[str, str]) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Launchers with the variables they give rank and size in, the innermost launcher first."""
    pmi_rank, pmi_size = ("PMI_RANK",), ("PMI_SIZE",)
    in_step = _in_slurm_step(environ)
    # These two are hydra's own marks; srun, PALS and Flux offer PMI_RANK as well.
    by_hydra = "HYDI_CONTROL_FD" in environ or "MPI_LOCALNRANKS" in environ
    sources = [
        # jsrun sets Open MPI's names too, because IBM's MPI is one.
        ("jsrun", ("JSM_NAMESPACE_RANK",), ("JSM_NAMESPACE_SIZE",)),
        ("Open MPI (PRRTE)", ("OMPI_COMM_WORLD_RANK", "PMIX_RANK"), ("OMPI_COMM_WORLD_SIZE",)),
        ("hydra (MPICH)", pmi_rank if by_hydra else (), pmi_size),
        ("Flux", ("FLUX_TASK_RANK",), ("FLUX_JOB_SIZE",)),
        ("PALS", ("PALS_RANKID",), ("PALS_SIZE", "PMI_SIZE")),
        ("Slurm srun" if in_step else "hydra (MPICH)", pmi_rank, pmi_size),
        ("Slurm srun", ("SLURM_PROCID",) if in_step else (), ("SLURM_STEP_NUM_TASKS",)),
        ("aprun/ALPS", ("ALPS_APP_PE",), ()),
    ]
    return sources


def _in_slurm_step(environ: Mapping[str, str]) -> bool:
    """Whether srun started this process: a batch script has SLURM_PROCID too, but no step of its own."""
    step = _number(environ.get("SLURM_STEP_ID", ""))
    return step is not None and step < _FIRST_PSEUDO_STEP


def _first_number(environ: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    for name in names:
        number = _number(environ.get(name, ""))
        if number is not None:
            return number
    return None


def _number(text: str) -> int | None:
    """A count written in plain ASCII digits; int() alone would take signs, blanks and underscores."""
    return int(text) if text.isascii() and text.isdigit() else None
