"""A `concurrent.futures.Executor` over a DataFlowKernel, for code that wants one.

Its futures are those of apps: one may be given to the next call, and is waited for there.
"""

from __future__ import annotations

import concurrent.futures
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from mpiflow.apps.decorators import python_app
from mpiflow.config import Config
from mpiflow.errors import ConfigurationError
from mpiflow.kernel.dataflow import DataFlowKernel
from mpiflow.kernel.loader import load

if TYPE_CHECKING:
    from mpiflow.kernel.futures import AppFuture


class ParslPoolExecutor(concurrent.futures.Executor):
    """Calls functions as apps, through the interface that Python has for pools.

    Parameters
    ----------
    config : Config, optional
        Loaded at once; the DataFlowKernel is cleaned up by `shutdown`.
    dfk : DataFlowKernel, optional
        One that is loaded already, and stays so. Exactly one of the two is given.
    executors : "all" or list of str
        Labels of the executors that functions may run on.

    Raises
    ------
    ValueError
        When both or neither of ``config`` and ``dfk`` are given.
    ConfigurationError
        For a ``config`` or ``dfk`` that is none.

    Examples
    --------
    >>> with ParslPoolExecutor(Config()) as pool:              # doctest: +SKIP
    ...     print(list(pool.map(abs, [-1, -2])))
    [1, 2]
    """

    def __init__(
        self,
        config: Config | None = None,
        dfk: DataFlowKernel | None = None,
        executors: list[str] | Literal["all"] = "all",
    ) -> None:
        if config is not None and dfk is not None:
            raise ValueError("Specify only one of config or dfk")
        if config is None and dfk is None:
            raise ValueError("Must specify one of config or dfk")
        if dfk is not None and not isinstance(dfk, DataFlowKernel):
            raise ConfigurationError(f"ParslPoolExecutor: dfk is {dfk!r}; legal is a DataFlowKernel")
        self.executors = executors
        self._apps: dict[Callable[..., Any], Callable[..., AppFuture]] = {}
        self._owns = config is not None
        self._dfk: DataFlowKernel | None = load(config) if config is not None else dfk

    @property
    def app_count(self) -> int:
        """Functions that have been made apps so far."""
        return len(self._apps)

    def get_app(self, fn: Callable[..., Any]) -> Callable[..., AppFuture]:
        """The app of a function; the same one each time.

        Parameters
        ----------
        fn : callable
            The function.
        """
        app = self._apps.get(fn)
        if app is None:
            decorate = python_app(data_flow_kernel=self._kernel, executors=self.executors)
            app = self._apps[fn] = decorate(fn)
        return app

    @property
    def _kernel(self) -> DataFlowKernel:
        if self._dfk is None:
            raise RuntimeError("Executor has been shut down.")
        return self._dfk

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AppFuture:
        """Call a function as a task.

        Parameters
        ----------
        fn : callable
            The function.
        *args, **kwargs
            What it is called with; a future among them is waited for.

        Raises
        ------
        RuntimeError
            After `shutdown`.
        """
        self._kernel  # noqa: B018 - says whether there still is one
        return self.get_app(fn)(*args, **kwargs)

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Call a function on each item, all at once.

        Parameters
        ----------
        fn : callable
            The function.
        *iterables
            As for the builtin ``map``.
        timeout : float, optional
            Seconds from now, after which the next result that is not there raises TimeoutError.
        chunksize, buffersize
            Without effect; `mpiflow.map` is the bulk form.

        Returns
        -------
        iterator
            Results in the order of the items. An item that fails raises at its turn.
        """
        end = None if timeout is None else time.monotonic() + timeout
        self._kernel  # noqa: B018 - says whether there still is one
        app = self.get_app(fn)
        futures = [app(*items) for items in zip(*iterables, strict=False)]
        futures.reverse()  # so that each is let go of once its result is out
        return _results(futures, end)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and clean up the DataFlowKernel if this made it.

        Parameters
        ----------
        wait : bool
            Whether to wait for the tasks first.
        cancel_futures : bool
            Without effect, with a warning; a future's own ``cancel()`` has one.
        """
        if self._dfk is None:
            return
        if cancel_futures:
            words = "ParslPoolExecutor.shutdown: cancel_futures has no effect; cancel the futures themselves"
            warnings.warn(words, stacklevel=2)
        dfk = self._dfk
        if wait:
            dfk.wait_for_current_tasks()
        self._dfk = None
        if self._owns:
            dfk.cleanup()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._owns:  # somebody else's DataFlowKernel goes on, and so does this
            self.shutdown(wait=True)


def _results(futures: list[AppFuture], end: float | None) -> Iterator[Any]:
    while futures:
        yield futures.pop().result(None if end is None else end - time.monotonic())
