"""AppFuture: what a call of an app returns.

It is a `concurrent.futures.Future` to everyone who looks, and much smaller: the stdlib's makes a condition
with a lock for each future (0.8 µs, 1.6 KiB), which hardly any future of a hundred thousand ever needs. Here
the condition is made when somebody waits on it. All that a future knows is its task's: the kernel fulfils a hundred
thousand of them a second, and a class that the stdlib's is the base of cannot be compiled.

Who waits in `result` drives the farm meanwhile (see `kernel.driver`). Who waits in somebody else's function
(`concurrent.futures.wait`, `as_completed`, an event loop) touches the condition or adds a callback, and
that is how the kernel learns that its helper thread has to drive.
"""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from concurrent.futures._base import FINISHED, LOGGER, PENDING
from operator import getitem
from typing import TYPE_CHECKING, Any

from mpiflow.kernel.task import WELL

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from mpiflow.data.futures import DataFuture
    from mpiflow.kernel.task import Task, TaskRecord

#: Label of the executor whose threads on rank 0 do what takes no worker, under Parsl's name for it.
INTERNAL = "_parsl_internal"

class AppFuture(Future[Any]):
    """The outcome of a task, once it has one.

    Attributes
    ----------
    tid : int
        Number of the task, from 0, in the order of calls.
    outputs : sequence of DataFuture
        One for each File in the call's ``outputs``.
    stdout, stderr : str or None
        Where the command of a bash_app writes.
    """

    __slots__ = ("task",)

    def __init__(self, task: Task) -> None:
        # Not calling the base's: it would make the condition.
        self.task = task

    # --- what the stdlib's functions look at ---------------------------------------------------------------

    @property
    def _state(self) -> str:  # type: ignore[override]
        return FINISHED if self.task.fulfilled else PENDING

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        task = self.task
        condition = task.awaited()
        if not task.fulfilled:
            task.dfk.watch()
        return condition

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        return self.task.waiters

    @property
    def _done_callbacks(self) -> list[Callable[[Future[Any]], object]]:
        return self.task.callbacks or []

    def run_callbacks(self) -> None:
        """Call what was added by add_done_callback, in order; a failing one is logged and the rest go on."""
        Future._invoke_callbacks(self)  # type: ignore[attr-defined]

    # --- the user's side -----------------------------------------------------------------------------------

    def done(self) -> bool:
        """Whether the task has ended, all its retries included."""
        return self.task.fulfilled

    def running(self) -> bool:
        """Whether the task has been handed to an executor and has not ended."""
        return not self.task.fulfilled and self.task.state.name in ("launched", "running", "joining")

    def cancelled(self) -> bool:
        """Whether the task was cancelled before it began."""
        return self.task.fulfilled and isinstance(self.task.failure, CancelledError)

    def cancel(self) -> bool:
        """Take the task back if it has not begun; tasks that depend on it fail with CancelledError as the cause.

        Returns
        -------
        bool
            False when a worker has it, or it has ended: it goes on, see `kill`.
        """
        return self.cancelled() or (not self.task.fulfilled and self.task.dfk.cancel(self.task))

    def kill(self) -> bool:
        """End the task, by force if it runs: its runner dies, and it fails with TaskKilled, without a retry.

        A task that runs in a rank itself, or in a thread of rank 0, cannot be stopped: in a rank it goes on
        and nobody waits for it, in a thread it is left alone.

        Returns
        -------
        bool
            Whether it had not ended, and could be.
        """
        return not self.task.fulfilled and self.task.dfk.kill(self.task)

    def result(self, timeout: float | None = None) -> Any:
        """The task's value; drives the farm while it waits.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Raises
        ------
        TimeoutError
            When the time is over first (`concurrent.futures.TimeoutError`).
        BaseException
            What the task failed with.
        """
        task = self.task  # once: each look at an attribute of a class with a __getattr__ takes the long way
        if not task.fulfilled:
            task.dfk.wait(task, timeout)
        if task.state in WELL:
            return task.value
        error = task.error
        try:
            raise error
        finally:
            del self, task, error  # a traceback holds its frame, and the frame would hold the traceback

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task failed with, or None; waits like `result`."""
        task = self.task
        if not task.fulfilled:
            task.dfk.wait(task, timeout)
        return task.failure

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """Call ``fn(future)`` when the task has ended, at once if it has; it may call apps and wait."""
        if self.task.calls_back(fn):
            self.task.dfk.driver.wake()
            return
        try:
            fn(self)
        except Exception:  # as the stdlib's futures do, whether they are done already or not
            LOGGER.exception("exception calling callback for %r", self)

    @property
    def tid(self) -> int:
        """Number of the task."""
        return self.task.id

    @property
    def outputs(self) -> Sequence[DataFuture]:
        """A DataFuture for each File in the call's ``outputs``."""
        return getattr(self.task, "outputs", ())

    @property
    def _outputs(self) -> Sequence[DataFuture]:
        """The same: providers that were written for Parsl look here."""
        return self.outputs

    @property
    def stdout(self) -> Any:
        """What the call gave as ``stdout``; for a File, a DataFuture that ends when it is there."""
        return self._stream("stdout")

    @property
    def stderr(self) -> Any:
        """What the call gave as ``stderr``; as `stdout`."""
        return self._stream("stderr")

    def _stream(self, name: str) -> Any:
        staged = getattr(self.task, "streams", {})
        return staged[name] if name in staged else self.task.kwargs.get(name)

    @property
    def task_record(self) -> TaskRecord:
        """The task under Parsl's keys; a copy."""
        return self.task.as_record()

    def task_status(self) -> str:
        """Name of the task's state; may be ahead of `done`."""
        return self.task.state.name

    # --- values inside the value ---------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> AppFuture:
        """A future of ``result()[key]``."""
        return lifted(self, getitem, key)

    def __getattr__(self, name: str) -> AppFuture:
        """A future of the attribute of ``result()``; names that begin with an underscore are not looked up."""
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return lifted(self, getattr, name)

    def __repr__(self) -> str:
        return f"<AppFuture of {self.task!r}>"

    __hash__ = object.__hash__


def lifted(future: AppFuture, function: Callable[..., Any], key: Any) -> AppFuture:
    """A task on rank 0 that takes something out of another task's value."""
    return future.task.dfk.submit(function, (future, key), executors=[INTERNAL])
