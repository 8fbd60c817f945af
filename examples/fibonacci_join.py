"""Fibonacci numbers by recursion: tasks that make tasks, as deep as the problem goes.

A `join_app` is called like any app, but its body may call apps itself and returns their futures; its own result is
theirs. Here a number is the sum of the two before it, each of them such a task again, down to 1 and 0. The bodies run
on rank 0, the additions on the workers; while a number waits for those below it, it holds neither a thread nor a
worker, so the tree may be far larger than the machine.

    fibonacci(4) ─┬─ fibonacci(3) ─┬─ fibonacci(2) ─ …
                  │                └─ fibonacci(1)
                  └─ fibonacci(2) ─ …

    mpiexec -n 3 python -m mpiflow examples/fibonacci_join.py
    python examples/fibonacci_join.py --n 18

Prints the number and how many tasks it took. Exits with 1 if a loop finds another number.
"""

from __future__ import annotations

import argparse
import sys

import mpiflow
from mpiflow import AppFuture, join_app, python_app


@python_app
def add(left: int, right: int) -> int:
    """What a worker does."""
    return left + right


@join_app
def fibonacci(n: int) -> AppFuture:
    """The n-th Fibonacci number: the future of a sum, whose parts need not be there yet."""
    if n < 2:
        return add(0, n)
    return add(fibonacci(n - 1), fibonacci(n - 2))


def by_a_loop(n: int) -> int:
    before, number = 1, 0
    for _ in range(n):
        before, number = number, before + number
    return number


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=12, help="which number (default 12)")
    args = parser.parse_args()
    if not 0 <= args.n <= 25:
        parser.error("n is 0 to 25: number 25 takes half a million tasks already")
    return args


def main() -> int:
    args = options()
    with mpiflow.load() as dfk:
        number = fibonacci(args.n).result()
        print(f"fibonacci({args.n}) = {number:,} by {dfk.task_count:,} tasks")
    if number != by_a_loop(args.n):
        print(f"a loop finds {by_a_loop(args.n):,}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
