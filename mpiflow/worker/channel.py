"""The pool's end of one runner: the sockets to it, what it has been given, and what it prints.

A console is for a person. A task that prints megabytes is cut to `MOST_BYTES` a second and runner; the rest
is read (a full pipe would stop the task), counted and left out.
"""

from __future__ import annotations

import os
import time
from _pickle import dumps  # not `pickle`: see comm.pickling
from collections import deque
from contextlib import suppress

from mpiflow.comm.sockets import packet_pair, stream_pair
from mpiflow.comm.wire import OUTPUT, record
from mpiflow.linux import memory_file, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mpiflow.comm.segments import Segment
    from mpiflow.comm.sockets import socket

#: Bytes a second that one runner's tasks may send to the console.
MOST_BYTES = 16 * 1024
CHUNK = 64 * 1024


class Task:
    """What the pool knows of a task: its header, and the bytes to pass on."""

    __slots__ = ("aid", "attachments", "fid", "kind", "record", "size", "tid", "walltime")

    def __init__(
        self,
        aid: int,
        tid: int,
        fid: int,
        walltime: float,
        kind: int,
        record: memoryview,
        attachments: list[Segment],
    ) -> None:
        self.aid = aid
        self.tid = tid
        self.fid = fid
        self.walltime = walltime
        self.kind = kind
        self.record = record
        self.attachments = attachments
        #: Bytes that a runner has to take for it.
        self.size = len(record) + sum([len(segment) for segment in attachments]) if attachments else len(record)

    def close(self) -> None:
        """Give back the descriptors of its attachments."""
        for segment in self.attachments:
            segment.close()


class Runner:
    """The pool's end of one runner."""

    __slots__ = (
        "_last",
        "began",
        "called_back",
        "channels",
        "deadline",
        "dropped",
        "excess",
        "functions",
        "leaving",
        "looked",
        "needed",
        "outgoing",
        "output",
        "overtime",
        "partial",
        "pid",
        "records",
        "segments",
        "single_use",
        "size",
        "slot",
        "stacks",
        "stopped",
        "tasks",
        "to_run",
        "used",
    )  # fmt: skip

    def __init__(self, single_use: bool, slot: int, to_run: int = 0) -> None:
        self.slot = slot
        self.records, records = stream_pair()
        self.segments, segments = packet_pair()
        self.output = Output()
        #: Ends that the runner gets; closed here once it has them.
        self.channels: list[socket] = [records, segments]
        self.records.setblocking(False)
        self.single_use = single_use
        self.pid = 0
        self._last = 0, 0
        #: Tasks given to it that have no result yet, the running one first, and how many bytes they are.
        self.tasks: deque[Task] = deque()
        self.size = 0
        self.functions: set[int] = set()
        #: Bytes its socket had no room for.
        self.outgoing: list[memoryview | bytes] = []
        #: The beginning of a record whose end has not arrived.
        self.partial = bytearray()
        #: Bytes it has when it is whole, 0 as long as that is not known.
        self.needed = 0
        self.deadline = 0.0
        #: The task it is killed for, and what to say of that beside the kind.
        self.overtime: Task | None = None
        self.excess = b""
        self.dropped = False
        #: Whether it has said that it ends, and that what it was given ahead has not begun.
        self.leaving = False
        #: Whether it is yet to be told that it is to leave, with what it has not begun.
        self.called_back = False
        #: Tasks it may yet be given; 0: any number.
        self.to_run = to_run
        #: File in which it writes its stacks.
        self.stacks = memory_file(0)
        #: For how many seconds it has been seen stopped.
        self.stopped = 0.0
        #: Where the run is monitored: when the task that runs began, when its use was last looked at (0: not yet), and
        #: what the runner has said at the end of the one before.
        self.began = 0.0
        self.looked = 0.0
        self.used = b""

    @property
    def running(self) -> tuple[int, int]:
        """Number of the task that runs, and of its function; of the last one that did, when none does."""
        if self.tasks:
            self._last = self.tasks[0].tid, self.tasks[0].fid
        return self._last

    @property
    def usable(self) -> bool:
        """Whether it may be given tasks: it is not for one task only, nor about to be killed."""
        return not (self.single_use or self.overtime or self.dropped)

    def kill(self) -> None:
        """End it; what its task has started is the zygote's to end."""
        if self.pid:
            with suppress(ProcessLookupError):  # it ended by itself in this moment
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close this end; a runner that waits for tasks then leaves."""
        self.records.close()
        self.segments.close()
        self.output.close()
        os.close(self.stacks)


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
