"""Time of one no-op task after the other: mpiflow beside mpi4py.futures and the raw ceiling, two ranks each.

    python -m benchmarks.latency [--rounds 5] [--only ROW] [--json FILE]

One task at a time means: called, waited for, result in hand, then the next; the median of 2,000. A link of a
chain is a task that takes the future of the one before it, all called at once.
"""

from __future__ import annotations

from benchmarks.suite import Budget, Row, Suite, main, plain_row

PEER = "mpi4py.futures"
CEILING = "ceiling"
COUNT = ("--tasks", "2000")


def farm(name: str, figure: str, isolation: str, budget: Budget) -> Row:
    return Row(name, "farm.py", (figure, "--isolation", isolation, *COUNT), budget, peer=PEER)


SUITE = Suite(
    title="One no-op task at a time, while busy",
    rows=(
        plain_row(PEER, "peer_futures.py", ("latency", *COUNT)),
        farm("mpiflow, in rank", "latency", "rank", Budget(value=25)),
        farm("mpiflow, 1 runner", "latency", "runner", Budget(value=60)),
        farm("mpiflow, link of a chain, in rank", "chain", "rank", Budget(ratio=15)),
        farm("mpiflow, link of a chain, 1 runner", "chain", "runner", Budget(ratio=6)),
        plain_row(CEILING, "raw_ceiling.py", ("latency", *COUNT), peer=PEER),
    ),
    higher_is_better=False,
    ceiling=CEILING,
)

if __name__ == "__main__":
    raise SystemExit(main(SUITE, __doc__))
