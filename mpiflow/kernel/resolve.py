"""What the end of a task, or of a try, means: for the task itself, and for those that wait for it.

A task with dependencies waits in the graph until all of them have ended, well or not, and is then ready or
fails with them. A failed try is tried again while the task's budget lasts. The body of a join_app ends its
task only when the futures it returned have ended. A cached call that is under way already waits for that one and
ends as it does. Futures from elsewhere (another kernel's, or any other library's) stand in the graph under
negative numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from mpiflow.errors import DependencyError, JoinError, TaskExited, TaskKilled
from mpiflow.executors.base import AttemptLost
from mpiflow.kernel.dependencies import failures_among, source_of, value_of
from mpiflow.kernel.futures import AppFuture
from mpiflow.kernel.graph import TaskGraph
from mpiflow.kernel.task import FINAL_STATES, States, Task, TaskRecord
from mpiflow.representation import in_words

if TYPE_CHECKING:
    from mpiflow.executors.base import Completion
    from mpiflow.kernel.dataflow import DataFlowKernel

# Looked up once: an enum's attribute costs 50 ns, several times a task.
_exec_done, _failed, _dep_fail = States.exec_done, States.failed, States.dep_fail
_joining, _retryable = States.joining, States.fail_retryable
_launched, _memo_done = States.launched, States.memo_done


class Resolver:
    """The waiting tasks of one DataFlowKernel.

    Parameters
    ----------
    dfk : DataFlowKernel
        Whose tasks they are.
    ready : deque of Task
        Gets those that may run, for the first time or again.
    """

    def __init__(self, dfk: DataFlowKernel, ready: deque[Task]) -> None:
        self._dfk = dfk
        self._tasks = dfk.unended
        self._ready = ready
        self._log = dfk.task_log
        self._retries = dfk.config.retries
        self._retry_handler: Callable[..., float] | None = dfk.config.retry_handler
        self.retry_count = 0
        # Called with dependencies, and not in the graph yet. The one thing that other threads than the driver's
        # touch, besides what follows below, and appending is atomic: a lock round the graph would have a script
        # that calls wait for supersteps, and both for the interpreter's lock, half of the time.
        self._entering: deque[Task] = deque()
        self._graph = TaskGraph()
        self._outside_keys = count(-1, -1)
        self._outside_done: deque[int] = deque()
        # Futures from elsewhere that something waits for: by number, and their numbers by identity.
        self._followed: dict[int, Future[Any]] = {}
        self._outside: dict[int, int] = {}
        # Tasks that ended without an executor: what they depend on had failed when they were called, their
        # result was remembered, the user has cancelled them.
        self._stillborn: deque[Task] = deque()

    def enter(self, task: Task) -> int:
        """Take a task with dependencies, from any thread; the next superstep puts it into the graph.

        Returns
        -------
        int
            How many wait for that.
        """
        self._entering.append(task)
        return len(self._entering)

    def _awaits(self, task: Task) -> bool:
        """Have a task wait for those of its dependencies that have not ended; whether there are any."""
        unmet: list[int] = []
        dfk = self._dfk
        for future in task.depends:
            # the first test is the second's, without the call, for nearly all
            own = type(future) is AppFuture and future.task.dfk is dfk
            source = future.task if own else source_of(future, dfk)  # type: ignore[attr-defined]
            if source is not None:
                if source.state not in FINAL_STATES:
                    unmet.append(source.id)
            elif not future.done():
                unmet.append(self._key_of(future))
        if unmet:
            self._graph.add(task.id, unmet)
        return bool(unmet)

    def _key_of(self, future: Future[Any]) -> int:
        """The number under which a future from elsewhere stands in the graph, once for all that wait for it."""
        key = self._outside.get(id(future))
        if key is None:
            key = self._outside[id(future)] = next(self._outside_keys)
            self._followed[key] = future
            future.add_done_callback(partial(self._hear_from_outside, key))
        return key

    def _hear_from_outside(self, key: int, _: Future[Any]) -> None:
        self._outside_done.append(key)
        self._dfk.driver.wake()

    @property
    def has_news(self) -> bool:
        """Whether there is something to resolve without any completion."""
        return bool(self._entering or self._outside_done or self._stillborn)

    def resolve(self, completions: list[Completion]) -> list[Task]:
        """What each completion means for its task and for those that wait for it; the tasks that have ended."""
        ended: list[Task] = []
        waiting = self._stillborn
        for task, value, error in completions:
            if task.state in FINAL_STATES:
                continue  # killed while it ran
            if error is not None:
                self._fail_try(task, error, waiting)
            elif task.app.join:
                self._begin_joining(task, value, waiting)
            else:
                task.value = value
                task.state = _exec_done
                waiting.append(task)
        while self._outside_done:
            key = self._outside_done.popleft()
            del self._outside[id(self._followed.pop(key))]
            self._settle(key, waiting)
        while self._entering:
            task = self._entering.popleft()
            if not self._awaits(task):
                self._unblock(task, waiting)
        # One loop, not a recursion: a failure may run through ten thousand dependants.
        while waiting:
            task = waiting.popleft()
            ended.append(task)
            self._settle(task.id, waiting)
        return ended

    def _settle(self, key: int, ended: deque[Task]) -> None:
        """What a task, or a future from elsewhere, has held up and nothing else does."""
        for number in self._graph.settle(key):
            task = self._tasks.get(number)
            if task is not None:  # else it was cancelled while it waited, and is forgotten
                self._unblock(task, ended)

    def ended(self, task: Task) -> None:
        """A task has ended without an executor; its state and outcome are set. Under the driver's lock."""
        self._stillborn.append(task)

    def follow(self, task: Task, future: Future[Any]) -> None:
        """Have a task end as the call does whose future this is. Under the driver's lock."""
        task.depends = (future,)
        task.from_memo = True
        if not self._awaits(task):
            self._unblock(task, self._stillborn)

    def _unblock(self, task: Task, ended: deque[Task]) -> None:
        """All that a task waited for has ended: it is ready, or it ends here too."""
        if task.state in FINAL_STATES:
            return  # cancelled while it waited
        failures = failures_among(task.depends, self._dfk)
        if getattr(task, "from_memo", False):
            self._end_following(task, failures, ended)
        elif task.state is _joining:
            self._end_joining(task, failures)
            ended.append(task)
        elif failures:
            task.error = DependencyError(failures, task.id)
            task.state = _dep_fail
            ended.append(task)
        else:
            self._ready.append(task)

    def _fail_try(self, task: Task, error: BaseException, ended: deque[Task]) -> None:
        """A try has failed: the task is tried again while its budget lasts, else it has failed."""
        if isinstance(error, AttemptLost):
            self._try_again(task)
            return
        if isinstance(error, SystemExit):
            exited = TaskExited(f"{task.words} called sys.exit({error.code!r})")
            exited.__cause__ = error
            error = exited
        task.fail_count = getattr(task, "fail_count", 0) + 1
        task.fail_history = [*getattr(task, "fail_history", ()), in_words(error)]
        cost = 1.0
        if self._retry_handler is not None:
            record = task.as_record()
            try:
                cost = float(self._retry_handler(error, record))
                self._take_edits(task, record)
            except Exception as own:  # the handler's own failure ends the task, and is what the user sees
                own.__cause__ = error
                error, cost = own, float("inf")
        task.fail_cost = getattr(task, "fail_cost", 0.0) + cost
        if task.fail_cost <= self._retries:
            self._try_again(task)
            task.fail_history = []  # of the try that has failed
        else:
            task.error = error
            task.state = _failed
            ended.append(task)

    def _try_again(self, task: Task) -> None:
        task.state = _retryable
        self.retry_count += 1
        if self._log.tells:
            self._log.changed(task, _launched)
        self._ready.append(task)

    def _take_edits(self, task: Task, record: TaskRecord) -> None:
        """What a retry handler has changed in the record holds for the next try."""
        task.args, task.kwargs = tuple(record["args"]), record["kwargs"]
        if record["executor"] != task.executor:
            self._dfk.places.move(task, record["executor"])
        if record["resource_specification"] != getattr(task, "resources", {}):
            task.resources = record["resource_specification"]

    def _begin_joining(self, task: Task, body: Any, ended: deque[Task]) -> None:
        """The body of a join_app has returned: its task now waits for the futures it returned."""
        futures = [body] if isinstance(body, Future) else body
        if not isinstance(futures, list) or not all(isinstance(future, Future) for future in futures):
            words = f"join_app body must return a Future or list of Futures, got {in_words(body)} of type {type(body)}"
            self._fail_try(task, TypeError(words), ended)
            return
        task.value = body
        task.depends = tuple(futures)
        task.state = _joining
        if self._log.tells:
            self._log.changed(task, _launched)
        if not self._awaits(task):
            self._unblock(task, ended)

    def _end_following(self, task: Task, failures: list[tuple[BaseException, str]], ended: deque[Task]) -> None:
        """The call that a task followed has ended; if by a cancel, this one is wanted still and runs itself."""
        (future,) = task.depends
        if failures and isinstance(failures[0][0], CancelledError | TaskKilled):
            task.depends = ()
            task.from_memo = False
            task.hashsum = None
            self._ready.append(task)
            return
        if failures:
            task.error = failures[0][0]
            task.state = _failed
        else:
            task.value = value_of(future, self._dfk)
            task.state = _memo_done
        ended.append(task)

    def _end_joining(self, task: Task, failures: list[tuple[BaseException, str]]) -> None:
        body = task.value
        if failures:
            task.error = JoinError(failures, task.id)
            task.state = _failed
        else:
            many = isinstance(body, list)
            task.value = [value_of(f, self._dfk) for f in body] if many else value_of(body, self._dfk)
            task.state = _exec_done
