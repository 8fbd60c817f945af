"""The files of a call: who brings each to the task, and away from it.

It happens when the app is called, not when the task is sent, as in Parsl: a file that cannot be staged is an
error of the call, and the tasks that staging itself needs are in the graph before the user's. So an executor has
to be chosen at the call too, but only for a task that has files to be moved. Plain paths that stay where they
are cost a look at the arguments: nothing is copied and no task is made.

First all providers are chosen, then they are asked to act: a file that nobody takes is found before anything has
been begun for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from mpiflow.data.files import File
from mpiflow.data.futures import DataFuture
from mpiflow.data.staging.base import Staging
from mpiflow.data.staging.defaults import default_staging
from mpiflow.data.staging.noop import NoOpFileStaging

if TYPE_CHECKING:
    from mpiflow.executors.base import Executor
    from mpiflow.kernel.dataflow import DataFlowKernel
    from mpiflow.kernel.task import Task

#: What may have to be staged; other futures become known when they are done, too late for it.
_FILES = (File, DataFuture)
#: Keyword arguments that are written by the task: staged out, never in.
_STREAMS = ("stdout", "stderr")
#: Keyword argument that a provider gives to its own tasks, whose files are not to be staged again.
INHIBIT = "_parsl_staging_inhibit"


def needs_staging(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call has files: as arguments, as elements of ``inputs`` and ``outputs``, as ``stdout`` or ``stderr``.

    Files inside other containers are the function's own business. Called for each task, so it costs little; after
    `reserved.take_note`, which sees to it that ``inputs`` and ``outputs`` are lists.
    """
    for value in args:
        if isinstance(value, _FILES):
            return True
    if not kwargs:
        return False
    for value in kwargs.values():
        if isinstance(value, _FILES):
            return True
    for name in ("inputs", "outputs"):
        for value in kwargs.get(name, ()):
            if isinstance(value, _FILES):
                return True
    return False


class _Place(NamedTuple):
    """Where a file stands among the arguments: ``holder[key]`` is the value, a File or a DataFuture."""

    holder: Any
    key: Any
    value: Any


