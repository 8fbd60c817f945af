"""Staging: what a provider of files is asked, and the answers of one that provides none.

A file has a URL and a local path; a provider makes the one into the other. It can do so in a task of its own,
which the user's task then waits for (`Staging.stage_in`, `Staging.stage_out`), or around the user's function,
inside the same task (`Staging.replace_task`, `Staging.replace_task_stage_out`). The first suits disks that all
nodes share, the second also those that they do not.

Everything here is called on rank 0, when the app is called. Only what `replace_task` returns travels to the
worker, so it has to be picklable there, and so has all that it holds.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's constant: runners import this module, and need no typing for it
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from typing import Any

    from mpiflow.data.files import File
    from mpiflow.data.futures import DataFuture
    from mpiflow.kernel.staging import DataManager


class Staging:
    """A way of bringing files to tasks. This one takes no file; write a subclass for one that does.

    For each file of a call the providers in an executor's ``storage_access`` are asked in order, and the first
    that says yes is given the file.

    Examples
    --------
    >>> class Mounted(Staging):
    ...     def can_stage_in(self, file):
    ...         return file.scheme == "archive"
    ...     def stage_in(self, dm, executor, file, parent_fut):
    ...         file.local_path = "/mnt/archive" + file.path
    """

    def can_stage_in(self, file: File) -> bool:
        """Whether this provider brings such a file to a task.

        Parameters
        ----------
        file : File
            As the call gave it; not to be changed.
        """
        return False

    def can_stage_out(self, file: File) -> bool:
        """Whether this provider takes such a file away from a task; as `can_stage_in`."""
        return False

    def stage_in(
        self, dm: DataManager, executor: str, file: File, parent_fut: Future[Any] | None
    ) -> DataFuture | None:
        """Prepare a file for a task, or start what prepares it.

        Parameters
        ----------
        dm : DataManager
            Its ``dfk`` is the DataFlowKernel, for calling apps.
        executor : str
            Label of the executor that the task runs on.
        file : File
            A copy for this task alone: set its ``local_path``.
        parent_fut : Future or None
            Who writes the file, where that is a task: nothing may begin before it is done.

        Returns
        -------
        DataFuture or None
            What the task is to wait for, which has to hold ``file``; None for nothing, other than `parent_fut`.
        """
        return None

    def stage_out(self, dm: DataManager, executor: str, file: File, app_fu: Future[Any]) -> Future[Any] | None:
        """Prepare to take a file away once its task has ended; called before the task runs.

        Parameters
        ----------
        dm, executor, file
            As for `stage_in`.
        app_fu : Future
            The task. Make an argument of it what has to wait for it.

        Returns
        -------
        Future or None
            Done when the file is where its URL says; None for as soon as the task has ended.
        """
        return None

    def replace_task(
        self, dm: DataManager, executor: str, file: File, func: Callable[..., Any]
    ) -> Callable[..., Any] | None:
        """What is called in the place of a task's function, to bring a file there first.

        Parameters
        ----------
        dm, executor, file
            As for `stage_in`, which has been called before.
        func : callable
            The function; another provider may have replaced it already.

        Returns
        -------
        callable or None
            Has to call ``func`` with the arguments it gets and return its result. None to leave it.
        """
        return None

    def replace_task_stage_out(
        self, dm: DataManager, executor: str, file: File, func: Callable[..., Any]
    ) -> Callable[..., Any] | None:
        """What is called in the place of a task's function, to take a file away after it; as `replace_task`."""
        return None

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({fields})"
