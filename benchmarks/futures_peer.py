"""The peer: `mpi4py.futures` doing the same tasks on the same ranks.

`MPICommExecutor` makes rank 0 the submitter and rank 1 the worker, as in a farm of two ranks. Its worker runs
tasks in the rank itself, holds one at a time, and both sides sleep up to 1 ms when nothing has arrived; the
defaults are left as they are, for they are what a user gets.
"""

from __future__ import annotations

import time

from mpi4py.futures import MPIPoolExecutor


def noop() -> None:
    """Do nothing: the task of every measurement."""


def throughput(executor: MPIPoolExecutor, tasks: int) -> float:
    """Tasks per second with all submitted, then all waited for; a future each."""
    start = time.perf_counter()
    futures = [executor.submit(noop) for _ in range(tasks)]
    for future in futures:
        future.result()
    return tasks / (time.perf_counter() - start)


def round_trips(executor: MPIPoolExecutor, count: int) -> list[float]:
    """Seconds of `count` tasks, each submitted when the result of the one before it is there."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        executor.submit(noop).result()
        seconds.append(time.perf_counter() - start)
    return seconds


def noop_item(item: int) -> None:
    """Do nothing with one item of a map."""


def map_throughput(executor: MPIPoolExecutor, items: int, chunk: int) -> float:
    """Items per second through a map, `chunk` items in a task, results taken in order."""
    start = time.perf_counter()
    taken = sum(result is None for result in executor.map(noop_item, range(items), chunksize=chunk))
    seconds = time.perf_counter() - start
    if taken != items:
        raise RuntimeError(f"mapped {items} items, took {taken} results")
    return items / seconds
