"""The journal of the ``superstep`` mode: results, appended once a superstep, before any future shows them.

    journal/0000.journal              records of one DataFlowKernel, in the order of their commits
    journal/0000-000001.result        a result above 1 MiB; a record of the journal names it

A file begins with `MAGIC`. Then come records, each a header of 40 bytes and a payload::

    marker 4 | kind 1 | - 3 | CRC of the payload 4 | length 8 | key 16 | CRC of these 36 bytes 4

The payload is the pickle of the result, or (kind 2) size, CRC and name of the file that holds it.

Each commit is one ``write()``, which outlives the death of any process: the kernel of the system has the bytes.
Only the death of a node can lose them before they are on disk; ``fdatasync`` (a millisecond and more) runs at most
once a second. The journal of a run that died thus ends whole, or within a record, or in zeros where the size
of the file reached the disk before its bytes. Such a torn tail is what a reader leaves out, in words. Anything else
that does not agree with its CRC is damage, and refused: the error names the place.

Nothing is ever changed in place, and no file has two writers: each takes the next free number, exclusively. So two
DataFlowKernels may share a run directory, and a run that is resumed there never appends behind a torn tail.
A lock was rejected for that reason, and because it does not work on every parallel file system; a database too.

A reader keeps key and place of each record, 200 bytes or so, and reads a result when it is asked for.
"""

from __future__ import annotations

import os
import pickle
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from struct import Struct
from typing import Any, BinaryIO, NamedTuple

from mpiflow.errors import BadCheckpoint
from mpiflow.kernel.ownership import open_own

MAGIC = b"mpiflow journal 1\n"
#: A pickle above this many bytes gets a file of its own.
LARGE = 1 << 20
#: Least seconds between two waits for the disk.
SYNC_EVERY = 1.0

_MARKER = b"\x9emf\x01"
_INLINE, _BESIDE = 1, 2
_HEADER = Struct("<4sB3xIQ16s")
_CRC = Struct("<I")
_SIZE_OF_HEADER = _HEADER.size + _CRC.size
_BESIDE_FIELDS = Struct("<QI")
_CHUNK = 1 << 20


def _framed(kind: int, keys: list[bytes], payloads: list[bytes]) -> Iterator[bytes]:
    """The pieces of records of one kind. By `map`: a superstep has hundreds, and a loop takes three times as long."""
    sums, sizes = map(zlib.crc32, payloads), map(len, payloads)
    headers = list(map(_HEADER.pack, repeat(_MARKER), repeat(kind), sums, sizes, keys))
    ends = map(_CRC.pack, map(zlib.crc32, headers))
    return chain.from_iterable(zip(headers, ends, payloads, strict=True))


# --- writing -----------------------------------------------------------------------------------------------


def pickled(result: Any, packed: bytes | None) -> bytes:
    """A result as a journal holds it.

    Parameters
    ----------
    result : object
        What a call gave.
    packed : bytes or None
        Its pickle as the worker made it, if it is at hand.

    Raises
    ------
    Exception
        What cloudpickle raises for a result that no pickle can take.
    """
    if packed and by_name(packed):
        return bytes(packed)
    try:
        return pickle.dumps(result, 5)
    except Exception:  # a lambda, say: cloudpickle's word is the last
        from mpiflow.comm.by_value import dumps_by_value  # which imports cloudpickle

        return dumps_by_value(result)


def by_name(packed: bytes) -> bool:
    """Whether a journal can hold a worker's pickle as it is.

    What a worker pickled by value (a class of the script) is pickled by name here, where the script is `__main__`: in
    the next run it shall be of that run's class.
    """
    return packed.find(b"cloudpickle") < 0  # `in` would first try the text as a number, and drop an exception


