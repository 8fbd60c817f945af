"""``mpiflow stage ARCHIVE DIRECTORY``: a software environment onto every node, read once.

A thousand ranks that import numpy from a parallel file system open a million files there. Packed into one archive the
environment is read once, by rank 0, in large pieces; MPI hands them on, and one rank of each node unpacks them into
a directory of the node. No second copy of the archive is written anywhere.

* **All or nothing.** Each node unpacks into a directory of its own beside the target; when all have done so, each
  renames it. When one node fails, all take theirs away, and every failure is said with its host.
* **Checked.** Rank 0 makes a SHA-256 of what it reads, every node of what it is given, and they are compared. Where
  ``ARCHIVE.sha256`` is there (as ``--create`` and ``sha256sum`` write it), it has to agree. gzip and xz have checksums
  of their own, and an archive has an end mark: both are looked for.
* **Nothing outside.** A name that leads out of the target refuses the archive. Links may point anywhere, for those of a
  venv do, but nothing is ever written through one: the directory is new, and each parent of a file has to be a real
  directory. Devices are refused, owners and set-uid bits are not taken over.
* **Again.** A file in the target names the archive by size and time. A node that has it does nothing; where all nodes
  have it, the archive is not even read. A directory that is not ours is never replaced.

It runs before the environment is there: under any Python that has mpi4py, with the standard library beside it. Started
by its path (``python3 .../mpiflow/cli/stage.py``), it looks for the rest of mpiflow where it lies itself, behind
everything else on the path. Python's own ``tarfile`` filters were not taken: the safe one refuses the absolute links
that every venv has.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import shutil
import stat
import sys
import tarfile
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

    from mpiflow.comm.nodes import Nodes

USAGE = """\
usage: LAUNCHER python3 -m mpiflow stage ARCHIVE DIRECTORY
       mpiflow stage --create ENVIRONMENT ARCHIVE

Unpack an archive (tar, plain or compressed by gzip, bzip2 or xz) into a directory on every node of the job. Start it
by the launcher of the job, with one rank a node or more; any Python with mpi4py will do.

  --create ENVIRONMENT ARCHIVE   pack a venv or another directory, and write ARCHIVE.sha256 beside it

