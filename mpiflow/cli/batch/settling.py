"""Handing out the commands, and taking what comes back: output to the console, a line to the joblog, a count."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import IO, Any

from mpiflow import exitcodes
from mpiflow.cli.batch.command import CommandFailed, Outcome
from mpiflow.cli.batch.joblog import Entry, Joblog
from mpiflow.cli.batch.template import BatchError
from mpiflow.errors import FarmLost

#: Failed jobs above which only that is told.
MOST_COUNTED = 100
#: What the joblog has for a job whose end nobody saw: its runner died, or its command could not be started.
NO_EXIT_CODE = 255

#: Codes that tell a batch script something else than a number of failed jobs.
_RESERVED = {exitcodes.NOT_STARTED, exitcodes.WORLDS_OF_ONE, exitcodes.DRAINED, exitcodes.RELAUNCH}


def exit_code(failed: int) -> int:
    """How a batch ends with so many failed jobs.

    Examples
    --------
    >>> exit_code(0), exit_code(7), exit_code(100), exit_code(5000)
    (0, 7, 100, 101)
    >>> exit_code(exitcodes.DRAINED)
    87
    """
    code = min(failed, MOST_COUNTED + 1)
    while code in _RESERVED:
        code += 1
    return code


class Settling:
    """What has come of the jobs.

    Parameters
    ----------
    joblog : Joblog or None
        Where each is written down.
    failed : int
        Failures to begin with.
    """

    def __init__(self, joblog: Joblog | None, failed: int = 0) -> None:
        self.failed = failed
        self._joblog = joblog
        self._ended: SimpleQueue[int] = SimpleQueue()
        self._under_way: dict[int, tuple[bytes, Future[Outcome]]] = {}

    def run(self, jobs: Iterable[tuple[int, bytes]], call: Callable[[bytes, int], Future[Any]], most: int) -> None:
        """Run jobs and settle each when it has ended.

        Parameters
        ----------
        jobs : iterable of (int, bytes)
            Numbers and commands.
        call : callable
            Makes a future of a command and its number.
        most : int
            Jobs that are under way at once, at most: a batch of millions does not fill the memory.
        """
        try:
            for number, command in jobs:
                future = call(command, number)
                self._under_way[number] = command, future
                future.add_done_callback(lambda _, number=number: self._ended.put(number))  # type: ignore[misc]
                while self._settle_next(wait=len(self._under_way) >= most):
                    pass
            while self._under_way:
                self._settle_next(wait=True)
        except (SystemExit, KeyboardInterrupt, FarmLost):
            # The drain, Ctrl-C: what has ended until now is worth a line, or it would be run again.
            for number, (_, future) in list(self._under_way.items()):
                if future.done() and not isinstance(future.exception(), FarmLost):  # those have not run: no line
                    self._settle(number)
            raise

    def _settle_next(self, wait: bool) -> bool:
        """Settle a job that has ended; whether there was one."""
        try:
            number = self._ended.get(wait)
        except Empty:
            return False
        self._settle(number)
        return True

    def _settle(self, number: int) -> None:
        command, future = self._under_way[number]
        outcome: Outcome | None = None
        try:
            outcome = future.result()
        except CommandFailed as failure:
            outcome = failure.outcome
        except FarmLost:
            raise
        except Exception as error:  # of the runner's, not of the command's
            print(f"mpiflow: job {number} ({_shown(command)}): {error}", file=sys.stderr, flush=True)
        if outcome is not None:
            _show(outcome.out, sys.stdout.buffer, "output")
            _show(outcome.err, sys.stderr.buffer, "error")
        entry = _entry(number, command, outcome)
        if self._joblog is not None:
            self._joblog.add(entry)
        self.failed += entry.failed
        del self._under_way[number]


def _entry(number: int, command: bytes, outcome: Outcome | None) -> Entry:
    if outcome is None:
        return Entry(number, os.uname().nodename, time.time(), 0.0, 0, NO_EXIT_CODE, 0, command)
    code, signal = (outcome.code, 0) if outcome.code >= 0 else (0, -outcome.code)
    return Entry(number, outcome.host, outcome.began, outcome.seconds, outcome.received, code, signal, command)


def _shown(command: bytes) -> str:
    text = command.decode("utf-8", "backslashreplace")
    return text if len(text) <= 60 else text[:59] + "…"


def _show(printed: bytes | str, stream: IO[bytes], which: str) -> None:
    """Write what a command has printed; what was laid into a file goes from there."""
    try:
        if isinstance(printed, bytes):
            stream.write(printed)
        else:
            with open(printed, "rb") as file:
                shutil.copyfileobj(file, stream, 1 << 20)
        stream.flush()
    except OSError as error:
        raise BatchError(f"standard {which} cannot be written: {error.strerror}") from error
    if isinstance(printed, str):
        os.unlink(printed)
