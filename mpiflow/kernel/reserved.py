"""Keyword arguments of a call that mean something to mpiflow; the function gets them as well."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from mpiflow.data.files import File
from mpiflow.data.futures import DataFuture

if TYPE_CHECKING:
    from mpiflow.kernel.task import Task

RESERVED = frozenset({"walltime", "outputs", "inputs", "stdout", "stderr"})
#: As ``stdout`` or ``stderr`` of a call: a file of its own for each task, in the run directory.
AUTO_LOGNAME = -1


def take_note(task: Task, run_dir: str) -> None:
    """Act on the reserved arguments of a call; the caller's own lists and dict stay as they are.

    Parameters
    ----------
    task : Task
        Its ``kwargs`` are replaced by a copy, its ``walltime`` and ``outputs`` are set.
    run_dir : str
        Where `AUTO_LOGNAME` files go.

    Raises
    ------
    TypeError
        For a walltime that is no number of seconds, or outputs that are no Files.
    """
    kwargs = task.kwargs = dict(task.kwargs)
    if kwargs.get("walltime") is not None:
        task.walltime = _seconds(task.app.name, kwargs["walltime"])
    for key in ("inputs", "outputs"):
        if key in kwargs:
            kwargs[key] = list(kwargs[key])
    for key in ("stdout", "stderr"):
        if isinstance(kwargs.get(key), int) and kwargs[key] == AUTO_LOGNAME:
            kwargs[key] = _log_name(task, run_dir, key)
    task.outputs = [DataFuture(task.future, _file(task.app.name, f), task.id) for f in kwargs.get("outputs", ())]


def _seconds(name: str, walltime: Any) -> float:
    if isinstance(walltime, bool) or not isinstance(walltime, int | float) or not walltime > 0:
        raise TypeError(f"{name}: walltime is {walltime!r}; legal is a number of seconds above 0")
    return float(walltime)


def _file(name: str, output: Any) -> File:
    if not isinstance(output, File):
        raise TypeError(f"{name}: outputs takes File objects, not {type(output).__name__}: {output!r}")
    return output


def _log_name(task: Task, run_dir: str, stream: str) -> str:
    """Parsl's layout: ten thousand tasks a directory."""
    label = task.kwargs.get("label")
    name = f"task_{task.id:04}_{task.app.name}{f'_{label}' if label else ''}.{stream}"
    return os.path.join(run_dir, "task_logs", f"{task.id // 10_000:04}", name)
