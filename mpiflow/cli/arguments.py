"""The command line of a run: options, then the script, then whatever is the script's own."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import NoReturn

import mpiflow
from mpiflow.errors import ConfigurationError

#: First words that are subcommands; anything else is a script.
COMMANDS = ("run", "batch", "doctor", "drain", "perf", "stop")
#: The scripts of ours that are run for a batch and for a measurement.
_BATCH_SCRIPT = os.path.join(os.path.dirname(__file__), "scripts", "batch.py")
_PERF_SCRIPT = os.path.join(os.path.dirname(__file__), "scripts", "perf.py")
_TAKES_VALUE = {
    "-n", "--runners-per-rank", "--isolation", "--seed", "--run-dir", "--config", "--init-timeout",
    "--deadline", "--drain-before",
    "--stall-warning", "--stacks", "--heartbeat-threshold", "--report-within", "--quarantine-after",
}  # fmt: skip

_DESCRIPTION = "Run a script as one MPI job: rank 0 runs it, all other ranks work for it."
_EPILOG = """\
commands:
  run SCRIPT ...   the same as SCRIPT ...; for a script that is called like a command
  batch FILE       run each line of a file as a shell command; batch --help says more
  stage ARCHIVE DIRECTORY      unpack a software environment on every node, reading it once; stage --help says more
  perf             tasks a second, in batches that grow; perf --help says more
  doctor           look at this MPI, its launcher and its ranks, and say what is wrong with them
  drain RUNDIR     have a running job start nothing more, end what runs and leave with code 85
  stop RUNDIR      end a running job now; what is in its journal is kept
  submit SCRIPT ...            put it into the queue of the batch system; submit --help says more
  status, logs, cancel [JOB]   how a job stands, what it prints, its end; jobs lists them all
  report [DB]      what a monitoring database knows of a run; report --help says more
  machines [NAME]  machines with a preset for submit --machine, and what is known of one
  supervise -- LAUNCHER ...   start the farm by this command, and again when it dies; --help says more

examples:
  mpiexec -n 64 python -m mpiflow script.py --steps 10
  python -m mpiflow -n 8 script.py               starts the launcher by itself
  python -m mpiflow -n 1 script.py               without MPI, on local runners
"""


class Arguments(argparse.Namespace):
    """What was said on the command line."""

    command: str
    size: int | None
    runners_per_rank: int | None
    isolation: str
    seed: int | None
    run_dir: str | None
    progress: bool
    config_file: str | None
    as_parsl: bool
    trust: bool
    fresh: bool
    checkpoint_all: bool
    deadline: float | None
    drain_before: float | None
    stall_warning: float
    heartbeat_threshold: float
    report_within: float
    quarantine_after: int
    stacks: str | None
    quick: bool
    script: str | None
    rest: list[str]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"mpiflow: {message}\n{self.format_usage()}", file=sys.stderr, end="")
        sys.exit(2)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}; legal is a whole number from 1 up")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"is {text!r}; legal is a whole number from 0 up")
    return int(text)


def _seconds(text: str) -> float:
    seconds = _not_negative(text)
    if seconds == 0.0:
        raise argparse.ArgumentTypeError(f"is {text!r}; legal is a number of seconds above 0")
    return seconds


def _not_negative(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0.0:  # nan too
        raise argparse.ArgumentTypeError(f"is {text!r}; legal is a number of seconds from 0 up")
    return seconds


def _moment(text: str) -> float:
    from mpiflow.jobs.deadline import parse_deadline

    try:
        return parse_deadline(text, time.time())
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parser() -> argparse.ArgumentParser:
    """The parser; options after the script are not its business."""
    made = _Parser(
        prog="mpiflow",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"mpiflow {mpiflow.__version__}")
    made.add_argument("-n", dest="size", type=_positive, metavar="N", help="ranks to start, rank 0 included")
    made.add_argument(
        "--runners-per-rank", type=_positive, metavar="K", help="tasks that a rank runs at once (default 1)"
    )
    made.add_argument(
        "--isolation",
        choices=("runner", "rank", "task"),
        default="runner",
        help="where a task runs: a process that is used again (default), the rank itself, a process of its own",
    )
    made.add_argument("--seed", type=_natural, metavar="S", help="seed of mpiflow.rng() (default 0)")
    made.add_argument("--run-dir", metavar="DIR", help="the run directory (default runinfo/NNN)")
    made.add_argument(
        "--init-timeout",
        type=_positive,
        metavar="S",
        help="seconds that MPI may take to start on every rank, plus 0.1 a rank (default 120)",
    )
    _add_for_the_end(made)
    _add_for_scripts(made)
    _add_for_losses(made)
    made.add_argument("--no-progress", dest="progress", action="store_false", help="show no progress")
    made.add_argument(
        "--stall-warning",
        type=_not_negative,
        default=300.0,
        metavar="S",
        help="seconds without progress after which rank 0 says what it waits for; 0: never (default 300)",
    )
    made.add_argument("--quick", action="store_true", help="doctor: only what a script needs to know")
    made.add_argument(
        "--stacks", metavar="RUNDIR", help="doctor: the Python stacks of a running job, asked for by its run directory"
    )
    made.add_argument("script", nargs="?", help="a Python script; what follows it is its own")
    made.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return made


def _add_for_the_end(made: argparse.ArgumentParser) -> None:
    """Options about the end of the job's time."""
    made.add_argument(
        "--deadline",
        type=_moment,
        metavar="T",
        help="when the job's time is over: seconds or HH:MM:SS from now, or 2030-01-31T18:00 (default: what the batch "
        "system says)",
    )
    made.add_argument(
        "--drain-before",
        type=_not_negative,
        metavar="S",
        help="seconds before the deadline after which only tasks are started that are known to end in time "
        "(default 120, or a tenth of the time)",
    )


