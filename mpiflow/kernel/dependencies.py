"""Futures among the arguments of a call: finding them, and what they turned out to be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from mpiflow.data.futures import DataFuture
from mpiflow.kernel.dependency_resolvers import LOOKED_INTO, OWN_TYPES, SHALLOW_DEPENDENCY_RESOLVER, DependencyResolver
from mpiflow.kernel.futures import AppFuture
from mpiflow.kernel.task import States
from mpiflow.representation import in_words

if TYPE_CHECKING:
    from mpiflow.kernel.dataflow import DataFlowKernel
    from mpiflow.kernel.task import Task

_exec_done = States.exec_done


def is_plain(resolver: DependencyResolver | None) -> bool:
    """Whether a resolver finds just what `futures_in` finds by itself, faster."""
    if resolver is not None and resolver is not SHALLOW_DEPENDENCY_RESOLVER:
        return False
    return len(LOOKED_INTO) == OWN_TYPES


def gathered(
    args: Iterable[Any], kwargs: dict[str, Any], gather: Callable[[Any], Iterable[Future[Any]]]
) -> tuple[Future[Any], ...]:
    """Futures among the arguments and elements of ``inputs``, by a resolver's word; it raises to the caller."""
    found: list[Future[Any]] = []
    for value in (*args, *kwargs.values(), *kwargs.get("inputs", ())):
        for future in gather(value):
            if not isinstance(future, Future):
                words = f"dependency_resolver: traverse_to_gather found {in_words(future)}; legal are Futures"
                raise TypeError(words)
            found.append(future)
    return tuple(found)


def unwrapped(
    args: Iterable[Any], kwargs: dict[str, Any], unwrap: Callable[[Any], Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with values in the place of futures, by a resolver's word.

    Raises
    ------
    UnwrappingFailed
        With the argument it was, from what the resolver has raised.
    """

    def value(argument: Any) -> Any:
        try:
            return unwrap(argument)
        except Exception as error:
            raise UnwrappingFailed(error, in_words(argument)) from error

    ready = {name: value(argument) for name, argument in kwargs.items() if name != "inputs"}
    if "inputs" in kwargs:
        ready["inputs"] = [value(argument) for argument in kwargs["inputs"]]
    return tuple(value(argument) for argument in args), ready


class UnwrappingFailed(Exception):
    """A resolver could not replace the futures in an argument.

    Attributes
    ----------
    error : Exception
        What it has raised.
    argument : str
        The argument in words.
    """

    def __init__(self, error: Exception, argument: str) -> None:
        super().__init__(error, argument)
        self.error = error
        self.argument = argument


def futures_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Future[Any], ...]:
    """Futures that are arguments themselves, or elements of ``inputs``; those inside containers are not."""
    found: list[Future[Any]] = []
    for value in args:
        if isinstance(value, Future):
            found.append(value)
    if kwargs:
        for value in kwargs.values():
            if isinstance(value, Future):
                found.append(value)
        inputs = kwargs.get("inputs")
        if inputs:
            found += [value for value in inputs if isinstance(value, Future)]
    # nothing but futures, as between the tasks of many a graph: one tuple does for both
    return args if len(found) == len(args) and not kwargs else tuple(found)


def with_values(
    args: tuple[Any, ...], kwargs: dict[str, Any], dfk: DataFlowKernel
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with each future replaced by what it holds; all must have ended well."""

    def value(argument: Any) -> Any:
        if type(argument) is AppFuture and argument.task.dfk is dfk:
            return argument.task.value
        return value_of(argument, dfk) if isinstance(argument, Future) else argument

    ready = {name: value(argument) for name, argument in kwargs.items()}
    if "inputs" in ready:
        ready["inputs"] = [value(argument) for argument in ready["inputs"]]
    return tuple([value(argument) for argument in args]), ready


def source_of(future: Future[Any], dfk: DataFlowKernel) -> Task | None:
    """The task of this kernel that fulfils a future, or None for a future from elsewhere."""
    source: Future[Any] | None = future
    while isinstance(source, DataFuture):
        source = source.parent
    if isinstance(source, AppFuture) and source.task.dfk is dfk:
        return source.task
    return None


def value_of(future: Future[Any], dfk: DataFlowKernel) -> Any:
    """What a future that has ended well holds. Its task may be ahead of it: futures are fulfilled last."""
    if isinstance(future, DataFuture):
        return future.file_obj
    task = source_of(future, dfk)
    return future.result(timeout=0) if task is None else task.value


def error_of(future: Future[Any], dfk: DataFlowKernel) -> BaseException | None:
    """What a future that has ended failed with, or None."""
    task = source_of(future, dfk)
    if task is not None:
        return None if task.state in (States.exec_done, States.memo_done) else task.error
    if future.cancelled():
        from concurrent.futures import CancelledError

        return CancelledError()
    return future.exception(timeout=0)


def failures_among(futures: Iterable[Future[Any]], dfk: DataFlowKernel) -> list[tuple[BaseException, str]]:
    """Each failure among futures that have ended, with the words for where it came from."""
    failures: list[tuple[BaseException, str]] = []
    for future in futures:
        if type(future) is AppFuture and future.task.state is _exec_done:
            continue  # as nearly all: not to be called for is half of this function's time
        error = error_of(future, dfk)
        if error is not None:
            failures.append((error, _origin(future, dfk)))
    return failures


def _origin(future: Future[Any], dfk: DataFlowKernel) -> str:
    if isinstance(future, DataFuture):
        return f"DataFuture from task {future.tid}"
    task = source_of(future, dfk)
    return repr(future) if task is None else f"task {task.id}"
