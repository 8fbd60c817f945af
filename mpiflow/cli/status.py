"""``mpiflow status`` and ``mpiflow jobs``: how jobs stand, all asked about at once."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from mpiflow.errors import ConfigurationError
from mpiflow.jobs import systems
from mpiflow.jobs.job import Job, find
from mpiflow.jobs.record import all_records
from mpiflow.jobs.states import UNKNOWN, in_words

#: How far back in a file the last word on progress is looked for.
_NEAR_THE_END = 65_536


def status(arguments: list[str]) -> int:
    """Run the subcommand; returns its exit code: 0 when all states are known, 1 when one is not, 2 for what is no job.

    Parameters
    ----------
    arguments : list of str
        The command line after the word ``status``.
    """
    parser = argparse.ArgumentParser(prog="mpiflow status", description="Say how jobs stand, or a run.")
    parser.add_argument(
        "jobs",
        nargs="*",
        metavar="JOB|RUNDIR",
        help="ids or directories of jobs, or run directories (default: all jobs)",
    )
    parser.add_argument(
        "--system", default="", metavar="NAME", help="the batch system of ids that mpiflow did not submit"
    )
    said = parser.parse_args(arguments)
    if not said.jobs:
        return jobs([])
    code = 0
    found: list[Path | Job] = []
    for text in said.jobs:
        try:
            found.append(_run_directory(text) or find(text, said.system))
        except ConfigurationError as error:
            print(f"mpiflow status: {error}", file=sys.stderr)
            code = 2
    for one in found:
        if isinstance(one, Path):
            print(f"run {one}: {_how_a_run_stands(one)}")
            continue
        state = one.status()
        print(f"job {one.id} ({systems.find(one.system).title}): {in_words(state)}")
        code = max(code, int(state.state == UNKNOWN))
        for line in _more(one):
            print(f"  {line}")
    return code


def jobs(arguments: list[str]) -> int:
    """Run the subcommand ``mpiflow jobs``; returns its exit code: 1 where a record cannot be read.

    Parameters
    ----------
    arguments : list of str
        The command line after the word ``jobs``.
    """
    parser = argparse.ArgumentParser(
        prog="mpiflow jobs", description="List the jobs that were submitted, the latest first."
    )
    parser.add_argument("-n", "--number", type=int, default=20, metavar="N", help="at most so many (default 20)")
    said = parser.parse_args(arguments)
    damaged: list[str] = []
    found = [Job(record) for record in all_records(damaged.append)[: max(said.number, 0)]]
    for job in found:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.record.submitted))
        print(f"{job.id:<12} {job.system:<10} {when}  {job.record.name:<20} {in_words(job.status())}")
    for line in damaged:
        print(f"mpiflow jobs: {line}", file=sys.stderr)
    if not found and not damaged:
        print("none was submitted from this account", file=sys.stderr)
    return 1 if damaged else 0


def _run_directory(text: str) -> Path | None:
    path = Path(text)
    return path if (path / "mpiflow.log").is_file() or (path / "requests").is_dir() else None


def _how_a_run_stands(run: Path) -> str:
    """A run that listens is there; one that does not has ended, or has been killed."""
    try:
        words = (run / "requests" / "open").read_text().split()
    except FileNotFoundError:
        last = _last_line(run / "mpiflow.log", "")
        return f"not running; the last line of its log: {last}" if last else "not running"
    return f"running, rank 0 is {' '.join(words)}"


def _more(job: Job) -> list[str]:
    """What else is worth a line: where it is, what it waits for, how far it has come."""
    if not job.output:
        return []
    lines = [f"output: {job.output}"]
    ids = job.record.all_ids()
    if len(ids) > 1:
        lines.append(f"jobs: {', '.join(ids)}")
    errors = [path for path in job.logs() if path.suffix == ".err"]
    said = _last_line(errors[-1], "mpiflow") if errors else ""
    return [*lines, f"last word: {said}"] if said else lines


def _last_line(path: Path, begins: str) -> str:
    """The last line of a file that begins like this."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _NEAR_THE_END))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return ""
    return next((line for line in reversed(lines) if line.startswith(begins) and line.strip()), "")
