"""A graph of 100,000 tasks with edges, per second: mpiflow beside the raw ceiling, two ranks each.

    python -m benchmarks.graph [--rounds 5] [--only ROW] [--json FILE]

100 layers of 1,000 no-op tasks; each takes the futures of two of the layer before. All are called at once, so the
graph is in the kernel while it runs.
"""

from __future__ import annotations

from benchmarks.suite import Budget, Row, Suite, main, plain_row

CEILING = "ceiling"


def graph(name: str, isolation: str) -> Row:
    return Row(name, "farm.py", ("dag", "--isolation", isolation, "--tasks", "100000"), Budget(value=50_000))


SUITE = Suite(
    title="A graph of 100,000 no-op tasks, two edges each",
    rows=(
        graph("mpiflow, in rank", "rank"),
        graph("mpiflow, 1 runner", "runner"),
        plain_row(CEILING, "raw_ceiling.py", ("throughput",)),
    ),
    higher_is_better=True,
    ceiling=CEILING,
)

if __name__ == "__main__":
    raise SystemExit(main(SUITE, __doc__))
