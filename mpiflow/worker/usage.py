"""What a task uses: processor, memory, files. Loaded where a run is monitored, and by nobody else.

Two look at it. The process that runs tasks, a runner or the rank itself, does so at the end of each: getrusage and two
files of /proc that it keeps open. And the rank looks at a runner whose task goes on for long, at what it has
and all below it, by reading /proc as psutil would.

A process counts from its own start, and a task wants to know from its begin. So with each answer goes what the process
had used by then (`Spent`), which the rank takes off the next task's when it looks.

The time of day is told from here, and nowhere else below rank 0. Nothing goes by it.
"""

from __future__ import annotations

import os
import resource
import time
from struct import Struct

from mpiflow import linux
from mpiflow.comm.wire import HEADER, USAGE, USED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mpiflow.worker.channel import Runner

#: What a process has used since its start, behind a USAGE: seconds of user and system, characters read and written,
#: switches of context of either kind.
SPENT = Struct("<ddQQQQ")
Spent = tuple[float, float, int, int, int, int]

#: After how many seconds rank 0 is told that a task runs, and how often to look for such.
NEWS_AFTER, LOOK_EVERY = 1.0, 0.2
_NOTHING: Spent = (0.0, 0.0, 0, 0, 0, 0)

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MEMORY = os.sysconf("SC_PHYS_PAGES") * _PAGE
_TICK = os.sysconf("SC_CLK_TCK")
#: A process that has waited for longer since its last task may have done something else meanwhile.
_IDLE = 0.001


