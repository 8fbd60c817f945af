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

from mpiflow.executors.base import BulkExecutor, Completion, Executor, Submission

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
        self._inbox: deque[Completion] = deque()
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
                future = self._submit(task, args, kwargs)
            except Exception as error:
                self._inbox.append((task, None, error))
                continue
            self._futures[task] = future
            future.add_done_callback(partial(self._hear, task))

    def _submit(self, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        if isinstance(self.executor, Executor):
            return self.executor.submit(task.app.remote, getattr(task, "resources", {}), *args, **kwargs)
        if isinstance(self.executor, concurrent.futures.ThreadPoolExecutor):
            return self.executor.submit(task.app.remote, *args, **kwargs)
        # The name of a decorated function stands for the app, so pickle would not find the function under it.
        from mpiflow.comm.by_value import dumps_by_value

        return self.executor.submit(call_packed, dumps_by_value((task.app.remote, args, kwargs)))

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Pass one call on."""
        if isinstance(self.executor, Executor):
            return self.executor.submit(func, resource_specification, *args, **kwargs)
        return self.executor.submit(func, *args, **kwargs)

    def _hear(self, task: Task, future: Future[Any]) -> None:
        if self._futures.get(task) is not future:
            return  # taken back, or of an earlier try
        error = concurrent.futures.CancelledError() if future.cancelled() else future.exception()
        self._inbox.append((task, None if error else future.result(), error))
        task.dfk.driver.wake()

    def collect(self) -> list[Completion]:
        """What has ended."""
        ended: list[Completion] = []
        while self._inbox:
            ended.append(self._inbox.popleft())
            self._futures.pop(ended[-1][0], None)
        self.running -= len(ended)
        return ended

    def revoke(self, task: Task) -> bool:
        """Cancel a task, where its future says that it can be."""
        future = self._futures.pop(task, None)
        if future is None:
            return False
        try:
            revoked = future.cancel()
        except NotImplementedError:  # as Parsl's own futures do
            revoked = False
        if not revoked:
            self._futures[task] = future
            return False
        self.running -= 1
        return True

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
