"""When the time of this job is over, as far as the batch system says.

==============  =============================================================================================
system          what it offers
==============  =============================================================================================
Slurm           ``SLURM_JOB_END_TIME``, from newer versions; else ``squeue`` is asked for the time that is left
Cobalt          ``COBALT_ENDTIME``
PBS             nothing in the environment that says when the job has begun: ``qstat -f`` is asked
LSF             nothing: ``bjobs`` is asked; it answers in minutes
Grid Engine     nothing: ``qstat -xml`` is asked for ``h_rt`` of the job; a limit of its queue is not seen
Flux            nothing: ``flux job timeleft`` is asked
==============  =============================================================================================

A command gets five seconds, and no answer is an answer: the run then knows no end, and the signal of the batch
system is what begins its drain. Limits that are changed later are not seen where the environment was believed.
Only Slurm and Grid Engine were tried on real ones; the other commands are taken from their manuals.

``--deadline`` wins over all of this.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from mpiflow.errors import ConfigurationError

#: Seconds that a command of the batch system may take.
ANSWER_WITHIN = 5.0

_DURATION = re.compile(r"(?:(\d+)-)?(\d+):([0-5]?\d):([0-5]?\d)")
_LEGAL = "seconds from now, HH:MM:SS or D-HH:MM:SS from now, or a moment such as 2030-01-31T18:00"

#: Runs a command line; gives what it printed.
Asking = Callable[[Sequence[str]], str]


class Deadline(NamedTuple):
    """The end of the job's time.

    Attributes
    ----------
    moment : float or None
        Seconds since the epoch; None where it is not known.
    source : str
        Who says so; or why nobody does.
    """

    moment: float | None
    source: str


def parse_deadline(text: str, now: float) -> float:
    """What ``--deadline`` says, as seconds since the epoch.

    Parameters
    ----------
    text : str
        Seconds from now, HH:MM:SS or D-HH:MM:SS from now, or a date with a time (of this machine's zone, where it
        names none).
    now : float
        Seconds since the epoch.

    Raises
    ------
    ConfigurationError
        It is none of these, or is over.

    Examples
    --------
    >>> parse_deadline("90", 1000.0), parse_deadline("1:00:00", 1000.0)
    (1090.0, 4600.0)
    """
    if re.fullmatch(r"\d+(\.\d+)?", text):
        moment = now + float(text)
    elif _DURATION.fullmatch(text):
        moment = now + _seconds(text)
    else:
        try:
            moment = datetime.fromisoformat(text).timestamp() if "-" in text and ":" in text else -1.0
        except ValueError:
            moment = -1.0
        if moment < 0:
            raise ConfigurationError(f"is {text!r}; legal are {_LEGAL}")
    if moment <= now:
        raise ConfigurationError(f"is {text!r}, which is over already")
    return moment


def find_deadline(environ: Mapping[str, str], now: float, ask: Asking | None = None) -> Deadline:
    """When the job ends, as the batch system says.

    Parameters
    ----------
    environ : mapping of str to str
        The environment of this process.
    now : float
        Seconds since the epoch.
    ask : callable, optional
        Runs a command line and gives what it prints.
    """
    for name in ("SLURM_JOB_END_TIME", "COBALT_ENDTIME"):
        told = environ.get(name, "")
        if told.isascii() and told.isdigit():
            return Deadline(float(told), name)
    for job, system, command, moment in _COMMANDS:
        number = environ.get(job, "")
        if number in ("", "undefined"):
            continue
        line = [word.format(_itself(number, environ)) for word in command]
        try:
            found = moment((ask or _ask)(line), environ, now)
        except (OSError, subprocess.SubprocessError, ValueError, OverflowError) as error:
            return Deadline(None, f"{system}: `{' '.join(line)}`: {error}")
        return Deadline(found, system if found is not None else f"{system}: `{' '.join(line)}` names no limit")
    return Deadline(None, "no batch system that is known here")


def _itself(number: str, environ: Mapping[str, str]) -> str:
    """How a job is asked for; one of an array by its index too, for its number may be that of the whole array."""
    task = environ.get("SLURM_ARRAY_TASK_ID", "")
    if task and "SLURM_ARRAY_JOB_ID" in environ and number == environ.get("SLURM_JOB_ID"):
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{task}"
    index = environ.get("LSB_JOBINDEX", "0")
    return f"{number}[{index}]" if index != "0" and number == environ.get("LSB_JOBID") else number


def _ask(line: Sequence[str]) -> str:
    asked = subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ANSWER_WITHIN, check=True
    )
    return asked.stdout


def _seconds(duration: str) -> float:
    """Seconds of D-HH:MM:SS; all but the last may be missing, as Slurm leaves them out."""
    days, _, rest = duration.rpartition("-")
    seconds = 0
    for part in rest.split(":"):
        seconds = 60 * seconds + int(part)
    return 86_400.0 * int(days or 0) + seconds


# --- what each command's answer means; None where it names no limit -----------------------------------------


def _squeue(answer: str, environ: Mapping[str, str], now: float) -> float | None:
    left = answer.strip()
    return now + _seconds(left) if re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", left) else None  # not UNLIMITED, INVALID


def _pbs(answer: str, environ: Mapping[str, str], now: float) -> float | None:
    limit = re.search(r"^\s*Resource_List\.walltime = ([\d:]+)\s*$", answer, re.MULTILINE)
    began = re.search(r"^\s*s(?:tart_)?time = (\w+ +\w+ +\d+ +[\d:]+ \d+)\s*$", answer, re.MULTILINE)
    if limit is None or began is None:
        return None
    return time.mktime(time.strptime(began[1], "%a %b %d %H:%M:%S %Y")) + _seconds(limit[1])


def _bjobs(answer: str, environ: Mapping[str, str], now: float) -> float | None:
    left = re.fullmatch(r"\s*(\d+):(\d+) L\s*", answer)  # X and E are estimates, not limits
    return now + 3600.0 * int(left[1]) + 60.0 * int(left[2]) if left else None


def _grid_engine(answer: str, environ: Mapping[str, str], now: float) -> float | None:
    limit = re.search(r"<CE_name>h_rt</CE_name>.*?<CE_doubleval>([\d.]+)</CE_doubleval>", answer, re.DOTALL)
    task = environ.get("SGE_TASK_ID", "")  # of an array, whose tasks begin each at its own time
    number = task if task.isdigit() else "1"
    own = rf"<JAT_task_number>{number}</JAT_task_number>((?!<JAT_task_number>).)*?<JAT_start_time>(?P<began>\d+)<"
    began = re.search(own, answer, re.DOTALL)
    if limit is None or began is None:
        return None
    start = float(began["began"])
    return (start / 1000 if start > 1e11 else start) + float(limit[1])  # Univa's counts milliseconds


def _flux(answer: str, environ: Mapping[str, str], now: float) -> float | None:
    left = answer.strip()
    return now + float(left) if re.fullmatch(r"\d+(\.\d+)?", left) else None  # not "infinity"


#: The variable that holds the job's number, whose it is, what to ask, and what the answer means. Grid Engine comes
#: last: JOB_ID is a name that others might use as well.
_COMMANDS: tuple[tuple[str, str, tuple[str, ...], Callable[[str, Mapping[str, str], float], float | None]], ...] = (
    ("FLUX_JOB_ID", "Flux", ("flux", "job", "timeleft"), _flux),
    ("SLURM_JOB_ID", "Slurm", ("squeue", "-h", "-j", "{}", "-o", "%L"), _squeue),
    ("PBS_JOBID", "PBS", ("qstat", "-f", "{}"), _pbs),
    ("LSB_JOBID", "LSF", ("bjobs", "-noheader", "-o", "time_left", "{}"), _bjobs),
    ("JOB_ID", "Grid Engine", ("qstat", "-j", "{}", "-xml"), _grid_engine),
)