class JournalWriter:
    """Appends results to a journal of its own.

    Parameters
    ----------
    directory : str
        The ``journal`` directory of the run; made at the first result, as is the file.
    clock : callable
        Seconds, for the time between two waits for the disk.
    """

    def __init__(self, directory: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.directory = directory
        self.path: str | None = None
        self._clock = clock
        self._fd = -1
        #: Bytes of the file that are not written yet.
        self._pending: list[bytes] = []
        #: Keys and pickles of the small results to be written behind them.
        self._keys: list[bytes] = []
        self._pickles: list[bytes] = []
        self._size = 0
        self._beside = 0
        #: Whether anything was written since the disk was waited for.
        self._dirty = False
        self._synced = 0.0

    def add(self, key: str, data: bytes) -> None:
        """Take a result for the next commit.

        Parameters
        ----------
        key : str
            The md5 of its call.
        data : bytes
            Its pickle: see `pickled`.

        Raises
        ------
        OSError
            It is large and cannot be written.
        """
        if len(data) <= LARGE:
            self.add_small([key], [data])
            return
        if self._fd < 0:
            self._open()
        name = self._next_name()
        path = os.path.join(self.directory, name)
        fd = _create(path)
        try:
            _write(fd, data)
            # On the disk before a record speaks of it. It is large: one more millisecond does not show.
            os.fdatasync(fd)
        except OSError:
            os.unlink(path)  # nothing will ever speak of it, and the room is wanted
            raise
        finally:
            os.close(fd)
        self._name_beside(key, len(data), zlib.crc32(data), name)

    def add_small(self, keys: list[str], pickles: list[bytes]) -> None:
        """Take results whose pickles are not large; OSError if there can be no journal."""
        if self._fd < 0:
            self._open()
        self._keys += map(bytes.fromhex, keys)
        self._pickles += pickles

    def add_beside(self, key: str, source: Beside, link: bool) -> None:
        """Take a large result of an earlier journal: another name for its file, or a copy if that is not wanted.

        Where a name cannot be had (another file system), it is a copy as well; OSError if that fails.
        """
        if self._fd < 0:
            self._open()
        name = self._next_name()
        target = os.path.join(self.directory, name)
        if not (link and _linked(source.path, target)):
            _copy(source.path, target)
        self._name_beside(key, source.size, source.crc, name)

    def commit(self) -> None:
        """Write what was taken, in one write; wait for the disk if the last time is a second ago.

        Raises
        ------
        OSError
            It cannot be written. What is in the file already stays as it is.
        """
        if self._pending or self._keys:
            data = b"".join(chain(self._pending, _framed(_INLINE, self._keys, self._pickles)))
            self._pending, self._keys, self._pickles = [], [], []
            try:
                _write(self._fd, data)
            except OSError:
                os.ftruncate(self._fd, self._size)  # half a record would hide all that come behind it
                raise
            self._size += len(data)  # nobody else writes to it
            self._dirty = True
        if self._dirty and self._clock() - self._synced >= SYNC_EVERY:
            self._sync()

    def close(self) -> None:
        """Commit, and wait for the disk; OSError as for `commit`."""
        if self._fd < 0:
            return
        try:
            self.commit()
            if self._dirty:
                self._sync()
        finally:
            os.close(self._fd)
            self._fd = -1

    def _sync(self) -> None:
        os.fdatasync(self._fd)
        self._dirty = False
        self._synced = self._clock()

    def _open(self) -> None:
        """Take the next free number."""
        os.makedirs(self.directory, mode=0o755, exist_ok=True)
        number = sum(name.endswith(".journal") for name in os.listdir(self.directory))
        while self._fd < 0:
            path = os.path.join(self.directory, f"{number:04}.journal")
            try:
                self._fd = _create(path)
            except FileExistsError:
                number += 1
        self.path = path
        self._pending.append(MAGIC)

    def _next_name(self) -> str:
        assert self.path is not None
        self._beside += 1
        return f"{os.path.basename(self.path).removesuffix('.journal')}-{self._beside:06}.result"

    def _name_beside(self, key: str, size: int, crc: int, name: str) -> None:
        payload = _BESIDE_FIELDS.pack(size, crc) + name.encode()
        self._pending += _framed(_BESIDE, [bytes.fromhex(key)], [payload])


def _create(path: str) -> int:
    """A new file, which no group may write whatever the umask says: `ownership` would refuse it."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)


def _linked(source: str, target: str) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links: a copy does as well, and says what fails
        return False
    return True


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as original:
        fd = _create(target)
        try:
            while chunk := original.read(_CHUNK):
                _write(fd, chunk)
            os.fdatasync(fd)
        finally:
            os.close(fd)


def _write(fd: int, data: bytes) -> None:
    """All of it: one call takes 2 GiB at most, and less on a full disk, where the next one says so."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


# --- reading -----------------------------------------------------------------------------------------------


class Beside(NamedTuple):
    """A large result in a file of its own."""

    path: str
    size: int
    crc: int


def read_journal(path: str, trust: bool, report: Callable[[str], object]) -> Iterator[tuple[bytes, int]]:
    """Read through a journal and check every byte of it, one record in memory at a time.

    Parameters
    ----------
    path : str
        The file.
    trust : bool
        Read it whoever may have written it.
    report : callable
        Is told of a torn tail, in words.

    Yields
    ------
    bytes, int
        Of each result the md5 of its call, and the place of its record.

    Raises
    ------
    BadCheckpoint
        It is not to be read, or damaged.
    """
    with open_own(path, trust) as file:
        size = os.fstat(file.fileno()).st_size
        magic = file.read(len(MAGIC))
        if magic != MAGIC:
            if not MAGIC.startswith(magic.rstrip(b"\0")) or not _only_zeros(file):
                raise BadCheckpoint(f"{path} is not a journal of mpiflow, or its first {len(MAGIC)} bytes are damaged")
            report(f"{path} ends before its first record, after {size} bytes: nothing is taken from it")
            return
        offset, number = len(MAGIC), 0
        while offset < size:
            found = _next(file, path, offset, number)
            if found is None:
                words = f"{path} ends within record {number + 1}: the last {size - offset} bytes, from byte {offset} on"
                report(f"{words}, are left out; {number} results are whole")
                return
            _, key, payload = found
            yield key, offset
            offset += _SIZE_OF_HEADER + len(payload)
            number += 1


def read_result(file: BinaryIO, offset: int) -> bytes | Beside:
    """The pickle of the result in a record, or where it is.

    Parameters
    ----------
    file : file
        The journal, from `open_own`.
    offset : int
        The record's place.

    Raises
    ------
    BadCheckpoint
        The record is not what it was when the journal was read.
    """
    path = file.name
    file.seek(offset)
    found = _next(file, path, offset, None)
    if found is None:
        raise BadCheckpoint(f"{path} has no whole record at byte {offset} any more")
    kind, _, payload = found
    if kind == _INLINE:
        return payload
    size, crc = _BESIDE_FIELDS.unpack_from(payload)
    name = payload[_BESIDE_FIELDS.size :].decode()
    return Beside(os.path.join(os.path.dirname(path), name), size, crc)


def load_beside(place: Beside, trust: bool) -> Any:
    """A large result: its file is checked first, then unpickled.

    Raises
    ------
    BadCheckpoint
        The file is missing, damaged, or not to be read.
    """
    with open_own(place.path, trust) as file:
        size = crc = 0
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            crc = zlib.crc32(chunk, crc)
        if (size, crc) != (place.size, place.crc):
            words = f"{place.path} is damaged: {size} bytes with CRC {crc:08x}"
            raise BadCheckpoint(f"{words}, where its journal says {place.size} with {place.crc:08x}")
        file.seek(0)
        return pickle.load(file)


def _next(file: BinaryIO, path: str, offset: int, number: int | None) -> tuple[int, bytes, bytes] | None:
    """Kind, key and payload of the record that begins here; None if the file ends within it."""
    header = file.read(_SIZE_OF_HEADER)
    if len(header) < _SIZE_OF_HEADER:
        return None
    (header_crc,) = _CRC.unpack_from(header, _HEADER.size)
    marker, kind, payload_crc, length, key = _HEADER.unpack_from(header)
    whole = zlib.crc32(header[: _HEADER.size]) == header_crc and marker == _MARKER
    if not whole or kind not in (_INLINE, _BESIDE) or length > LARGE:
        if _torn_to_zeros(header, file):
            return None
        raise BadCheckpoint(_damage(path, offset, number, "its header"))
    payload = file.read(length)
    if len(payload) < length:
        return None
    if zlib.crc32(payload) != payload_crc:
        if _torn_to_zeros(payload, file):
            return None
        raise BadCheckpoint(_damage(path, offset, number, "its payload"))
    return kind, key, payload


def _damage(path: str, offset: int, number: int | None, what: str) -> str:
    words = f"{path} is damaged at byte {offset}: {what} does not agree with its CRC"
    if number is not None:
        words += f". The {number} results before it are whole; to keep those alone: truncate -s {offset} {path}"
    return words


def _torn_to_zeros(last: bytes, file: BinaryIO) -> bool:
    """Whether the file ends in zeros from within these bytes on: neither a pickle nor a name ends in one."""
    return last[-1:] == b"\0" and _only_zeros(file)


def _only_zeros(file: BinaryIO) -> bool:
    while chunk := file.read(_CHUNK):
        if chunk.count(0) != len(chunk):
            return False
    return True
