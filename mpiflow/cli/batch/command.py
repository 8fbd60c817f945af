"""Running one command, in a runner: what it prints is caught, how it ended is told.

The output of a command comes out as a whole when it has ended, as GNU parallel has it; lines of two commands never
mix. It is caught in unnamed files of the node, so a command that prints more than memory holds is fine. Up to `LARGE`
bytes travel with the result; more is laid into a file of the run directory, from which rank 0 takes it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from typing import IO, NamedTuple

#: Bytes of one stream above which they travel as a file.
LARGE = 16 << 20


class Outcome(NamedTuple):
    """How a command ended.

    Attributes
    ----------
    host : str
        Where it ran.
    began : float
        Seconds since the epoch.
    seconds : float
        How long it ran.
    code : int
        Its exit code; minus the number of the signal that ended it.
    received : int
        Bytes of its standard output.
    out, err : bytes or str
        What it printed, or the path of the file that holds it.
    """

    host: str
    began: float
    seconds: float
    code: int
    received: int
    out: bytes | str
    err: bytes | str


class CommandFailed(Exception):
    """A command ended with another code than 0; its only argument is the `Outcome`."""

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        found: Outcome = self.args[0]
        return found


def run_command(command: bytes, number: int, beside: str) -> Outcome:
    """Run a command by bash.

    Parameters
    ----------
    command : bytes
        The command line.
    number : int
        Of the job; the command finds it in ``PARALLEL_SEQ``, where GNU parallel has it.
    beside : str
        Path before which large output is laid: ``BESIDE.out`` and ``BESIDE.err``.

    Raises
    ------
    CommandFailed
        It ended with another code than 0. An exception, so that it is tried again where that is wanted.
    """
    variables = {**os.environ, "PARALLEL_SEQ": str(number)}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began, started = time.time(), time.monotonic()
        # Bytes for words: an argument need not be text in any encoding.
        line = [b"/bin/bash", b"-c", command]
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=variables)
        try:
            code = process.wait()
        except BaseException:  # a walltime, in a rank: the command may not go on
            process.kill()
            process.wait()
            raise
        seconds = time.monotonic() - started
        received = os.fstat(out.fileno()).st_size
        outcome = Outcome(
            os.uname().nodename,
            began,
            seconds,
            code,
            received,
            _taken(out, beside + ".out"),
            _taken(err, beside + ".err"),
        )
    if code:
        raise CommandFailed(outcome)
    return outcome


def _taken(file: IO[bytes], path: str) -> bytes | str:
    """What is in a file, or where it has been laid if it is large."""
    file.seek(0)
    if os.fstat(file.fileno()).st_size <= LARGE:
        return file.read()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as target:
        shutil.copyfileobj(file, target, 1 << 20)
    return path
