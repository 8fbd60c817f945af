"""What rank 0 has to say to whoever started its launcher: a few lines in a file.

A launcher's exit code does not tell how a job ended. Launchers make codes up when ranks die, some never end at all
after a node was lost, and none says which host failed. So ``mpiflow supervise`` names a file in ``MPIFLOW_VERDICT``,
and rank 0 appends to it as things happen::

    began          rank 0 is there
    lost n3        a rank of this host was lost
    draining       nothing more is begun that cannot end in time
    ended 0        the last thing before rank 0 leaves: its exit code

Without an ``ended`` line rank 0 never came to its end: the job died. That holds for exit code 0 too, with which Open
MPI's launcher tells of the death of rank 0 where MPI is to survive the loss of ranks.
"""

from __future__ import annotations

import os

#: The environment variable that names the file.
VARIABLE = "MPIFLOW_VERDICT"


class Verdict:
    """Rank 0's end of the file.

    Parameters
    ----------
    path : str
        The file; with "" nobody asked, and nothing is written.

    Examples
    --------
    >>> Verdict("").ended(0)
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def began(self) -> None:
        """Say that rank 0 is there: from now on, silence means something."""
        self._append("began\n")

    def lost(self, host: str) -> None:
        """Say that a rank of this host was lost."""
        self._append(f"lost {host}\n")

    def draining(self) -> None:
        """Say that the job is being drained: what is not done now is for another job."""
        self._append("draining\n")

    def ended(self, code: int) -> None:
        """Say that rank 0 has come to its end; the first such line counts."""
        self._append(f"ended {code}\n")

    def _append(self, line: str) -> None:
        """Append a line by one write; a full disk must not cost the job its end, so that is only told."""
        if not self._path:
            return
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, line.encode())
            finally:
                os.close(file)
        except OSError as error:
            words = f"mpiflow: cannot tell who started the launcher {line.strip()!r}: {self._path}: {error.strerror}\n"
            os.write(2, words.encode())


class Said:
    """What rank 0 has said so far.

    Attributes
    ----------
    began : bool
        Whether it has said anything.
    lost : list of str
        Hosts that lost a rank, each once, in the order of the losses.
    draining : bool
        Whether it was being drained.
    ended : int or None
        Its exit code, once it has come to its end.
    """

    def __init__(self) -> None:
        self.began = False
        self.lost: list[str] = []
        self.draining = False
        self.ended: int | None = None


def read(path: str) -> Said:
    """Read what rank 0 has said so far.

    Parameters
    ----------
    path : str
        The file; one that is not there, or "", says nothing.
    """
    said = Said()
    try:
        with open(path, "rb") as file:
            lines = file.read().decode("utf-8", "replace").split("\n")[:-1]  # the last has no end yet
    except FileNotFoundError:
        return said
    said.began = bool(lines)
    for line in lines:
        kind, _, value = line.partition(" ")
        if kind == "lost" and value and value not in said.lost:
            said.lost.append(value)
        elif line == "draining":
            said.draining = True
        elif kind == "ended" and said.ended is None and value.isascii() and value.isdigit():
            said.ended = int(value)
    return said
