"""What jobs print, as it comes: their files are read on from where they were left, and new ones are found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

#: The most that is read of a file at once.
CHUNK = 1 << 20


class Tail:
    """Reads on in all files of a job.

    Parameters
    ----------
    files : callable
        Gives the files there are now.
    last : int, optional
        Of what is there at the beginning, only the last so many lines of the newest file; None: everything.
    """

    def __init__(self, files: Callable[[], Iterable[Path]], last: int | None = None) -> None:
        self._files = files
        self._at: dict[Path, int] = {}
        if last is not None:
            there = list(files())
            self._at = {path: path.stat().st_size for path in there}
            if there:
                self._at[there[-1]] = _start_of_last(there[-1], last)

    def read(self) -> list[tuple[Path, bytes]]:
        """What has come since the last call, by file; nothing is ever given twice."""
        found = []
        for path in self._files():
            at = self._at.get(path, 0)
            try:
                with open(path, "rb") as file:
                    if os.fstat(file.fileno()).st_size < at:  # somebody has cut it
                        at = 0
                    file.seek(at)
                    text = file.read(CHUNK)
            except FileNotFoundError:  # somebody tidies up
                continue
            self._at[path] = at + len(text)
            if text:
                found.append((path, text))
        return found


def _start_of_last(path: Path, lines: int) -> int:
    """Where the last so many lines of a file begin."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        at, text = size, b""
        while at > 0 and text.count(b"\n") <= lines:
            at = max(0, at - CHUNK)
            file.seek(at)
            text = file.read(size - at)
    kept = text.splitlines(keepends=True)[-lines:] if lines else []
    return size - sum(len(line) for line in kept)
