"""What a worker costs while it does nothing for its task: files opened to start it, CPU while it waits.

    python -m benchmarks.footprint [--rounds 3]

Files opened, from the start of the interpreter to the first line of the first function, by a worker rank and
its zygote, beyond what a bare interpreter opens; the runner that ran the function apart. On a parallel file
system each is a request to the one metadata server that all ranks of all jobs share, so thousands of ranks
are felt there first. Counted twice where strace is installed: what Python opens (modules and extension
modules; the budget holds for these) and what the processes open in all, the MPI library's own included. Files
under /proc, /sys and /dev belong to the node and are not counted; modules are compiled beforehand.

CPU of a worker rank while its runner is in a 10 s task: what a task's core loses to the farm.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.jobs import ROWS, JobFailedError, environment, farm_job, mpiexec, run
from benchmarks.suite import Row, machine, measure

OPENS_BUDGET = 60
CPU_BUDGET = 0.3  # percent of a core

MARK = "/first-function-runs-here"  # no such file; the attempt to open it is the mark
RANK = "${PMI_RANK:-${PMIX_RANK:-${OMPI_COMM_WORLD_RANK:-0}}}"
OF_THE_NODE = ("/proc/", "/sys/", "/dev/")
TRACED = re.compile(r'^(?P<time>[\d.]+) open(?:at)?\((?:[^,"]+, )?"(?P<path>[^"]*)".*= (?P<fd>-?\d+)')

IDLE = Row("worker rank, its runner in a 10 s task", "farm_idle.py")


@dataclass(frozen=True)
class Opened:
    """A file that was opened, and when."""

    time: float
    path: str


@dataclass(frozen=True)
class Opens:
    """How many files a rank's processes opened before the first function."""

    #: by the process that ran the function
    runner: int
    #: by all others
    others: int


def hooked(command: Sequence[str], logs: Path) -> tuple[list[str], dict[str, str]]:
    """The command with every open that Python does written down by an audit hook."""
    env = environment()
    hook = Path(__file__).resolve().parent / "opens"
    env["PYTHONPATH"] = os.pathsep.join([str(hook), env["PYTHONPATH"]])
    env["FOOTPRINT_DIR"] = str(logs)
    return list(command), env


def traced(command: Sequence[str], logs: Path) -> tuple[list[str], dict[str, str]]:
    """The command under strace, which stays out of the line between launcher and rank (-D)."""
    strace = f'exec strace -D -ff -ttt -s 4096 -e trace=open,openat -o "{logs}/{RANK}" "$@"'
    return ["sh", "-c", strace, "sh", *command], environment()


def read_hooked(log: Path) -> Iterator[Opened]:
    for line in log.read_text().splitlines():
        time, path = line.split(" ", 1)
        if path == MARK or os.path.exists(path):  # the hook is called before the file is looked for
            yield Opened(float(time), path)


def read_traced(log: Path) -> Iterator[Opened]:
    for line in log.read_text(errors="replace").splitlines():
        found = TRACED.match(line)
        if found and (int(found["fd"]) >= 0 or found["path"] == MARK):
            yield Opened(float(found["time"]), found["path"])


def opens(command: Sequence[str], rank: int, with_strace: bool, launcher: Sequence[str] = ()) -> Opens:
    """Run a job and count what the processes of one rank open before the mark."""
    with tempfile.TemporaryDirectory() as directory:
        logs = Path(directory)
        words, env = (traced if with_strace else hooked)(command, logs)
        run([*launcher, *words], env)
        read = read_traced if with_strace else read_hooked
        processes = [list(read(log)) for log in logs.glob(f"{rank}.*")]
    marks = [one.time for process in processes for one in process if one.path == MARK]
    if not marks:
        raise JobFailedError(f"no function ran in rank {rank}")
    runner = others = 0
    for process in processes:
        count = sum(one.time < min(marks) and not one.path.startswith(OF_THE_NODE) for one in process)
        if any(one.path == MARK for one in process):
            runner += count
        else:
            others += count
    return Opens(runner, others)


def kept(value: float, budget: float) -> str:
    return f"   budget <= {budget}: {'kept' if value <= budget else 'MISSED'}"


def print_opens(label: str, with_strace: bool, budget: int | None = None) -> None:
    """Count by one way of counting: a bare interpreter, one with mpi4py in a job, a worker of the farm."""
    leave_mark = f"try: open({MARK!r})\nexcept OSError: pass"
    with_mpi = f"from mpi4py import MPI\n{leave_mark}"
    python, two_ranks = sys.executable, [*mpiexec(), "-n", "2"]
    first = [python, "-m", "mpiflow", str(ROWS / "farm_first.py"), MARK]

    bare = opens([python, "-c", leave_mark], 0, with_strace).runner
    mpi = opens([python, "-c", with_mpi], 1, with_strace, two_ranks).runner
    worker = opens(first, 1, with_strace, two_ranks)
    beyond = worker.others - bare
    print(f"{label} before the first function")
    print(f"  {beyond:5d}  worker rank and zygote{'' if budget is None else kept(beyond, budget)}")
    print(f"  {mpi - bare:5d}  for comparison: a rank that does 'from mpi4py import MPI' and nothing else")
    print(f"  {worker.runner:5d}  runner\n")


def print_cpu(rounds: int) -> bool:
    """Measure and print the CPU of a waiting worker; say whether it could be done."""
    outcome = measure([IDLE], rounds)[IDLE.name]
    if outcome.error:
        print(f"CPU: failed in {outcome.records.count(None)} of {rounds} rounds: {outcome.error}")
    if records := outcome.good():
        worker = median(record["value"] for record in records)
        print("CPU while the runner is in a 10 s task, % of a core")
        print(f"  {worker:5.2f}  worker rank{kept(worker, CPU_BUDGET)}")
        print(f"  {median(record['rank_0'] for record in records):5.2f}  rank 0, its script asleep")
    return not outcome.error


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rounds", type=int, default=3, help="how often the CPU is measured (default 3)")
    args = parser.parse_args()
    print(f"Footprint of a worker; {machine()}\n")
    try:
        run(farm_job(ROWS / "farm_first.py", [MARK]))  # leaves every module compiled
        print_opens("Files opened by Python", with_strace=False, budget=OPENS_BUDGET)
        if shutil.which("strace"):
            print_opens("Files opened in all (strace)", with_strace=True)
    except JobFailedError as error:
        print(f"Files opened: failed: {error}\n")
        print_cpu(args.rounds)
        return 1
    return 0 if print_cpu(args.rounds) else 1


if __name__ == "__main__":
    raise SystemExit(main())
