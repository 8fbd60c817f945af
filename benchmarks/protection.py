"""What it costs to be ready for faults when there are none: guardian and heartbeats, and the journal.

    python -m benchmarks.protection [--rounds 5] [--only ROW] [--json FILE]

The peer of each row is the same without: no process between the launcher and the ranks and no signs of life; results
that are remembered in memory only.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.suite import Budget, Row, Suite, main

#: A ratio of rates: 3 % less at most.
BUDGET = Budget(ratio=0.97)
TASKS = ("--tasks", "100000", "--repeats", "3")
REMEMBERED = ("--tasks", "20000", "--repeats", "3")


def bare_job(script: Path, args: Sequence[str]) -> list[str]:
    """The command for a farm without protection."""
    bare = ["--no-guardian", "--heartbeat-threshold", "1000000"]
    return [sys.executable, "-m", "mpiflow", "-n", "2", *bare, str(script), *args]


def pair(name: str, *args: str) -> tuple[Row, Row]:
    """No-op tasks without protection and with it."""
    bare = f"{name}, bare"
    given = ("throughput", *args, *TASKS)
    return Row(bare, "farm.py", given, start=bare_job), Row(f"{name}, protected", "farm.py", given, BUDGET, peer=bare)


def kept(name: str, *args: str) -> tuple[Row, Row]:
    """Remembered tasks without a journal and with it."""
    memory = f"{name}, in memory"
    given = ("keep", *args, *REMEMBERED)
    return (
        Row(memory, "farm.py", (*given, "--journal", "no")),
        Row(f"{name}, journal", "farm.py", given, BUDGET, peer=memory),
    )


SUITE = Suite(
    title="No-op tasks, with and without protection",
    rows=(
        *pair("in rank", "--isolation", "rank"),
        *pair("1 runner"),
        *kept("remembered, 1 runner"),
    ),
    higher_is_better=True,
    ceiling="in rank, bare",
)

if __name__ == "__main__":
    raise SystemExit(main(SUITE, __doc__))
