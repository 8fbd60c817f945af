"""The drain: a job whose time is nearly over starts nothing that it cannot end, and leaves with its results saved.

It begins

* with SIGUSR1, by which batch systems warn (``#SBATCH --signal=USR1@120``, Grid Engine's ``s_rt``);
* by the clock, where the end of the job is known: some time before it (``--drain-before``), or as soon as there is a
  task that could not end in time any more;
* with a request, ``mpiflow drain RUNDIR``.

From then on a task is started only if it can end in time. What it needs is taken to be twice the mean of its app, or
its walltime where that is less; a task of an app that has never ended, and without a walltime, is started until the
margin of ``--drain-before`` is reached, or SIGUSR1 comes. Where nobody knows when the job ends, and on request, nothing
is started at all. Bodies of join_apps, and whatever else takes no worker, always run: they take no time.

Those that wait already in an executor are taken back, and so is what a worker has and has not begun. That is about ten
milliseconds of work, by what tasks of the app took so far; but where they take seconds now that took microseconds, it
is hundreds of tasks, which would run one after the other while the job wants to end.

When nothing runs any more and something is held back, the script is told: `JobDrained` in its main thread, at its
wait, its sleep or between any two of its instructions, and again at every later wait. It is a SystemExit, so the script
tidies up and the job ends with code 85. A script for which nothing was held back never hears of the drain. Failing the
held futures instead was rejected: ``except Exception`` round a ``result()`` would take it for a failed task.

A second SIGUSR1 some seconds after the first, and the end of the time itself, end the script at once in the same way.
All of this costs a dispatch one test where no end is known, and a look at each walltime where it is.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING

from mpiflow.errors import JobDrained
from mpiflow.exitcodes import DRAINED
from mpiflow.kernel import interrupts
from mpiflow.kernel.futures import INTERNAL
from mpiflow.kernel.task import FINAL_STATES, States
from mpiflow.monitor.progress import duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpiflow.kernel.app import App
    from mpiflow.kernel.dataflow import DataFlowKernel
    from mpiflow.kernel.task import Task
    from mpiflow.monitor.requests import Request

    #: Tasks that take equally long, as far as anybody knows: those of an app with the same walltime.
    Group = tuple[App, float]

#: Seconds between two looks.
LOOK_EVERY = 1.0
#: Seconds before the end of the job at which it leaves, whatever still runs: workers have to hear of it.
LEAVE_BEFORE = 5.0
#: When the drain begins by default: so many seconds before the end, but within its last part of this size.
MARGIN, MARGIN_PART = 120.0, 0.1
#: What a task needs at most, in mean times of its app.
CAUTION = 2.0
#: A second signal within so many seconds is the first one again: some launchers pass on what the batch system sends to
#: every process anyway.
SAME_SIGNAL = 3.0

#: Exit code of a job that was stopped: that of SIGTERM.
STOPPED = 143

_walltime = attrgetter("walltime")


class Job:
    """The end of this process's job, for all its kernels.

    Attributes
    ----------
    limit : float
        When it leaves, in seconds of `time.monotonic`; infinite while no end is known.
    margin : float
        Seconds before the limit at which the drain begins.
    source : str
        Who says so.
    why : str
        Why it is drained; empty while it is not.
    nothing_new : bool
        Whether the drain starts nothing at all.
    ended : str
        Why the script was told to leave; empty while it was not.
    left : int
        Tasks that had not ended when it did.
    told : callable
        Called once when the drain has begun.
    over : bool
        Whether the script has ended: there is nobody to tell any more.
    """

    def __init__(self) -> None:
        self.limit = inf
        self.margin = 0.0
        self.source = ""
        self.why = ""
        self.nothing_new = False
        self.ended = ""
        self.left = 0
        self.told: Callable[[], object] = _nobody
        self.over = False
        self.drains: list[Drain] = []
        self._said = False
        self._warned = -inf

    def end_at(self, end: float, before: float | None, now: float, source: str) -> None:
        """Let it be known when the job ends.

        Parameters
        ----------
        end, now : float
            In seconds of `time.monotonic`.
        before : float, optional
            Seconds before the end at which the drain begins.
        source : str
            Who says so.
        """
        self.source = source
        self.limit = max(now, end - LEAVE_BEFORE)
        margin = min(MARGIN, MARGIN_PART * (end - now)) if before is None else before
        if self.margin < inf:  # no warning has come
            self.margin = max(0.0, margin - LEAVE_BEFORE)

    def warn(self) -> None:
        """Take a SIGUSR1: the drain begins, or, if one has begun it, the script leaves."""
        now = time.monotonic()
        again = now - self._warned < SAME_SIGNAL
        if not again and self._warned > -inf:
            self.end("a second SIGUSR1")
        elif not again:
            self._warned = now
            self.margin = inf  # it is near enough for somebody to say so
            self.begin("SIGUSR1", nothing_new=self.limit == inf)

    def begin(self, why: str, nothing_new: bool) -> None:
        """Begin the drain, or have one that has begun start nothing more."""
        self.why = self.why or why
        self.nothing_new = self.nothing_new or nothing_new

    def end(self, how: str) -> None:
        """Have the script leave."""
        if not self.ended and not self.over:
            self.why = self.why or how
            self.ended = how
            interrupts.refuse_to_wait(_leave)
            interrupts.post(_leave())

    def words(self, now: float) -> str:
        """How far the drain is, for a person."""
        counts = [drain.kernel.counts() for drain in self.drains]
        running, waiting = sum(c.running for c in counts), sum(c.waiting for c in counts)
        left = f", {duration(max(0.0, self.limit - now))} are left ({self.source})" if self.limit < inf else ""
        started = "nothing more is started" if self.nothing_new else "only what can end in time is started"
        return f"draining: {self.why}{left}; {running:,} running tasks may end, {waiting:,} wait, {started}"

    def say(self, now: float) -> None:
        """Tell once that the drain has begun."""
        if self.why and not self._said:
            self._said = True
            print(f"mpiflow: {self.words(now)}", file=sys.stderr, flush=True)
            self.told()

    def say_ended(self) -> None:
        """Tell how the script was ended, and what to do, if it was."""
        if self.ended:
            tasks = "task has" if self.left == 1 else "tasks have"
            print(
                f"mpiflow: drained ({self.ended}): {self.left:,} {tasks} not ended. To resume, run the same command in "
                "the same directory: results of cached apps are kept",
                file=sys.stderr,
                flush=True,
            )


def _nobody() -> None:
    """There is nobody to tell."""


def _leave() -> JobDrained:
    return JobDrained(DRAINED)


#: The job of this process.
job = Job()


def answer_drain(request: Request) -> None:
    """Somebody wants the job drained."""
    job.begin(f"asked for by {request.by}", nothing_new=True)
    request.answer(f"{job.words(time.monotonic())}\n")


def answer_stop(request: Request) -> None:
    """Somebody wants the job ended now, as by SIGTERM."""
    print(f"mpiflow: stopped: asked for by {request.by}", file=sys.stderr, flush=True)
    interrupts.post(SystemExit(STOPPED))  # first: a full disk is a reason to stop, and takes no answer
    request.answer("stopping\n")


class Drain:
    """What one DataFlowKernel holds back. All but the constructor is called under its driver's lock.

    Parameters
    ----------
    kernel : DataFlowKernel
        Whose tasks.
    ready : deque of Task
        Its tasks that may be started.
    of : Job
        When the job ends.
    """

    def __init__(self, kernel: DataFlowKernel, ready: deque[Task], of: Job) -> None:
        self.kernel = kernel
        self._ready = ready
        self._job = of
        self._held: dict[Group, deque[Task]] = {}
        #: For each group that was looked at, whether its tasks are started.
        self._started: dict[Group, bool] = {}
        self._choosing = False
        self._longest = 0.0
        self._next = 0.0
        self._looks_without_work = 0
        self.idle = False  #: whether nothing runs, and nothing is about to
        of.drains.append(self)

    def close(self) -> None:
        """The kernel has ended."""
        if self in self._job.drains:
            self._job.drains.remove(self)

    # --- what is started ------------------------------------------------------------------------------------

    def hold_back(self) -> None:
        """Take out of the tasks that are ready those that cannot end in time; called with every dispatch."""
        ready, now = self._ready, time.monotonic()
        if not self._choosing:
            self._longest = max(self._longest, max(map(_walltime, ready)))
            if not self._job.why and self._job.limit - now > self._longest:
                return
            self._begin_to_choose()
        for _ in range(len(ready)):
            task = ready.popleft()
            if task.state in FINAL_STATES or _takes_no_time(task) or self._may_start((task.app, task.walltime), now):
                ready.append(task)
            else:
                self._hold(task)

    def _may_start(self, group: Group, now: float) -> bool:
        started = self._started.get(group)
        if started is None:
            started = self._started[group] = self._fits(group, now)
        return started

    def _fits(self, group: Group, now: float) -> bool:
        """Whether a task that is started now can end in time."""
        if self._job.nothing_new:
            return False
        app, walltime = group
        left = self._job.limit - now
        mean = self._mean(app)
        if mean is None and not walltime:
            return left > self._job.margin
        return min(inf if mean is None else CAUTION * mean, walltime or inf) <= left

    def _mean(self, app: App) -> float | None:
        """Seconds that tasks of an app take, on the executor where they take longest; None if none has ended."""
        places = self.kernel.places
        known = [seconds for label in places.labels if (seconds := places.bulk[label].seconds_of(app)) is not None]
        return max(known, default=None)

    def _hold(self, task: Task) -> None:
        self._held.setdefault((task.app, task.walltime), deque()).append(task)
        if not self._job.why:
            self._job.begin("the time of the job is nearly over", nothing_new=False)

    # --- once a second --------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look how late it is, if it is time to.

        Parameters
        ----------
        now : float
            `time.monotonic`, in seconds.
        """
        if now < self._next and (self._choosing or not self._job.why):
            return
        self._next = now + LOOK_EVERY
        late = self._job
        if late.limit < inf and not late.why and late.limit - now <= late.margin:
            late.begin("the time of the job is nearly over", nothing_new=False)
        if not self._choosing and (late.why or late.limit - now <= self._most_needed()):
            self._begin_to_choose()
        if self._choosing:
            self._choose(now)
        late.say(now)
        if now >= late.limit:
            late.end("the time of the job is over")
        elif late.why:
            self._end_if_idle()

    def _most_needed(self) -> float:
        """What the longest task may need, as far as is known."""
        if self._job.limit == inf:
            return 0.0
        places = self.kernel.places
        means = [places.bulk[label].longest() for label in places.labels]
        return max(self._longest, CAUTION * max(means, default=0.0))

    def _begin_to_choose(self) -> None:
        self._choosing = True
        for task in list(self.kernel.unended.values()):
            if task.state is States.launched and not _takes_no_time(task):
                self._started[task.app, task.walltime] = True

    def _choose(self, now: float) -> None:
        """Decide again for each group: an app whose first tasks have ended is known, and the time grows short."""
        late: set[Group] = set()
        for group, before in self._started.items():
            fits = self._started[group] = self._fits(group, now)
            if fits and not before:
                self._ready.extend(self._held.pop(group, ()))
            elif not fits:
                late.add(group)  # not only when it is new: what a lost worker had waits for another one again
        if late:
            self._take_back(late)

    def _take_back(self, groups: set[Group]) -> None:
        """Have executors give back what has not begun: at once what no worker has, the rest as workers come to it."""
        places = self.kernel.places
        others: dict[str, list[Task]] = {}
        for task in list(self.kernel.unended.values()):
            if task.state is not States.launched or (task.app, task.walltime) not in groups or _takes_no_time(task):
                continue
            if places.bulk[task.executor].revoke(task):
                task.tries -= 1
                task.state = States.fail_retryable if task.tries else States.pending
                if not task.tries:
                    places.load[task.executor] -= 1
                self._hold(task)
            else:
                others.setdefault(task.executor, []).append(task)
        for label, tasks in others.items():
            places.bulk[label].ask_back(tasks)

    # --- its end --------------------------------------------------------------------------------------------

    def _end_if_idle(self) -> None:
        """Have the script leave when nothing runs in any kernel; what is held back will not."""
        self.idle = self._is_idle()
        others = [drain for drain in self._job.drains if drain.kernel.unended]
        if self._holds_back() and all(drain.idle for drain in (self, *others)):
            self._job.end(self._job.why)

    def _holds_back(self) -> bool:
        """Whether anything is held back that somebody still wants."""
        return any(task.state not in FINAL_STATES for held in self._held.values() for task in held)

    def _is_idle(self) -> bool:
        running = [task for task in list(self.kernel.unended.values()) if task.state is States.launched]
        at_work = {task.executor for task in running if not _takes_no_time(task)}
        bulk, waiters = self.kernel.places.bulk, list(self.kernel.driver.waiters)
        if self._ready or not all(bulk[label].only_waits(waiters) for label in at_work):
            self._looks_without_work = 0
            return False
        self._looks_without_work += 1
        # What runs in a thread of rank 0, as bodies of join_apps do, may be about to call what can still be started; or
        # it waits for what never will.
        return not running or self._looks_without_work > 1


def _takes_no_time(task: Task) -> bool:
    """Whether it runs in threads of rank 0, as bodies of join_apps do."""
    return task.app.join or task.executor == INTERNAL or task.app.executors == [INTERNAL]
