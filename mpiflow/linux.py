"""Every call that only Linux has, with what happens elsewhere.

mpiflow runs on Linux; on another Unix what is here does less, as each docstring says, and the rest works.
"""

from __future__ import annotations

import os
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as signal
    from collections.abc import Iterable
else:
    # For other modules to import: signal.py gives the same numbers names, and is one more file for every rank to open.
    import _signal as signal  # noqa: F401

if sys.platform == "linux":
    FIONREAD = 0x541B  # termios has it too, but is one more file for every rank to open
else:
    from termios import FIONREAD  # noqa: F401

_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29
_PR_SET_CHILD_SUBREAPER = 36
_PAGE = os.sysconf("SC_PAGESIZE")


def _prctl(option: int, argument: int) -> None:
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)


def die_with_parent(signal_number: int, parent: int) -> None:
    """Have the kernel send this process a signal when its parent ends.

    The kernel ties this to the *thread* that forked: fork from a main thread. Elsewhere than on Linux, an
    orphan notices the end of its socket instead.

    Parameters
    ----------
    signal_number : int
        What to die of.
    parent : int
        The parent's process id; if it has gone already, this process ends here.
    """
    _prctl(_PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends. Elsewhere: they go to init."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def exit_now(code: int) -> None:
    """End by libc's exit(), without Python's own end, which waits for threads; does not return.

    ``os._exit`` will not do: MPICH tells its launcher from libc's exit handlers that all is well.
    """
    import ctypes

    ctypes.CDLL(None).exit(code)


def sleep_exactly() -> None:
    """Sleeps of 10 µs last 10 µs, not 60: the kernel no longer rounds this process's timers."""
    _prctl(_PR_SET_TIMERSLACK, 1)


def bind(cpus: Iterable[int]) -> None:
    """Have this process run on these processors only. Elsewhere: it runs on all."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)


def children(pid: int = 0) -> list[int]:
    """Process ids of the children of a process, of this one by default. Elsewhere: none are known."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid or 'self'}/task"):  # each has a list of those it has forked itself
            with open(f"/proc/{pid or 'self'}/task/{thread}/children") as listing:
                found += map(int, listing.read().split())
    except OSError:
        return found  # it, or one of its threads, has ended meanwhile
    return found


def descendants(pid: int) -> list[int]:
    """Process ids of all below a process, parents before their children. Elsewhere: none are known."""
    found = children(pid)
    for child in found:  # which grows
        found += children(child)
    return found


def has_children() -> bool:
    """Whether this process has any child, one that waits to be waited for included; in a microsecond.

    Elsewhere: never.
    """
    if not hasattr(os, "waitid"):
        return False
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def resident_memory(pid: int) -> int:
    """Bytes of memory that a process has, those it shares included. Elsewhere, and when it has ended: 0."""
    try:
        with open(f"/proc/{pid}/statm") as statm:
            return int(statm.read().split()[1]) * _PAGE
    except OSError:
        return 0


def share_of_memory(pid: int) -> int:
    """The same, with what it shares with others counted in part: the parts of all of them make the whole.

    Costs the kernel a walk over all of its pages, so ask when it matters. Where it is not told: all counts.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            for line in rollup:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return resident_memory(pid)
    return resident_memory(pid)


def child_has_ended() -> bool:
    """Whether a child waits to be waited for; raises ChildProcessError when there is none at all.

    Elsewhere: always true, so ask with WNOHANG.
    """
    if not hasattr(os, "waitid"):
        return True
    return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def end_of(pid: int) -> int:
    """Descriptor that becomes readable when a child ends. Elsewhere, and on old kernels: -1."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1


def state(pid: int) -> tuple[str, int]:
    """What a process is doing, by the letter of ``/proc/PID/stat``, and its parent. Elsewhere: nothing is known.

    Parameters
    ----------
    pid : int
        The process.

    Returns
    -------
    tuple
        The letter, empty when it has ended, and the parent's process id.
    """
    try:
        with open(f"/proc/{pid}/stat") as stat:
            letter, parent = stat.read().rpartition(")")[2].split(maxsplit=2)[:2]
    except OSError:
        return "", 0
    return letter, int(parent)


def is_stopped(pid: int) -> bool:
    """Whether a process has been stopped by a signal, and not by a debugger. Elsewhere: never."""
    return state(pid)[0] == "T"


def command_has(pid: int, part: bytes) -> bool:
    """Whether a process was started by a command line with `part` in it. Elsewhere: never."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as words:
            return part in words.read()
    except OSError:
        return False


def offer_to_out_of_memory_killer() -> None:
    """When memory runs out, have the kernel take this process first. Elsewhere: its own choice."""
    try:
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
    except OSError:
        return  # not Linux, or a container that forbids it: nothing depends on it


def memory_file(size: int) -> int:
    """Descriptor of `size` bytes of memory without a name. Elsewhere: an unlinked temporary file."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("mpiflow", os.MFD_CLOEXEC)
    else:
        import tempfile

        fd, path = tempfile.mkstemp()
        os.unlink(path)
    os.ftruncate(fd, size)
    return fd


