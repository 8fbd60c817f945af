"""Keyword arguments of a call that mean something to mpiflow; the function gets them where it has a place for them.

``memory`` is another matter: many a function has a parameter of that name which means something else, and a limit
made of it would end tasks that do no harm. Where the function has such a place, it is the function's own.
"""

from __future__ import annotations

import os
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from mpiflow.data.files import File
from mpiflow.data.futures import DataFuture
from mpiflow.executors.sizes import LEGAL, bytes_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpiflow.kernel.task import Task, TaskRecord

RESERVED = frozenset(
    {"inputs", "memory", "outputs", "parsl_resource_specification", "priority", "stderr", "stdout", "walltime"}
)
#: As ``stdout`` or ``stderr`` of a call: a file of its own for each task, in the run directory.
AUTO_LOGNAME = -1


def take_note(task: Task, auto_name: Callable[[TaskRecord, str], Any]) -> None:
    """Act on the reserved arguments of a call; the caller's own lists and dict stay as they are.

    Parameters
    ----------
    task : Task
        Its ``kwargs`` are replaced by a copy; its ``walltime``, ``memory``, ``outputs``, ``priority`` and ``resources``
        are set.
    auto_name : callable
        From a task record and "stdout" or "stderr", where `AUTO_LOGNAME` writes.

    Raises
    ------
    TypeError
        For a walltime that is no number of seconds, a memory that is no size, outputs that are no Files, inputs that
        are no list.
    """
    kwargs = task.kwargs = dict(task.kwargs)
    name = task.app.name
    if "walltime" in kwargs:
        if kwargs["walltime"] is not None:
            task.walltime = seconds_of(name, kwargs["walltime"])
        if not accepts(task.app.func, "walltime"):
            del kwargs["walltime"]
    if "memory" in kwargs and not accepts(task.app.func, "memory"):
        memory = kwargs.pop("memory")
        if memory is not None:
            task.memory = memory_of(name, memory)
    for key in ("inputs", "outputs"):
        if key in kwargs:
            kwargs[key] = _listed(name, key, kwargs[key])
    if kwargs.get("parsl_resource_specification"):
        task.resources = _resources(name, kwargs["parsl_resource_specification"])
        task.priority = task.resources.get("priority", task.priority)
    if "priority" in kwargs:
        _take_priority(task, kwargs)
    for key in ("stdout", "stderr"):
        # the type first: an array compares to an array
        if isinstance(kwargs.get(key), int) and kwargs[key] == AUTO_LOGNAME:
            kwargs[key] = auto_name(task.as_record(), key)
            if key not in task.app.ignore_for_cache:
                task.auto = [*getattr(task, "auto", ()), key]
    if "outputs" in kwargs:
        task.outputs = [DataFuture(task.future, _file(name, file), task.id) for file in kwargs["outputs"]]


def auto_log_name(record: TaskRecord, stream: str, run_dir: str) -> str:
    """Where `AUTO_LOGNAME` writes by default: Parsl's layout, ten thousand tasks a directory.

    Examples
    --------
    >>> auto_log_name({"id": 7, "func_name": "f", "kwargs": {"label": "x"}}, "stdout", "runinfo/000")
    'runinfo/000/task_logs/0000/task_0007_f_x.stdout'
    """
    label = record["kwargs"].get("label")
    name = f"task_{record['id']:04}_{record['func_name']}{f'_{label}' if label else ''}.{stream}"
    return os.path.join(run_dir, "task_logs", f"{record['id'] // 10_000:04}", name)


def _take_priority(task: Task, kwargs: dict[str, Any]) -> None:
    """A number is a priority; it goes on to the function where that has a place for it."""
    value = kwargs["priority"]
    if isinstance(value, int) and not isinstance(value, bool):
        task.priority = value
    if not accepts(task.app.func, "priority"):
        if not isinstance(value, int):
            raise TypeError(f"{task.app.name}: priority is {value!r}; legal is a whole number, lower goes first")
        del kwargs["priority"]


def accepts(func: Callable[..., Any], name: str) -> bool:
    """Whether a function has a place for a keyword argument."""
    try:
        parameters = signature(func).parameters
    except (TypeError, ValueError):
        return False  # a builtin that does not say
    return name in parameters or any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())


def seconds_of(name: str, walltime: Any) -> float:
    """A walltime; TypeError for what is none."""
    if isinstance(walltime, bool) or not isinstance(walltime, int | float) or not walltime > 0:
        raise TypeError(f"{name}: walltime is {walltime!r}; legal is a number of seconds above 0")
    return float(walltime)


def memory_of(name: str, memory: Any) -> int:
    """A memory limit in bytes; TypeError for what is none."""
    try:
        return bytes_of(memory)
    except ValueError:
        raise TypeError(f"{name}: memory is {memory!r}; legal is {LEGAL}") from None


def _listed(name: str, key: str, values: Any) -> list[Any]:
    if not isinstance(values, list | tuple):
        raise TypeError(f"{name}: {key} takes a list, not {type(values).__name__}: {values!r}")
    return list(values)


def _resources(name: str, resources: Any) -> dict[str, Any]:
    if not isinstance(resources, dict):
        given = f"{type(resources).__name__}: {resources!r}"
        raise TypeError(f"{name}: parsl_resource_specification takes a dict, not {given}")
    priority = resources.get("priority", 0)
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise TypeError(f"{name}: priority is {priority!r}; legal is a whole number, lower goes first")
    return resources


def _file(name: str, output: Any) -> File:
    if isinstance(output, DataFuture):
        return output.file_obj
    if not isinstance(output, File):
        raise TypeError(f"{name}: outputs takes File objects, not {type(output).__name__}: {output!r}")
    return output
