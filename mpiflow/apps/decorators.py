"""python_app, bash_app and join_app."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import update_wrapper
from typing import Any, overload

from mpiflow.apps.bash import BashCommand
from mpiflow.kernel.app import App
from mpiflow.kernel.dataflow import DataFlowKernel
from mpiflow.kernel.futures import AppFuture
from mpiflow.kernel.loader import for_a_call
from mpiflow.kernel.reserved import RESERVED

Decorator = Callable[[Callable[..., Any]], "DecoratedApp"]


class DecoratedApp:
    """A decorated function: calling it makes a task.

    Attributes
    ----------
    func : callable
        The function itself.
    app : App
        What the kernel knows of it.
    data_flow_kernel : DataFlowKernel or None
        Where its tasks go; None for the one that is loaded when it is called.
    """

    def __init__(self, app: App, data_flow_kernel: DataFlowKernel | None) -> None:
        self.app = app
        self.func = app.func
        self.executors = app.executors
        self.data_flow_kernel = data_flow_kernel
        self._defaults = _reserved_defaults(app.func)
        update_wrapper(self, app.func, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> AppFuture:
        dfk = self.data_flow_kernel
        if dfk is None:
            dfk = for_a_call()
        if self._defaults:
            kwargs = {**self._defaults, **kwargs}
        return dfk.call(self.app, args, kwargs)

    def map(self, *iterables: Iterable[Any], chunksize: int | None = None) -> Iterator[Any]:
        """Call it on each item in bulk: results in order, see `mpiflow.map`."""
        from mpiflow.apps.bulk import map_app

        return map_app(self.app, iterables, chunksize, self.data_flow_kernel)

    def __reduce__(self) -> tuple[Any, ...]:
        # An app in a task's arguments or globals: it can be shown and passed on, and called on rank 0 only.
        return _undecorated, (self.func,)

    def __repr__(self) -> str:
        return f"<app {self.app.name}>"


def _undecorated(func: Callable[..., Any]) -> Callable[..., Any]:
    """What an app is inside a task: the function, since a task cannot make tasks."""
    return func


def _reserved_defaults(func: Callable[..., Any]) -> dict[str, Any]:
    """Defaults of parameters such as ``stdout`` and ``walltime``, which hold for calls that do not give them."""
    from inspect import Parameter, signature

    try:
        parameters = signature(func).parameters.values()
    except (TypeError, ValueError):
        return {}  # a builtin: it has no such parameters
    return {p.name: p.default for p in parameters if p.name in RESERVED and p.default is not Parameter.empty}


def _check(function: object, executors: object, kernel: object) -> None:
    if function is not None and not callable(function):
        raise TypeError(f"an app is made of a function, not of {type(function).__name__}: {function!r}")
    labels = executors == "all" or (
        isinstance(executors, list | tuple) and executors and all(isinstance(e, str) for e in executors)
    )
    if not labels:
        raise TypeError(f"executors is {executors!r}; legal is 'all' or a list of labels")
    if kernel is not None and not isinstance(kernel, DataFlowKernel):
        raise TypeError(f"data_flow_kernel is {kernel!r}; legal is None or a DataFlowKernel")


@overload
def python_app(function: Callable[..., Any]) -> DecoratedApp: ...
@overload
def python_app(
    function: None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    executors: str | Sequence[str] = "all",
) -> Decorator: ...
def python_app(
    function: Callable[..., Any] | None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    executors: str | Sequence[str] = "all",
) -> DecoratedApp | Decorator:
    """Make a function an app that runs in a runner.

    Parameters
    ----------
    function : callable
        What runs; the decorator may be written with and without parentheses.
    data_flow_kernel : DataFlowKernel, optional
        Where its tasks go; default: the one loaded when it is called.
    executors : "all" or list of str
        Labels of the executors it may run on.

    Returns
    -------
    DecoratedApp
        Call it for an `AppFuture`.

    Examples
    --------
    >>> @python_app
    ... def double(x):
    ...     return 2 * x
    >>> double(21).result()                                    # doctest: +SKIP
    42
    """
    _check(function, executors, data_flow_kernel)

    def decorate(func: Callable[..., Any]) -> DecoratedApp:
        _check(func, executors, data_flow_kernel)
        return DecoratedApp(App(func, executors=executors), data_flow_kernel)

    return decorate if function is None else decorate(function)


@overload
def bash_app(function: Callable[..., Any]) -> DecoratedApp: ...
@overload
def bash_app(
    function: None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    executors: str | Sequence[str] = "all",
) -> Decorator: ...
def bash_app(
    function: Callable[..., Any] | None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    executors: str | Sequence[str] = "all",
) -> DecoratedApp | Decorator:
    """Make a function that returns a command line an app that runs the command.

    The function is called in a runner; what it returns is run by ``/bin/bash -c`` there. The task's result is
    the exit code 0; any other is `BashExitFailure`.

    Parameters
    ----------
    function, data_flow_kernel, executors
        As for `python_app`.

    Examples
    --------
    >>> @bash_app
    ... def hello(name, stdout="hello.txt"):
    ...     return f"echo hello {name}"
    >>> hello("world").result()                                # doctest: +SKIP
    0
    """
    _check(function, executors, data_flow_kernel)

    def decorate(func: Callable[..., Any]) -> DecoratedApp:
        _check(func, executors, data_flow_kernel)
        return DecoratedApp(App(func, BashCommand(func), executors=executors), data_flow_kernel)

    return decorate if function is None else decorate(function)


@overload
def join_app(function: Callable[..., Any]) -> DecoratedApp: ...
@overload
def join_app(function: None = None, data_flow_kernel: DataFlowKernel | None = None) -> Decorator: ...
def join_app(
    function: Callable[..., Any] | None = None, data_flow_kernel: DataFlowKernel | None = None
) -> DecoratedApp | Decorator:
    """Make a function that calls apps and returns their futures an app with their results.

    The body runs in a thread of rank 0, once its arguments are there; it returns a future or a list of
    futures, and holds no thread while they are awaited.

    Parameters
    ----------
    function, data_flow_kernel
        As for `python_app`.

    Examples
    --------
    >>> @join_app
    ... def total(n):
    ...     return add(*[double(i) for i in range(n)])
    """
    _check(function, "all", data_flow_kernel)

    def decorate(func: Callable[..., Any]) -> DecoratedApp:
        _check(func, "all", data_flow_kernel)
        return DecoratedApp(App(func, join=True), data_flow_kernel)

    return decorate if function is None else decorate(function)
