"""The batch systems: for each one record of what it is called, which commands it has, and how it says things.

What a system's *directives* look like is in its template (``jobscripts/NAME.sh.j2``), and how it is asked for its jobs
in `mpiflow.jobs.states`. Here is what is needed to submit a script, to read the number of the job, and to end it. In a
command ``{job}`` stands for the job's number, and ``{script}`` for the path of the script.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from mpiflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

#: How a job goes on after code 85. "requeue": the script asks the system to run the same job again; "code": the system
#: does so by itself, on an exit code; "successor": the script submits another job; "loop": the script begins again.
Continuation = Literal["requeue", "code", "successor", "loop"]


class System(NamedTuple):
    """A batch system.

    Attributes
    ----------
    name, title : str
        Its name in ``--system``; its name in a sentence.
    programs : tuple of str
        Its own commands, all of which are there where it is there.
    submit : tuple of str
        The command that submits a script, ``{script}`` included; empty where the script is simply run.
    on_stdin : bool
        Whether the script is read from standard input, and ``{script}`` is not a word of the command.
    job_id : str
        A regular expression that finds the job's number in what the command prints, as group 1.
    cancel : tuple of str
        The command that ends a job.
    dependency : tuple of str
        Options of `submit` that let a job begin when job ``{job}`` has ended, however it ended.
    continuation : Continuation
        How the job goes on after code 85.
    array_index : str
        The variable that holds the number of a job in its array; empty where there are no arrays.
    walltime : callable
        Seconds as the system writes them.
    number_means : int
        Seconds that a bare number of ``--time`` stands for.
    two_parts : tuple of int
        Seconds that the parts of ``A:B`` stand for.
    """

    name: str
    title: str
    programs: tuple[str, ...]
    submit: tuple[str, ...]
    on_stdin: bool
    job_id: str
    cancel: tuple[str, ...]
    dependency: tuple[str, ...]
    continuation: Continuation
    array_index: str
    walltime: Callable[[int], str]
    number_means: int = 60
    two_parts: tuple[int, int] = (3600, 60)


def hours(seconds: int) -> str:
    """Write seconds as H:MM:SS.

    Examples
    --------
    >>> hours(7290)
    '2:01:30'
    """
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def minutes(seconds: int) -> str:
    """Write seconds as whole minutes, and rather one more.

    Examples
    --------
    >>> minutes(90)
    '2'
    """
    return str(-(-seconds // 60))


def hours_minutes(seconds: int) -> str:
    """Write seconds as H:MM, and rather a minute more.

    Examples
    --------
    >>> hours_minutes(7290)
    '2:02'
    """
    whole = -(-seconds // 60)
    return f"{whole // 60}:{whole % 60:02}"


def plain_seconds(seconds: int) -> str:
    """Write seconds as they are."""
    return str(seconds)


SYSTEMS: dict[str, System] = {
    "slurm": System(
        name="slurm",
        title="Slurm",
        programs=("sbatch", "squeue", "scancel"),
        submit=("sbatch", "--parsable", "{script}"),
        on_stdin=False,
        job_id=r"^(\d+)(?:;\S+)?\s*$",
        cancel=("scancel", "{job}"),
        dependency=("--dependency=afterany:{job}",),
        continuation="requeue",
        array_index="SLURM_ARRAY_TASK_ID",
        walltime=hours,
        two_parts=(60, 1),
    ),
    "pbs": System(
        name="pbs",
        title="PBS",
        programs=("qsub", "qstat", "qdel"),
        submit=("qsub", "{script}"),
        on_stdin=False,
        job_id=r"^(\d+(?:\[\])?\.\S+)\s*$",
        cancel=("qdel", "{job}"),
        dependency=("-W", "depend=afterany:{job}"),
        continuation="successor",
        array_index="PBS_ARRAY_INDEX",
        walltime=hours,
        number_means=1,
        two_parts=(60, 1),
    ),
    "torque": System(
        name="torque",
        title="Torque",
        programs=("qsub", "qstat", "qdel"),
        submit=("qsub", "{script}"),
        on_stdin=False,
        job_id=r"^(\d+(?:\[\])?\.\S+)\s*$",
        cancel=("qdel", "{job}"),
        dependency=("-W", "depend=afterany:{job}"),
        continuation="successor",
        array_index="PBS_ARRAYID",
        walltime=hours,
        number_means=1,
        two_parts=(60, 1),
    ),
    "cobalt": System(
        name="cobalt",
        title="Cobalt",
        programs=("qsub", "qstat", "qdel"),
        submit=("qsub", "{script}"),
        on_stdin=False,
        job_id=r"^(\d+)\s*$",
        cancel=("qdel", "{job}"),
        dependency=("--dependencies", "{job}"),
        continuation="successor",
        array_index="",
        walltime=hours,
    ),
    "gridengine": System(
        name="gridengine",
        title="Grid Engine",
        programs=("qsub", "qstat", "qdel"),
        submit=("qsub", "-terse", "{script}"),
        on_stdin=False,
        job_id=r"^(\d+)(?:\.\d+-\d+:\d+)?\s*$",
        cancel=("qdel", "{job}"),
        dependency=("-hold_jid", "{job}"),
        continuation="code",
        array_index="SGE_TASK_ID",
        walltime=hours,
        number_means=1,
    ),
    "htcondor": System(
        name="htcondor",
        title="HTCondor",
        programs=("condor_submit", "condor_q", "condor_rm"),
        submit=("condor_submit", "-terse", "{script}"),
        on_stdin=False,
        job_id=r"^(?:\d+ job\(s\) submitted to cluster )?(\d+)(?:\.\d+ - \d+\.\d+|\.)\s*$",  # with -terse, and without
        cancel=("condor_rm", "{job}"),
        dependency=(),  # DAGMan's business
        continuation="code",
        array_index="",
        walltime=plain_seconds,
        number_means=1,
    ),
    "lsf": System(
        name="lsf",
        title="LSF",
        programs=("bsub", "bjobs", "bkill"),
        submit=("bsub",),
        on_stdin=True,
        job_id=r"Job <(\d+)> is submitted",
        cancel=("bkill", "{job}"),
        dependency=("-w", "ended({job})"),
        continuation="code",
        array_index="LSB_JOBINDEX",
        walltime=hours_minutes,
    ),
    "flux": System(
        name="flux",
        title="Flux",
        programs=("flux",),
        submit=("flux", "batch", "{script}"),
        on_stdin=False,
        job_id=r"^(\S+)\s*$",
        cancel=("flux", "cancel", "{job}"),
        dependency=("--dependency=afterany:{job}",),
        continuation="successor",
        array_index="",
        walltime=plain_seconds,  # the template adds the unit
    ),
    "fork": System(
        name="fork",
        title="this machine, without a batch system",
        programs=("bash",),
        submit=(),
        on_stdin=False,
        job_id=r"^(\d+)$",
        cancel=("kill", "-TERM", "{job}"),
        dependency=(),
        continuation="loop",
        array_index="",
        walltime=plain_seconds,
    ),
}


def find(name: str) -> System:
    """The record of a batch system.

    Parameters
    ----------
    name : str
        Its name, as in ``--system``.

    Raises
    ------
    ConfigurationError
        There is none of that name.
    """
    if name not in SYSTEMS:
        raise ConfigurationError(f"system is {name!r}; legal are {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_time(text: str, system: str = "") -> int:
    """Read ``--time`` as the users of a batch system write it; gives seconds.

    ``H:MM:SS``, ``D-HH:MM:SS`` and numbers with a unit (``90s``, ``90m``, ``1.5h``, ``2d``) mean the same everywhere. A
    bare number and ``A:B`` do not: they are taken as the system takes them.

    Parameters
    ----------
    text : str
        What the user wrote.
    system : str
        The batch system; empty: a bare number is minutes, and ``A:B`` is refused.

    Raises
    ------
    ConfigurationError
        It is no time, or none above zero.

    Examples
    --------
    >>> parse_time("2:00:00"), parse_time("90", "slurm"), parse_time("90", "pbs"), parse_time("1-12", "slurm")
    (7200, 5400, 90, 129600)
    >>> parse_time("30:00", "slurm"), parse_time("30:00", "lsf")
    (1800, 108000)
    """
    seconds = _seconds(text.strip(), system)
    if not seconds:
        forms = "2:00:00, 1-12:00:00 or a number with a unit, such as 90m or 1.5h"
        if system:
            one = {1: "seconds", 60: "minutes"}[find(system).number_means]
            forms += f"; a number alone is {one} in {find(system).title}"
        raise ConfigurationError(f"time is {text!r}; legal are {forms}")
    return seconds


def _seconds(text: str, system: str) -> int:
    """Seconds; 0 where it is no time."""
    if unit := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text, re.ASCII):
        return round(float(unit[1]) * _UNITS[unit[2]])
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?(?::(\d+))?", text, re.ASCII)
    if found is None:
        return 0
    days, parts = int(found[1] or 0), [int(part) for part in found.groups()[1:] if part is not None]
    if found[1] is not None:  # D-HH, D-HH:MM, D-HH:MM:SS
        scales: tuple[int, ...] = (3600, 60, 1)
        legal = len(parts) <= 3 and parts[0] < 24
    elif len(parts) == 4:  # Cobalt's DD:HH:MM:SS
        scales = (86_400, 3600, 60, 1)
        legal = parts[1] < 24
    elif len(parts) == 3:
        scales = (3600, 60, 1)
        legal = True
    elif len(parts) == 2:
        scales = find(system).two_parts if system else ()
        legal = bool(system)
    else:
        scales = (find(system).number_means if system else 60,)
        legal = True
    if not legal or any(part > 59 for part, scale in list(zip(parts, scales, strict=False))[1:] if scale < 3600):
        return 0
    return 86_400 * days + sum(part * scale for part, scale in zip(parts, scales, strict=False))
