"""What is written down of a job when it is submitted, so that its id or its directory finds it again tomorrow.

Each job has a directory of its own, with its script, what it prints, and ``job.json``. Where those directories are is
kept beside the user's other state (``$XDG_STATE_HOME/mpiflow/jobs``, by default ``~/.local/state/mpiflow/jobs``), as
one small file a job: a home directory may be shared by several clusters and written to by several of them at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from mpiflow.errors import ConfigurationError

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
            later = Path(self.output, SUCCESSORS).read_text().split()
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
    path = Path(record.output, RECORD)
    path.write_text(json.dumps(asdict(record), indent=1) + "\n")
    stamp = time.strftime("%Y%m%dT%H%M%S", time.localtime(record.submitted))
    name = f"{stamp}-{record.system}-{re.sub(r'[^0-9A-Za-z.]', '_', record.ids[0])}"
    try:
        places = list_directory()
        places.mkdir(parents=True, exist_ok=True)
        (places / name).write_text(f"{record.output}\n")
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
    try:
        said = json.loads(path.read_text())
        return Record(**{**said, "ids": tuple(said["ids"])})
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f"{path} is damaged, or no record of a job: {error}") from error


def all_records() -> list[Record]:
    """The jobs in the user's list, the latest first. Entries of jobs whose directory is gone are left out."""
    found = []
    try:
        names = sorted(os.listdir(list_directory()), reverse=True)
    except FileNotFoundError:
        return []
    for name in names:
        directory = (list_directory() / name).read_text().rstrip("\n")
        if os.path.exists(os.path.join(directory, RECORD)):
            found.append(read(directory))
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
    for record in all_records():
        if any(text in (known, known.split(".")[0]) for known in record.all_ids()):
            return record
    return None
