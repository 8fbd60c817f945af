"""DataFuture: a file that a task will have written."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from mpiflow.data.files import File


class DataFuture(Future[File]):
    """Resolves to the file when the task that writes it has ended, or fails as that task failed.

    Parameters
    ----------
    parent : Future
        The task's future.
    file : File
        What it writes.
    tid : int
        Number of the task.
    """

    def __init__(self, parent: Future[Any], file: File, tid: int) -> None:
        if not isinstance(file, File):
            raise TypeError(f"DataFuture takes a File, not {type(file).__name__}: {file!r}")
        super().__init__()
        self.parent = parent
        self.file_obj = file
        self.tid = tid
        parent.add_done_callback(self._follow)

    def _follow(self, parent: Future[Any]) -> None:
        error = parent.exception()
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(self.file_obj)

    def result(self, timeout: float | None = None) -> File:
        """The file; waits for its task, driving the farm."""
        self.parent.exception(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task failed with, or None; waits like `result`."""
        self.parent.exception(timeout)
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
        return self.parent.running()

    def cancel(self) -> bool:
        """Not offered, as in Parsl."""
        raise NotImplementedError("Cancel not implemented")

    def cancelled(self) -> bool:
        """Always False."""
        return False

    def __repr__(self) -> str:
        done = "done" if self.done() else "not done"
        return f"<DataFuture representing {self.file_obj!r} {done}>"
