"""What a task leaves running, and how it is ended. Loaded when there is something.

A runner adopts the orphans below it, so that whatever its task has started is its descendant, whether it made
itself a session or forked twice. After a task one system call tells that there is no child at all, which is
nearly always so; otherwise all descendants are killed, and waited for. When a runner dies, its descendants come to
the zygote, which does the same to every child that is no runner.

Two kinds are spared. `multiprocessing` (and loky, which has it from there) starts a resource tracker and a
forkserver for a whole process, a runner's tasks share them, and what they were started for would fail without.
And a tracker whose runner has died may unlink what that has left in /dev/shm: it ends by itself when it has.

A task that leaves processes *and* threads behind may have left a pool. Its processes are killed while they hold
the locks of its queues, so the next task to use it would wait for ever: such a runner is not used again.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from mpiflow import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

#: How long a runner goes on killing before it takes the next task, in seconds, and a zygote before it looks about.
KILL_WITHIN, ZYGOTE_KILLS_WITHIN = 1.0, 0.05
#: Modules with a servant of the process: where it is kept, and where that keeps the process id.
_SERVANTS = (
    ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
    ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
    ("loky.backend.resource_tracker", "_resource_tracker", "_pid"),
    ("joblib.externals.loky.backend.resource_tracker", "_resource_tracker", "_pid"),
)


def end_remains() -> bool:
    """Kill what a task has left below this process; whether there was anything to kill."""
    spared = _servants()
    killed = False
    end = time.monotonic() + KILL_WITHIN
    while below := [pid for pid in living(os.getpid()) if pid not in spared]:
        killed = True
        _kill_and_reap(below)
        if time.monotonic() > end:
            break  # the kernel holds it; at its next end it is looked at again
    _reap()
    return killed


def threads_are_left() -> bool:
    """Whether another thread than this one runs Python code."""
    return len(sys._current_frames()) > 1


def end_orphans(runners: Container[int], tidy: float) -> bool:
    """Kill the children of this process, a zygote, that are no runners, and all below them.

    Parameters
    ----------
    runners : container of int
        Process ids of what is to live on.
    tidy : float
        Until when, by ``time.monotonic``, resource trackers are spared.

    Returns
    -------
    bool
        Whether none is left.
    """
    end = time.monotonic() + ZYGOTE_KILLS_WITHIN
    while orphans := [pid for pid in linux.children() if pid not in runners]:
        sparing = time.monotonic() < tidy
        doomed = [pid for pid in orphans if not (sparing and linux.command_has(pid, b"resource_tracker"))]
        if not doomed or time.monotonic() > end:
            return False
        _kill_and_reap([*doomed, *(pid for orphan in doomed for pid in linux.descendants(orphan))], doomed)
    return True


def living(pid: int) -> list[int]:
    """Descendants of a process that are more than an entry that waits for its parent."""
    return [below for below in linux.descendants(pid) if linux.state(below)[0] not in ("", "Z", "X")]


def _kill_and_reap(pids: list[int], reap: list[int] | None = None) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue  # has ended meanwhile; or is another user's by set-uid, and beyond our reach
    time.sleep(0.0005)
    if reap is None:
        _reap()
        return
    for pid in reap:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue


def _reap() -> None:
    """Wait for every child that has ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return  # there is none any more


def _servants() -> set[int]:
    """Process ids of what `multiprocessing` runs for this process as a whole."""
    found = set()
    for module, place, attribute in _SERVANTS:
        if module in sys.modules:
            pid = getattr(getattr(sys.modules[module], place, None), attribute, None)
            if pid is not None:
                found.add(pid)
    return found
