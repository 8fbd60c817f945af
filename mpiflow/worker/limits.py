"""What ends a runner before its task has ended: limits of time and of memory, and a signal that has stopped it.

A task may have a limit of memory. While such a task runs, and only then, the pool looks twenty times a second at
what its runner and all processes below it have in memory: as the kernel counts it, which is cheap, and only when that
is above the limit with shared pages counted once, which is dear. ``setrlimit`` was no way: it limits each process on
its own, by addresses and not by memory. What earlier tasks have left in the runner counts too.

A runner, or the zygote, that somebody has stopped by a signal would never answer: every two seconds their states are
looked at, while there is work. The zygote is told to go on; a runner has its time, for somebody may look at what its
task does. What stays stopped is killed, and then all goes on as with any other death.

Nothing is charged here: whoever is killed has died, and `worker.pool` hears of it as of any other death.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

from mpiflow import linux
from mpiflow.comm.wire import EXCESS
from mpiflow.linux import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque

    from mpiflow.worker.channel import Runner, Task
    from mpiflow.worker.zygote import Zygote

#: How often the memory of a task with a limit is looked at, in seconds.
MEASURE_EVERY = 0.05
#: How often the states of processes are looked at, and how long one may be stopped by a signal, in seconds.
LOOK_EVERY, STOPPED_AT_MOST = 2.0, 10.0
#: At how many of these, after the death of a zygote, orphans that have come to this process are killed.
LOOKS_AT_ORPHANS = 3


class TaskLimits:
    """The limits of one pool's tasks.

    Parameters
    ----------
    runners : list of Runner
        The pool's own list.
    """

    def __init__(self, runners: list[Runner]) -> None:
        self._runners = runners
        #: By attempt, the memory that a task may use and the most it has been seen to use; empty for most pools.
        self.memory: dict[int, list[int]] = {}
        self._measure_at = 0.0
        self._look_at = time.monotonic() + LOOK_EVERY
        self._zygote_stopped = 0.0
        self._looks_at_orphans = 0

    def until_next(self, seconds: float) -> float:
        """How long to wait at most, so that no walltime is overrun."""
        now = time.monotonic()
        for runner in self._runners:
            if runner.deadline:
                seconds = max(0.0, min(seconds, runner.deadline - now))
            if runner.outgoing:
                seconds = min(seconds, 0.001)
        if self.memory:
            seconds = max(0.0, min(seconds, self._measure_at - now))
        return seconds

    def end_overdue(self) -> bool:
        """Kill runners whose task has had its time; whether it is time to look for stopped processes as well."""
        now = time.monotonic()
        for runner in self._runners:
            if runner.deadline and now >= runner.deadline and runner.pid:
                runner.overtime = runner.tasks[0]
                runner.deadline = 0.0
                runner.kill()
        return now >= self._look_at

    def measure(self, queue: deque[Task]) -> None:
        """Look at the memory of tasks that have a limit, and end those that are above it.

        Parameters
        ----------
        queue : deque of Task
            What no runner has.
        """
        now = time.monotonic()
        if now < self._measure_at:
            return
        self._measure_at = now + MEASURE_EVERY
        held = {task.aid for task in queue}
        for runner in self._runners:
            held.update(task.aid for task in runner.tasks)
            limit = self.memory.get(runner.tasks[0].aid) if runner.tasks and runner.pid else None
            if limit is None or runner.overtime or runner.dropped:
                continue
            from mpiflow.worker.memory import of_tree

            limit[1] = max(limit[1], of_tree(runner.pid, limit[0]))
            if limit[1] > limit[0]:
                runner.overtime = runner.tasks[0]
                runner.excess = EXCESS.pack(*limit)
                runner.kill()
        for aid in self.memory.keys() - held:  # it has ended
            del self.memory[aid]

    def look_for_stopped(self, zygote: Zygote, needed: bool) -> None:
        """Kill what has been stopped by a signal for too long.

        Time in which this process did not run itself counts for one look: a batch system that suspends a job stops all
        of it.

        Parameters
        ----------
        zygote : Zygote
            What the runners come from.
        needed : bool
            Whether it has work, though no runner may have.
        """
        self._look_at = time.monotonic() + LOOK_EVERY
        working = [runner for runner in self._runners if runner.tasks and runner.pid]
        for runner in working:
            runner.stopped = runner.stopped + LOOK_EVERY if linux.is_stopped(runner.pid) else 0.0
            if runner.stopped >= STOPPED_AT_MOST:
                _say_stopped(f"a runner (pid {runner.pid})", runner.stopped)
                runner.stopped = 0.0
                runner.kill()
        if working or needed:
            self._wake(zygote)
        if self._looks_at_orphans:
            self._looks_at_orphans -= 1
            _end_orphans(zygote)

    def zygote_replaced(self, with_orphans: bool) -> None:
        """There is another zygote, and what the one before it has left may come to this process, or not."""
        self._zygote_stopped = 0.0
        if with_orphans:
            self._looks_at_orphans = LOOKS_AT_ORPHANS

    def _wake(self, zygote: Zygote) -> None:
        """Have a zygote go on that somebody has stopped: no task is in it. If that does not help, end it."""
        if not linux.is_stopped(zygote.pid):
            self._zygote_stopped = 0.0
            return
        self._zygote_stopped += LOOK_EVERY
        too_long = self._zygote_stopped >= STOPPED_AT_MOST
        if too_long:
            _say_stopped(f"the zygote (pid {zygote.pid})", self._zygote_stopped)
        with suppress(ProcessLookupError):
            os.kill(zygote.pid, signal.SIGKILL if too_long else signal.SIGCONT)


def _end_orphans(zygote: Zygote) -> None:
    """Kill what has come to this process from a zygote that had died."""
    for pid in linux.children():
        if pid != zygote.pid:
            with suppress(ProcessLookupError, ChildProcessError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)


def _say_stopped(what: str, seconds: float) -> None:
    words = f"mpiflow: {what} on {os.uname().nodename} has been stopped by a signal for {seconds:g} s; it is ended"
    print(words, file=sys.stderr, flush=True)
