"""The command line of ``mpiflow perf``, which is that of Parsl's ``parsl-perf``."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

#: How the next batch is made larger, by name; the other way is to say how large each is.
MODES = ("estimate", "exponential")

_DESCRIPTION = "Measure how many tasks a second this farm runs, in batches that grow until one takes the target time."
_EPILOG = """\
examples:
  mpiexec -n 64 python -m mpiflow perf --time 30
  mpiflow -n 4 perf --config config.py --argsize 10000
  mpiflow -n 1 perf --iterate 100,1000,10000

The output is that of parsl-perf. Options of mpiflow itself (-n 8, --isolation rank) go before or behind `perf`.
"""


class Words(argparse.Namespace):
    """What was said after ``perf``."""

    config: str | None
    resources: dict[str, Any]
    time: float
    argsize: int
    iterate: str | list[int]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"mpiflow perf: {message}\n{self.format_usage()}", file=sys.stderr, end="")
        sys.exit(2)


def parse(words: list[str]) -> tuple[Words, list[str]]:
    """Take the words apart: what is meant for the measurement, and what is not known here, which is for the farm.

    Examples
    --------
    >>> said, farm = parse(["--time", "5", "-n", "4"])
    >>> said.time, said.iterate, farm
    (5.0, 'estimate', ['-n', '4'])
    """
    made = _Parser(
        prog="mpiflow perf",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--config",
        metavar="FILE",
        help="a Python file that defines `config` or `fresh_config()`, or a TOML file (default: a Config of defaults)",
    )
    made.add_argument("--resources", type=_resources, default={}, metavar="EXPR", help="resource specification, a dict")
    made.add_argument(
        "--time", type=_seconds, default=120.0, metavar="SECONDS", help="what the last batch is to take (default 120)"
    )
    made.add_argument("--argsize", type=_bytes, default=0, metavar="BYTES", help="extra bytes among the arguments")
    made.add_argument(
        "--iterate",
        type=_mode,
        default="estimate",
        metavar="MODE",
        help="estimate, exponential, or the size of each batch: 10,100,1000",
    )
    return made.parse_known_args(words, namespace=Words())


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"is {text!r}; legal is a number of seconds above 0")
    return seconds


def _bytes(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"is {text!r}; legal is a whole number from 0 up")
    return int(text)


def _mode(text: str) -> str | list[int]:
    if text in MODES:
        return text
    sizes = text.split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"is {text!r}; legal are {', '.join(MODES)}, and sizes such as 10,100,1000")
    return [int(size) for size in sizes]


def _resources(text: str) -> dict[str, Any]:
    try:
        value = eval(text, {})  # an expression of the user's own, as in Parsl
    except Exception as error:
        raise argparse.ArgumentTypeError(f"is {text!r}, which fails: {type(error).__name__}: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"is {text!r}; legal is a dict such as {{'priority': 1}}")
    return value
