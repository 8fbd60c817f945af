"""Whose file it is: to unpickle a file is to run what somebody wrote into it.

So a checkpoint is read only if nobody but the user (or root) could have written it: the file, and the directory
that it lies in, belong to one of the two, and no group or other people may write there.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from mpiflow.errors import BadCheckpoint


def open_own(path: str, trust: bool) -> BinaryIO:
    """Open a file to unpickle from it.

    Parameters
    ----------
    path : str
        The file.
    trust : bool
        Take it whoever may have written it.

    Returns
    -------
    file
        Open for reading.

    Raises
    ------
    BadCheckpoint
        It cannot be opened, or somebody else could have written it.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115 - it is the caller's
    except FileNotFoundError as error:
        raise BadCheckpoint(f"Checkpoint file was not found: {path}") from error
    except OSError as error:
        raise BadCheckpoint(f"Checkpoint file {path} cannot be opened: {error.strerror}") from error
    try:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise BadCheckpoint(f"Checkpoint {path} is not a file")
        if not trust:
            _refuse_others(path, found)
            directory = os.path.dirname(os.path.abspath(path))
            _refuse_others(directory, os.stat(directory))
    except BaseException:
        file.close()
        raise
    return file


def _refuse_others(path: str, found: os.stat_result) -> None:
    """BadCheckpoint if somebody else could have written at a path."""
    if found.st_uid not in (os.geteuid(), 0):
        why = f"it belongs to user {found.st_uid}, and you are {os.geteuid()}"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        who = "everyone" if found.st_mode & stat.S_IWOTH else "its group"
        why = f"it can be written by {who} (mode {stat.S_IMODE(found.st_mode):04o}); chmod go-w would end that"
    else:
        return
    words = f"{path} is refused: {why}. Reading a checkpoint runs what is in it"
    raise BadCheckpoint(f"{words}; if you trust who wrote it, say --trust, or BasicMemoizer(trust=True)")
