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

import os
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from itertools import count
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from mpiflow.config import Config
from mpiflow.errors import MpiflowError, NoDataFlowKernelError, OptionalModuleMissing, TaskKilled, TasksAbandoned
from mpiflow.executors.base import BulkExecutor, Completion, Submission
from mpiflow.executors.options import options
from mpiflow.kernel.app import App
from mpiflow.kernel.arguments import Arguments
from mpiflow.kernel.attention import Attention
from mpiflow.kernel.dependencies import is_plain
from mpiflow.kernel.dependency_resolvers import SHALLOW_DEPENDENCY_RESOLVER
from mpiflow.kernel.driver import MOMENT, Driver
from mpiflow.kernel.futures import AppFuture
from mpiflow.kernel.places import Places
from mpiflow.kernel.recall import Recall, default_memoizer
from mpiflow.kernel.reserved import auto_log_name
from mpiflow.kernel.resolve import Resolver
from mpiflow.kernel.staging import INHIBIT, DataManager
from mpiflow.kernel.stall import watchdog_of
from mpiflow.kernel.task import FINAL_STATES, States, Task, TaskRecord
from mpiflow.kernel.task_log import TaskLog
from mpiflow.monitor.progress import Counts, Progress
from mpiflow.monitor.redaction import without_secrets
from mpiflow.monitor.rundir import RunDirectory
from mpiflow.representation import in_words

if TYPE_CHECKING:
    import concurrent.futures

    from mpiflow.executors.base import Executor
    from mpiflow.kernel.memoizer import Memoizer
    from mpiflow.kernel.monitoring import Monitoring
    from mpiflow.monitor.hub import MonitoringHub

#: A call that finds so many tasks ready takes a superstep itself: a script that submits a hundred thousand
#: tasks in a loop keeps its workers fed without paying for a thread switch.
NUDGE_AT = 256
#: Supersteps between two looks at the progress while there is no time to sleep.
TICK_EVERY = 32

