"""Notes of the deaths of ranks: files by which a guardian tells rank 0, since it has no MPI to tell it with."""

from __future__ import annotations

import os

_BEGINS, _ENDS = "lost-rank-", ".note"


def leave_note(directory: str, rank: int) -> None:
    """Say that a rank has died; the directory is made if it is not there.

    Parameters
    ----------
    directory : str
        Where rank 0 looks.
    rank : int
        Who has died.
    """
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, f"{_BEGINS}{rank}{_ENDS}")
    with open(path + ".new", "w") as note:
        note.write(f"rank {rank} has died\n")
    os.rename(path + ".new", path)


def take_notes(directory: str) -> list[int]:
    """Take the notes there are; the ranks that have died.

    Parameters
    ----------
    directory : str
        One that is not there holds no notes.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    found = [name for name in names if name.startswith(_BEGINS) and name.endswith(_ENDS)]
    for name in found:
        os.unlink(os.path.join(directory, name))
    return [int(name[len(_BEGINS) : -len(_ENDS)]) for name in found]
