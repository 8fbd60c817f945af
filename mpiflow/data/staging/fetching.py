"""What all providers do that fetch a file from a server: in a task of its own, or inside the task."""

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
    from mpiflow.data.futures import DataFuture
    from mpiflow.kernel.staging import DataManager

#: Seconds without a byte after which a server is given up: a task that waits for ever holds a worker.
SILENCE = 60.0
#: Bytes read at once.
PIECE = 1 << 20


class Fetching(Staging):
    """Takes the files of some URL schemes; a subclass says which, and how to fetch one."""

    #: URL schemes that are taken.
    schemes: tuple[str, ...] = ()

    def fetch(self, url: str, path: str) -> None:
        """Bring the file of a URL to a path; called in the task."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to fetch {url}")

    def can_stage_in(self, file: File) -> bool:
        """Whether the URL has one of the schemes."""
        return file.scheme in self.schemes


class SeparateTaskStaging(Fetching):
    """Fetches each file in a task of its own, on the executor of the task that needs it.

    That may be another node: the executor's ``working_dir``, or the directory that the script runs in, has to be
    one that all nodes see.
    """

    def stage_in(self, dm: DataManager, executor: str, file: File, parent_fut: Future[Any] | None) -> DataFuture:
        """Call the task that fetches the file."""
        from mpiflow.data.futures import DataFuture

        # Absolute: this task and the one that needs the file may run in different directories.
        file.local_path = os.path.abspath(local_path(dm, executor, file))
        fetched = dm.dfk.submit(
            stage_in_file,
            app_args=(self.fetch, file.url, file.local_path),
            executors=[executor],
            cache=False,
            ignore_for_cache=[],
            app_kwargs={"parent_fut": parent_fut, "_parsl_staging_inhibit": True},
        )
        return DataFuture(fetched, file, tid=fetched.tid)


def stage_in_file(
    fetch: Callable[[str, str], None],
    url: str,
    path: str,
    *,
    parent_fut: File | None,
    _parsl_staging_inhibit: bool,
) -> None:
    """The task that fetches a file. Of the rest it needs nothing: that is there for the kernel."""
    fetch(url, path)


class InTaskStaging(Fetching):
    """Fetches each file in the task that needs it, before its function is called; needs no shared disk.

    A file goes to the executor's ``working_dir``, else to the directory that the task runs in.
    """

    def stage_in(self, dm: DataManager, executor: str, file: File, parent_fut: Future[Any] | None) -> None:
        """Say where the file will be."""
        file.local_path = local_path(dm, executor, file)

    def replace_task(
        self, dm: DataManager, executor: str, file: File, func: Callable[..., Any]
    ) -> Callable[..., Any]:
        """The function with the fetching before it."""
        return FetchFirst(func, self.fetch, file)


class FetchFirst:
    """A task's function that fetches a file before it runs.

    Parameters
    ----------
    func : callable
        The function.
    fetch : callable
        ``fetch(url, path)`` brings the file.
    file : File
        Which one, with its local path.
    """

    def __init__(self, func: Callable[..., Any], fetch: Callable[[str, str], None], file: File) -> None:
        self.func = func
        self.fetch = fetch
        self.file = file

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch, then call."""
        self.fetch(self.file.url, self.file.filepath)
        return self.func(*args, **kwargs)
