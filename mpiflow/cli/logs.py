"""``mpiflow logs``: what a job has printed, and with ``-f`` what it prints until it has ended."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mpiflow.errors import ConfigurationError
from mpiflow.jobs.job import Job, find
from mpiflow.jobs.record import all_records
from mpiflow.jobs.tail import Tail

#: Seconds between two looks into the files of a job that is followed.
LOOK_EVERY = 0.5


def logs(arguments: list[str]) -> int:
    """Run the subcommand; returns its exit code.

    Parameters
    ----------
    arguments : list of str
        The command line after the word ``logs``.
    """
    parser = argparse.ArgumentParser(
        prog="mpiflow logs", description="Show what a job has printed: standard output and error of all its attempts."
    )
    parser.add_argument("job", nargs="?", help="id or directory of a job, or a run directory (default: the last job)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job has ended")
    parser.add_argument("-n", "--lines", type=int, metavar="N", help="only the last N lines of the newest file")
    said = parser.parse_args(arguments)
    try:
        files, ended = _of(said.job)
        _show(files, ended, said.lines, said.follow)
    except ConfigurationError as error:
        print(f"mpiflow logs: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _of(named: str | None) -> tuple[Callable[[], list[Path]], Callable[[], bool]]:
    """The files of what was named, and whether no more will come."""
    if named is not None and os.path.isfile(os.path.join(named, "mpiflow.log")):  # a run directory
        run = Path(named)
        return lambda: [run / "mpiflow.log"], lambda: not (run / "requests" / "open").exists()
    job = latest() if named is None else find(named)
    if not job.output:
        raise ConfigurationError(
            f"job {job.id} was not submitted by mpiflow, or elsewhere: where it prints is not known"
        )
    return job.logs, lambda: _ended(job)


def latest() -> Job:
    """The job that was submitted last.

    Raises
    ------
    ConfigurationError
        There is none.
    """
    records = all_records(lambda line: print(f"mpiflow logs: {line}", file=sys.stderr))
    if not records:
        raise ConfigurationError("which job? None was submitted from this account")
    return Job(records[0])


def _ended(job: Job) -> bool:
    return job.status().ended


def _show(files: Callable[[], list[Path]], ended: Callable[[], bool], lines: int | None, follow: bool) -> None:
    tail = Tail(files, lines)
    last: Path | None = None
    while True:
        over = not follow or ended()  # before the last look, so that nothing is missed
        while found := tail.read():
            for path, text in found:
                if path != last:
                    print(f"==> {path}", file=sys.stderr, flush=True)
                last = path
                sys.stdout.buffer.write(text)
                sys.stdout.buffer.flush()
        if over:
            return
        time.sleep(LOOK_EVERY)
