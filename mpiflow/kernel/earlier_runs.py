"""What earlier runs left: which checkpoints and journals there are, and the results in them."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

from mpiflow.errors import BadCheckpoint
from mpiflow.kernel import checkpoint, journal
from mpiflow.kernel.ownership import open_own

logger = logging.getLogger("mpiflow")

CHECKPOINT = "checkpoint"
JOURNAL = "journal"

#: A place is one number, the file's place in a list above the offset: a tuple would be a third of the memory.
_OFFSET_BITS = 48


def get_all_checkpoints(rundir: str | os.PathLike[str] = "runinfo") -> list[str]:
    """Checkpoints and journals of all runs under a directory.

    Parameters
    ----------
    rundir : str or path
        The directory of all runs.

    Returns
    -------
    list of str
        Absolute paths, oldest run first, as ``BasicMemoizer(checkpoint_files=...)`` takes them.

    Examples
    --------
    >>> get_all_checkpoints("no such directory")
    []
    """
    return [found for run in _runs(rundir) for found in _kept_in(run)]


def get_last_checkpoint(rundir: str | os.PathLike[str] = "runinfo") -> list[str]:
    """The checkpoint or journal of the last run that has one.

    Parameters
    ----------
    rundir : str or path
        The directory of all runs.

    Returns
    -------
    list of str
        One absolute path, or none: the checkpoint or journal; the run's own directory if it has both.

    Examples
    --------
    >>> get_last_checkpoint("no such directory")
    []
    """
    for run in reversed(_runs(rundir)):
        found = _kept_in(run)
        if found and os.path.basename(run).isdecimal():
            return found if len(found) == 1 else [run]
    return []


def _runs(rundir: str | os.PathLike[str]) -> list[str]:
    """Directories of runs, oldest first: 999 is before 1000."""
    if not os.path.isdir(rundir):
        return []
    names = sorted(os.listdir(rundir), key=lambda name: (name.isdecimal(), int(name) if name.isdecimal() else 0, name))
    return [os.path.abspath(os.path.join(rundir, name)) for name in names]


def _kept_in(run: str) -> list[str]:
    """The directories of a run that hold results."""
    return [path for name in (CHECKPOINT, JOURNAL) if os.path.isdir(path := os.path.join(run, name))]


def all_for_a_run(run_dir: str, config_run_dir: str) -> list[str]:
    """All that a run takes up by itself: what is under the directory of all runs, and in its own from before."""
    found = get_all_checkpoints(config_run_dir)
    known = {os.path.realpath(path) for path in found}
    found += [path for path in _kept_in(run_dir) if os.path.realpath(path) not in known]
    return [path for path in found if not _is_empty(path)]  # one that died before its first result left nothing


def _is_empty(directory: str) -> bool:
    try:
        return not os.listdir(directory)
    except OSError:  # it cannot be read: whoever opens it says so
        return False


class EarlierResults:
    """Results of earlier runs, read when they are asked for.

    Parameters
    ----------
    directories : list of str or path
        Checkpoint directories, journal directories, or directories of runs with either or both.
    trust : bool
        Read them whoever may have written them.
    report : callable
        Is told in words what was left out.

    Raises
    ------
    BadCheckpoint
        One is missing, damaged or not to be trusted.
    """

    def __init__(
        self, directories: Iterable[str | os.PathLike[str]], trust: bool, report: Callable[[str], object]
    ) -> None:
        self._trust = trust
        self._files: list[str] = []
        self._places: dict[bytes, int] = {}
        #: The file that was read last, and its number: what is asked for next is likely to be in it too.
        self._open: BinaryIO | None = None
        self._number_of_open = -1
        for directory in directories:
            for path in _files_in(os.path.abspath(directory)):
                self._load(path, report)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return bytes.fromhex(key) in self._places

    def _load(self, path: str, report: Callable[[str], object]) -> None:
        logger.info("Loading checkpoints from %s", os.path.dirname(path))
        high = len(self._files) << _OFFSET_BITS
        self._files.append(path)
        if path.endswith(checkpoint.NAME):
            records = checkpoint.read_checkpoint(path, self._trust)
        else:
            records = journal.read_journal(path, self._trust, report)
        before, number = len(self._places), 0
        for number, (key, offset) in enumerate(records, 1):  # noqa: B007 - their number is logged
            self._places[key] = high | offset
        new = len(self._places) - before
        logger.info("Completed loading checkpoint: %s with %d tasks, %d of them new", path, number, new)

    def take(self, key: str) -> tuple[Any, journal.Beside | bytes | None]:
        """A result, and how its journal holds it; it is forgotten, for whoever asked keeps it.

        Parameters
        ----------
        key : str
            One that is in here.

        Returns
        -------
        object, and Beside, bytes or None
            The result; the file of a large one, the pickle of a small one, None out of a ``tasks.pkl``.

        Raises
        ------
        BadCheckpoint
            The file has been changed since, or taken away.
        Exception
            What the result's own classes raise when it is unpickled.
        """
        place = self._places.pop(bytes.fromhex(key))
        file = self._file(place >> _OFFSET_BITS)
        offset = place & ((1 << _OFFSET_BITS) - 1)
        if file.name.endswith(checkpoint.NAME):
            return checkpoint.read_result(file, offset), None
        kept = journal.read_result(file, offset)
        if isinstance(kept, bytes):
            return pickle.loads(kept), kept
        return journal.load_beside(kept, self._trust), kept

    def close(self) -> None:
        """Close the file that was read last."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _file(self, number: int) -> BinaryIO:
        """A file by its number. One is open at a time: there may be thousands."""
        if self._open is None or number != self._number_of_open:
            self.close()
            self._open = open_own(self._files[number], self._trust)
            self._number_of_open = number
        return self._open


def _files_in(directory: str) -> list[str]:
    """The files with results in a directory that was named; BadCheckpoint if there are none."""
    found = []
    try:
        for place in (directory, *_kept_in(directory)):
            names = sorted(os.listdir(place))
            found += [os.path.join(place, n) for n in names if n == checkpoint.NAME or n.endswith(".journal")]
    except FileNotFoundError as error:
        raise BadCheckpoint(f"Checkpoint file was not found: {os.path.join(directory, checkpoint.NAME)}") from error
    except OSError as error:
        raise BadCheckpoint(f"Checkpoint directory {directory} cannot be read: {error.strerror}") from error
    if not found:
        words = f"Checkpoint file was not found: {os.path.join(directory, checkpoint.NAME)}"
        raise BadCheckpoint(f"{words}, nor a journal: name a directory of a run, its checkpoint or its journal")
    return found
