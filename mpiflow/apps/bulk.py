"""The bulk form of a call: many items, one task for a chunk of them.

A task costs rank 0 about ten microseconds and a kilobyte, an item of a chunk a tenth of one and nothing. The
results come in the order of the items, lazily, and no more chunks are under way than keep every worker busy:
an endless iterable is fine.

Chunks start small and grow until one takes about ten milliseconds, so that the first results come early and a
slow function still spreads over all workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

from mpiflow.apps.chunk import Chunk
from mpiflow.comm.pickling import unpack_failure
from mpiflow.kernel.app import App
from mpiflow.kernel.dataflow import DataFlowKernel
from mpiflow.kernel.futures import AppFuture
from mpiflow.kernel.loader import for_a_call

#: What a chunk should take, in seconds; far above the cost of a task, far below a person's patience.
CHUNK_SECONDS = 0.010
FIRST_CHUNK, LARGEST_CHUNK = 4, 65536


_chunked: WeakKeyDictionary[Any, dict[bool, App]] = WeakKeyDictionary()


def map(func: Callable[..., Any], *iterables: Iterable[Any], chunksize: int | None = None) -> Iterator[Any]:
    """Call a function on each item, spread over all workers.

    Parameters
    ----------
    func : callable
        A function or an app.
    *iterables
        As for the builtin ``map``: one item from each is one call; the shortest ends it.
    chunksize : int, optional
        Items of one task, from 1 up; default: as many as take about 10 ms.

    Yields
    ------
    object
        Results in the order of the items. An item that fails raises its exception at its turn.

    Examples
    --------
    >>> sum(mpiflow.map(abs, range(-1000, 1000)))              # doctest: +SKIP
    1000000
    """
    app = getattr(func, "app", None)  # a decorated function has one
    if isinstance(app, App) and app.kind == "mpi":
        return func.map(*iterables)  # type: ignore[no-any-return,attr-defined]
    return map_app(app if isinstance(app, App) else _app_of(func), iterables, chunksize, None)


def _app_of(func: Callable[..., Any]) -> App:
    if not callable(func):
        raise TypeError(f"map takes a function, not {type(func).__name__}: {func!r}")
    return _cached_app(func) if isinstance(func, Hashable) else App(func)


@lru_cache(maxsize=256)
def _cached_app(func: Callable[..., Any]) -> App:
    """One app for each function used again: every app is sent to every worker, and kept there."""
    return App(func)


def map_app(
    app: App, iterables: tuple[Iterable[Any], ...], chunksize: int | None, dfk: DataFlowKernel | None
) -> Iterator[Any]:
    """What `map` does, for an app; checked at the call, computed as it is consumed."""
    if not iterables:
        raise TypeError("map() must have at least one iterable")
    if chunksize is not None and (not isinstance(chunksize, int) or chunksize < 1):
        raise ValueError(f"map: chunksize is {chunksize!r}; legal is None or a whole number from 1 up")
    many = len(iterables) > 1
    apps = _chunked.setdefault(app, {})
    if many not in apps:
        apps[many] = App(Chunk(app.func, many), executors=app.executors)
    items = zip(*iterables, strict=False) if many else iter(iterables[0])
    return _results(dfk or for_a_call(), apps[many], items, chunksize)


def _results(dfk: DataFlowKernel, app: App, items: Iterator[Any], chunksize: int | None) -> Iterator[Any]:
    """Keep enough chunks under way, and hand their results out in order."""
    window = 2 * dfk.slots + 2
    size = chunksize or FIRST_CHUNK
    under_way: deque[tuple[int, AppFuture]] = deque()
    first, more = 0, True
    while True:
        while more and len(under_way) < window:
            chunk = list(islice(items, size))
            if chunk:
                under_way.append((first, dfk.call(app, (chunk, first), {})))
                first += len(chunk)
            more = len(chunk) == size
        if not under_way:
            return
        start, future = under_way.popleft()
        results, failure, seconds = future.result()
        yield from results
        if failure is not None:
            raise unpack_failure(failure, f"item {start + len(results)} of map({app.name})")
        if chunksize is None:
            size = _next_size(size, len(results), seconds)


def _next_size(size: int, items: int, seconds: float) -> int:
    """Towards `CHUNK_SECONDS`, at most four times as many as before: one quick chunk may be luck."""
    fitting = items * CHUNK_SECONDS / seconds if seconds > 0 else LARGEST_CHUNK
    return max(1, min(int(fitting), 4 * size, LARGEST_CHUNK))
