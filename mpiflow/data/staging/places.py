"""Where a staged file lies, and how it gets there: whole, or not at all."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from mpiflow.data.files import File
    from mpiflow.kernel.staging import DataManager


def working_dir(dm: DataManager, executor: str) -> str | None:
    """Absolute path of an executor's directory for staged files; None where it has none.

    A relative one is meant from where the script runs: a task may run somewhere else.
    """
    directory: str | None = getattr(dm.dfk.executors[executor], "working_dir", None)
    return None if directory is None else os.path.abspath(directory)


def local_path(dm: DataManager, executor: str, file: File) -> str:
    """Path of a file's copy: in the executor's directory, else in the one where the task will run.

    Raises
    ------
    ValueError
        For a URL that ends in no name.
    """
    if file.filename in ("", ".", ".."):
        raise ValueError(f"{file.url} cannot be staged: its path {file.path!r} ends in no file's name")
    return os.path.join(working_dir(dm, executor) or "", file.filename)


@contextmanager
def arriving(path: str) -> Iterator[IO[bytes]]:
    """A file to write to that gets its name when all has been written.

    Whoever looks sees the whole file, an older one, or none. Two that write the same do not mix; the last one's
    stays. Directories are made.

    Parameters
    ----------
    path : str
        The name in the end.
    """
    directory = os.path.dirname(path)
    if directory:
        os.makedirs(directory, exist_ok=True)
    # On the same file system, for a rename to do; not made of the name, which may be as long as names can be.
    part = os.path.join(directory, f".{os.urandom(8).hex()}.part")
    try:
        with open(part, "xb") as file:
            yield file
        os.replace(part, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.remove(part)
        raise