Exit code: 0 when every node has it, 1 when none has got it, 2 for a wrong command line."""
#: The file in the target that says what it holds.
MARK = ".mpiflow-staged"
_END_OF_TAR = b"\0" * 1024
_MANY = 1 << 20
#: Seconds that rank 0 has to say what is the same on all ranks, where MPI is not there to agree by.
_FIRST_WORD = 2.0


class StageError(Exception):
    """This node cannot have the archive; in words."""


def stage(arguments: list[str]) -> int:
    """Take the command line; the exit code, the same on every rank.

    Parameters
    ----------
    arguments : list of str
        What follows ``stage``.
    """
    if arguments in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    if len(arguments) == 3 and arguments[0] == "--create":
        return _create(arguments[1], arguments[2])
    if len(arguments) != 2 or any(word.startswith("-") or not word for word in arguments):
        if _rank() > 0:
            return 0  # all ranks find it, and some launchers kill the job before the first one can say so
        print(f"mpiflow stage: it takes an archive and a directory\n{USAGE}", file=sys.stderr)
        return 2
    return _on_all_nodes(arguments[0], os.path.abspath(arguments[1]))


def _rank() -> int:
    """This rank, before MPI is there; 0 where no launcher says."""
    from mpiflow.comm.launcher import said

    launched = said(os.environ)
    return launched.rank if launched is not None else 0


def _on_all_nodes(archive: str, target: str) -> int:
    from mpiflow.comm.launcher import said
    from mpiflow.exitcodes import WORLDS_OF_ONE

    launched = said(os.environ)
    try:
        from mpiflow.comm.nodes import Nodes
    except (ImportError, RuntimeError) as error:  # the latter where it does not find a library of MPI
        if _rank() > 0:
            time.sleep(_FIRST_WORD)  # most likely it is the same on rank 0, whose end is the job's in most cases
        words = f"mpiflow stage: {os.uname().nodename}: {sys.executable} has no mpi4py that works: {error}"
        print(f"{words}. Take a Python that has one; nothing else is needed.", file=sys.stderr)
        return 1
    nodes = Nodes()
    if launched is not None and (launched.size or 1) > 1 and nodes.size == 1:
        nodes.end()
        if launched.rank > 0:
            return 0
        words = f"mpiflow stage: {launched.name} started {launched.size} ranks, but MPI sees one in each of them"
        print(f"{words}: the launcher belongs to another MPI than mpi4py", file=sys.stderr)
        return WORLDS_OF_ONE
    code = 1
    try:
        if nodes.leads:
            code = _Staging(nodes, archive, target).run()
        code = nodes.wait(code)
    except BaseException:  # a fault of ours, or a signal: the others are inside MPI
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        nodes.abort()
    nodes.end()
    return code


class _Staging:
    """What the leader of a node does; every method that asks or tells is called by all leaders alike."""

    def __init__(self, nodes: Nodes, archive: str, target: str) -> None:
        self._nodes = nodes
        self._archive = archive
        self._target = target
        host = os.uname().nodename
        directory, name = os.path.split(target)
        self._prefix = os.path.join(directory, f".{name}.staging-{host}-")
        self._partial = f"{self._prefix}{os.getpid()}"
        self._began = time.monotonic()
        self._files = self._bytes = 0
        #: Whether all nodes have unpacked, so that a failure from now on is no longer one of all.
        self._changing = False

    def run(self) -> int:
        """Bring the target up to date; 0 when every node has it."""
        identity = self._nodes.tell(self._look_at_archive() if self._nodes.first else None)
        if isinstance(identity, StageError):
            return self._failed([("", str(identity))])
        failure = ""
        there = False
        try:
            there = is_there(self._target, identity)
        except StageError as error:
            failure = str(error)
        if failures := self._failures(failure):
            return self._failed(failures)
        having = self._nodes.ask(there)
        if not all(having) and (failures := self._unpack_everywhere(identity, there)):
            return self._failed(failures)
        self._say_done(having)
        return 0

    def _look_at_archive(self) -> str | StageError:
        """What the mark says when this archive is there: size and time, and the checksum where one is written."""
        try:
            found = os.stat(self._archive)
            with open(self._archive, "rb"):
                pass
            return f"size {found.st_size}\nmtime_ns {found.st_mtime_ns}\nsha256 {_written_checksum(self._archive)}\n"
        except OSError as error:
            return StageError(f"{self._archive}: {error.strerror}")
        except StageError as error:
            return error

    def _unpack_everywhere(self, identity: str, there: bool) -> list[tuple[str, str]]:
        """Unpack where it is not there yet; what went wrong, on any node. Then no node has changed."""
        received = _Received(self._nodes, self._archive)
        failure = ""
        try:
            if not there:
                self._unpack(received, identity)
        except StageError as error:
            failure = str(error)
        except OSError as error:
            failure = f"{error.filename or self._target}: {error.strerror or error}{self._room(error)}"
        received.drain()  # whatever happened here, the others go on
        digests = self._nodes.ask(received.digest.hexdigest())
        if cut := self._nodes.tell(received.failure):  # then that is the reason, and not the end that came too early
            failure = cut if self._nodes.first else ""
        elif not failure and digests[0] != received.digest.hexdigest():
            failure = f"what came by MPI is not what rank 0 has read (SHA-256 {received.digest.hexdigest()})"
        written = identity.split()[-1]
        if self._nodes.first and not cut and written not in ("none", digests[0]):
            failure = f"{self._archive} is damaged: its SHA-256 is {digests[0]}, {self._archive}.sha256 says {written}"
        failures = self._failures(failure)
        self._changing = not failures
        if self._changing and not there:
            try:
                self._rename(identity)
            except (OSError, StageError) as error:
                failure = f"{self._target}: {error}"
        shutil.rmtree(self._partial, ignore_errors=True)
        return failures or self._failures(failure)

    def _unpack(self, received: _Received, identity: str) -> None:
        self._remove_leftovers()
        try:
            os.makedirs(os.path.dirname(self._target), exist_ok=True)
            self._check_parent()
            os.mkdir(self._partial, 0o700)
        except OSError as error:
            raise StageError(f"{error.filename}: {error.strerror}") from error
        self._files, self._bytes = unpack(received, self._archive, self._partial)
        with open(os.path.join(self._partial, MARK), "x") as mark:
            mark.write(identity)
        os.chmod(self._partial, 0o755)

    def _check_parent(self) -> None:
        """Whoever may rename what is in the directory above can put something else in the target's place."""
        above = os.path.dirname(self._target)
        found = os.stat(above)
        if found.st_uid not in (0, os.geteuid()):
            raise StageError(f"{above} belongs to another user, who could replace what is put there")
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            raise StageError(f"{above} can be written by everybody, who could replace what is put there")

    def _rename(self, identity: str) -> None:
        """Put what was unpacked into the target's place; another job of this node may do, or have done, the same."""
        if not is_there(self._target, identity):
            old = self._partial + ".old"
            try:
                if os.path.exists(os.path.join(self._target, MARK)):
                    os.rename(self._target, old)
                os.rename(self._partial, self._target)  # over an empty directory, too
            except OSError:
                if not is_there(self._target, identity):
                    raise
            shutil.rmtree(old, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """Remove what earlier runs on this host were killed over: a node's memory may be its disk."""
        directory, start = os.path.split(self._prefix)
        if not os.path.isdir(directory):
            return
        for name in os.listdir(directory):
            pid = name[len(start) :].split(".")[0]
            if name.startswith(start) and pid.isdecimal() and not os.path.exists(f"/proc/{pid}"):
                shutil.rmtree(os.path.join(directory, name), ignore_errors=True)

    def _room(self, error: OSError) -> str:
        if not isinstance(error.errno, int) or os.strerror(error.errno) != "No space left on device":
            return ""
        free = shutil.disk_usage(os.path.dirname(self._target)).free
        return f", {free >> 20} MiB are free where {self._target} would be"

    def _failures(self, failure: str) -> list[tuple[str, str]]:
        """Hosts where something went wrong, and what; the same on all."""
        found = self._nodes.ask((os.uname().nodename, failure))
        return [(host, words) for host, words in found if words]

    def _failed(self, failures: list[tuple[str, str]]) -> int:
        if self._nodes.first:
            hosts: dict[str, list[str]] = {}
            for host, words in failures:
                hosts.setdefault(words, []).append(host)
            for words, where in hosts.items():
                more = f" and {len(where) - 1} more" if len(where) > 1 else ""
                print(f"mpiflow stage: {where[0]}{more}{': ' if where[0] else ''}{words}", file=sys.stderr)
            now = "new on the other nodes" if self._changing else "as it was on all nodes"
            print(f"mpiflow stage: {self._target} is {now}", file=sys.stderr, flush=True)
        return 1

    def _say_done(self, having: list[bool]) -> None:
        counts = self._nodes.ask((self._files, self._bytes))
        if not self._nodes.first:
            return
        fresh = having.count(False)
        files, size = max(counts)
        words = f"mpiflow stage: {self._target} is on {len(having)} node{'s' if len(having) != 1 else ''}"
        if fresh:
            words += (
                f": {files:,} files, {size >> 20:,} MiB unpacked on {fresh} in {time.monotonic() - self._began:.1f} s"
            )
        print(words + (f", {len(having) - fresh} had it already" if fresh < len(having) else ""), flush=True)


def _written_checksum(archive: str) -> str:
    """What ``ARCHIVE.sha256`` says; "none" where there is no such file."""
    path = archive + ".sha256"
    try:
        with open(path, errors="replace") as file:
            words = file.read(1024).split()
    except FileNotFoundError:
        return "none"
    if not words or len(words[0]) != 64 or set(words[0].lower()) - set("0123456789abcdef"):
        raise StageError(f"{path} holds no SHA-256")
    return words[0].lower()


def _is_empty_directory(path: str) -> bool:
    try:
        return not os.path.islink(path) and not os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return False


def is_there(target: str, identity: str) -> bool:
    """Whether a node has it already; StageError when the target is not to be replaced.

    Parameters
    ----------
    target : str
        The directory.
    identity : str
        What its mark says when it is the right one.
    """
    # Twice: another job of this node, or another node on the same file system, may put it there just between the look
    # into the directory and the look whether there is one.
    for _ in range(2):
        try:
            if os.lstat(target).st_uid != os.geteuid():
                # In a directory for all, as /tmp is, anybody could have put it there, mark and all.
                raise StageError(f"{target} belongs to another user: it is neither used nor replaced")
            with open(os.path.join(target, MARK), errors="replace") as mark:
                return mark.read() == identity
        except (FileNotFoundError, NotADirectoryError):
            if not os.path.lexists(target) or _is_empty_directory(target):
                return False
        except OSError as error:
            raise StageError(f"{target}: {error.strerror}") from None
    words = f"{target} is there, and was not made by `mpiflow stage`: it is left as it is"
    raise StageError(words + "; name another directory, or remove it")


class _Received(io.RawIOBase):
    """The archive, as it comes in: read on the first leader, broadcast to all, and looked at once only."""

    def __init__(self, nodes: Nodes, path: str) -> None:
        self.digest = hashlib.sha256()
        #: Why it could not be read to its end; on the first leader.
        self.failure = ""
        self._file: IO[bytes] | None = None
        self._path = path
        self._pieces = nodes.pieces(self._fill if nodes.first else None)
        self._piece = memoryview(b"")
        self._over = False

    def _fill(self, buffer: memoryview) -> int:
        try:
            if self._file is None:
                self._file = open(self._path, "rb", buffering=0)  # noqa: SIM115, closed at its end
            length = self._file.readinto(buffer)  # type: ignore[attr-defined]
        except OSError as error:
            self.failure = f"{self._path}: {error.strerror}"
            length = -1
        if length <= 0 and self._file is not None:
            self._file.close()
        return int(length)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._piece and not self._over:
            self._next()
        length = min(len(buffer), len(self._piece))
        buffer[:length] = self._piece[:length]
        self._piece = self._piece[length:]
        return length

    def drain(self) -> None:
        """Take what is left: all leaders take part in every broadcast."""
        while not self._over:
            self._next()

    def _next(self) -> None:
        try:
            self._piece = next(self._pieces)
        except (StopIteration, EOFError):
            self._piece = memoryview(b"")
            self._over = True
        self.digest.update(self._piece)


class _EndSeen(io.RawIOBase):
    """Passes on a stream, and knows whether it ends as an archive does."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._tail = b""

    @property
    def whole(self) -> bool:
        """Whether the last bytes so far are the end mark of an archive."""
        return self._tail == _END_OF_TAR

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._tail = (self._tail + data[-len(_END_OF_TAR) :])[-len(_END_OF_TAR) :]
        return len(data)


def unpack(stream: io.RawIOBase, name: str, directory: str) -> tuple[int, int]:
    """Unpack an archive, read from its beginning to its end, into a new directory.

    Parameters
    ----------
    stream : binary file
        Not seekable.
    name : str
        Of the archive, for messages.
    directory : str
        Empty, and nobody else's.

    Returns
    -------
    files, bytes : int
        What was written.

    Raises
    ------
    StageError
        It is damaged, or something in it is not to be unpacked.
    OSError
        It cannot be written.
    """
    buffered = io.BufferedReader(stream, _MANY)
    plain = _EndSeen(_decompressed(buffered))
    try:
        with tarfile.open(fileobj=io.BufferedReader(plain, _MANY), mode="r|", bufsize=_MANY) as archive:
            written = _Unpacking(archive, name, directory).run()
        while plain.read(_MANY):  # to the checksum at the end of what is compressed
            pass
    except (tarfile.TarError, EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise StageError(f"{name} is damaged, or no tar archive (plain, gzip, bzip2, xz): {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise StageError(f"{name} is damaged: {error}") from error  # what bz2 has to say
    except Exception as error:  # zlib.error, and what tarfile lets through of nonsense in a header
        if isinstance(error, StageError):
            raise
        raise StageError(f"{name} is damaged: {error}") from error
    if not plain.whole:
        raise StageError(f"{name} is damaged: it ends before the end of the archive")
    return written


def _decompressed(stream: io.BufferedReader[Any]) -> IO[bytes]:
    """The archive itself, by the first bytes of what it is packed in."""
    magic = stream.peek(6)[:6]
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=stream)  # type: ignore[return-value]
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(stream)
    if magic.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(stream)
    return stream


class _Unpacking:
    """Writes the members of an archive, none of them outside."""

    def __init__(self, archive: tarfile.TarFile, name: str, directory: str) -> None:
        self._archive = archive
        self._name = name
        self._directory = directory
        self._files = self._bytes = 0
        #: Directories that are known to be real ones.
        self._real = {directory}
        self._directories: list[tuple[str, tarfile.TarInfo]] = []

    def run(self) -> tuple[int, int]:
        """Write all; files and bytes."""
        for member in self._archive:
            self._write(member)
            self._archive.members = []  # type: ignore[attr-defined]  # it keeps all it has seen, and an environment has a million
        for path, member in reversed(self._directories):  # now that nothing is written into them any more
            os.chmod(path, member.mode & 0o777 | 0o700)
            os.utime(path, (member.mtime, member.mtime))
        return self._files, self._bytes

    def _write(self, member: tarfile.TarInfo) -> None:
        path = self._inside(member.name, member)
        if path in (self._directory, os.path.join(self._directory, MARK)):
            return
        self._make_parents(os.path.dirname(path), member)
        if member.isdir():
            self._make_parents(path, member)
            self._directories.append((path, member))
            return
        if os.path.lexists(path):
            if os.path.isdir(path) and not os.path.islink(path):
                raise self._refused(member, "it is a directory already")
            os.unlink(path)  # never written into: it may be a link that leads outside
        if member.issym():
            os.symlink(member.linkname, path)
        elif member.islnk():
            source = self._inside(member.linkname, member)
            self._make_parents(os.path.dirname(source), member)
            os.link(source, path, follow_symlinks=False)
        elif member.isfile():
            self._write_file(member, path)
        else:
            raise self._refused(member, "it is neither a file nor a directory nor a link")

    def _write_file(self, member: tarfile.TarInfo, path: str) -> None:
        source = self._archive.extractfile(member)
        assert source is not None
        with open(path, "xb") as target:
            shutil.copyfileobj(source, target, _MANY)
            if target.tell() != member.size:
                raise EOFError(f"{member.name} is cut short")
        os.chmod(path, member.mode & 0o777)
        os.utime(path, (member.mtime, member.mtime))  # or Python would compile every module again
        self._files += 1
        self._bytes += member.size

    def _inside(self, name: str, member: tarfile.TarInfo) -> str:
        """The path of a name in the archive; refused when it leads out of the directory."""
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise self._refused(member, f"{name!r} leads out of the directory")
        return os.path.normpath(os.path.join(self._directory, name))

    def _make_parents(self, path: str, member: tarfile.TarInfo) -> None:
        """Make a directory and those above it; refused where a link is in the way."""
        if path in self._real:
            return
        self._make_parents(os.path.dirname(path), member)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if os.path.islink(path) or not os.path.isdir(path):
                raise self._refused(member, f"{os.path.relpath(path, self._directory)} is no directory") from None
        self._real.add(path)

    def _refused(self, member: tarfile.TarInfo, why: str) -> StageError:
        return StageError(f"{self._name} is refused: its member {member.name!r} is not to be unpacked: {why}")


# --- making one -------------------------------------------------------------------------------------------------


def _create(environment: str, archive: str) -> int:
    """Pack a directory; the exit code."""
    if not os.path.isdir(environment):
        print(f"mpiflow stage: {environment}: there is no such directory", file=sys.stderr)
        return 1
    if os.path.realpath(archive).startswith(os.path.realpath(environment) + os.sep):
        print(f"mpiflow stage: {archive} would be packed into itself; put it elsewhere", file=sys.stderr)
        return 1
    partial = f"{archive}.partial-{os.getpid()}"
    try:
        # Level 1 is several times as fast as 9, and makes little more of it.
        with tarfile.open(partial, "x:gz", compresslevel=1, format=tarfile.PAX_FORMAT) as packed:
            for path in _below(environment):
                packed.add(path, os.path.relpath(path, environment), recursive=False)
        checksum = _sha256(partial)
        os.rename(partial, archive)
        with open(archive + ".sha256", "w") as written:
            written.write(f"{checksum}  {os.path.basename(archive)}\n")
    except OSError as error:
        print(f"mpiflow stage: {error.filename or archive}: {error.strerror}", file=sys.stderr)
        if os.path.exists(partial):
            os.unlink(partial)
        return 1
    print(f"mpiflow stage: {archive}: {os.path.getsize(archive) >> 20:,} MiB, SHA-256 {checksum}")
    return 0


def _below(directory: str) -> Iterator[str]:
    """All below a directory, in an order that does not change."""
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        yield entry.path
        if entry.is_dir(follow_symlinks=False):
            yield from _below(entry.path)


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_MANY):
            digest.update(piece)
    return digest.hexdigest()


if __name__ == "__main__":
    # By its path: mpiflow is two directories up, and nothing is to be imported from the directory of this file.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path = [place for place in sys.path if os.path.abspath(place) != here]
    sys.path.append(os.path.dirname(os.path.dirname(here)))
    sys.exit(stage(sys.argv[1:]))