def _add_for_scripts(made: argparse.ArgumentParser) -> None:
    """Options about what the script finds: its Config, its modules, the results of earlier runs."""
    made.add_argument(
        "--config", dest="config_file", metavar="FILE", help="a TOML file: the Config of a script that loads none"
    )
    made.add_argument(
        "--as-parsl", action="store_true", help="run a script written for Parsl: `import parsl` finds mpiflow"
    )
    made.add_argument("--fresh", action="store_true", help="take up no results of earlier runs")
    made.add_argument(
        "--checkpoint-all", action="store_true", help="keep the results of all apps, not only of those with cache=True"
    )
    made.add_argument(
        "--trust", action="store_true", help="take up results although other people can write to their files"
    )


def _add_for_losses(made: argparse.ArgumentParser) -> None:
    """Options about when a worker counts as lost."""
    made.add_argument(
        "--no-guardian",
        action="store_true",
        help="put no process between the launcher and each rank: the loss of a rank then ends the job",
    )
    made.add_argument(
        "--heartbeat-threshold",
        type=_seconds,
        default=15.0,
        metavar="S",
        help="seconds of silence after which a worker is lost and its tasks are given out again (default 15)",
    )
    made.add_argument(
        "--report-within",
        type=_seconds,
        default=120.0,
        metavar="S",
        help="seconds that workers have to report at the start; the job goes on without the others (default 120)",
    )
    made.add_argument(
        "--quarantine-after",
        type=_natural,
        default=32,
        metavar="N",
        help="failures in a row on one host, while others do well, after which it gets no more; 0: never (default 32)",
    )


def parse(arguments: list[str]) -> Arguments:
    """Take a command line apart; an unknown option ends the process with code 2 and a word on it."""
    before, rest = _split(arguments)
    command = "run"
    if before and before[-1] in COMMANDS:
        command = before.pop()
        if command == "run" or (command == "doctor" and rest):
            more, rest = _split(rest)
            before += more
    if command == "batch":
        return _batch(before, rest)
    if command == "perf":
        return _perf(before, rest)
    parsed = parser().parse_args(before, namespace=Arguments())
    parsed.command = command
    parsed.rest = rest
    return parsed


def _batch(before: list[str], rest: list[str]) -> Arguments:
    """The same for a batch, which is a script of ours with a command line of its own."""
    from mpiflow.cli.batch.words import NOT_RUN, separate
    from mpiflow.cli.batch.words import parse as parse_batch

    farm, own = separate(rest, _TAKES_VALUE)
    parse_batch(own)  # which ends here if it is wrong, before any rank is started
    try:
        parsed = parser().parse_args([*before, *farm, _BATCH_SCRIPT], namespace=Arguments())
    except SystemExit as leaving:
        raise SystemExit(NOT_RUN if leaving.code else 0) from None  # 2 would be two failed jobs
    parsed.command = "batch"
    parsed.rest = own
    return parsed


def _perf(before: list[str], rest: list[str]) -> Arguments:
    """The same for a measurement."""
    from mpiflow.cli.perf import parse as parse_perf

    _, farm = parse_perf(rest)  # which ends here if it is wrong
    parsed = parser().parse_args([*before, *farm, _PERF_SCRIPT], namespace=Arguments())
    if parsed.rest:  # a word that is no option has been taken for the script, and ours for what follows it
        print(f"mpiflow perf: {parsed.script!r} is not an option; perf --help says which there are", file=sys.stderr)
        sys.exit(2)
    parsed.command = "perf"
    parsed.rest = rest
    return parsed


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Options and the first word that is none, and what follows that word."""
    position = 0
    while position < len(arguments):
        word = arguments[position]
        if word in _TAKES_VALUE:
            position += 2
        elif word.startswith("-") and len(word) > 1:
            position += 1
        else:
            return arguments[: position + 1], arguments[position + 1 :]
    return arguments, []


def script_arguments(parsed: Arguments) -> str:
    """What is wrong with the names of files, in words; empty when nothing is."""
    if parsed.script is None:
        return f"which script? Say `python -m mpiflow script.py`\n{parser().format_usage()}".rstrip()
    if os.path.isdir(parsed.script):
        return f"{parsed.script} is a directory; a Python script is wanted"
    if not os.path.exists(parsed.script):
        return f"{parsed.script}: there is no such file (looked in {os.getcwd()})"
    if parsed.config_file is not None and not os.path.isfile(parsed.config_file):
        return f"--config {parsed.config_file}: there is no such file (looked in {os.getcwd()})"
    return ""
