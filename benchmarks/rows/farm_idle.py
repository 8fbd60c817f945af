"""Row: CPU of a worker rank while its runner is in a 10 s task, in percent of a core.

Measured over the middle 8 s, from the time its threads spent on a core as the kernel counts it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import mpiflow
from benchmarks.record import report
from mpiflow import MPIExecutor, python_app

TASK, LEAD, WINDOW = 10.0, 1.0, 8.0  # seconds


@python_app
def nap(seconds: float) -> int:
    """Keep the runner, but no core; return its process id."""
    time.sleep(seconds)
    return os.getpid()


def has_mpi(pid: int) -> bool:
    """Whether a process is a rank; guardians, zygotes and runners have not loaded MPI."""
    return b"mpi4py/MPI." in Path(f"/proc/{pid}/maps").read_bytes()


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third one (state) on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def rank_above(pid: int) -> int:
    """The rank that a runner belongs to: the nearest of its ancestors that has MPI loaded."""
    while not has_mpi(pid):
        pid = int(stat_fields(pid)[1])
    return pid


def cpu_seconds(pid: int) -> float:
    """Seconds on a core so far: to the nanosecond where the kernel tells, else to the clock tick."""
    try:
        threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
    except (OSError, IndexError):
        fields = stat_fields(pid)
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    farm = MPIExecutor(label="farm", isolation="runner")
    mpiflow.load(mpiflow.Config(executors=[farm]))
    worker = rank_above(nap(0).result())
    future = nap(TASK)
    time.sleep(LEAD)
    before = cpu_seconds(worker), cpu_seconds(os.getpid())
    time.sleep(WINDOW)
    after = cpu_seconds(worker), cpu_seconds(os.getpid())
    future.result()
    report(100 * (after[0] - before[0]) / WINDOW, "%", rank_0=100 * (after[1] - before[1]) / WINDOW)


if __name__ == "__main__":
    main()
