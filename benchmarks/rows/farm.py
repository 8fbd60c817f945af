"""Row: mpiflow (`python -m mpiflow -n 2 farm.py FIGURE --isolation rank|runner`); the figures are at the end."""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from concurrent.futures import Future
from statistics import median

import mpiflow
from benchmarks.record import report, report_latency
from mpiflow import MPIExecutor, python_app
from mpiflow.kernel.task_log import TOLD_OF


@python_app
def noop() -> None:
    """Do nothing: the task of every measurement."""


@python_app(cache=True)
def remembered(number: int) -> int:
    """A task whose result is remembered, and may be kept for the next run."""
    return number


@python_app
def noop_item(item: int) -> None:
    """Do nothing with one item of a map."""


@python_app
def successor(number: int) -> int:
    """One link of a chain."""
    return number + 1


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figure", choices=sorted(FIGURES))
    parser.add_argument("--isolation", choices=("rank", "runner"), default="runner")
    parser.add_argument("--runners", type=int, default=1, help="runners of the worker")
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--journal", choices=("no", "yes"), default="yes", help="whether results are kept")
    return parser.parse_args()


def burst(tasks: int) -> float:
    """Tasks per second with all called, then all waited for; a future each."""
    start = time.perf_counter()
    futures = [noop() for _ in range(tasks)]
    mpiflow.wait_for_current_tasks()
    seconds = time.perf_counter() - start
    for future in futures:
        future.result(timeout=0)  # raises what went wrong, should anything have
    return tasks / seconds


def keep(args: argparse.Namespace) -> None:
    """Tasks per second whose results are remembered, all called, then all waited for."""
    rates = []
    for repeat in range(args.repeats):
        start = time.perf_counter()
        futures = [remembered(number) for number in range(repeat * args.tasks, (repeat + 1) * args.tasks)]
        mpiflow.wait_for_current_tasks()
        rates.append(args.tasks / (time.perf_counter() - start))
        for future in futures:
            future.result(timeout=0)
    report(median(rates), "tasks/s", tasks=args.tasks)


def items(count: int) -> float:
    """Items per second through a map, results taken in order."""
    start = time.perf_counter()
    taken = sum(result is None for result in noop_item.map(range(count)))
    seconds = time.perf_counter() - start
    if taken != count:
        raise RuntimeError(f"mapped {count} items, took {taken} results")
    return count / seconds


def throughput(args: argparse.Namespace) -> None:
    rates = [burst(args.tasks) for _ in range(args.repeats)]
    report(median(rates), "tasks/s", tasks=args.tasks)


def map_items(args: argparse.Namespace) -> None:
    items(10_000)  # warm-up
    rates = [items(args.tasks) for _ in range(args.repeats)]
    report(median(rates), "items/s", items=args.tasks)


def warm_up() -> None:
    """Have the log tell of as many tasks as it will: "while busy" is after those, each of which costs some lines."""
    for _ in range(TOLD_OF + 1):
        noop().result()


def latency(args: argparse.Namespace) -> None:
    warm_up()
    seconds = []
    for _ in range(args.tasks):
        start = time.perf_counter()
        noop().result()
        seconds.append(time.perf_counter() - start)
    report_latency(seconds)


def chain(args: argparse.Namespace) -> None:
    """Seconds a link of a chain of dependent tasks, called at once and waited for at its end."""
    warm_up()
    seconds = []
    for _ in range(args.repeats):
        start = time.perf_counter()
        future = successor(0)
        for _ in range(args.tasks - 1):
            future = successor(future)
        if future.result() != args.tasks:
            raise RuntimeError(f"a chain of {args.tasks} links counted {future.result()}")
        seconds.append((time.perf_counter() - start) / args.tasks)
    report_latency(seconds)


@python_app
def combine(*_: object) -> None:
    """Do nothing with what other tasks returned."""


def dag(args: argparse.Namespace) -> None:
    """Tasks per second of a graph: layers of 1,000, each task with two edges to the layer before."""
    width = 1000
    rates = []
    for _ in range(args.repeats):
        start = time.perf_counter()
        layer = [noop() for _ in range(width)]
        for _ in range(args.tasks // width - 1):
            layer = [combine(layer[i], layer[(7 * i + 3) % width]) for i in range(width)]
        mpiflow.wait_for_current_tasks()
        rates.append(args.tasks / (time.perf_counter() - start))
        for future in layer:
            future.result(timeout=0)
    report(median(rates), "tasks/s", tasks=args.tasks)


def pending(args: argparse.Namespace) -> None:
    """Bytes of rank 0's memory that a task takes which waits for another, its future held by the script."""
    gate: Future[None] = Future()
    [combine(gate) for _ in range(1000)]  # what is allocated once
    before = resident()
    futures = [combine(gate) for _ in range(args.tasks)]
    taken = (resident() - before) / args.tasks
    gate.set_result(None)
    mpiflow.wait_for_current_tasks()
    del futures
    report(taken, "bytes", tasks=args.tasks)


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


FIGURES: dict[str, Callable[[argparse.Namespace], None]] = {
    "throughput": throughput,
    "keep": keep,
    "map": map_items,
    "latency": latency,
    "chain": chain,
    "dag": dag,
    "pending": pending,
}


def main() -> None:
    args = options()
    farm = MPIExecutor(label="farm", isolation=args.isolation, runners_per_rank=args.runners)
    memory = mpiflow.BasicMemoizer(checkpoint_mode="superstep" if args.journal == "yes" else None)
    mpiflow.load(mpiflow.Config(executors=[farm], memoizer=memory))
    burst(1_000)  # warm-up: workers have started, the function is known to them, nobody sleeps
    FIGURES[args.figure](args)


if __name__ == "__main__":
    main()
