"""python_app, bash_app, join_app and mpi_app."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import update_wrapper
from inspect import Parameter, signature
from typing import Any, overload

from mpiflow.apps.bash import BashCommand
from mpiflow.apps.mpi import SPECIFICATION, MPIFunction
from mpiflow.kernel.app import App
from mpiflow.kernel.dataflow import DataFlowKernel
from mpiflow.kernel.futures import INTERNAL, AppFuture
from mpiflow.kernel.loader import for_a_call
from mpiflow.kernel.reserved import RESERVED, accepts, memory_of, seconds_of

Decorator = Callable[[Callable[..., Any]], "DecoratedApp"]

_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


class DecoratedApp:
    """A decorated function: calling it makes a task.

    Attributes
    ----------
    func : callable
        The function itself.
    app : App
        What the kernel knows of it.
    executors : "all" or list of str
        Labels of the executors it may run on.
    cache : bool
        Whether results are remembered.
    ignore_for_cache : list of str or None
        Keyword arguments that make no difference to that.
    kwargs : dict
        Defaults of parameters, which hold for calls that do not give them: of the reserved ones (``stdout``,
        ``walltime``, ...); of a bash_app all.
    data_flow_kernel : DataFlowKernel or None
        Where its tasks go; None for the one that is loaded when it is called.
    """

    def __init__(self, app: App, data_flow_kernel: DataFlowKernel | None, all_defaults: bool = False) -> None:
        self.app = app
        self.func = app.func
        self.executors = [INTERNAL] if app.join else app.executors
        self.cache = app.cache
        self.ignore_for_cache = list(app.ignore_for_cache) or None
        self.data_flow_kernel = data_flow_kernel
        self._positions: dict[str, int] = {}
        self.kwargs = self._defaults(all_defaults)
        update_wrapper(self, app.func, updated=())
        self.__name__ = app.name  # a partial has none of its own

    def __call__(self, *args: Any, **kwargs: Any) -> AppFuture:
        dfk = self.data_flow_kernel
        if dfk is None:
            dfk = for_a_call()
        if self.kwargs:
            kwargs = {**self._defaults_beside(len(args)), **kwargs}
        return dfk.call(self.app, args, kwargs)

    def _defaults(self, of_all: bool) -> dict[str, Any]:
        try:
            parameters = signature(self.func).parameters.values()
        except (TypeError, ValueError):
            return {}  # a builtin: it has no such parameters
        named = {p.name: p for p in parameters if p.kind in _NAMED and p.default is not Parameter.empty}
        if any(p.kind is Parameter.POSITIONAL_OR_KEYWORD for p in named.values()):
            self._positions = {p.name: at for at, p in enumerate(parameters) if p.name in named}
        return {name: p.default for name, p in named.items() if of_all or name in RESERVED}

    def _defaults_beside(self, args: int) -> dict[str, Any]:
        """The defaults of parameters that a call with so many positional arguments has not given by place."""
        if not args:
            return self.kwargs
        return {name: value for name, value in self.kwargs.items() if self._positions.get(name, args) >= args}

    def map(self, *iterables: Iterable[Any], chunksize: int | None = None) -> Iterator[Any]:
        """Call it on each item in bulk: results in order, see `mpiflow.map`."""
        from mpiflow.apps.bulk import map_app

        if self.app.kind == "mpi":  # no chunks: each item is a gang
            futures = [self(*items) for items in zip(*iterables, strict=False)]
            return (future.result() for future in futures)
        return map_app(self.app, iterables, chunksize, self.data_flow_kernel)

    def __reduce__(self) -> tuple[Any, ...]:
        # An app in a task's arguments or globals: it can be shown and passed on, and called on rank 0 only.
        return _undecorated, (self.func,)

    def __repr__(self) -> str:
        return f"<app {self.app.name}>"


def _undecorated(func: Callable[..., Any]) -> Callable[..., Any]:
    """What an app is inside a task: the function, since a task cannot make tasks."""
    return func


def _limits(func: Callable[..., Any], walltime: float | None, memory: int | str | None) -> dict[str, Any]:
    """What a decorator says of its tasks' limits, for the app; TypeError for what is none."""
    name = getattr(func, "__name__", type(func).__name__)
    limits: dict[str, Any] = {}
    if walltime is not None:
        limits["walltime"] = seconds_of(name, walltime)
    if memory is not None:
        limits["memory"] = memory_of(name, memory)
    return limits


