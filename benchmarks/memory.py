"""Memory of rank 0 for a task that waits, its arguments apart.

    python -m benchmarks.memory [--rounds 5] [--only ROW] [--json FILE]

100,000 tasks that depend on one future, each with a future that the script holds; what the process has grown by
is divided by their number. Object sizes added up would be less: allocators and tables are paid for, too.
"""

from __future__ import annotations

from benchmarks.suite import Budget, Row, Suite, main

PENDING = "a pending task"

SUITE = Suite(
    title="Memory of rank 0",
    rows=(Row(PENDING, "farm.py", ("pending", "--tasks", "100000"), Budget(value=1024)),),
    higher_is_better=False,
    ceiling=PENDING,
)

if __name__ == "__main__":
    raise SystemExit(main(SUITE, __doc__))
