"""What a batch script asks for, once its directives are understood; and the refusal of one that asks wrongly."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any


class Refused(Exception):
    """The batch system does not take the job.

    Parameters
    ----------
    words : str
        What it says about it.
    code : int
        What its submit command ends with.
    """

    def __init__(self, words: str, code: int = 1) -> None:
        super().__init__(words)
        self.words, self.code = words, code


@dataclass
class Request:
    """A job.

    Attributes
    ----------
    command : list of str
        The script and its arguments.
    said : dict
        Every option that was understood, with its value, for tests to look at.
    after : list of (str, str)
        Condition and job that it waits for.
    to_one, holds : bool
        Whether signals go to its first process alone; whether it is held, and not ended, when its time is over.
    """

    command: list[str] = field(default_factory=list)
    name: str = ""
    nodes: int = 1
    ranks_per_node: int = 1
    seconds: int = 0
    output: str = ""
    error: str = ""
    directory: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    after: list[tuple[str, str]] = field(default_factory=list)
    array: list[int] = field(default_factory=list)
    requeue_on: list[int] = field(default_factory=list)
    signal: str = ""
    signal_before: int = 0
    to_one: bool = False
    holds: bool = False
    said: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Request:
        """From JSON."""
        known = {one.name for one in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


def short_options(words: Sequence[str], letters: str, tool: str, code: int) -> tuple[list[tuple[str, str]], list[str]]:
    """Options of one letter, as getopt reads them; and what is left.

    Parameters
    ----------
    words : sequence of str
        The words of a line, without the tool's name.
    letters : str
        getopt's string.
    tool : str
        For the words of a refusal.
    code : int
        Its exit code.
    """
    takes = {letter: letters[place + 1 : place + 2] == ":" for place, letter in enumerate(letters) if letter != ":"}
    found: list[tuple[str, str]] = []
    left = list(words)
    while left and left[0].startswith("-") and left[0] != "-":
        word = left.pop(0)
        if word == "--":
            break
        rest = word[1:]
        while rest:
            letter, rest = rest[0], rest[1:]
            if letter not in takes:
                raise Refused(f"{tool}: invalid option -- '{letter}'", code)
            if not takes[letter]:
                found.append((letter, ""))
                continue
            if not rest and not left:
                raise Refused(f"{tool}: option requires an argument -- '{letter}'", code)
            found.append((letter, rest or left.pop(0)))
            break
    return found, left


def long_options(
    words: Sequence[str], takes: dict[str, bool], letters: dict[str, str], tool: str, code: int = 1
) -> tuple[list[tuple[str, str]], list[str]]:
    """Options as argparse and getopt_long read them: ``--name value``, ``--name=value``, ``-nvalue``, ``-n value``.

    Parameters
    ----------
    words : sequence of str
        A command line without its tool.
    takes : dict of str to bool
        Long names, and whether each takes a value.
    letters : dict of str to str
        Which long name a letter stands for.
    tool : str
        For the words of a refusal.
    code : int
        Its exit code.
    """
    found: list[tuple[str, str]] = []
    left = list(words)
    while left and left[0].startswith("-") and left[0] != "-":
        word = left.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            attached = bool(equals)
        else:
            name, value = letters.get(word[1], ""), word[2:]
            attached = bool(value)
        if name not in takes:
            raise Refused(f"{tool}: unrecognized option '{word}'", code)
        if takes[name] and not attached:
            if not left:
                raise Refused(f"{tool}: option '{word}' requires an argument", code)
            value = left.pop(0)
        elif attached and not takes[name]:
            raise Refused(f"{tool}: option '{word}' takes no argument", code)
        found.append((name, value))
    return found, left


def whole_number(text: str, what: str, tool: str, code: int = 1) -> int:
    """A number from 1 up."""
    if not re.fullmatch(r"[0-9]+", text) or int(text) < 1:
        raise Refused(f"{tool}: illegal {what}: {text!r}", code)
    return int(text)


def clock(text: str, most_parts: int) -> int | None:
    """Seconds of ``[[[DD:]HH:]MM:]SS``; None where it is none."""
    parts = text.split(":")
    if len(parts) > most_parts or not all(re.fullmatch(r"\d+", part) for part in parts):
        return None
    seconds = 0
    for size, part in zip((1, 60, 3600, 86_400), reversed(parts)):  # noqa: B905
        seconds += size * int(part)
    return seconds


def shell_words(text: str, tool: str, code: int = 1) -> list[str]:
    """The words of a line by the rules of a shell."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise Refused(f"{tool}: {error}: {text}", code) from None
