"""Parsl's checkpoint file: ``checkpoint/tasks.pkl`` of a run.

It is one pickle after another, each of ``{"hash": md5, "exception": None, "result": result}``. Parsl reads
what is written here, and what Parsl wrote is read here.

The format has no frames and no checksums. Ours are inside the pickles, where no reader minds them: before its
last byte each loads a short string of bytes, the CRC of all before, and drops it again. So a flipped bit in a file
of ours is found; in a file of Parsl's only one that makes the pickle senseless. A file that ends within a record is
refused, as Parsl refuses it: without frames, what is whole cannot be told from what is not with certainty.

Reading through a file unpickles each record once, to find its end, and keeps its place, not its result. A result
is unpickled again when it is asked for: memory holds one record at a time, however large the file is.
"""

from __future__ import annotations

import os
import pickle
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from mpiflow.errors import BadCheckpoint
from mpiflow.kernel.ownership import open_own

NAME = "tasks.pkl"

#: SHORT_BINBYTES of 8: "crc:" and the CRC; then POP, and STOP, which every pickle ends with.
_MARK, _END = b"C\x08crc:", b"0."
_TRAILER = len(_MARK) + 4 + len(_END)
_CHUNK = 1 << 20


def dumps_record(key: str, result: Any) -> bytes:
    """A record of the file.

    Parameters
    ----------
    key : str
        The md5 of the call.
    result : object
        What it gave.

    Raises
    ------
    Exception
        What cloudpickle raises for a result that no pickle can take.

    Examples
    --------
    >>> pickle.loads(dumps_record("0" * 32, 7))["result"]
    7
    """
    record = {"hash": key, "exception": None, "result": result}
    try:
        data = pickle.dumps(record)
    except Exception:  # a lambda, say: cloudpickle's word is the last, and plain pickle reads what it writes
        from mpiflow.comm.by_value import dumps_by_value  # which imports cloudpickle

        data = dumps_by_value(record)
    body = data[:-1]
    return b"".join((body, _MARK, zlib.crc32(body).to_bytes(4, "little"), _END))


def append_records(directory: str, records: Sequence[bytes]) -> None:
    """Append to the file in one write; it is made if it is not there, with no records too.

    Two kernels with one run directory append to one file: `O_APPEND` puts each write behind the other's.

    Raises
    ------
    OSError
        It cannot be written.
    """
    os.makedirs(directory, mode=0o755, exist_ok=True)
    path = os.path.join(directory, NAME)
    # No group may write it, whatever the umask says: `ownership` would refuse it.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        view = memoryview(b"".join(records))
        before = os.fstat(fd).st_size
        written = 0
        try:
            while written < len(view):  # one call takes 2 GiB at most
                written += os.write(fd, view[written:])
        except OSError:
            if os.fstat(fd).st_size == before + written:  # nobody has appended since: leave no half record
                os.ftruncate(fd, before)
            raise
    finally:
        os.close(fd)


def read_checkpoint(path: str, trust: bool) -> Iterator[tuple[bytes, int]]:
    """Read through a checkpoint file, one record in memory at a time.

    Parameters
    ----------
    path : str
        The ``tasks.pkl``.
    trust : bool
        Read it whoever may have written it.

    Yields
    ------
    bytes, int
        Of each result the md5 of its call, and the place of its record. An empty file has none, and is no
        error: a run without cached tasks leaves one.

    Raises
    ------
    BadCheckpoint
        It is missing, not to be read, damaged, or ends within a record.
    """
    with open_own(path, trust) as file:
        size = os.fstat(file.fileno()).st_size
        offset, number = 0, 0
        while offset < size:
            number += 1
            try:
                key = _key_of(pickle.load(file))
                end = file.tell()
                _check_crc(file, offset, end)
            except Exception as error:  # damaged pickles raise anything, and so do the classes in whole ones
                why = f"{type(error).__name__}: {error}"
                words = f"Failed to load checkpoint: {path}: record {number}, at byte {offset} of {size}: {why}"
                hint = f"the {number - 1} before it are whole; to keep those alone: truncate -s {offset} {path}"
                raise BadCheckpoint(f"{words} ({hint})") from error
            yield key, offset
            offset = end


def read_result(file: BinaryIO, offset: int) -> Any:
    """The result in a record.

    Parameters
    ----------
    file : file
        The ``tasks.pkl``, from `open_own`.
    offset : int
        The record's place.

    Raises
    ------
    Exception
        Whatever the result's own classes raise.
    """
    file.seek(offset)
    return pickle.load(file)["result"]


def _key_of(record: Any) -> bytes:
    """The md5 in a record, if it is one."""
    if not isinstance(record, dict) or not {"hash", "exception", "result"} <= record.keys():
        raise ValueError(f"a {type(record).__name__} stands where a dict of hash, exception and result should")
    if record["exception"] is not None:
        raise ValueError("it holds an exception, and those are never written")
    key = record["hash"]
    if not isinstance(key, str) or len(key) != 32:
        raise ValueError(f"its hash {key!r} is no md5")
    return bytes.fromhex(key)


def _check_crc(file: BinaryIO, start: int, end: int) -> None:
    """ValueError if a record has a CRC and does not agree with it; leaves the file at the record's end."""
    covered = end - _TRAILER
    if covered <= start:
        return
    file.seek(covered)
    trailer = file.read(_TRAILER)
    if not (trailer.startswith(_MARK) and trailer.endswith(_END)):
        return  # Parsl's
    file.seek(start)
    crc = 0
    while covered > start:
        chunk = file.read(min(_CHUNK, covered - start))
        crc = zlib.crc32(chunk, crc)
        start += len(chunk)
    file.seek(end)
    if crc != int.from_bytes(trailer[len(_MARK) : -len(_END)], "little"):
        raise ValueError("it does not agree with its CRC")
