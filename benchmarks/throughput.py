"""No-op tasks per second: mpiflow beside mpi4py.futures and the raw ceiling, two ranks each.

    python -m benchmarks.throughput [--rounds 5] [--only ROW] [--json FILE]

A task has a future of its own and all are called before one is waited for; an item of a map has neither
(the peer's map is given chunks of 1,000 items).
"""

from __future__ import annotations

from benchmarks.suite import Budget, Row, Suite, main, plain_row

PEER = "mpi4py.futures"
PEER_MAP = "mpi4py.futures map"
CEILING = "ceiling"


def tasks(name: str, isolation: str, budget: Budget, runners: int = 1) -> Row:
    args = ("throughput", "--isolation", isolation, "--runners", str(runners), "--tasks", "100000")
    return Row(name, "farm.py", args, budget, peer=PEER)


def items(name: str, isolation: str, budget: Budget) -> Row:
    args = ("map", "--isolation", isolation, "--tasks", "1000000")
    return Row(name, "farm.py", args, budget, peer=PEER_MAP)


SUITE = Suite(
    title="No-op tasks",
    rows=(
        plain_row(PEER, "peer_futures.py", ("throughput",)),
        tasks("mpiflow, in rank", "rank", Budget(value=100_000, ratio=40)),
        tasks("mpiflow, 1 runner", "runner", Budget(value=60_000)),
        tasks("mpiflow, 2 runners", "runner", Budget(value=60_000), runners=2),
        plain_row(PEER_MAP, "peer_futures.py", ("map", "--tasks", "1000000")),
        items("mpiflow map, in rank", "rank", Budget(value=1_000_000)),
        items("mpiflow map, 1 runner", "runner", Budget(value=1_000_000)),
        plain_row(CEILING, "raw_ceiling.py", ("throughput",), peer=PEER),
    ),
    higher_is_better=True,
    ceiling=CEILING,
)

if __name__ == "__main__":
    raise SystemExit(main(SUITE, __doc__))
