"""DataFuture: a file that a task will have written."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from typing import Any

from mpiflow.data.files import File


class DataFuture(Future[File]):
    """Resolves to the file when the task that writes it has ended, or fails as that task failed.

    Parameters
    ----------
    fut : Future
        The task's future, or that of the task which takes the file to its place.
    file_obj : File
        What is written.
    tid : int
        Number of the task that writes it.

    Examples
    --------
    >>> task = Future()
    >>> file = DataFuture(task, File("out.txt"), tid=0)
    >>> task.set_result(None)
    >>> file.result().filepath
    'out.txt'
    """

    def __init__(self, fut: Future[Any], file_obj: File, tid: int) -> None:
        for name, value, kind in (("fut", fut, Future), ("file_obj", file_obj, File), ("tid", tid, int)):
            if not isinstance(value, kind):
                raise TypeError(f"DataFuture: {name} is a {kind.__name__}, not {type(value).__name__}: {value!r}")
        super().__init__()
        #: The task's future; None once this one has its outcome.
        self.parent: Future[Any] | None = fut
        self.file_obj = file_obj
        self.tid = tid
        fut.add_done_callback(self._follow)

    def _follow(self, parent: Future[Any]) -> None:
        # a cancelled future raises where others return
        error = CancelledError() if parent.cancelled() else parent.exception()
        try:
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(self.file_obj)
        except InvalidStateError:
            return  # somebody who waited has seen to it, see `_settle`
        self.parent = None  # the two would hold each other, through the task

    def _settle(self, timeout: float | None) -> None:
        """Wait for the task, driving the farm; then follow it, should its callbacks be still to come."""
        parent = self.parent
        if parent is not None:
            with suppress(CancelledError):  # told by `_follow`
                parent.exception(timeout)
            self._follow(parent)

    def result(self, timeout: float | None = None) -> File:
        """The file; waits for its task, driving the farm."""
        self._settle(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task failed with, or None; waits like `result`."""
        self._settle(timeout)
        return super().exception(timeout)

    @property
    def filepath(self) -> str:
        """Path of the file."""
        return self.file_obj.filepath

    @property
    def filename(self) -> str:
        """The same as `filepath`, as in Parsl."""
        return self.filepath

    def running(self) -> bool:
        """Whether its task runs."""
        return self.parent is not None and self.parent.running()

    def cancel(self) -> bool:
        """Not offered, as in Parsl."""
        raise NotImplementedError("Cancel not implemented")

    def cancelled(self) -> bool:
        """Always False."""
        return False

    def __repr__(self) -> str:
        done = "done" if self.done() else "not done"
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return f"<{name} object at {id(self):#x} representing {self.file_obj!r} {done}>"