#: The keyword arguments of all calls that have none: a dict of its own for each would be 64 bytes. Never written to.
_NONE: dict[str, Any] = {}
_SIMPLE = frozenset({bool, bytes, complex, float, int, str, type(None)})
# Looked up once: an enum's attribute costs 50 ns, several times a task.
_exec_done, _failed, _dep_fail = States.exec_done, States.failed, States.dep_fail
_launched, _memo_done = States.launched, States.memo_done


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
        By label, the one for join_apps among them.
    memoizer : Memoizer
        What remembers the results of cached apps.
    task_count : int
        Calls so far.
    run_dir, run_id : str
        Absolute path of the run directory; a UUID.
    supersteps : int
        Rounds so far in which anything happened.
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config = (config or Config.default()).frozen()
        self.run_id = str(uuid.uuid4())
        #: Tasks whose futures are not fulfilled, by number.
        self.unended: dict[int, Task] = {}
        # With garbage_collect=False, all others.
        self._ended: dict[int, Task] | None = None if self.config.garbage_collect else {}
        self.task_count = 0
        self._most_pending = self.config.max_pending
        self.ended_counts: dict[States, int] = dict.fromkeys(sorted(FINAL_STATES), 0)
        self.supersteps = 0
        self.cleanup_called = False
        self._ids = count()
        self._latest = -1  # number of the latest call; some calls are refused, and count for nothing
        self._ready: deque[Task] = deque()
        self._to_announce: list[Task] = []
        # What threads inside a superstep() hold back, by thread. A dict, which is nearly always empty: a
        # thread-local would cost every call half a microsecond.
        self._blocks: dict[int, list[Task]] = {}
        logs = "parsl" if options.as_parsl else "mpiflow"  # Parsl's programs look for parsl.log
        self._rundir = RunDirectory(self.config.run_dir, self.config.initialize_logging, options.run_dir, logs)
        self.run_dir = self._rundir.path
        if options.launch:
            self._rundir.log("%s", options.launch)
        self._rundir.log("%s", without_secrets(repr(self.config)))
        everything = not isinstance(self.config.initialize_logging, bool)
        self.task_log = TaskLog(self.run_id, self.run_dir, everything)
        self.data_manager = DataManager(self)
        self.dependency_resolver = self.config.dependency_resolver or SHALLOW_DEPENDENCY_RESOLVER
        self._monitoring = self._make_monitoring() if self.config.monitoring is not None else None
        usage_every = self._monitoring.usage_every if self._monitoring is not None else -1.0
        threads = self.config.internal_tasks_max_threads
        self.places = Places(self.config.seed or 0, self.run_dir, self.run_id, threads, usage_every)
        self._resolver = Resolver(self, self._ready)
        try:
            self._begin()
        except BaseException:
            self.places.shutdown()
            self._rundir.close()
            raise
        if self._monitoring is not None:
            self._monitoring.start()
        self._progress = Progress(self.counts) if options.progress else None
        # What reaches this run from outside; a plain `python script.py` is nobody's but its script's.
        self._attention = Attention(self, self._ready) if options.started_by_mpiflow else None
        look_in = self._attention.tick if self._attention is not None else None
        self.driver = Driver(self._superstep, self._announce, self._sleep, self._has_unended, self._fail_rest, look_in)
        self.driver.start()
        self._watchdog = watchdog_of(self, self._resolver, self._rundir.log)

    def _begin(self) -> None:
        """Start what may refuse to."""
        self.memoizer: Memoizer = self.config.memoizer or default_memoizer()
        self.memoizer.start(run_dir=self.run_dir, config_run_dir=os.path.abspath(self.config.run_dir))
        self._recall = Recall(self.memoizer, self._resolver, options.checkpoint_all)
        self._recall.say()
        self._arguments = Arguments(self, self._resolver, self._recall)
        self.places.add([*self.config.places(), self.places.internal])
        # Those that have been given a task: looking at one costs an empty superstep a tenth of its time.
        self._in_use: list[BulkExecutor] = []
        # A sleep ends early when something arrives at this one; the others are looked at every millisecond.
        self._sleeper = self.places.bulk[self.places.labels[0]]

    def _make_monitoring(self) -> Monitoring:
        try:
            from mpiflow.kernel.monitoring import Monitoring
        except ModuleNotFoundError as error:  # Python can be built without it
            self._rundir.close()
            words = f"monitoring writes an SQLite database, and this Python has no SQLite ({error}); take another"
            raise OptionalModuleMissing(["sqlite3"], words) from error

        assert self.config.monitoring is not None
        # A directory that was named exactly is where all of a run is; else one database is for all runs, as in Parsl.
        parent = options.run_dir if options.run_dir is not None else self.config.run_dir
        made = Monitoring(self, self.config.monitoring, os.fspath(parent), self._say, self._rundir.log)
        self.task_log.tell_too(made)
        return made

    def _say(self, words: str) -> None:
        """A line for the log and the console."""
        self._rundir.log("%s", words)
        print(f"mpiflow: {words}", file=sys.stderr, flush=True)

    @property
    def monitoring(self) -> MonitoringHub | None:
        """How the run is monitored, if it is: what its Config says."""
        return self.config.monitoring

    @property
    def executors(self) -> dict[str, Executor | concurrent.futures.Executor]:
        """Executors by label, as the Config gave them."""
        return self.places.given

    def add_executors(self, executors: Iterable[Executor | concurrent.futures.Executor]) -> None:
        """Start more executors; calls from now on may go to them."""
        self.places.add(executors)

    @property
    def tasks(self) -> dict[int, Task]:
        """Tasks that have not ended, by number; with ``garbage_collect=False`` all."""
        return self.unended if self._ended is None else {**self._ended, **self.unended}

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
            At once; with ``max_pending`` in the Config, when so many others have ended.
        """
        if self.cleanup_called:
            raise NoDataFlowKernelError("Cannot submit to a DFK that has been cleaned up")
        if app.executors != "all":
            self.places.check_app(app)
        if self._most_pending is not None and INHIBIT not in kwargs:  # a staged task waits for those that stage
            self._wait_for_room(self._most_pending)
        task = Task(next(self._ids), app, args, kwargs or _NONE)
        self._latest = task.id
        task.dfk = self
        future = task.future = AppFuture(task)
        depends: tuple[Future[Any], ...] = ()
        # Numbers and texts hold neither files nor futures; to look into each costs more than this one look at all.
        if kwargs or not _SIMPLE.issuperset(map(type, args)) or not is_plain(self.dependency_resolver):
            depends = self._arguments.examine(task)
        self.unended[task.id] = task
        if self.cleanup_called and self.unended.pop(task.id, None) is not None:  # by another thread, just now
            raise NoDataFlowKernelError("Cannot submit to a DFK that has been cleaned up")
        self.task_count += 1
        if self.task_log.tells:
            self.task_log.called(task, depends)
        if depends:
            task.depends = depends
            if self._resolver.enter(task) >= NUDGE_AT:
                self.driver.nudge()
            else:
                self.driver.notice()
        else:
            self._make_ready(task)
        return future

    def wait(self, task: Task, timeout: float | None) -> None:
        """Drive until a task's future is fulfilled; TimeoutError when the time is over first."""
        if self._blocks:
            self._send_block()  # waiting inside a superstep() for what it holds back would never end
        if not self.driver.wait_until(task.is_fulfilled, timeout):
            raise FutureTimeoutError(f"{task!r} is not done after {timeout:g} s")

    def watch(self) -> None:
        """Somebody is about to wait for a future in a function that is not ours."""
        if self._blocks:
            self._send_block()
        self.driver.wake()

    def submit(
        self,
        func: Callable[..., Any],
        app_args: Sequence[Any] = (),
        executors: str | Sequence[str] = "all",
        cache: bool = False,
        ignore_for_cache: Sequence[str] | None = None,
        app_kwargs: dict[str, Any] | None = None,
        join: bool = False,
    ) -> AppFuture:
        """Call a function that was not decorated; the signature is Parsl's."""
        if executors != "all" and not isinstance(executors, list | tuple):
            raise ValueError(f"executors is {executors!r}; legal is 'all' or a list of labels")
        app = App(func, join=join, executors=executors, cache=cache, ignore_for_cache=ignore_for_cache or ())
        return self.call(app, tuple(app_args), dict(app_kwargs or {}))

    def _wait_for_room(self, most: int) -> None:
        """Wait until fewer than so many tasks have not ended.

        Not in the body of a join_app: its own task counts, and what it calls is what all wait for. And not in
        a retry handler, which is called inside a superstep.
        """
        exempt = self.places.internal.runs_this_thread() or self.driver.inside
        if len(self.unended) >= most and not exempt:
            self._send_block()
            self.driver.wait_until(lambda: len(self.unended) < most)

    def refuse(self, task: Task, error: BaseException) -> None:
        """A call raises: what already waits for its task fails with it, instead of waiting for ever."""
        if task.id in self.unended:
            self.task_count += 1
            self.driver.exclusively(lambda: self._end_early(task, error, by_force=False))

    def default_std_autopath(self, taskrecord: TaskRecord, kw: str) -> str:
        """Where `AUTO_LOGNAME` writes when the Config does not say; Parsl's name."""
        return auto_log_name(taskrecord, kw, self.run_dir)

    def _send_block(self) -> None:
        """Make ready what a superstep() of this thread holds back."""
        held = self._blocks.get(get_ident())
        if held:
            self._ready.extend(held)
            held.clear()
            self.driver.notice()

    def _make_ready(self, task: Task) -> None:
        if self._blocks and (block := self._blocks.get(get_ident())) is not None:
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
            if not self.supersteps % TICK_EVERY:
                self._look_up()
            return True
        return False

    def _collect(self) -> list[Completion]:
        """What every executor has finished."""
        if len(self._in_use) == 1 and not self._arguments.failed:
            return self._in_use[0].collect()
        completions = self._arguments.take_failed()
        for executor in self._in_use:
            completions += executor.collect()
        return completions

    def _commit(self, ended: list[Task]) -> None:
        """Enter what has ended in the books, before any future shows it."""
        counts, load, now, tells = self.ended_counts, self.places.load, time.time(), self.task_log.tells
        remembered = not self._recall.own
        for task in ended:
            task.returned = now
            counts[task.state] += 1
            if task.tries:
                load[task.executor] -= 1
            if task.hashsum is not None:
                remembered = True
            if tells:
                self.task_log.ended(task)
            if task.state is not _exec_done and task.state is not _memo_done:
                self._rundir.log("%s failed: %s", task.words, without_secrets(in_words(task.error)))
        if remembered:
            self._recall.enter(ended)
        self._to_announce += ended

    def _dispatch(self) -> int:
        """Hand all that is ready to its executors, to each as one bulk; returns how many tasks."""
        ready, now, tells = self._ready, time.time(), self.task_log.tells
        only = self.places.labels[0] if len(self.places.labels) == 1 else ""
        if self._attention is not None and self._attention.chooses:
            self._attention.drain.hold_back()
        special = self._arguments.special
        if special:
            self._announce()  # a resolver of the user's looks at the futures themselves
        load = self.places.load
        bulks: dict[str, list[Submission]] = {}
        sent = len(ready)
        for _ in range(sent):
            task = ready.popleft()
            if task.state in FINAL_STATES:
                continue  # cancelled while it was ready
            args, kwargs = task.args, task.kwargs
            if task.depends or task.app.cache or special:
                prepared = self._arguments.prepare(task)
                if prepared is None:
                    continue
                args, kwargs = prepared
            label = task.executor
            if not label:
                anywhere = only and task.app.executors == "all" and not task.app.join
                label = task.executor = only if anywhere else self.places.choose(task)
            if not task.tries:
                load[label] += 1
            before, task.state = task.state, _launched
            task.tries += 1
            task.launched = now
            if tells:
                self.task_log.launched(task, label, self.places.bulk[label].in_processes)
                self.task_log.changed(task, before)
            if label in bulks:
                bulks[label].append((task, args, kwargs))
            else:
                bulks[label] = [(task, args, kwargs)]
        for label, bulk in bulks.items():
            executor = self.places.bulk[label]
            if executor not in self._in_use:
                self._in_use.append(executor)
            executor.submit_bulk(bulk)
        return sent

    def _announce(self) -> None:
        """Fulfil the futures of what has ended, and defer those with callbacks."""
        announced, self._to_announce = self._to_announce, []
        for task in announced:
            if task.depends:
                # A future holds its task: without this the last one of a chain of a million would hold all of them.
                task.depends = ()
                if not task.tries:  # it never ran, and its arguments are futures still
                    task.args = ()
                    task.kwargs = {name: task.kwargs[name] for name in ("stdout", "stderr") if name in task.kwargs}
            if task.fulfil():
                self.driver.defer(task.future)
            if self._ended is None:
                del task.future  # the two hold each other, and would be left to the garbage collector
            else:
                self._ended[task.id] = task
            self.unended.pop(task.id, None)

    def _fail_rest(self, error: BaseException) -> None:
        """A superstep has failed, and none is taken any more: what has not ended fails with its error.

        Nothing is remembered of it: the journal may be what has failed.
        """
        self._announce()  # what is in the books has ended
        rest = list(self.unended.values())
        counts = self.ended_counts
        for task in rest:
            if hasattr(task, "returned"):  # it was entered before the failure came
                counts[task.state] -= 1
            if task.state is not _failed and task.state is not _dep_fail:
                task.error = error
                task.state = _failed
            task.returned = time.time()
            counts[task.state] += 1
        self._to_announce += rest
        self._announce()
        self._ready.clear()
        if rest:
            words = "a superstep has failed, and with it %d tasks that had not ended: %s"
            self._rundir.log(words, len(rest), without_secrets(in_words(error)))

    # --- at the user's wish -------------------------------------------------------------------------------

    def cancel(self, task: Task) -> bool:
        """Take back a task that has not begun; whether it was still to be had."""
        return self.driver.exclusively(lambda: self._end_early(task, CancelledError(), by_force=False))

    def kill(self, task: Task) -> bool:
        """End a task, by force if it runs; whether it had not ended."""
        error = TaskKilled(f"{task.words} was ended by kill()")
        return self.driver.exclusively(lambda: self._end_early(task, error, by_force=True))

    def _end_early(self, task: Task, error: BaseException, by_force: bool) -> bool:
        if task.state in FINAL_STATES:
            return False
        if task.state is _launched:
            executor = self.places.bulk[task.executor]
            if not executor.revoke(task) and not (by_force and executor.kill(task)):
                return False
        elif task.state is States.joining and not by_force:
            return False
        task.error = error
        task.state = _failed
        self._resolver.ended(task)
        return True

    @property
    def slots(self) -> int:
        """Tasks that run at once, on all executors that say."""
        return sum(self.places.bulk[label].slots for label in self.places.labels)

    def counts(self) -> Counts:
        """How far it is."""
        done = self.ended_counts[_exec_done] + self.ended_counts[States.memo_done]
        failed = self.ended_counts[_failed] + self.ended_counts[_dep_fail]
        executors = [self.places.bulk[label] for label in self.places.labels]
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
        if seconds > MOMENT:
            self._look_up()
        self._sleeper.wait(seconds)

    def _look_up(self) -> None:
        """Look at what is no task's business, each thing if it is time to."""
        if self._progress is not None:
            self._progress.tick(time.monotonic())
        if self._attention is not None:
            self._attention.tick()

    def _has_unended(self) -> bool:
        return bool(self.unended)

    @property
    def task_state_counts(self) -> dict[States, int]:
        """How many tasks are in each state now."""
        counts = dict.fromkeys(States, 0) | self.ended_counts
        for task in list(self.unended.values()):
            if task.state not in FINAL_STATES:
                counts[task.state] += 1
        return counts

    def log_task_states(self) -> None:
        """Write how many tasks are in each state to the log."""
        self._rundir.log("Summary of tasks in DFK:")
        for state, number in self.task_state_counts.items():
            self._rundir.log("Tasks in state %s: %d", state, number)
        self._rundir.log("End of summary")

    # --- barriers -----------------------------------------------------------------------------------------

    def wait_for_current_tasks(self) -> None:
        """Drive until every task called so far has ended, well or not."""
        self._send_block()
        self._wait_for(list(self.unended.values()))

    def _wait_for(self, tasks: list[Task]) -> None:
        for task in tasks:
            if not task.fulfilled:
                self.driver.wait_until(task.is_fulfilled)
        if self.driver.failure is not None:
            raise self.driver.failure  # the futures have failed with it; a barrier is passed by work that was done

    @contextmanager
    def superstep(self) -> Iterator[None]:
        """Hold back the calls made inside, send them as one bulk, and wait until all of them have ended.

        Failures stay in the futures; the barrier itself raises none. When the block raises, what was called
        is sent, and nothing is waited for.
        """
        thread = get_ident()
        if thread in self._blocks:
            raise MpiflowError("a superstep() inside a superstep(): the outer one could never send its calls")
        first = self._latest + 1
        self._blocks[thread] = []
        try:
            yield
        finally:
            self._send_block()
            del self._blocks[thread]
        self._wait_for([task for task in list(self.unended.values()) if task.id >= first])

    # --- the end ------------------------------------------------------------------------------------------

    def cleanup(self) -> None:
        """End: tasks that have not ended are given up, their futures fail with TasksAbandoned."""
        if self.cleanup_called:
            raise MpiflowError("cleanup() was called a second time on the same DataFlowKernel")
        self.cleanup_called = True
        self.driver.close()
        self._watchdog.close()
        if self._attention is not None:
            self._attention.close()
        if self._monitoring is not None:
            self._monitoring.look_at_nodes()
        try:
            self.places.shutdown()
        finally:
            self._give_up()

    def _give_up(self) -> None:
        """Fail what has not ended, write what is left, and close the books."""
        self._announce()
        abandoned = list(self.unended.values())
        for task in abandoned:
            task.error = TasksAbandoned(f"{task.words} had not ended when its DataFlowKernel was cleaned up")
            task.state = _failed
        self._commit(abandoned)
        self._announce()
        self.driver.run_callbacks()
        if self._progress is not None:
            self._progress.close()
        self.log_task_states()
        self._recall.close()
        if self._monitoring is not None:
            self._monitoring.close()
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
