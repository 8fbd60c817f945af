"""What is written down of a job when it is submitted, so that its id or its directory finds it again tomorrow.

Each job has a directory of its own, with its script, what it prints, and ``job.json``. Where those directories are is
kept beside the user's other state (``$XDG_STATE_HOME/mpiflow/jobs``, by default ``~/.local/state/mpiflow/jobs``), as
one small file a job: a home directory may be shared by several clusters and written to by several of them at once.

Disks fill up and files are edited, so one record that cannot be read must not hide the others: it is one line that
names the file. What a later version has added to a record is left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mpiflow.errors import ConfigurationError
from mpiflow.jobs.systems import SYSTEMS

#: The record in the directory of a job, and the file to which its script adds a line for each job that goes on from it.
RECORD, SUCCESSORS = "job.json", "successors"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A job that was submitted.

    Attributes
    ----------
    system : str
        The batch system.
    ids : tuple of str
        Its ids there: one, or those of all links of a chain.
    array : bool
        Whether it is an array of jobs.
    name : str
        Its name.
    script : str
        The Python script.
    directory, output : str
        Where it runs, and its own directory.
    host : str
        Where it was submitted.
    submitted : float
        Seconds since the epoch.
    """

    system: str
    ids: tuple[str, ...]
    array: bool
    name: str
    script: str
    directory: str
    output: str
    host: str
    submitted: float

    def all_ids(self) -> tuple[str, ...]:
        """Its ids, those of the jobs that have gone on from it included, the latest last."""
        later: list[str] = []
        with contextlib.suppress(FileNotFoundError):  # none has gone on yet
            later = Path(self.output, SUCCESSORS).read_text(errors="replace").split()
        return tuple(dict.fromkeys((*self.ids, *later)))


def write(record: Record) -> str:
    """Write a job down, in its directory and in the user's list.

    Returns
    -------
    str
        Why it is not in the list, if it is not.

    Raises
    ------
    OSError
        Its own directory cannot be written.
    """
    path, fresh = Path(record.output, RECORD), Path(record.output, f".{RECORD}")
    fresh.write_text(json.dumps(asdict(record), indent=1) + "\n")
    os.replace(fresh, path)  # nobody sees half of it, however full the disk is
    stamp = time.strftime("%Y%m%dT%H%M%S", time.localtime(record.submitted))
    name = f"{stamp}-{record.system}-{re.sub(r'[^0-9A-Za-z.]', '_', record.ids[0])}"
    try:
        places = list_directory()
        places.mkdir(parents=True, exist_ok=True)
        (places / name).write_bytes(os.fsencode(f"{record.output}\n"))
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return ""


def list_directory() -> Path:
    """Where the user's list of jobs is."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(state, "mpiflow", "jobs")


def read(directory: str | os.PathLike[str]) -> Record:
    """The record in the directory of a job.

    Raises
    ------
    ConfigurationError
        There is none, or it is damaged.
    """
    path = Path(directory, RECORD)
    advice = "; `mpiflow status --system NAME ID` asks about the job itself, and without this file it is in no list"
    try:
        return _checked(json.loads(path.read_bytes()))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}{advice}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is damaged, or no record of a job: {error}{advice}") from error


def _checked(said: Any) -> Record:
    """The record that a file holds.

    Raises
    ------
    ValueError
        It holds none; saying why.
    """
    if not isinstance(said, dict):
        raise ValueError(f"it holds a {type(said).__name__}, and no object")
    values: dict[str, Any] = {}
    for field in fields(Record):
        if field.name not in said:
            raise ValueError(f"{field.name} is missing")
        value = said[field.name]
        if field.name == "ids":
            right = isinstance(value, list) and bool(value) and all(isinstance(one, str) and one for one in value)
        elif field.name == "submitted":
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            right = number and 0 <= value < 1e11  # what a calendar can show
        else:
            right = isinstance(value, bool if field.name == "array" else str)
        if not right or (field.name == "system" and value not in SYSTEMS):
            raise ValueError(f"{field.name} is {value!r}")
        values[field.name] = tuple(value) if field.name == "ids" else value
    return Record(**values)


def all_records(complain: Callable[[str], object]) -> list[Record]:
    """The jobs in the user's list, the latest first. Entries of jobs whose directory is gone are left out.

    Parameters
    ----------
    complain : callable
        Hears of each record that cannot be read, in one line.
    """
    found = []
    places = list_directory()
    try:
        names = sorted(os.listdir(places), reverse=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        complain(f"the list of jobs, {places}, cannot be read: {error.strerror}")
        return []
    for name in names:
        try:
            directory = os.fsdecode((places / name).read_bytes()).rstrip("\n")
            if directory and os.path.exists(os.path.join(directory, RECORD)):
                found.append(read(directory))
        except OSError as error:
            complain(f"{places / name} cannot be read: {error.strerror}; without this file the job is in no list")
        except ConfigurationError as error:
            complain(str(error))
    return found


def find(text: str) -> Record | None:
    """The record of a job that a user has named: by its directory, or by its id, with or without the name of a server.

    Parameters
    ----------
    text : str
        What the user wrote.
    """
    if os.path.exists(os.path.join(text, RECORD)):
        return read(text)
    damaged: list[str] = []
    for record in all_records(damaged.append):
        if any(text in _names(record.system, known) for known in record.all_ids()):
            return record
    for line in damaged:  # it may be one of these
        print(f"mpiflow: {line}", file=sys.stderr)
    return None


def _names(system: str, job: str) -> tuple[str, ...]:
    """What a user may call a job: HTCondor's tools name its first process."""
    return (job, f"{job}.0") if system == "htcondor" else (job, job.split(".")[0])