def _check(
    function: object, executors: object, kernel: object, cache: object, ignored: object, priority: object = 0
) -> None:
    """TypeError for a decorator's argument of a wrong type."""
    if function is not None and not callable(function):
        raise TypeError(f"an app is made of a function, not of {type(function).__name__}: {function!r}")
    labels = executors == "all" or (isinstance(executors, list | tuple) and executors and _all_texts(executors))
    if not labels:
        raise TypeError(f"executors is {executors!r}; legal is 'all' or a list of labels")
    if kernel is not None and not isinstance(kernel, DataFlowKernel):
        raise TypeError(f"data_flow_kernel is {kernel!r}; legal is None or a DataFlowKernel")
    if not isinstance(cache, bool):
        raise TypeError(f"cache is {cache!r}; legal is True or False")
    if ignored is not None and not (isinstance(ignored, list | tuple) and _all_texts(ignored)):
        raise TypeError(f"ignore_for_cache is {ignored!r}; legal is None or a list of names of keyword arguments")
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise TypeError(f"priority is {priority!r}; legal is a whole number, lower goes first")


def _all_texts(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


@overload
def python_app(function: Callable[..., Any]) -> DecoratedApp: ...
@overload
def python_app(
    function: None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    cache: bool = False,
    executors: str | Sequence[str] = "all",
    ignore_for_cache: Sequence[str] | None = None,
    priority: int = 0,
    walltime: float | None = None,
    memory: int | str | None = None,
) -> Decorator: ...
def python_app(
    function: Callable[..., Any] | None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    cache: bool = False,
    executors: str | Sequence[str] = "all",
    ignore_for_cache: Sequence[str] | None = None,
    priority: int = 0,
    walltime: float | None = None,
    memory: int | str | None = None,
) -> DecoratedApp | Decorator:
    """Make a function an app that runs in a runner.

    Parameters
    ----------
    function : callable
        What runs; the decorator may be written with and without parentheses.
    data_flow_kernel : DataFlowKernel, optional
        Where its tasks go; default: the one loaded when it is called.
    cache : bool
        Whether a call that was made before is answered with the result it had.
    executors : "all" or list of str
        Labels of the executors it may run on; of several, the one with the least to do is taken.
    ignore_for_cache : list of str, optional
        Keyword arguments that make no difference to `cache`.
    priority : int
        Among what is ready, lower goes first; a call may say otherwise with ``priority=``.
    walltime : float, optional
        Seconds that a task may take: then it is ended with all it has started, and fails with `AppTimeout`. A call may
        say otherwise with ``walltime=``.
    memory : int or str, optional
        Memory that a task may use, with all it has started, in bytes or as "4GB", "512MiB", "1.5G": with more it is
        ended, and fails with `MemoryLimitExceeded`. A call may say otherwise with ``memory=``, unless the function
        itself takes an argument of that name. Executors whose tasks share a process refuse a task with a limit.

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
    _check(function, executors, data_flow_kernel, cache, ignore_for_cache, priority)

    def decorate(func: Callable[..., Any]) -> DecoratedApp:
        _check(func, executors, data_flow_kernel, cache, ignore_for_cache, priority)
        app = App(
            func,
            executors=executors,
            cache=cache,
            ignore_for_cache=ignore_for_cache or (),
            priority=priority,
            **_limits(func, walltime, memory),
        )
        return DecoratedApp(app, data_flow_kernel)

    return decorate if function is None else decorate(function)


@overload
def bash_app(function: Callable[..., Any]) -> DecoratedApp: ...
@overload
def bash_app(
    function: None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    cache: bool = False,
    executors: str | Sequence[str] = "all",
    ignore_for_cache: Sequence[str] | None = None,
    priority: int = 0,
    walltime: float | None = None,
    memory: int | str | None = None,
) -> Decorator: ...
def bash_app(
    function: Callable[..., Any] | None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    cache: bool = False,
    executors: str | Sequence[str] = "all",
    ignore_for_cache: Sequence[str] | None = None,
    priority: int = 0,
    walltime: float | None = None,
    memory: int | str | None = None,
) -> DecoratedApp | Decorator:
    """Make a function that returns a command line an app that runs the command.

    The function is called in a runner; what it returns is run by ``/bin/bash -c`` there. The task's result is
    the exit code 0; any other is `BashExitFailure`.

    Parameters
    ----------
    function, data_flow_kernel, cache, executors, ignore_for_cache, priority, walltime, memory
        As for `python_app`.

    Examples
    --------
    >>> @bash_app
    ... def hello(name, stdout="hello.txt"):
    ...     return f"echo hello {name}"
    >>> hello("world").result()                                # doctest: +SKIP
    0
    """
    _check(function, executors, data_flow_kernel, cache, ignore_for_cache, priority)

    def decorate(func: Callable[..., Any]) -> DecoratedApp:
        _check(func, executors, data_flow_kernel, cache, ignore_for_cache, priority)
        command = BashCommand(func)
        command.takes_walltime = accepts(func, "walltime")
        app = App(
            func,
            command,
            kind="bash",
            executors=executors,
            cache=cache,
            ignore_for_cache=ignore_for_cache or (),
            priority=priority,
            **_limits(func, walltime, memory),
        )
        return DecoratedApp(app, data_flow_kernel, all_defaults=True)

    return decorate if function is None else decorate(function)


@overload
def join_app(function: Callable[..., Any]) -> DecoratedApp: ...
@overload
def join_app(
    function: None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    cache: bool = False,
    ignore_for_cache: Sequence[str] | None = None,
) -> Decorator: ...
def join_app(
    function: Callable[..., Any] | None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    cache: bool = False,
    ignore_for_cache: Sequence[str] | None = None,
) -> DecoratedApp | Decorator:
    """Make a function that calls apps and returns their futures an app with their results.

    The body runs in a thread of rank 0, once its arguments are there; it returns a future or a list of
    futures, and holds no thread while they are awaited.

    Parameters
    ----------
    function, data_flow_kernel, cache, ignore_for_cache
        As for `python_app`; what is remembered is the joined result.

    Examples
    --------
    >>> @join_app
    ... def total(n):
    ...     return add(*[double(i) for i in range(n)])
    """
    _check(function, "all", data_flow_kernel, cache, ignore_for_cache)

    def decorate(func: Callable[..., Any]) -> DecoratedApp:
        _check(func, "all", data_flow_kernel, cache, ignore_for_cache)
        app = App(
            func,
            join=True,
            cache=cache,
            ignore_for_cache=ignore_for_cache or (),
        )
        return DecoratedApp(app, data_flow_kernel)

    return decorate if function is None else decorate(function)


@overload
def mpi_app(function: Callable[..., Any]) -> DecoratedApp: ...
@overload
def mpi_app(
    function: None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    cache: bool = False,
    executors: str | Sequence[str] = "all",
    ignore_for_cache: Sequence[str] | None = None,
    priority: int = 0,
    walltime: float | None = None,
    *,
    ranks: int | None = None,
    nodes: int | None = None,
    ranks_per_node: int | None = None,
) -> Decorator: ...
def mpi_app(
    function: Callable[..., Any] | None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    cache: bool = False,
    executors: str | Sequence[str] = "all",
    ignore_for_cache: Sequence[str] | None = None,
    priority: int = 0,
    walltime: float | None = None,
    *,
    ranks: int | None = None,
    nodes: int | None = None,
    ranks_per_node: int | None = None,
) -> DecoratedApp | Decorator:
    """Make a function an app that runs on several ranks at once.

    The function runs in the worker ranks themselves. Each of them gets the same arguments, and as keyword argument
    ``comm`` an mpi4py communicator of exactly these ranks, by node and then by number. The call's value is what rank 0
    of that communicator returns; the others' are dropped.

    Parameters
    ----------
    function, data_flow_kernel, cache, executors, ignore_for_cache, priority, walltime
        As for `python_app`.
    ranks : int, optional
        How many ranks a call runs on. A call may say otherwise, by
        ``parsl_resource_specification={"num_ranks": 8}``, with ``num_nodes`` and ``ranks_per_node`` in it too.
    nodes, ranks_per_node : int, optional
        On so many nodes, with so many ranks on each (default: one, or what `ranks` makes of it).

    Examples
    --------
    >>> @mpi_app(ranks=4)
    ... def total(x, comm):
    ...     return comm.allreduce(x * comm.rank)
    >>> total(10).result()                                     # doctest: +SKIP
    60
    """
    _check(function, executors, data_flow_kernel, cache, ignore_for_cache, priority)
    asked = {"num_ranks": ranks, "num_nodes": nodes, "ranks_per_node": ranks_per_node}
    specification = {key: count for key, count in asked.items() if count is not None}
    for key, count in specification.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise TypeError(f"mpi_app: {key} is {count!r}; legal is a whole number from 1 up")

    def decorate(func: Callable[..., Any]) -> DecoratedApp:
        _check(func, executors, data_flow_kernel, cache, ignore_for_cache, priority)
        if not accepts(func, "comm"):
            name = getattr(func, "__name__", type(func).__name__)
            raise TypeError(f"mpi_app: {name} has no parameter comm, in which it is given its communicator")
        app = App(
            func,
            MPIFunction(func, accepts(func, SPECIFICATION)),
            kind="mpi",
            executors=executors,
            cache=cache,
            ignore_for_cache=ignore_for_cache or (),
            priority=priority,
            **_limits(func, walltime, None),
        )
        decorated = DecoratedApp(app, data_flow_kernel)
        if specification:
            decorated.kwargs = {**decorated.kwargs, SPECIFICATION: specification}
        return decorated

    return decorate if function is None else decorate(function)
