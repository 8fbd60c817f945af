"""What a run has noted about itself, and what has to be true of it.

Three kinds of notes. The first two (`notes.py`) are short lines appended by one ``write()`` each, so that no death of a
process tears one:

* ``executions``: a task has begun to run, in which life, with which results of others,
* ``seen``: the script holds the result of a task, and what its call's key is,
* ``lives/N``: the script has begun; which keys were in the journals at that moment.

The journals are read by mpiflow's own reader. The workload imports this as a plain module, so it imports nothing of
the package it lies in.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from pathlib import Path

from mpiflow.errors import BadCheckpoint
from mpiflow.kernel.journal import read_journal

LIVES = "lives"


# --- when the program begins ----------------------------------------------------------------------------------------


def begin_life(runs: str) -> str:
    """Take the next free number, and note what is in the journals."""
    os.makedirs(LIVES, exist_ok=True)
    keys = sorted(journalled(Path(runs)))
    number = 0
    while True:
        try:
            file = os.open(f"{LIVES}/{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            number += 1
        else:
            break
    with os.fdopen(file, "w") as out:
        json.dump({"began": time.time(), "pid": os.getpid(), "keys": keys}, out)
    return str(number)


# --- read afterwards ------------------------------------------------------------------------------------------------


def journals(runs: Path) -> list[Path]:
    """The journals below a directory of runs, oldest first."""
    return sorted(runs.glob("*/journal/*.journal"))


def journalled(runs: Path) -> Counter[str]:
    """The keys in all journals, and how often each is there; a torn tail counts for nothing."""
    found: Counter[str] = Counter()
    for path in journals(runs):
        found.update(key.hex() for key, _ in read_journal(str(path), True, str))
    return found


class Ledger:
    """All notes of a run.

    Parameters
    ----------
    directory : Path
        Where the workload ran.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.executions = [_fields(line, 4) for line in _lines(directory / "executions")]
        self.seen = [_fields(line, 4) for line in _lines(directory / "seen")]
        self.lives = {path.name: json.loads(path.read_text()) for path in _whole(directory / LIVES)}

    def computed_again(self) -> list[str]:
        """Tasks that ran in a life although their result was in the journal when it began."""
        names: dict[str, set[str]] = defaultdict(set)
        for _, name, key, _ in self.seen:
            names[key].add(name)
        wrong = []
        for life, notes in self.lives.items():
            there = {name for key in notes["keys"] for name in names.get(key, ())}
            ran = {name for when, name, _, _ in self.executions if when == life}
            wrong += [f"task {name} was in the journal when life {life} began, and ran again" for name in there & ran]
        return sorted(wrong)

    def used_twice(self, cut: bool) -> list[str]:
        """Tasks of which two results were used: by those below them, or by the script.

        Parameters
        ----------
        cut : bool
            As for `lost`: what is computed again in a later life is used there, in place of what was lost.
        """
        whose = {mark: name for _, name, mark, _ in self.executions}
        used: dict[tuple[str, str], set[str]] = defaultdict(set)
        for life, _, _, parents in self.executions:
            for mark in filter(None, parents.split(",")):
                used[life if cut else "", whose.get(mark, mark)].add(mark)
        for life, name, _, mark in self.seen:
            if mark:
                used[life if cut else "", whose.get(mark, name)].add(mark)
        many = [(name, len(marks)) for (_, name), marks in used.items() if len(marks) > 1]
        wrong = [f"{number} results of task {name} were used" for name, number in many]
        twice = Counter((life, name) for life, name, _, _ in self.seen)
        wrong += [f"task {name} ended {n} times in life {life}" for (life, name), n in twice.items() if n > 1]
        return sorted(wrong)

    def lost(self, cut: bool) -> list[str]:
        """Results that a script has seen and that are in no journal.

        Parameters
        ----------
        cut : bool
            Whether the journal could not be written, or was damaged on purpose: then none of this is promised.
        """
        if cut:
            return []
        try:
            kept = journalled(self.directory / "runinfo")
        except BadCheckpoint as error:
            return [f"a journal cannot be read: {error}"]
        missing = {name for _, name, key, _ in self.seen if key not in kept}
        return [f"the script saw the result of task {name}, and no journal has it" for name in sorted(missing)]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _fields(line: str, number: int) -> list[str]:
    fields = line.split(" ")
    assert len(fields) == number, f"not a note: {line!r}"
    return fields


def _whole(directory: Path) -> list[Path]:
    """The notes of lives; one that was killed while it wrote them has left a file with nothing in it."""
    return [path for path in directory.glob("*") if path.stat().st_size] if directory.exists() else []
