"""Row: pickled calls over bare MPI (`mpiexec -n 2 python raw_ceiling.py throughput|latency`)."""

from __future__ import annotations

import argparse
from statistics import median

from mpi4py import MPI

from benchmarks import ceiling
from benchmarks.record import report, report_latency


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figure", choices=("throughput", "latency"))
    parser.add_argument("--tasks", type=int, default=200_000)
    parser.add_argument("--bulk", type=int, default=1_000, help="tasks in a message")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def main() -> None:
    args = options()
    comm = MPI.COMM_WORLD.Dup()
    if comm.rank != 0:
        ceiling.serve(comm)
        return
    if args.figure == "throughput":
        ceiling.throughput(comm, 10 * args.bulk, args.bulk)  # warm-up
        rates = [ceiling.throughput(comm, args.tasks, args.bulk) for _ in range(args.repeats)]
        report(median(rates), "tasks/s", tasks=args.tasks, bulk=args.bulk)
    else:
        ceiling.throughput(comm, 1_000, args.bulk)  # warm-up
        report_latency(ceiling.round_trips(comm, args.tasks))
    ceiling.dismiss(comm)


if __name__ == "__main__":
    main()
