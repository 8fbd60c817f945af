"""What one runner's tasks print: two pipes, and a limit on how much of it travels.

A console is for a person. A task that prints megabytes is cut to `MOST_BYTES` a second and runner; the rest
is read (a full pipe would stop the task), counted and left out.
"""

from __future__ import annotations

import os
import time
from _pickle import dumps  # not `pickle`: see comm.pickling

from mpiflow.comm.wire import OUTPUT, record

#: Bytes a second that one runner's tasks may send to the console.
MOST_BYTES = 16 * 1024
CHUNK = 64 * 1024


class Output:
    """Both pipes of a runner, and what has been read from them and not been taken."""

    def __init__(self) -> None:
        self._pipes = {1: os.pipe(), 2: os.pipe()}
        #: Descriptors to read from.
        self.watched = [read for read, _ in self._pipes.values()]
        #: Descriptors the runner writes to, standard output first.
        self.fds = [write for _, write in self._pipes.values()]
        self._stream_of = {read: stream for stream, (read, _) in self._pipes.items()}
        for fd in self.watched:
            os.set_blocking(fd, False)
        self._lines: list[tuple[int, int, int, bytes, int]] = []
        self._allowance = MOST_BYTES
        self._second = 0

    def started(self) -> None:
        """The runner has its ends; close ours of them."""
        for fd in self.fds:
            os.close(fd)

    def read(self, fd: int, tid: int, fid: int) -> int:
        """Read what is there and ascribe it to a task, given by its number and its function's.

        Returns
        -------
        int
            Bytes read; 0 when there are none now, -1 when the pipe has ended.
        """
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return 0
        if not data:
            return -1
        second = int(time.monotonic())
        if second != self._second:
            self._second = second
            self._allowance = MOST_BYTES
        kept = data[: self._allowance]
        self._allowance -= len(kept)
        stream = self._stream_of[fd]
        left_out = len(data) - len(kept)
        if self._lines and self._lines[-1][:3] == (tid, fid, stream):
            _, _, _, text, more = self._lines.pop()
            kept, left_out = text + kept, left_out + more
        self._lines.append((tid, fid, stream, kept, left_out))
        return len(data)

    def drain(self, tid: int, fid: int) -> None:
        """Read all that both pipes hold; the runner has died and writes no more."""
        for fd in self.watched:
            while self.read(fd, tid, fid) > 0:
                pass

    def take(self) -> bytes:
        """A record of what has been read since the last call; empty when there is none."""
        if not self._lines:
            return b""
        lines, self._lines = self._lines, []
        return record(OUTPUT, dumps(lines, 5))

    def close(self) -> None:
        """Close the reading ends."""
        for fd in self.watched:
            os.close(fd)
