"""Row: `mpi4py.futures` (`mpiexec -n 2 python peer_futures.py throughput|map|latency`)."""

from __future__ import annotations

import argparse
from statistics import median
from typing import cast

from mpi4py.futures import MPICommExecutor, MPIPoolExecutor

from benchmarks import futures_peer
from benchmarks.record import report, report_latency


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figure", choices=("throughput", "map", "latency"))
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--chunk", type=int, default=1_000, help="items of a map in a task")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def main() -> None:
    args = options()
    with MPICommExecutor() as entered:
        if entered is None:  # a worker, whose tasks are done
            return
        executor = cast(MPIPoolExecutor, entered)  # what it is, whatever the stubs say
        futures_peer.throughput(executor, 1_000)  # warm-up
        if args.figure == "throughput":
            rates = [futures_peer.throughput(executor, args.tasks) for _ in range(args.repeats)]
            report(median(rates), "tasks/s", tasks=args.tasks)
        elif args.figure == "map":
            rates = [
                futures_peer.map_throughput(executor, args.tasks, args.chunk) for _ in range(args.repeats)
            ]
            report(median(rates), "items/s", items=args.tasks, chunk=args.chunk)
        else:
            report_latency(futures_peer.round_trips(executor, args.tasks))


if __name__ == "__main__":
    main()
