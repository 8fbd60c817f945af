"""A directory of its own for each task: ``Config(task_dir=...)``.

What a task writes under a relative path then meets nobody else's file of the same name. The directory is entered
in the process that runs the task, so it works for runners and ranks, which run one task at a time; threads of
one process share their current directory, and cannot have this.

The directory stays when the task has ended, with all that is in it: the next try of the same task finds what the
one before has left.

Rank 0 replaces a task's app by one whose function enters the directory, the same for all tasks of the app, so
that it is sent to a worker once. In the runner the directory is known by the task's number, or comes as an
argument.
"""

from __future__ import annotations

import os

from mpiflow import context

TYPE_CHECKING = False  # typing's constant: a runner imports this module, and needs no typing for it
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any
    from weakref import WeakKeyDictionary

    from mpiflow.kernel.app import App
    from mpiflow.kernel.task import Task, TaskRecord

#: Directories in one directory: more make parallel file systems slow. As for logs of tasks.
EACH = 10_000
#: Keyword argument of tasks that stage files, as in `kernel.staging`, which no runner loads.
INHIBIT = "_parsl_staging_inhibit"


class TaskDirectories:
    """The directories of one DataFlowKernel's tasks.

    Parameters
    ----------
    task_dir : "task" or callable
        From the Config: ``RUN_DIR/tasks/NNNN/TASK``, or what the function of a task record returns.
    run_dir : str
        The kernel's.
    """

    def __init__(self, task_dir: str | Callable[[TaskRecord], str | os.PathLike[str]], run_dir: str) -> None:
        from weakref import WeakKeyDictionary

        self._task_dir = task_dir
        self._root = os.path.join(run_dir, "tasks")
        self._apps: WeakKeyDictionary[App, App] = WeakKeyDictionary()

    def prepare(self, task: Task, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Have a task run in its directory; called for each try, before it is handed to an executor.

        Parameters
        ----------
        task : Task
            Its ``app`` is replaced.
        args : tuple
            What the try is to be given.

        Returns
        -------
        tuple
            What it is to be given now.

        Raises
        ------
        TypeError
            When the Config's function returns no path.
        Exception
            Whatever that function raises.
        """
        if task.kwargs.get(INHIBIT):
            return args  # a provider's own task: it is not the user's, and names its files by their whole path
        if not isinstance(task.app.remote, InOwnDirectory | InGivenDirectory):  # as for the tries after the first
            app = self._apps.get(task.app)
            if app is None:
                app = self._apps[task.app] = task.app.running(self._entering(task.app.remote))
            task.app = app
        if isinstance(self._task_dir, str):
            return args
        directory = self._task_dir(task.as_record())
        if not isinstance(directory, str | os.PathLike):
            words = f"{task.words}: task_dir of the Config returned {directory!r}, where a path was expected"
            raise TypeError(words)
        return os.path.abspath(directory), *args

    def _entering(self, remote: Callable[..., Any]) -> InOwnDirectory | InGivenDirectory:
        return InOwnDirectory(remote, self._root) if isinstance(self._task_dir, str) else InGivenDirectory(remote)


class InOwnDirectory:
    """A task's function, run in ``ROOT/NNNN/TASK``, which is made if it is not there.

    Parameters
    ----------
    func : callable
        The function.
    root : str
        Absolute path of the directory for the directories of all tasks.
    """

    def __init__(self, func: Callable[..., Any], root: str) -> None:
        self.func = func
        self.root = root

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Enter the directory, call, and come back."""
        number = context.task_id
        return call_in(os.path.join(self.root, f"{number // EACH:04}", str(number)), self.func, args, kwargs)


class InGivenDirectory:
    """A task's function that takes the directory to run in as an argument before the others.

    Parameters
    ----------
    func : callable
        The function.
    """

    def __init__(self, func: Callable[..., Any]) -> None:
        self.func = func

    def __call__(self, directory: str, /, *args: Any, **kwargs: Any) -> Any:
        """Enter the directory, call, and come back."""
        return call_in(directory, self.func, args, kwargs)


def call_in(directory: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function in a directory, and come back whatever happens.

    Parameters
    ----------
    directory : str
        Made if it is not there.
    func, args, kwargs
        What to call.

    Raises
    ------
    OSError
        When it cannot be made or entered.
    """
    os.makedirs(directory, exist_ok=True)
    # By descriptor: the way back holds even if the directory we come from has been renamed, or removed.
    back = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(directory)
        try:
            return func(*args, **kwargs)
        finally:
            os.fchdir(back)
    finally:
        os.close(back)
