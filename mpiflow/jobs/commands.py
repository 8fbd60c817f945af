"""Commands of a batch system, run with a time limit; what they say when they fail is never lost.

A command of a busy batch system may hang for minutes, print warnings of the site where its data should be, and fail for
reasons that only its own words explain. So each gets a limit, its two outputs are kept apart, and both are shown.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mpiflow.errors import BatchSystemError


class Answer(NamedTuple):
    """What a command did.

    Attributes
    ----------
    code : int
        Its exit code.
    out, err : str
        What it printed.
    """

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """What it said, in the order in which a person wants to read it; never empty."""
        said = "\n".join(text for text in (self.err.strip(), self.out.strip()) if text)
        return said or f"it said nothing, and ended with code {self.code}"


#: Runs a command line within so many seconds.
Running = Callable[[Sequence[str], float], Answer]


def run(
    line: Sequence[str],
    seconds: float,
    directory: str | None = None,
    stdin: str = os.devnull,
) -> Answer:
    """Run a command, and wait for its end.

    Parameters
    ----------
    line : sequence of str
        The command line.
    seconds : float
        How long it may take.
    directory : str, optional
        Where it runs.
    stdin : str, optional
        A file that it reads as its standard input.

    Raises
    ------
    BatchSystemError
        There is no such program, or it has not ended in time: it is killed then, with all that it has started.
    """
    try:
        with open(stdin, "rb") as reads:
            started = subprocess.Popen(
                list(line),
                stdin=reads,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=directory,
                start_new_session=True,
                text=True,
                errors="replace",
            )
    except FileNotFoundError as error:
        if directory is not None and not os.path.isdir(directory):
            raise BatchSystemError(f"{directory}: there is no such directory") from error
        raise BatchSystemError(f"{line[0]}: there is no such program on PATH") from error
    except OSError as error:
        raise BatchSystemError(f"{line[0]} cannot be run: {error.strerror}") from error
    try:
        out, err = started.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        _end(started)
        raise BatchSystemError(f"`{shlex.join(line)}` has not answered within {seconds:g} s, and was killed") from error
    except BaseException:  # Ctrl-C: it has a session of its own, and would go on
        _end(started)
        raise
    return Answer(started.returncode, out, err)


def _end(started: subprocess.Popen[str]) -> None:
    os.killpg(started.pid, signal.SIGKILL)  # its leader is not reaped yet, so the number is still its own
    started.wait()
    for stream in (started.stdout, started.stderr):
        if stream is not None:
            stream.close()