class Meter:
    """Measures the tasks of this process, one after the other."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._stat, self._io = _opened("stat"), _opened("io")
        #: A rank has a zygote, which is no task's.
        self._others = _children()
        self._spent = self._spent_by_now()
        self._ended = self._began = time.monotonic()
        self._moment = time.time()

    def begin(self) -> None:
        """A task begins."""
        self._moment, self._began = time.time(), time.monotonic()
        if self._began - self._ended > _IDLE:
            self._spent = self._spent_by_now()

    def end(self, aid: int, tid: int, fid: int) -> bytes:
        """A task has ended: the record that says what it has used."""
        before, self._spent = self._spent, self._spent_by_now()
        self._ended = time.monotonic()
        moment = self._moment + self._ended - self._began
        fields = _fields(_read(self._stat))
        size, resident, processor = int(fields[20]), int(fields[21]) * _PAGE, int(fields[36])
        children = max(0, _children() - self._others)
        used = _since(before, self._spent)
        payload = USAGE.pack(
            self._moment, moment, True, True, self._pid, children, processor, 100.0 * resident / _MEMORY,
            used[0], used[1], size, resident, *used[2:], b"R",
        )  # fmt: skip
        return _record(aid, tid, fid, payload + SPENT.pack(*self._spent))

    def _spent_by_now(self) -> Spent:
        own, below = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        read, written = _characters(_read(self._io))
        return (
            own.ru_utime + below.ru_utime, own.ru_stime + below.ru_stime, read, written, own.ru_nvcsw + below.ru_nvcsw,
            own.ru_nivcsw + below.ru_nivcsw,
        )  # fmt: skip


def news(runners: list[Runner], every: float, now: float) -> list[bytes | memoryview]:
    """Records of what the tasks of runners use that have run for a while, or since their last look.

    Parameters
    ----------
    runners : list of Runner
        All of a pool.
    every : float
        Seconds between two looks at one task; 0: one look.
    now : float
        The time, by ``time.monotonic``.
    """
    told: list[bytes | memoryview] = []
    for runner in runners:
        if not runner.tasks or not runner.pid or runner.dropped:
            continue
        since = runner.looked or runner.began
        patience = (every or float("inf")) if runner.looked else min(NEWS_AFTER, every or NEWS_AFTER)
        if now - since >= patience:
            runner.looked = now
            spent = spent_at_end(runner.used) if runner.used else _NOTHING
            task = runner.tasks[0]
            told.append(look(runner.pid, now - runner.began, spent, task.aid, task.tid, task.fid))
    return told


def look(pid: int, ran: float, before: Spent, aid: int, tid: int, fid: int) -> bytes:
    """The record of what a runner's task uses while it runs, with all that it has started.

    Parameters
    ----------
    pid : int
        The runner.
    ran : float
        For how many seconds the task has run.
    before : Spent
        What the runner had used by then.
    aid, tid, fid : int
        Which task it is.
    """
    below = linux.descendants(pid)
    seen = [found for process in (pid, *below) if (found := _process(process)) is not None]
    if not seen or seen[0][0] != pid:  # it ends in this moment
        return only_began(ran, aid, tid, fid)
    sums = [sum(values) for values in zip(*(numbers for _, _, _, numbers in seen), strict=True)]
    size, resident, *spent = sums
    used = _since(before, (spent[0], spent[1], int(spent[2]), int(spent[3]), int(spent[4]), int(spent[5])))
    _, letter, processor, _ = seen[0]
    now = time.time()
    payload = USAGE.pack(
        now - ran, now, False, True, pid, len(seen) - 1, processor, 100.0 * resident / _MEMORY,
        used[0], used[1], int(size), int(resident), *used[2:], letter.encode(),
    )  # fmt: skip
    return _record(aid, tid, fid, payload)


def only_began(ran: float, aid: int, tid: int, fid: int) -> bytes:
    """The record that says when a task began, and no more: of one whose process has died."""
    now = time.time()
    return _record(aid, tid, fid, USAGE.pack(now - ran, now, False, False, *(0,) * 12, b" "))


def spent_at_end(payload: bytes) -> Spent:
    """What a process had used when it said this at the end of a task."""
    return SPENT.unpack_from(payload, USAGE.size)


def _record(aid: int, tid: int, fid: int, payload: bytes) -> bytes:
    return HEADER.pack(aid, tid, fid, len(payload), 0.0, USED, 0) + payload


def _since(before: Spent, now: Spent) -> Spent:
    """The difference, never below zero: /proc counts in other units than getrusage, and not all threads everywhere."""
    return tuple(max(0, b - a) for a, b in zip(before, now, strict=True))  # type: ignore[return-value]


def _process(pid: int) -> tuple[int, str, int, tuple[float, ...]] | None:
    """Of one process: its number, its state, its processor; address space, memory, and what it has used."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = _fields(stat.read())
    except OSError:
        return None
    voluntary = involuntary = read = written = 0
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            for line in status:
                if line.startswith(b"voluntary_ctxt"):
                    voluntary = int(line.split()[1])
                elif line.startswith(b"nonvoluntary_ctxt"):
                    involuntary = int(line.split()[1])
        with open(f"/proc/{pid}/io", "rb") as io:
            read, written = _characters(io.read())
    except OSError:
        pass  # hidden from us, or it has ended: zeros are told
    user, system = (int(fields[11]) + int(fields[13])) / _TICK, (int(fields[12]) + int(fields[14])) / _TICK
    numbers = int(fields[20]), int(fields[21]) * _PAGE, user, system, read, written, voluntary, involuntary
    return pid, fields[0].decode(), int(fields[36]), numbers


def _children() -> int:
    return len(linux.children()) if linux.has_children() else 0


def _opened(name: str) -> int:
    """A file about this very process, to be read again and again."""
    try:
        return os.open(f"/proc/self/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no Linux, or hidden: zeros are told
        return -1


def _read(fd: int) -> bytes:
    try:
        return os.pread(fd, 1024, 0)
    except OSError:  # a task has closed it
        return b""


def _fields(stat: bytes) -> list[bytes]:
    """What /proc/PID/stat says behind the program's name, which may be anything; zeros where it says nothing.

    A task may have closed the file, and opened one of its own under the same number.
    """
    found = stat.rpartition(b")")[2].split()
    right = len(found) > 36 and found[20].isdigit() and found[21].isdigit() and found[36].isdigit()
    return found if right else [b"0"] * 37


def _characters(io: bytes) -> tuple[int, int]:
    """Characters read and written, of what /proc/PID/io says; zeros where it is another file."""
    lines = io.split(b"\n", 2)
    right = len(lines) > 2 and lines[0].startswith(b"rchar: ") and lines[1].startswith(b"wchar: ")
    return (int(lines[0][6:]), int(lines[1][6:])) if right else (0, 0)
