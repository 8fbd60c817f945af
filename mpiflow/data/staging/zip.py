"""ZipFileStaging: files inside zip archives.

The archive is touched on rank 0 only, by tasks on the kernel's own threads: thousands of workers that each wait
for the lock of one archive would do nothing else. A lock file beside the archive, the same that Parsl uses,
keeps other runs out meanwhile.

A member is appended in place, since copying a large archive for each of its members would cost its square; a
job that is killed within those moments leaves an archive without its list of members.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from mpiflow.data.futures import DataFuture
from mpiflow.data.staging.base import Staging
from mpiflow.data.staging.places import arriving, working_dir
from mpiflow.errors import ParslError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from typing import Any

    from mpiflow.data.files import File
    from mpiflow.kernel.futures import AppFuture
    from mpiflow.kernel.staging import DataManager

#: The kernel's own executor, of threads on rank 0.
INTERNAL = "_parsl_internal"


class ZipAuthorityError(ParslError):
    """A ``zip:`` URL names a host, which has no meaning there: ``zip://archive.zip/x`` for ``zip:archive.zip/x``.

    Attributes
    ----------
    file : File
        Whose URL it is.
    """

    def __init__(self, file: File) -> None:
        super().__init__(file)
        self.file = file

    def __str__(self) -> str:
        return (
            f"ZipFileStaging cannot stage Files with an authority (netloc) section ({self.file.netloc}), "
            f"for {self.file.url}"
        )


class ZipFileStaging(Staging):
    """Takes files out of zip archives before a task, and puts files into them after it.

    ``zip:/data/all.zip/inside/here.txt`` is the member ``inside/here.txt`` of the archive ``/data/all.zip``. For
    staging out the executor needs a ``working_dir``, where the task writes the file; it is removed from there
    once it is in the archive.

    Examples
    --------
    >>> zip_path_split("/data/all.zip/inside/here.txt")
    ('/data/all.zip', 'inside/here.txt')
    """

    def can_stage_in(self, file: File) -> bool:
        """Whether it is a ``zip:`` URL; `ZipAuthorityError` for one with a host."""
        return _is_zip(file)

    def can_stage_out(self, file: File) -> bool:
        """Whether it is a ``zip:`` URL; `ZipAuthorityError` for one with a host."""
        return _is_zip(file)

    def stage_in(self, dm: DataManager, executor: str, file: File, parent_fut: Future[Any] | None) -> DataFuture:
        """Call the task that takes the file out of its archive."""
        archive, member = _split(file)
        file.local_path = os.path.join(working_dir(dm, executor) or os.getcwd(), member)
        taken = _submit(dm, extract, archive, member, file.local_path, parent_fut)
        return DataFuture(taken, file, tid=taken.tid)

    def stage_out(self, dm: DataManager, executor: str, file: File, app_fu: Future[Any]) -> Future[Any]:
        """Call the task that puts the file into its archive."""
        archive, member = _split(file)
        directory = working_dir(dm, executor)
        if directory is None:
            words = "zip file staging requires a working_dir to be specified"
            raise RuntimeError(f"{words}: executor {executor!r} has none, for {file.url}")
        file.local_path = os.path.join(directory, member)
        os.makedirs(os.path.dirname(file.local_path), exist_ok=True)
        return _submit(dm, append, archive, member, file.local_path, app_fu)


def zip_path_split(path: str) -> tuple[str, str]:
    """Split a path into that of an archive and that of its member, after the first ``.zip``.

    Parameters
    ----------
    path : str
        Of a ``zip:`` URL.

    Raises
    ------
    ValueError
        If it names no archive, or no member.
    """
    archive, dot, member = path.partition(".zip/")
    if not dot or not member:
        raise ValueError(f"{path!r} names no file in an archive; legal is /PATH/ARCHIVE.zip/PATH/IN/IT")
    return f"{archive}.zip", member


def extract(
    archive: str, member: str, path: str, *, parent_fut: File | None, _parsl_staging_inhibit: bool
) -> None:
    """The task that takes a member out of an archive.

    Raises
    ------
    FileNotFoundError
        When there is no such archive, or no such member of it.
    BadZipFile
        When it is none, or is damaged.
    """
    from shutil import copyfileobj
    from zipfile import BadZipFile, ZipFile

    if not os.path.exists(archive):
        raise FileNotFoundError(f"{archive}: there is no such archive, for its member {member!r}")
    try:
        with _locked(archive, reading=True), ZipFile(archive) as opened:
            if member not in opened.NameToInfo:
                raise FileNotFoundError(f"{archive} has no member {member!r}")
            with opened.open(member) as source, arriving(path) as target:
                copyfileobj(source, target)
    except BadZipFile as error:
        raise BadZipFile(f"{archive}, member {member!r}: {error}") from error


def append(archive: str, member: str, path: str, *, parent_fut: Any, _parsl_staging_inhibit: bool) -> None:
    """The task that puts a file into an archive and removes it; the archive is made if it is not there."""
    from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

    os.makedirs(os.path.dirname(os.path.abspath(archive)), exist_ok=True)
    try:
        with _locked(archive), ZipFile(archive, "a", ZIP_DEFLATED) as opened:
            opened.write(path, arcname=member)
    except BadZipFile as error:
        raise BadZipFile(f"{archive}, member {member!r}: {error}") from error
    os.remove(path)


@contextmanager
def _locked(archive: str, reading: bool = False) -> Iterator[None]:
    """Keep everybody else from an archive."""
    from fcntl import LOCK_EX, flock

    try:
        descriptor = os.open(f"{archive}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        if not reading:
            raise
        yield  # where no lock can be made nobody writes: a directory or a disk that is there to be read
        return
    try:
        flock(descriptor, LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_zip(file: File) -> bool:
    if file.scheme != "zip":
        return False
    if file.netloc:
        raise ZipAuthorityError(file)
    return True


def _split(file: File) -> tuple[str, str]:
    """Archive and member; ValueError for a member that would lie outside the directory it is put into."""
    archive, member = zip_path_split(file.path)
    if member.startswith("/") or ".." in member.split("/"):
        raise ValueError(f"{file.url} cannot be staged: its member {member!r} leads out of the working directory")
    return archive, member


def _submit(
    dm: DataManager, work: Callable[..., None], archive: str, member: str, path: str, parent_fut: Future[Any] | None
) -> AppFuture:
    return dm.dfk.submit(
        work,
        app_args=(archive, member, path),
        executors=[INTERNAL],
        cache=False,
        ignore_for_cache=[],
        app_kwargs={"parent_fut": parent_fut, "_parsl_staging_inhibit": True},
    )
