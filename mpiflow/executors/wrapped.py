"""Other people's executors: a subclass of `Executor`, or anything with `concurrent.futures.Executor`'s interface.

Each task is submitted by itself, and its future's callback puts the outcome into an inbox, where the next
superstep finds it. What this costs is the executor's own business.
"""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from mpiflow.executors.base import BulkExecutor, Completion, Executor, Submission, no_memory_limit
from mpiflow.parsl.timeouts import timeout
from mpiflow.representation import in_words

if TYPE_CHECKING:
    from mpiflow.kernel.task import Task


class Wrapped(BulkExecutor):
    """An executor behind the kernel's face of one.

    Parameters
    ----------
    executor : Executor or concurrent.futures.Executor
        What runs the tasks.
    label : str, optional
        Its name in a Config; needed for one that has none.
    """

    def __init__(self, executor: Executor | concurrent.futures.Executor, label: str | None = None) -> None:
        super().__init__()
        self.executor = executor
        self.label = label or getattr(executor, "label", "") or type(executor).__name__
        self.storage_access = getattr(executor, "storage_access", None)
        self.working_dir = getattr(executor, "working_dir", None)
        self.slots = getattr(executor, "max_workers", None) or getattr(executor, "_max_workers", None) or 1
        #: Tasks that it would not take.
        self._refused: list[Completion] = []
        self._outcomes: deque[tuple[Task, Future[Any]]] = deque()
        self._futures: dict[Task, Future[Any]] = {}

    def __repr__(self) -> str:
        return repr(self.executor)

    def start(self) -> None:
        """Start it, if it is of the kind that is started."""
        if isinstance(self.executor, Executor):
            self.executor.run_dir, self.executor.run_id = self.run_dir, self.run_id
            self.executor.start()

    def submit_bulk(self, tasks: Sequence[Submission]) -> None:
        """Submit each task; what the executor raises fails that task."""
        for task, args, kwargs in tasks:
            self.running += 1
            try:
                if task.memory:
                    raise no_memory_limit(task, self.label, "where it has them run")
                future = self._submission(task, args, kwargs)()
                if not isinstance(future, Future):
                    words = f"executor {self.label!r} returned {in_words(future)} from submit; legal is a Future"
                    raise TypeError(f"{task.words}: {words}")
            except Exception as error:
                self._refused.append((task, None, error))
                continue
            self._futures[task] = future
            future.add_done_callback(partial(self._hear, task))

    def _submission(self, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Future[Any]]:
        """The call that submits a task: made by our caller, so that it is a frame less deep in the stack."""
        function = task.app.remote
        if task.walltime and task.app.kind == "bash":
            kwargs = {**kwargs, "walltime": task.walltime}  # it kills its command itself
        elif task.walltime:
            function = timeout(function, task.walltime)
        if isinstance(self.executor, Executor):
            return partial(self.executor.submit, function, getattr(task, "resources", {}), *args, **kwargs)
        if isinstance(self.executor, concurrent.futures.ThreadPoolExecutor):
            return partial(self.executor.submit, function, *args, **kwargs)
        # The name of a decorated function stands for the app, so pickle would not find the function under it.
        from mpiflow.comm.by_value import dumps_by_value

        return partial(self.executor.submit, call_packed, dumps_by_value((function, args, kwargs)))

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Pass one call on."""
        if isinstance(self.executor, Executor):
            return self.executor.submit(func, resource_specification, *args, **kwargs)
        return self.executor.submit(func, *args, **kwargs)

    def _hear(self, task: Task, future: Future[Any]) -> None:
        self._outcomes.append((task, future))
        task.dfk.driver.wake()

    def collect(self) -> list[Completion]:
        """What has ended."""
        ended, self._refused = self._refused, []
        while self._outcomes:
            task, future = self._outcomes.popleft()
            if self._futures.get(task) is not future:
                continue  # taken back
            del self._futures[task]
            error = concurrent.futures.CancelledError() if future.cancelled() else future.exception()
            ended.append((task, None if error else future.result(), error))
        self.running -= len(ended)
        return ended

    def revoke(self, task: Task) -> bool:
        """Cancel a task, where its future says that it can be."""
        future = self._futures.get(task)
        if future is None:
            return False
        try:
            revoked = future.cancel()
        except NotImplementedError:  # as Parsl's own futures do
            return False
        if revoked:
            del self._futures[task]
            self.running -= 1
        return revoked

    def shutdown(self) -> None:
        """Let it go; what has not ended is given up."""
        self._futures.clear()
        if isinstance(self.executor, Executor):
            self.executor.shutdown()
        else:
            self.executor.shutdown(wait=False, cancel_futures=True)

    def monitor_resources(self) -> bool:
        """As it says itself."""
        return isinstance(self.executor, Executor) and self.executor.monitor_resources()


def call_packed(packed: bytes) -> Any:
    """Run a call that was pickled by value, in another process."""
    from pickle import loads

    function, args, kwargs = loads(packed)
    return function(*args, **kwargs)
