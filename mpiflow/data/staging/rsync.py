"""RSyncStaging: files copied by rsync, inside the task, between its node and the one that has them."""

from __future__ import annotations

import os

from mpiflow.data.staging.base import Staging
from mpiflow.data.staging.places import local_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from typing import Any

    from mpiflow.data.files import File
    from mpiflow.kernel.staging import DataManager


class RSyncStaging(Staging):
    """Copies plain paths from and to a host, for nodes that do not share its disk.

    Each worker has to be able to log in there without being asked for anything. Put it before, or in the place
    of, `NoOpFileStaging`: both take plain paths.

    Parameters
    ----------
    hostname : str
        Who has the files, as rsync is to be told: ``host`` or ``user@host``.

    Examples
    --------
    >>> RSyncStaging("login1.cluster")
    RSyncStaging(hostname='login1.cluster')
    """

    def __init__(self, hostname: str) -> None:
        self.hostname = hostname

    def can_stage_in(self, file: File) -> bool:
        """Whether it is a path."""
        return file.scheme == "file"

    def can_stage_out(self, file: File) -> bool:
        """Whether it is a path."""
        return file.scheme == "file"

    def stage_in(self, dm: DataManager, executor: str, file: File, parent_fut: Future[Any] | None) -> None:
        """Say where the file will be."""
        file.local_path = local_path(dm, executor, file)

    def stage_out(self, dm: DataManager, executor: str, file: File, app_fu: Future[Any]) -> None:
        """Say where the file will be."""
        file.local_path = local_path(dm, executor, file)

    def replace_task(
        self, dm: DataManager, executor: str, file: File, func: Callable[..., Any]
    ) -> Callable[..., Any]:
        """The function with the copying before it."""
        return CopyIn(func, self._remote(file), file.filepath)

    def replace_task_stage_out(
        self, dm: DataManager, executor: str, file: File, func: Callable[..., Any]
    ) -> Callable[..., Any]:
        """The function with the copying after it."""
        return CopyOut(func, file.filepath, self._remote(file))

    def _remote(self, file: File) -> str:
        """The file as rsync names it; a relative path is meant from where the script runs."""
        return f"{self.hostname}:{os.path.abspath(file.path)}"


class CopyIn:
    """A task's function that copies a file to its node before it runs.

    Parameters
    ----------
    func : callable
        The function.
    source, target : str
        The file there and here.
    """

    def __init__(self, func: Callable[..., Any], source: str, target: str) -> None:
        self.func = func
        self.source = source
        self.target = target

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Copy, then call."""
        target = _here(self.target)
        rsync(self.source, target)
        return self.func(*args, **kwargs)


class CopyOut:
    """A task's function that copies a file from its node after it has run; not when it fails.

    Parameters
    ----------
    func : callable
        The function.
    source, target : str
        The file here and there.
    """

    def __init__(self, func: Callable[..., Any], source: str, target: str) -> None:
        self.func = func
        self.source = source
        self.target = target

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call, then copy."""
        source = _here(self.source)
        result = self.func(*args, **kwargs)
        rsync(source, self.target)
        return result


def rsync(source: str, target: str) -> None:
    """Copy one file; it appears under its name when all of it has come.

    Raises
    ------
    RuntimeError
        With what rsync says and the code it ends with.
    FileNotFoundError
        When there is no rsync on this host.
    """
    import subprocess

    # -s: names with spaces arrive as they are, whichever way the other side's shell would read them
    try:
        ended = subprocess.run(
            ["rsync", "-s", "--", source, target], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        words = f"{source} cannot be copied to {target}: there is no rsync on host {os.uname().nodename}"
        raise FileNotFoundError(words) from error
    if ended.returncode != 0:
        said = ended.stderr.strip()
        raise RuntimeError(f"{source} cannot be copied to {target}: rsync ended with {ended.returncode}: {said}")


def _here(path: str) -> str:
    """Absolute path of a local file, whose directory is made: rsync takes ``10:30.txt`` for a file of a host 10."""
    path = os.path.abspath(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path
