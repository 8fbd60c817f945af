"""What rank 0 runs for ``mpiflow batch``."""

from __future__ import annotations

import os
import sys

import mpiflow
from mpiflow.cli.batch import joblog, words
from mpiflow.cli.batch.command import run_command
from mpiflow.cli.batch.joblog import Entry, Joblog
from mpiflow.cli.batch.settling import Settling, exit_code
from mpiflow.cli.batch.template import BatchError

#: Jobs that are with the farm at once, at least; beyond that four for each that can run.
_UNDER_WAY = 10_000


def main() -> int:
    """Run the batch that the command line asks for; the exit code."""
    said = words.parse(sys.argv[1:])
    try:
        commands = words.commands_of(said.words, sys.stdin.buffer, _say)
        known = joblog.read(said.joblog, _say) if said.joblog and (said.resume or said.resume_failed) else {}
        if said.joblog is not None:
            _check_same(commands, known, said.joblog)
        left_out = {number: entry for number, entry in known.items() if not (said.resume_failed and entry.failed)}
        log = Joblog(said.joblog, anew=not (said.resume or said.resume_failed)) if said.joblog is not None else None
        settling = Settling(log, sum(entry.failed for entry in left_out.values()))
        _run(commands, set(left_out), settling, said.retries)
    except BatchError as error:
        _say(str(error))
        return words.NOT_RUN
    return exit_code(settling.failed)


def _run(commands: list[bytes], left_out: set[int], settling: Settling, tries: int) -> None:
    config = mpiflow.Config.default()
    config.retries = max(config.retries, tries - 1)
    app = mpiflow.python_app(run_command)
    with mpiflow.load(config) as kernel:
        large = os.path.join(kernel.run_dir, "output")
        settling.run(
            ((number, command) for number, command in enumerate(commands, 1) if number not in left_out),
            lambda command, number: app(command, number, os.path.join(large, str(number))),
            max(_UNDER_WAY, 4 * kernel.slots),
        )


def _check_same(commands: list[bytes], known: dict[int, Entry], path: str) -> None:
    """Refuse to go on from a joblog of other commands: its numbers would stand for other work."""
    for number, entry in known.items():
        now = commands[number - 1] if 1 <= number <= len(commands) else None
        if now != entry.command:
            is_now = (
                f"is now {os.fsdecode(now)!r}" if now is not None else f"there is none: there are {len(commands)} now"
            )
            raise BatchError(
                f"--joblog {path}: job {number} was {os.fsdecode(entry.command)!r}, and {is_now}. To go on, "
                "commands and their order have to stay as they are; else give another joblog, or leave --resume out"
            )


def _say(message: str) -> None:
    print(f"mpiflow: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