def open_descriptors() -> list[int]:
    """Descriptors this process has open; elsewhere those below 1024, which may include closed ones."""
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return list(range(1024))


def loaded_libraries(part: str) -> list[str]:
    """Paths of mapped files with `part` in their file name. Elsewhere: none are known.

    Examples
    --------
    >>> loaded_libraries("no such library")
    []
    """
    found: list[str] = []
    try:
        with open("/proc/self/maps") as maps:
            for line in maps:
                path = line.split(maxsplit=5)[-1].strip()
                if path.startswith("/") and part in os.path.basename(path) and path not in found:
                    found.append(path)
    except OSError:
        return found
    return found


def unlink_mapped(prefix: str) -> None:
    """Remove the files, mapped into this process, whose paths begin so. Elsewhere: none are known."""
    try:
        with open("/proc/self/maps") as maps:
            paths = {line.split(maxsplit=5)[-1].strip() for line in maps if prefix in line}
    except OSError:
        return
    for path in paths:
        try:
            os.unlink(path)
        except OSError:
            continue  # another rank of this node was faster


def says_no_more(fd: int) -> bool:
    """Whether the other end of a socket has said that it sends nothing more, whatever lies in it still."""
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))


class Watch:
    """Waits on many descriptors with microsecond time-outs.

    ``epoll`` itself counts in milliseconds and ``select`` cannot take descriptors above 1023, so a select
    waits on the epoll descriptor alone. Elsewhere: plain ``select`` on all of them.
    """

    def __init__(self) -> None:
        self._fds: set[int] = set()
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._waited_on = [self._epoll] if self._epoll is not None else []

    def add(self, fd: int) -> None:
        """Watch a descriptor for something to read."""
        self._fds.add(fd)
        if self._epoll is not None:
            self._epoll.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        """Watch a descriptor no longer; call it before closing."""
        self._fds.discard(fd)
        if self._epoll is not None:
            self._epoll.unregister(fd)

    def wait(self, seconds: float) -> list[int]:
        """Descriptors with something to read (or whose other end has gone), after at most so long."""
        if self._epoll is None:
            return list(select.select(list(self._fds), [], [], seconds)[0])
        if seconds > 0 and not select.select(self._waited_on, [], [], seconds)[0]:
            return []
        return [fd for fd, _ in self._epoll.poll(0)]

    def close(self) -> None:
        """Give the descriptor back."""
        if self._epoll is not None:
            self._epoll.close()


# --- how many processors this process may use, which is seldom how many the machine has -----------------------


def usable_cpus() -> int:
    """Processors this process may use: its affinity mask, cut by the quotas of its control groups.

    Returns
    -------
    int
        At least 1; half a processor of quota counts as none.
    """
    quota = cpu_quota("/sys/fs/cgroup", "/proc/self/cgroup")
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def share_of_cores(ranks: int) -> int:
    """Processors that each of several ranks on a node may use.

    Parameters
    ----------
    ranks : int
        Ranks on this node. When the launcher has bound each to processors of its own, those are its share;
        when all may use the same, they are divided.
    """
    mine = usable_cpus()
    bound = mine * ranks <= (os.cpu_count() or 1)
    return mine if bound else max(1, mine // ranks)


def cpu_quota(root: str | os.PathLike[str], membership: str | os.PathLike[str]) -> float | None:
    """Processors granted by the tightest control group around this process, version 1 or 2; None for no quota.

    Parameters
    ----------
    root : path
        Where control groups are mounted.
    membership : path
        The file that names this process's.
    """
    quotas: list[float | None] = []
    for line in _read(membership).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            quotas += [_quota(f"{level}/cpu.max") for level in _levels(os.fspath(root), path)]
        elif "cpu" in controllers.split(","):
            quotas += [_quota_v1(level) for level in _levels(os.path.join(root, "cpu"), path)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _levels(root: str, path: str) -> list[str]:
    """A group's directory and all above it. In a container the path may exist only from the root on."""
    names = [name for name in path.split("/") if name]
    return [os.path.join(root, *names[:depth]) for depth in range(len(names), -1, -1)]


def _quota(path: str) -> float | None:
    """Version 2: ``150000 100000`` is 1.5 processors, ``max 100000`` is no limit, no file is none either."""
    words = _read(path).split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0] != "max" else None


def _quota_v1(level: str) -> float | None:
    """Version 1: the same in two files, where -1 is no limit."""
    quota = _read(f"{level}/cpu.cfs_quota_us").strip()
    period = _read(f"{level}/cpu.cfs_period_us").strip()
    limited = quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0
    return int(quota) / int(period) if limited else None


def _read(path: str | os.PathLike[str]) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""  # no such level, not this version, or not Linux
