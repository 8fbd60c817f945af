"""Which batch system this machine has, found by what its users type.

A command on PATH is no proof: a machine may carry the client of a system that it is no part of, and ``qsub`` is the
command of four systems. So a system whose settings are in the environment is preferred to one of which only a program
is seen, and whose ``qsub`` it is shows in the programs beside it, or in what it says of its version.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from typing import NamedTuple

from mpiflow.errors import ConfigurationError

#: Seconds that ``qsub --version`` may take.
ANSWER_WITHIN = 5.0

#: Finds a program, as `shutil.which` does.
Which = Callable[[str], "str | None"]


class Found(NamedTuple):
    """A batch system, and why it is believed to be this machine's.

    Attributes
    ----------
    system : str
        Its name, as ``--system`` takes it.
    why : str
        What was seen of it.
    """

    system: str
    why: str


#: The command that submits, what else tells the system apart (a program, a variable), and variables that say it is
#: set up here. The order is that of preference: Slurm brings a ``qsub`` of its own, LSF and Flux never one.
_SIGNS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("slurm", "sbatch", ("SLURM_CONF", "SLURM_CONF_SERVER")),
    ("lsf", "bsub", ("LSF_ENVDIR", "LSF_SERVERDIR")),
    ("htcondor", "condor_submit", ("CONDOR_CONFIG",)),
    ("gridengine", "qsub", ("SGE_ROOT",)),
    ("pbs", "qsub", ("PBS_CONF_FILE", "PBS_EXEC")),
    ("torque", "qsub", ("PBS_DEFAULT", "TORQUE_HOME")),
    ("cobalt", "qsub", ("COBALT_CONFIG_FILES",)),
    ("flux", "flux", ("FLUX_URI",)),
)
#: Programs that only one of the systems with a ``qsub`` has, the surest first.
_BESIDE_QSUB = (
    ("gridengine", ("qconf", "qhost")),
    ("cobalt", ("cqadm", "cqstat", "partlist", "nodelist")),
    ("torque", ("momctl", "qchkpt", "trqauthd")),
    ("pbs", ("pbs_rsub", "pbs_release_nodes", "pbs_tmrsh", "pbs_hostn")),
)
#: What ``qsub --version`` says, in lower case.
_VERSIONS = (("pbs", "pbs_version"), ("cobalt", "cobalt"), ("torque", "commit:"), ("gridengine", "ge "))


def find_system() -> str:
    """The name of this machine's batch system, as ``--system`` takes it.

    Raises
    ------
    ConfigurationError
        There is none.
    """
    return look_for_system(os.environ).system


def look_for_system(environ: Mapping[str, str], which: Which | None = None) -> Found:
    """The batch system of this machine, and why it is believed to be that.

    Parameters
    ----------
    environ : mapping of str to str
        The environment of this process.
    which : callable, optional
        Finds a program; default: on the PATH of ``environ``.

    Raises
    ------
    ConfigurationError
        There is none.

    Examples
    --------
    >>> look_for_system({}, {"sbatch": "/usr/bin/sbatch"}.get)
    Found(system='slurm', why='/usr/bin/sbatch')
    """
    find = which or (lambda name: shutil.which(name, path=environ.get("PATH", "")))
    present: list[Found] = []
    for system, command, variables in _SIGNS:
        path = find(command)
        if path is None:
            continue
        for name in variables:
            if environ.get(name) and (command != "qsub" or whose_qsub(path, find) in (system, "")):
                return Found(system, f"{path}, {name}")
        present.append(Found(system, path))
    for one in present:
        if one.why == find("qsub"):
            return Found(whose_qsub(one.why, find) or "pbs", one.why)
        return one
    looked = ", ".join(dict.fromkeys(command for _, command, _ in _SIGNS))
    raise ConfigurationError(
        f"no batch system is found: none of {looked} is on PATH. Load the site's module, or say which by --system; "
        "on a machine without one, --system fork runs the job here, in the background"
    )


def whose_qsub(path: str, which: Which) -> str:
    """The system that a ``qsub`` belongs to; "" where that does not show.

    Parameters
    ----------
    path : str
        The program.
    which : callable
        Finds other programs.
    """
    beside = os.path.dirname(path)
    for system, programs in _BESIDE_QSUB:
        if any(os.path.exists(os.path.join(beside, program)) for program in programs):
            return system
    for system, programs in _BESIDE_QSUB:
        if any(which(program) for program in programs):
            return system
    said = _version(path)
    for system, sign in _VERSIONS:
        if sign in said:
            return system
    return ""


def _version(path: str) -> str:
    """What a program says of its version; nothing, where it cannot say it in time."""
    try:
        asked = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_WITHIN, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (asked.stdout + asked.stderr).decode("utf-8", "replace").lower()
