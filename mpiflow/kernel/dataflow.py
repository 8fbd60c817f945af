"""The DataFlowKernel: from the call of an app to its fulfilled future.

Work is done in supersteps, each of four phases::

    collect    what every executor has finished, and outside futures that are done
    resolve    retries, joins, and who has waited for it
    commit     what has ended is entered in the books, before any future shows it
    dispatch   all that is ready, to its executor, at once

and then futures are fulfilled (`_announce`) and callbacks run (by `kernel.driver`). A call by itself only
writes down a task; the superstep after it sends it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import count
from types import TracebackType
from typing import Any, Literal

from mpiflow.config import Config
from mpiflow.errors import MpiflowError, NoDataFlowKernelError, TasksAbandoned
from mpiflow.executors.base import Completion, Executor, Settings, Submission
from mpiflow.executors.options import options
from mpiflow.executors.threads import ThreadPoolExecutor
from mpiflow.kernel.app import App
from mpiflow.kernel.dependencies import futures_in, with_values
from mpiflow.kernel.driver import Driver
from mpiflow.kernel.futures import AppFuture
from mpiflow.kernel.reserved import RESERVED, take_note
from mpiflow.kernel.resolve import Resolver
from mpiflow.kernel.task import FINAL_STATES, States, Task, in_words
from mpiflow.monitor.progress import Counts, Progress
from mpiflow.monitor.rundir import RunDirectory

#: Label of the executor that runs the bodies of join_apps.
INTERNAL = "_mpiflow_internal"
#: A call that finds so many tasks ready takes a superstep itself: a script that submits a hundred thousand
#: tasks in a loop keeps its workers fed without paying for a thread switch.
NUDGE_AT = 256
#: Supersteps between two looks at the progress while there is no time to sleep.
TICK_EVERY = 32

# Looked up once: an enum's attribute costs 50 ns, several times a task.
_exec_done, _failed, _dep_fail = States.exec_done, States.failed, States.dep_fail
_launched = States.launched


class DataFlowKernel:
    """The graph of tasks of one Config, and what drives it.

    Parameters
    ----------
    config : Config, optional
        A copy of it is kept.

    Attributes
    ----------
    config : Config
        What it runs by.
    executors : dict of str to Executor
        By label.
    tasks : dict of int to Task
        Those whose futures are not fulfilled.
    task_count : int
        Calls so far.
    run_dir : str
        Absolute path of the run directory.
    supersteps : int
        Rounds so far in which anything happened.
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config = (config or Config()).frozen()
        self.tasks: dict[int, Task] = {}
        self.task_count = 0
        self.ended_counts: dict[States, int] = dict.fromkeys(sorted(FINAL_STATES), 0)
        self.supersteps = 0
        self.cleanup_called = False
        self._ids = count()
        self._ready: deque[Task] = deque()
        self._resolver = Resolver(self, self._ready)
        self._to_announce: list[Task] = []
        # What threads inside a superstep() hold back, by thread. A dict, which is nearly always empty: a
        # thread-local would cost every call half a microsecond.
        self._blocks: dict[int, list[Task]] = {}
        self.executors: dict[str, Executor] = {}
        self._rundir = RunDirectory(self.config.run_dir, self.config.initialize_logging, options.run_dir)
        self.run_dir = self._rundir.path
        self._rundir.log("%r", self.config)
        self._start_executors()
        self._progress = Progress(self.counts) if options.progress else None
        self.driver = Driver(self._superstep, self._announce, self._sleep, self._unfinished)
        self.driver.start()

    def _start_executors(self) -> None:
        internal = ThreadPoolExecutor(label=INTERNAL, max_threads=self.config.internal_tasks_max_threads)
        try:
            for executor in (*self.config.places(), internal):
                executor.start(Settings(seed=self.config.seed or 0))
                self.executors[executor.label] = executor
        except BaseException:
            for executor in self.executors.values():
                executor.shutdown()
            self._rundir.close()
            raise
        self._labels = [label for label in self.executors if label != INTERNAL]
        # Those that have been given a task: looking at one costs an empty superstep a tenth of its time.
        self._in_use: list[Executor] = []
        # A sleep ends early when something arrives at this one; the others are looked at every millisecond.
        self._sleeper = self.executors[self._labels[0]]

    # --- calls --------------------------------------------------------------------------------------------

    def call(self, app: App, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AppFuture:
        """Make a task of a call.

        Parameters
        ----------
        app : App
            What is called.
        args, kwargs
            The arguments; futures among them are awaited and replaced by their values.

        Returns
        -------
        AppFuture
            At once.
        """
        if self.cleanup_called:
            raise NoDataFlowKernelError("Cannot submit to a DFK that has been cleaned up")
        if app.executors != "all":
            self._check_labels(app)
        task = Task(next(self._ids), app, args, kwargs)
        task.dfk = self
        future = task.future = AppFuture(task)
        if kwargs and not RESERVED.isdisjoint(kwargs):
            take_note(task, self.run_dir)
        depends = futures_in(args, task.kwargs)
        self.tasks[task.id] = task
        if self.cleanup_called and self.tasks.pop(task.id, None) is not None:  # by another thread, just now
            raise NoDataFlowKernelError("Cannot submit to a DFK that has been cleaned up")
        self.task_count += 1
        if depends:
            task.depends = depends
            self._resolver.enter(task)
            self.driver.notice()
        else:
            self._make_ready(task)
        return future

    def wait(self, future: Future[Any], timeout: float | None) -> None:
        """Drive until a future is done; TimeoutError when the time is over first."""
        if self._blocks:
            self._send_block()  # waiting inside a superstep() for what it holds back would never end
        self.driver.wait(future, timeout)

    def watch(self) -> None:
        """Somebody is about to wait for a future in a function that is not ours."""
        if self._blocks:
            self._send_block()
        self.driver.wake()

    def submit(
        self,
        func: Callable[..., Any],
        app_args: Sequence[Any],
        executors: str | Sequence[str] = "all",
        app_kwargs: dict[str, Any] | None = None,
        join: bool = False,
    ) -> AppFuture:
        """Call a function that was not decorated, as Parsl's DataFlowKernel does."""
        return self.call(App(func, join=join, executors=executors), tuple(app_args), dict(app_kwargs or {}))

    def _check_labels(self, app: App) -> None:
        for label in app.executors:
            if label not in self.executors or label == INTERNAL:
                words = f"Task of app {app.name!r} requested invalid executor {label!r}"
                raise ValueError(f"{words}; this Config has {', '.join(map(repr, self._labels))}")

    def _send_block(self) -> None:
        """Make ready what a superstep() of this thread holds back."""
        held = self._blocks.get(threading.get_ident())
        if held:
            self._ready.extend(held)
            held.clear()
            self.driver.notice()

    def _make_ready(self, task: Task) -> None:
        if self._blocks and (block := self._blocks.get(threading.get_ident())) is not None:
            block.append(task)
            return
        ready = self._ready
        ready.append(task)
        if len(ready) >= NUDGE_AT:
            self.driver.nudge()
        else:
            self.driver.notice()

    # --- the superstep ------------------------------------------------------------------------------------

    def _superstep(self) -> bool:
        """One round; whether anything happened."""
        completions = self._collect()
        ended = self._resolver.resolve(completions) if completions or self._resolver.has_news else None
        if ended:
            self._commit(ended)
        # Most rounds of a lone task have nothing in one phase or the other: an empty call is a tenth of them.
        sent = self._dispatch() if self._ready else 0
        if completions or ended or sent:
            self.supersteps += 1
            if self._progress is not None and not self.supersteps % TICK_EVERY:
                self._progress.tick(time.monotonic())
            return True
        return False

    def _collect(self) -> list[Completion]:
        """What every executor has finished."""
        if len(self._in_use) == 1:
            return self._in_use[0].collect()
        completions: list[Completion] = []
        for executor in self._in_use:
            completions += executor.collect()
        return completions

    def _commit(self, ended: list[Task]) -> None:
        """Enter what has ended in the books, before any future shows it."""
        counts = self.ended_counts
        for task in ended:
            counts[task.state] += 1
            if task.state is not _exec_done:
                self._rundir.log("%s failed: %s", task.words, in_words(task.error))
        self._to_announce += ended

    def _dispatch(self) -> int:
        """Hand all that is ready to its executors, to each as one bulk; returns how many tasks."""
        ready = self._ready
        bulks: dict[str, list[Submission]] = {}
        sent = len(ready)
        only = self._labels[0] if len(self._labels) == 1 else ""
        for _ in range(sent):
            task = ready.popleft()
            args, kwargs = task.args, task.kwargs
            if task.depends:
                args, kwargs = with_values(args, kwargs, self)
            task.state = _launched
            task.tries += 1
            label = INTERNAL if task.app.join else only or self._place(task)
            if label in bulks:
                bulks[label].append((task, args, kwargs))
            else:
                bulks[label] = [(task, args, kwargs)]
        for label, bulk in bulks.items():
            executor = self.executors[label]
            if executor not in self._in_use:
                self._in_use.append(executor)
            executor.submit(bulk)
        return sent

    def _place(self, task: Task) -> str:
        """Label of the executor a task goes to: those it may go to in turn."""
        labels = self._labels if task.app.executors == "all" else task.app.executors
        return labels[task.id % len(labels)]

    def _announce(self) -> None:
        """Fulfil the futures of what has ended, and defer those with callbacks."""
        announced, self._to_announce = self._to_announce, []
        for task in announced:
            future = task.future
            if task.depends:
                # A future holds its task, and the task its arguments: without this the last future of a
                # chain of a million would hold all of them.
                task.depends = task.args = ()
                task.kwargs = {name: task.kwargs[name] for name in ("stdout", "stderr") if name in task.kwargs}
            if task.state is _exec_done:
                called = future.fulfil(task.value, None)
            else:
                called = future.fulfil(None, task.error)
            if called:
                self.driver.defer(future)
            del task.future  # the two hold each other, and would be left to the garbage collector
            self.tasks.pop(task.id, None)

    @property
    def slots(self) -> int:
        """Tasks that run at once, on all executors that say."""
        return sum(self.executors[label].slots for label in self._labels)

    def counts(self) -> Counts:
        """How far it is."""
        done = self.ended_counts[_exec_done] + self.ended_counts[States.memo_done]
        failed = self.ended_counts[_failed] + self.ended_counts[_dep_fail]
        executors = [self.executors[label] for label in self._labels]
        running = sum(executor.running for executor in executors)
        return Counts(
            called=self.task_count,
            done=done,
            failed=failed,
            running=running,
            waiting=max(0, self.task_count - done - failed - running),
            busy=sum(executor.busy for executor in executors),
            workers=sum(executor.workers for executor in executors),
            superstep=self.supersteps,
        )

    def _sleep(self, seconds: float) -> None:
        if self._progress is not None:
            self._progress.tick(time.monotonic())
        self._sleeper.wait(seconds)

    def _unfinished(self) -> bool:
        return bool(self.tasks)

    # --- barriers -----------------------------------------------------------------------------------------

    def wait_for_current_tasks(self) -> None:
        """Drive until every task called so far has ended, well or not."""
        self._send_block()
        self._wait_for(list(self.tasks.values()))

    def _wait_for(self, tasks: list[Task]) -> None:
        futures = [getattr(task, "future", None) for task in tasks]  # none any more: it has been announced
        for future in futures:
            if future is not None:
                self.driver.wait_until(future.done)

    @contextmanager
    def superstep(self) -> Iterator[None]:
        """Hold back the calls made inside, send them as one bulk, and wait until all of them have ended.

        Failures stay in the futures; the barrier itself raises none. When the block raises, what was called
        is sent, and nothing is waited for.
        """
        thread = threading.get_ident()
        if thread in self._blocks:
            raise MpiflowError("a superstep() inside a superstep(): the outer one could never send its calls")
        first = self.task_count
        self._blocks[thread] = []
        try:
            yield
        finally:
            self._send_block()
            del self._blocks[thread]
        self._wait_for([task for task in list(self.tasks.values()) if task.id >= first])

    # --- the end ------------------------------------------------------------------------------------------

    def cleanup(self) -> None:
        """End: tasks that have not ended are given up, their futures fail with TasksAbandoned."""
        if self.cleanup_called:
            raise MpiflowError("cleanup() was called a second time on the same DataFlowKernel")
        self.cleanup_called = True
        self.driver.close()
        for executor in self.executors.values():
            executor.shutdown()
        self._announce()
        abandoned = list(self.tasks.values())
        for task in abandoned:
            task.error = TasksAbandoned(f"{task.words} had not ended when its DataFlowKernel was cleaned up")
            task.state = _failed
        self._commit(abandoned)
        self._announce()
        self.driver.run_callbacks()
        if self._progress is not None:
            self._progress.close()
        for state, number in self.ended_counts.items():
            self._rundir.log("tasks in state %s: %d", state.name, number)
        self._rundir.log("%d supersteps, %d retries", self.supersteps, self._resolver.retry_count)
        self._rundir.close()
        from mpiflow.kernel import loader

        loader.forget(self)

    def __enter__(self) -> DataFlowKernel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        mode = self.config.exit_mode
        if mode != "skip" and not self.cleanup_called:
            if mode == "wait" and kind is None:
                self.wait_for_current_tasks()
            self.cleanup()
        return False