class DataManager:
    """Stages the files of a kernel's calls; providers are given it.

    Parameters
    ----------
    dfk : DataFlowKernel
        Whose calls they are.

    Attributes
    ----------
    dfk : DataFlowKernel
        For providers that call apps.
    """

    def __init__(self, dfk: DataFlowKernel) -> None:
        self.dfk = dfk

    def stage(self, task: Task, executor_label: str, executor: Executor) -> None:
        """Have the files of a task staged; after `reserved.take_note`, and with the task in the kernel's books.

        Parameters
        ----------
        task : Task
            Its ``args`` and ``kwargs`` are replaced by copies with what the function is to see; elements of
            ``inputs`` and ``outputs``, which are the task's own lists, are replaced in place. Its ``outputs``
            become futures of when each file is there. Where the call has such, its ``streams`` get futures for a
            ``stdout`` or ``stderr`` that is a File; its ``app`` is replaced by one that calls something else; and
            its ``executor`` is set when files are moved for that one.
        executor_label : str
            Where it is to run.
        executor : Executor
            The same; its ``storage_access`` is asked.

        Raises
        ------
        ValueError
            For a file that no provider takes.
        Exception
            Whatever a provider raises.
        """
        args, kwargs = list(task.args), dict(task.kwargs)
        incoming, outgoing = _files_of(args, kwargs)
        if kwargs.get(INHIBIT):
            in_by: list[Staging | None] = [None] * len(incoming)
            out_by: list[Staging | None] = [None] * len(outgoing)
        else:
            in_by = [_mover(executor_label, executor, place.value, incoming=True) for place in incoming]
            out_by = [_mover(executor_label, executor, place.value, incoming=False) for place in outgoing]
        if any(mover is not None for mover in (*in_by, *out_by)):
            task.executor = executor_label
        remote = task.app.remote
        for place, mover in zip(incoming, in_by, strict=True):
            if mover is not None:
                remote = self._stage_in(executor_label, place, mover, remote)
        futures: list[Future[Any]] = []
        for place, mover in zip(outgoing, out_by, strict=True):
            futures.append(task.future)
            if mover is not None:
                futures[-1], remote = self._stage_out(executor_label, place, mover, task.future, remote)
        _show(task, outgoing, futures)
        task.args, task.kwargs = tuple(args), kwargs
        if remote is not task.app.remote:
            task.app = task.app.running(remote)

    def _stage_in(
        self, label: str, place: _Place, mover: Staging, remote: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Have one file brought; what the task is to call now."""
        value = place.value
        if isinstance(value, DataFuture):
            # Ends with the future that was given, and holds the copy, whose local path the provider will set.
            file = value.file_obj.cleancopy()
            writer = place.holder[place.key] = DataFuture(value, file, tid=value.tid)
        else:
            writer, file = None, value.cleancopy()
            place.holder[place.key] = file
        staged = mover.stage_in(self, label, file, parent_fut=writer)
        if staged is not None:
            place.holder[place.key] = staged
        return mover.replace_task(self, label, file, remote) or remote

    def _stage_out(
        self, label: str, place: _Place, mover: Staging, future: Future[Any], remote: Callable[..., Any]
    ) -> tuple[Future[Any], Callable[..., Any]]:
        """Have one file taken away; what tells that it is there, and what the task is to call now."""
        file = place.holder[place.key] = place.value.cleancopy()
        staged = mover.stage_out(self, label, file, future)
        return (
            future if staged is None else staged,
            mover.replace_task_stage_out(self, label, file, remote) or remote,
        )


def _files_of(args: list[Any], kwargs: dict[str, Any]) -> tuple[list[_Place], list[_Place]]:
    """The files that a task reads and those it writes."""
    inputs, outputs = kwargs.get("inputs", []), kwargs.get("outputs", [])
    # An output of another task may be given as it is: what counts is the file.
    outputs[:] = [value.file_obj if isinstance(value, DataFuture) else value for value in outputs]
    incoming = [_Place(inputs, i, value) for i, value in enumerate(inputs) if isinstance(value, _FILES)]
    incoming += [
        _Place(kwargs, name, value)
        for name, value in kwargs.items()
        if isinstance(value, _FILES) and name not in _STREAMS
    ]
    incoming += [_Place(args, i, value) for i, value in enumerate(args) if isinstance(value, _FILES)]
    outgoing = [_Place(outputs, i, value) for i, value in enumerate(outputs)]
    outgoing += [_Place(kwargs, name, kwargs[name]) for name in _STREAMS if isinstance(kwargs.get(name), File)]
    return incoming, outgoing


def _mover(label: str, executor: Executor, value: File | DataFuture, incoming: bool) -> Staging | None:
    """The first provider of an executor that takes a file; None where nothing is to be done for it."""
    file = value.file_obj if isinstance(value, DataFuture) else value
    providers = getattr(executor, "storage_access", None)
    for provider in default_staging if providers is None else providers:
        if provider.can_stage_in(file) if incoming else provider.can_stage_out(file):
            # A subclass of it may do something. With a local path the copy differs from the file.
            idle = type(provider) is NoOpFileStaging and file.local_path is None
            return None if idle else provider
    what = "file" if incoming else "out file"
    raise ValueError(
        f"Executor {label} cannot stage {what} {file!r}: no provider in its storage_access takes such a URL"
    )


def _show(task: Task, outgoing: list[_Place], futures: list[Future[Any]]) -> None:
    """Let the task's future show a DataFuture for each file that is written, which ends with the one beside it."""
    for place, future in zip(outgoing, futures, strict=True):
        if isinstance(place.key, int):  # an element of `outputs`
            if future is not task.future:  # else what `reserved.take_note` has made is right
                task.outputs[place.key] = DataFuture(future, place.value, task.id)
        else:
            task.streams = {**getattr(task, "streams", {}), place.key: DataFuture(future, place.value, task.id)}
