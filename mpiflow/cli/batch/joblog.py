"""The joblog: one line for each job that has ended, in GNU parallel's columns, and what is read from it to resume.

The file is appended to, one ``write()`` a line, so whenever the run dies it holds all jobs that had ended, and at most
its last line is torn. That line is cut off when the file is taken up again, and its job is run again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from mpiflow.cli.batch.template import BatchError

HEADER = b"Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n"
_COLUMNS = 9


class Entry(NamedTuple):
    """A job that has ended.

    Attributes
    ----------
    number : int
        From 1 up, in the order of the commands.
    host : str
        Where it ran.
    began : float
        Seconds since the epoch.
    seconds : float
        How long it ran.
    received : int
        Bytes that it wrote to its standard output.
    exit_code, signal : int
        How it ended; the exit code is 0 when a signal ended it, as GNU parallel has it.
    command : bytes
        The command itself.
    """

    number: int
    host: str
    began: float
    seconds: float
    received: int
    exit_code: int
    signal: int
    command: bytes

    @property
    def failed(self) -> bool:
        """Whether it has to be counted, and is tried again by ``--resume-failed``."""
        return bool(self.exit_code or self.signal)

    def line(self) -> bytes:
        """Its line."""
        fields = f"{self.number}\t{self.host}\t{self.began:.3f}\t{self.seconds:10.3f}\t0\t{self.received}\t"
        return f"{fields}{self.exit_code}\t{self.signal}\t".encode() + self.command + b"\n"


def read(path: str, report: Callable[[str], object]) -> dict[int, Entry]:
    """The last entry of each job in a joblog; none where there is no file.

    Parameters
    ----------
    path : str
        The file: of an earlier run, or of GNU parallel.
    report : callable
        Is told, in words, of a torn line, which is left out.

    Raises
    ------
    BatchError
        It cannot be read, or is no joblog; naming the line.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BatchError(f"--joblog {path}: {error.strerror}") from error
    *lines, torn = data.split(b"\n")
    if torn:
        report(f"{path}: its last line is not whole; that job is run again")
    if lines and lines[0] + b"\n" != HEADER:
        raise BatchError(f"--joblog {path} is no joblog: its first line is {lines[0][:60]!r}")
    found: dict[int, Entry] = {}
    for number, line in enumerate(lines[1:], 2):
        entry = _parsed(line, f"--joblog {path}, line {number}")
        found[entry.number] = entry
    return found


def _parsed(line: bytes, place: str) -> Entry:
    fields = line.split(b"\t", _COLUMNS - 1)
    try:
        number, host, began, seconds, _, received, exit_code, signal, command = fields
        return Entry(
            int(number),
            os.fsdecode(host),
            float(began),
            float(seconds),
            int(received),
            int(exit_code),
            int(signal),
            command,
        )
    except ValueError as error:
        raise BatchError(f"{place} is damaged: {line[:60]!r} has not the columns of a joblog") from error


class Joblog:
    """A joblog that is written.

    Parameters
    ----------
    path : str
        The file.
    anew : bool
        Whether what is in it goes; else it is appended to, behind its last whole line.

    Raises
    ------
    BatchError
        It cannot be written.
    """

    def __init__(self, path: str, anew: bool) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            whole = 0
            if stat.S_ISREG(os.fstat(self._fd).st_mode):  # not /dev/null, nor a pipe: they have nothing to cut off
                whole = 0 if anew else _whole_lines(self._fd)
                os.ftruncate(self._fd, whole)
            if not whole:
                self._write(HEADER)
        except OSError as error:
            raise BatchError(f"--joblog {path} cannot be written: {error.strerror}") from error

    def add(self, entry: Entry) -> None:
        """Append an entry.

        Raises
        ------
        BatchError
            It cannot be written. What is in the file stays as it is.
        """
        try:
            self._write(entry.line())
        except OSError as error:
            raise BatchError(f"--joblog {self.path} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _write(self, line: bytes) -> None:
        left = memoryview(line)
        while left:
            left = left[os.write(self._fd, left) :]


def _whole_lines(fd: int) -> int:
    """Bytes up to the end of the last whole line."""
    size = os.fstat(fd).st_size
    data = os.pread(fd, size, 0)
    return data.rfind(b"\n") + 1
