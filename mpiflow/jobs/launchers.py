"""The launchers, and which of them make sense in which batch system.

How a launcher is called is in ``jobscripts/_launchers.j2``, one macro each. Here is only what can be decided before: a
launcher that cannot reach the nodes of an allocation is refused at the prompt, and those that can are named.

==========  ==============================================================================================
launcher    what it is
==========  ==============================================================================================
mpiexec     whatever mpiexec is on PATH when the script runs; the script asks it whose it is
mpirun      the same, under its other name
hydra       the mpiexec of MPICH and of those made from it
openmpi     the mpiexec of Open MPI
intel       that of Intel MPI
pals        HPE's, on Cray machines under PBS
srun        Slurm's
aprun       Cray's ALPS
jsrun       IBM's, under LSF
flux        ``flux run``
parallel    hydra, whose proxies GNU parallel starts: over ssh, or on this machine
fork        an mpiexec that starts all ranks on this machine
wrapped     the user's own words before the command
==========  ==============================================================================================
"""

from __future__ import annotations

from mpiflow.errors import ConfigurationError

#: The mpiexecs of MPIs that read the hosts of every common batch system, or are told them by the script.
_MPIEXECS = ("mpiexec", "mpirun", "hydra", "openmpi", "intel")

LAUNCHERS: tuple[str, ...] = (
    *_MPIEXECS, "pals", "srun", "aprun", "jsrun", "flux", "parallel", "fork", "wrapped",
)  # fmt: skip

#: For each batch system the launchers that make sense, the usual one first.
SENSIBLE: dict[str, tuple[str, ...]] = {
    "slurm": ("srun", *_MPIEXECS, "parallel", "wrapped"),
    "pbs": ("mpiexec", "mpirun", "hydra", "openmpi", "intel", "pals", "aprun", "parallel", "wrapped"),
    "torque": ("mpiexec", "mpirun", "hydra", "openmpi", "intel", "aprun", "parallel", "wrapped"),
    "cobalt": ("aprun", *_MPIEXECS, "parallel", "wrapped"),
    "gridengine": (*_MPIEXECS, "parallel", "wrapped"),
    # The sshd of its parallel universe reaches the machines by names of its own: what mpiexec there is must be told.
    "htcondor": ("fork", *_MPIEXECS, "wrapped"),
    "lsf": ("jsrun", *_MPIEXECS, "parallel", "wrapped"),
    "flux": ("flux", "wrapped"),
    "fork": ("fork", *_MPIEXECS, "parallel", "wrapped"),
}


def find(name: str) -> str:
    """Give back the name of a launcher.

    Raises
    ------
    ConfigurationError
        There is none of that name.
    """
    if name not in LAUNCHERS:
        raise ConfigurationError(f"launcher is {name!r}; legal are {', '.join(LAUNCHERS)}")
    return name


def default(system: str, nodes: int = 1) -> str:
    """The usual launcher of a batch system, for so many nodes."""
    return next(name for name in SENSIBLE[system] if name != "fork" or nodes == 1)


def check(system: str, launcher: str) -> None:
    """See that a launcher makes sense in a batch system.

    Raises
    ------
    ConfigurationError
        It does not; naming those that do.
    """
    if launcher not in SENSIBLE[system]:
        raise ConfigurationError(
            f"launcher is {launcher!r}, which makes no sense under system {system!r}; "
            f"sensible there are {', '.join(SENSIBLE[system])}"
        )
