"""Files that somebody else is about to write."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any


@contextmanager
def wait_for_file(path: str | os.PathLike[str], seconds: float = 10) -> Iterator[None]:
    """Wait until a file is there, so many seconds at most; then go on in either case.

    Parameters
    ----------
    path : str
        The file.
    seconds : float
        How long to wait.
    """
    end = time.monotonic() + seconds
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(min(0.01, seconds / 100))
    yield


@contextmanager
def time_limited_open(path: str | os.PathLike[str], mode: str, seconds: float = 1) -> Iterator[IO[Any]]:
    """Open a file as soon as it is there, and close it at the end.

    Parameters
    ----------
    path, mode
        As for `open`.
    seconds : float
        How long to wait for it.

    Raises
    ------
    OSError
        As `open` does, when the file has not come by then.

    Examples
    --------
    >>> with time_limited_open("/dev/null", "r") as lines:
    ...     lines.read()
    ''
    """
    with wait_for_file(path, seconds), open(path, mode) as opened:
        yield opened
