"""Jobs of ``--system fork``: a batch script as a process of this machine, in the background.

Its id is the number of the process and the moment at which it was started, because numbers are used again: what is
told to end is the job, or nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time

from mpiflow.errors import BatchSystemError
from mpiflow.jobs.states import CANCELLED, FAILED, RUNNING, JobState, ended_with

#: Seconds between the word to end and the end by force.
GRACE = 30.0


def start(script: str, directory: str, output: str) -> str:
    """Start a script; gives the job's id.

    Parameters
    ----------
    script : str
        The batch script.
    directory : str
        Where it runs.
    output : str
        The file for what it prints.
    """
    with open(output, "ab") as file:
        started = subprocess.Popen(
            ["bash", script],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=directory,
            start_new_session=True,
        )
    return f"{started.pid}.{_began(started.pid)}"


def state(job: str, own_word: int | None) -> JobState:
    """How a job stands.

    Parameters
    ----------
    job : str
        Its id.
    own_word : int or None
        The exit code that its script has left, if it has.
    """
    if _lives(job):
        return JobState(RUNNING)
    if own_word is None:
        return JobState(FAILED, None, "it was killed, or the machine went down: its script has left no exit code")
    if own_word in (128 + signal.SIGTERM, 128 + signal.SIGINT):
        return JobState(CANCELLED, own_word)
    return ended_with(own_word)


def cancel(job: str) -> None:
    """End a job: SIGTERM to all of it, SIGKILL to what is left after half a minute.

    Raises
    ------
    BatchSystemError
        It belongs to somebody else.
    """
    pid = int(job.split(".")[0])
    end = time.monotonic() + GRACE
    try:
        while _lives(job):
            os.killpg(pid, signal.SIGTERM if time.monotonic() < end else signal.SIGKILL)
            _wait(job, GRACE if time.monotonic() < end else 1.0)
    except PermissionError as error:
        raise BatchSystemError(f"process {pid} belongs to somebody else") from error
    except ProcessLookupError:  # it has just ended
        return


def _wait(job: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while _lives(job) and time.monotonic() < end:
        time.sleep(0.1)


def _lives(job: str) -> bool:
    pid, _, began = job.partition(".")
    return pid.isdecimal() and _began(int(pid)) == began


def _began(pid: int) -> str:
    """When a process was started, in ticks since the machine was; "" when it has ended, reaped or not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            words = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if words[0] in "ZX" else words[19]
