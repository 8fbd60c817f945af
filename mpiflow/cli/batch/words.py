"""The command line of ``mpiflow batch``, and the commands that it asks for."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Collection, Sequence
from typing import IO, NoReturn

from mpiflow.cli.batch import template
from mpiflow.cli.batch.template import SEPARATORS, BatchError, Source

#: How a batch ends that could not be run; a smaller code is a number of failed jobs.
NOT_RUN = 255

_DESCRIPTION = "Run shell commands as tasks across the ranks. Each prints as a whole when it has ended."
_EPILOG = """\
what to run:
  batch tasks.txt              each line is a command
  batch < tasks.txt            the same, of standard input; so does `batch -`
  batch 'gzip -9 {}' ::: *.txt     a template, and what it is filled with
  batch 'gzip -9 {}' :::: list     the same, from the lines of a file; - is standard input
  batch 'gzip -9 {}' < list

templates:
  {} input   {.} without extension   {/} without directory   {//} directory   {/.} both   {#} number of the job
  {1} {2.} ... of one of several sources; `:::+` goes along with the source before it

The exit code is the number of jobs that failed, up to 100; 101: more than that; 255: nothing could be run;
85: the time was over before all had run, say the same with --resume. Options of mpiflow itself (-n 8,
--runners-per-rank 4) go before these words as well.
"""
_WITH_VALUE = {"--retries", "--joblog"}
_FLAGS = {"--resume", "--resume-failed", "-h", "--help"}


class Words(argparse.Namespace):
    """What was said after ``batch``."""

    retries: int
    joblog: str | None
    resume: bool
    resume_failed: bool
    words: list[str]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"mpiflow batch: {message}\n{self.format_usage()}", file=sys.stderr, end="")
        sys.exit(NOT_RUN)


def separate(words: list[str], farm_takes_value: Collection[str]) -> tuple[list[str], list[str]]:
    """Tell the options of the farm from those of the batch; both may stand between ``batch`` and its first word.

    Parameters
    ----------
    words : list of str
        What follows ``batch`` on the command line.
    farm_takes_value : collection of str
        Options of the farm whose next word is theirs.

    Returns
    -------
    farm, own : list of str
        Words for either.

    Examples
    --------
    >>> separate(["-n", "8", "--retries", "2", "tasks.txt"], {"-n"})
    (['-n', '8'], ['--retries', '2', 'tasks.txt'])
    """
    farm: list[str] = []
    own: list[str] = []
    position = 0
    while position < len(words) and words[position].startswith("-") and words[position] not in ("-", "--"):
        name, given, _ = words[position].partition("=")
        target = own if name in _WITH_VALUE | _FLAGS else farm
        width = 2 if not given and (name in _WITH_VALUE or name in farm_takes_value) else 1
        target += words[position : position + width]
        position += width
    return farm, own + words[position:]


def parse(words: list[str]) -> Words:
    """Take the batch's own words apart; what cannot be is said, and ends the process with code 255."""
    made = _Parser(
        prog="mpiflow batch",
        usage="mpiflow [-n N] batch [--retries N] [--joblog FILE] [--resume | --resume-failed] "
        "[FILE | TEMPLATE [::: INPUT ... | :::: FILE ...]]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--retries",
        type=_tries,
        default=1,
        metavar="N",
        help="run a command that fails up to N times in all (default 1)",
    )
    made.add_argument(
        "--joblog", metavar="FILE", help="write a line for each job that has ended, in GNU parallel's columns"
    )
    made.add_argument("--resume", action="store_true", help="leave out the jobs that are in the joblog")
    made.add_argument(
        "--resume-failed",
        action="store_true",
        help="leave out those that are there and ended well; run the others again",
    )
    options, rest = _options_first(words)
    parsed = made.parse_args(options, namespace=Words())
    parsed.words = rest
    if (parsed.resume or parsed.resume_failed) and parsed.joblog is None:
        made.error("--resume needs --joblog FILE: that file says what has been done")
    return parsed


def _options_first(words: list[str]) -> tuple[list[str], list[str]]:
    """Options, and everything from the first other word on: a template has options of its own.

    One word with nothing but options of ours behind it is no template: ``tasks.txt --retries 2``.
    """
    position = 0
    while position < len(words) and words[position].startswith("-") and words[position] not in ("-", "--"):
        position += 2 if words[position] in _WITH_VALUE else 1
    rest = words[position:]
    if rest[:1] == ["--"]:
        return words[:position], rest[1:]
    if _are_options(rest[1:]):
        return words[:position] + rest[1:], rest[:1]
    return words[:position], rest


def _are_options(words: list[str]) -> bool:
    """Whether these are options of a batch and nothing else."""
    position = 0
    while position < len(words):
        name, given, _ = words[position].partition("=")
        if name not in _WITH_VALUE | _FLAGS:
            return False
        position += 2 if name in _WITH_VALUE and not given else 1
    return True


def _tries(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"is {text!r}; legal is a whole number from 0 up")
    return max(1, int(text))


# --- what is to be run ----------------------------------------------------------------------------------------


def commands_of(words: Sequence[str], stdin: IO[bytes], report: Callable[[str], object]) -> list[bytes]:
    """The commands that the words stand for, all of them checked.

    Parameters
    ----------
    words : sequence of str
        A command file, or a template and its sources.
    stdin : binary file
        Standard input, read where nothing else is named.
    report : callable
        Is told, in words, of what is odd but can be run.

    Raises
    ------
    BatchError
        Naming file and line.
    """
    packed = [os.fsencode(word) for word in words]
    first = next((at for at, word in enumerate(packed) if word in SEPARATORS), len(packed))
    pattern, rest = b" ".join(packed[:first]), packed[first:]
    if rest:
        found = list(template.commands(pattern, _sources(rest, stdin, report)))
    elif len(packed) == 1 and not template.has_replacement(pattern):
        found = lines_of(words[0], stdin, report)
    else:
        found = list(template.commands(pattern, [Source(lines_of("-", stdin, report), False)]))
    for number, command in enumerate(found, 1):
        if problem := _problem(command):
            raise BatchError(f"command {number} has {problem} in it: {command[:60]!r}; a command is one line of text")
    if not found:
        report("there are no commands: nothing to run")
    return found


def _sources(words: list[bytes], stdin: IO[bytes], report: Callable[[str], object]) -> list[Source]:
    sources: list[Source] = []
    while words:
        separator, *words = words
        end = next((at for at, word in enumerate(words) if word in SEPARATORS), len(words))
        given, words = words[:end], words[end:]
        if separator.startswith(b"::::"):
            for path in given:
                sources.append(Source(lines_of(os.fsdecode(path), stdin, report), separator.endswith(b"+")))
        else:
            sources.append(Source(given, separator.endswith(b"+")))
    return sources


def lines_of(path: str, stdin: IO[bytes], report: Callable[[str], object]) -> list[bytes]:
    """The lines of a file, or of standard input for ``-``, without what Windows adds to them.

    Raises
    ------
    BatchError
        It cannot be read, or a line has a NUL.
    """
    name = "standard input" if path == "-" else path
    try:
        if path == "-":
            data = stdin.read()
        else:
            with open(path, "rb") as file:
                data = file.read()
    except FileNotFoundError:
        raise BatchError(f"{path}: there is no such file (looked in {os.getcwd()})") from None
    except (OSError, ValueError) as error:  # a NUL in its name
        raise BatchError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if (at := data.find(b"\0")) >= 0:
        line = data.count(b"\n", 0, at) + 1
        raise BatchError(f"{name}, line {line}: there is a NUL byte in it; this is no file of text (UTF-16, perhaps?)")
    data = data.removeprefix(b"\xef\xbb\xbf")  # Windows' mark of UTF-8 would be part of the first command
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if any(line.endswith(b"\r") for line in lines):
        report(f"{name}: lines end in CR LF, as Windows writes them; the CR is left out")
        lines = [line.removesuffix(b"\r") for line in lines]
    return lines


def _problem(command: bytes) -> str:
    """What makes it no line of a joblog, and no command; empty when nothing does."""
    return "a NUL byte" if b"\0" in command else "a newline" if b"\n" in command else ""
