"""Tasks in threads of rank 0: join_app bodies, and what a user puts there."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from itertools import count
from math import inf
from queue import Empty, PriorityQueue
from typing import TYPE_CHECKING, Any

from mpiflow.executors.base import BulkExecutor, Completion, Submission, check_count, check_resources, no_memory_limit

if TYPE_CHECKING:
    from mpiflow.kernel.task import Task

Call = Callable[[], Any]
#: Gives what is to be called, or None when nobody wants it any more; and takes what came of it.
Begin = Callable[[], "Call | None"]
End = Callable[[Any, "BaseException | None"], None]
#: Lower goes first, then what came first; None ends a thread.
Job = tuple[float, int, "tuple[Begin, End] | None"]

_order = count()


class ThreadPoolExecutor(BulkExecutor):
    """Runs tasks in this process; nothing is pickled.

    The threads are daemons: one that runs a task for an hour does not keep the job from ending. That is why
    they are not those of `concurrent.futures`, which Python waits for when it exits.

    Parameters
    ----------
    label : str
        Name of the executor.
    max_threads : int, optional
        Tasks that run at once; 2 when None.
    thread_name_prefix : str, optional
        For names of threads in logs.
    storage_access : list of Staging, optional
        How it reaches files that are not local.
    working_dir : str, optional
        Where staged files go.
    remote_monitoring_radio
        Parsl's; without effect.
    """

    def __init__(
        self,
        label: str = "threads",
        max_threads: int | None = 2,
        thread_name_prefix: str | None = None,
        storage_access: list[Any] | None = None,
        working_dir: str | None = None,
        remote_monitoring_radio: object = None,
    ) -> None:
        super().__init__()
        if max_threads is None:
            max_threads = 2
        check_count("ThreadPoolExecutor", "max_threads", max_threads)
        if remote_monitoring_radio is not None:
            from mpiflow.parsl.ignored import ignored

            ignored("ThreadPoolExecutor", {"remote_monitoring_radio": remote_monitoring_radio})
        self.label = label
        self.max_threads = self.slots = self.workers = max_threads
        self.thread_name_prefix = thread_name_prefix
        self.storage_access = storage_access
        self.working_dir = working_dir
        self._forget()

    def __repr__(self) -> str:
        return (
            f"ThreadPoolExecutor(label={self.label!r}, max_threads={self.max_threads!r}, "
            f"thread_name_prefix={self.thread_name_prefix!r}, storage_access={self.storage_access!r}, "
            f"working_dir={self.working_dir!r})"
        )

    def _forget(self) -> None:
        self.running = 0
        self._inbox: deque[Completion] = deque()
        self._queue: PriorityQueue[Job] = PriorityQueue()
        #: Tasks that no thread has begun.
        self._waiting: dict[Task, Submission] = {}
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Make ready; threads start with the first tasks."""
        self._forget()

    def submit_bulk(self, tasks: Sequence[Submission]) -> None:
        """Queue tasks for the threads."""
        for submission in tasks:
            task = submission[0]
            self.running += 1
            try:
                if getattr(task, "resources", None):
                    check_resources(task, self.label, ())
                if task.memory:
                    raise no_memory_limit(task, self.label, "in threads of one process")
            except Exception as error:
                self._inbox.append((task, None, error))
                continue
            self._waiting[task] = submission
            self._enqueue(partial(_begin, self._waiting, task), partial(_end, self._inbox, task), task.priority)

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Run one call in a thread."""
        if resource_specification:
            from mpiflow.errors import InvalidResourceSpecification

            words = f"executor {self.label!r} takes no resource specification"
            raise InvalidResourceSpecification(set(resource_specification), words)
        future: Future[Any] = Future()

        def begin() -> Call | None:
            return partial(func, *args, **kwargs) if future.set_running_or_notify_cancel() else None

        def end(value: Any, error: BaseException | None) -> None:
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        self._enqueue(begin, end)
        return future

    def _enqueue(self, begin: Begin, end: End, priority: int = 0) -> None:
        self._queue.put((priority, next(_order), (begin, end)))
        if len(self._threads) < self.max_threads and self._queue.qsize() > 0:
            prefix = self.thread_name_prefix or f"ThreadPoolExecutor-{self.label}"
            name = f"{prefix}_{len(self._threads)}"
            thread = threading.Thread(target=_work, args=(self._queue,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def collect(self) -> list[Completion]:
        """What the threads have finished."""
        ended: list[Completion] = []
        while self._inbox:
            ended.append(self._inbox.popleft())
        self.running -= len(ended)
        return ended

    def revoke(self, task: Task) -> bool:
        """Take a task back that no thread has begun."""
        if self._waiting.pop(task, None) is None:
            return False
        self.running -= 1
        return True

    def only_waits(self, waiters: Collection[int]) -> bool:
        """Whether all tasks that have begun do no more than wait for other tasks, in these threads of rank 0."""
        begun = self.running - len(self._waiting) - len(self._inbox)
        return sum(thread.ident in waiters for thread in self._threads) >= begun

    def runs_this_thread(self) -> bool:
        """Whether the caller is one of its threads."""
        return threading.current_thread() in self._threads

    def shutdown(self) -> None:
        """Let the threads end after what they run now; what waits is dropped."""
        old, threads = self._queue, self._threads
        self._waiting.clear()
        self._forget()
        with suppress(Empty):  # a thread may take the last one
            while True:
                old.get_nowait()
        for _ in threads:
            old.put((inf, next(_order), None))

    def monitor_resources(self) -> bool:
        """Not inside its tasks: they share one process."""
        return False


def _begin(waiting: dict[Task, Submission], task: Task) -> Call | None:
    """What to call for a task; None if it was taken back."""
    submission = waiting.pop(task, None)
    if submission is None:
        return None
    _, args, kwargs = submission
    function = task.app.remote
    if task.walltime and task.app.kind == "bash":
        kwargs = {**kwargs, "walltime": task.walltime}  # it kills its command itself
    elif task.walltime:
        from mpiflow.parsl.timeouts import timeout

        function = timeout(function, task.walltime)
    call = partial(function, *args, **kwargs)
    monitoring = task.dfk.task_log.monitoring
    return call if monitoring is None else monitoring.timed(task, call)


def _end(inbox: deque[Completion], task: Task, value: Any, error: BaseException | None) -> None:
    inbox.append((task, value, error))
    task.dfk.driver.wake()


def _work(queue: PriorityQueue[Job]) -> None:
    """One thread's life.

    Between two tasks it holds nothing of the last: the frames in an error's traceback know this one as the one
    that called them, and would keep alive whatever it holds.
    """
    while (job := queue.get()[2]) is not None:
        begin, end = job
        call, value, failure = begin(), None, None
        if call is not None:
            try:
                value = call()
            except BaseException as error:  # SystemExit too: it ends the task, as in a runner
                failure = error
            end(value, failure)
        del job, begin, end, call, value, failure
