"""The raw ceiling: what pickled calls over MPI cost when nothing is done about them.

Rank 0 pickles every call on its own, joins a bulk of them into one message, and one worker unpickles each,
calls it, pickles each result and answers with one message. There is no future, no dependency, no error
handling, no isolation: a farm that pickles its tasks one by one cannot be faster than this, so the share of
this rate that a farm reaches is what its bookkeeping leaves of the machine.

Two bulks are kept in flight, so that the worker computes while rank 0 pickles. Calls are sliced out of the
message by a table of lengths: one `Unpickler` over the joined bytes would be a little faster, but its memo
outlives each pickle and gives wrong objects as soon as a task refers to one of its own twice.

A bulk on the wire: how many (n), n lengths (little-endian 32 bit), then the n pickles. An empty message
ends the worker.
"""

from __future__ import annotations

import pickle
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

from mpi4py import MPI

PROTOCOL = 5
TAG = 1
IN_FLIGHT = 2

Call = tuple[int, tuple[Any, ...], dict[str, Any]]


def noop() -> None:
    """Do nothing: the task of every measurement."""


#: what the worker can call; a task names its function by its place here, as a farm names it by an id
FUNCTIONS: Sequence[Callable[..., Any]] = (noop,)


def pack(pickles: Sequence[bytes]) -> bytes:
    """Join the pickles of a bulk into one message."""
    table = struct.pack(f"<{len(pickles) + 1}I", len(pickles), *map(len, pickles))
    return table + b"".join(pickles)


def unpack(message: bytes) -> list[bytes]:
    """Take a message apart into the pickles of its bulk."""
    (count,) = struct.unpack_from("<I", message)
    lengths = struct.unpack_from(f"<{count}I", message, 4)
    return [message[start:end] for start, end in pairwise(accumulate(lengths, initial=4 + 4 * count))]


def receive(comm: MPI.Comm, source: int) -> bytes:
    """Wait for the next message from `source`."""
    status = MPI.Status()
    comm.Probe(source, TAG, status)
    buffer = bytearray(status.Get_count(MPI.BYTE))
    comm.Recv([buffer, MPI.BYTE], source, TAG)
    return bytes(buffer)


def serve(comm: MPI.Comm) -> None:
    """Be the worker: answer bulks until an empty message comes."""
    dumps, loads = pickle.dumps, pickle.loads
    while message := receive(comm, 0):
        results = []
        for task in unpack(message):
            function, args, kwargs = loads(task)
            results.append(dumps(FUNCTIONS[function](*args, **kwargs), PROTOCOL))
        comm.Send([pack(results), MPI.BYTE], 0, TAG)


def dismiss(comm: MPI.Comm) -> None:
    """End the worker."""
    comm.Send([b"", MPI.BYTE], 1, TAG)


def calls(count: int) -> Iterator[Call]:
    """No-op calls, each an object of its own."""
    return ((0, (), {}) for _ in range(count))


def bulks(tasks: int, bulk: int) -> Iterator[bytes]:
    """The messages that carry `tasks` calls, at most `bulk` in each, made as they are asked for."""
    for start in range(0, tasks, bulk):
        count = min(bulk, tasks - start)
        yield pack([pickle.dumps(call, PROTOCOL) for call in calls(count)])


def throughput(comm: MPI.Comm, tasks: int, bulk: int) -> float:
    """Tasks per second, from the first call pickled to the last result unpickled, with one worker."""
    start = time.perf_counter()
    finished = 0
    sent: deque[tuple[MPI.Request, bytes]] = deque()  # the bytes live until MPI has let go of them
    for message in bulks(tasks, bulk):
        if len(sent) == IN_FLIGHT:
            finished += _collect(comm, sent)
        sent.append((comm.Isend([message, MPI.BYTE], 1, TAG), message))
    while sent:
        finished += _collect(comm, sent)
    seconds = time.perf_counter() - start
    if finished != tasks:
        raise RuntimeError(f"sent {tasks} tasks, got {finished} results")
    return tasks / seconds


def _collect(comm: MPI.Comm, sent: deque[tuple[MPI.Request, bytes]]) -> int:
    """Receive the answer to the oldest bulk and unpickle its results; return how many there were."""
    results = [pickle.loads(result) for result in unpack(receive(comm, 1))]
    sent.popleft()[0].Wait()
    return len(results)


def round_trips(comm: MPI.Comm, count: int) -> list[float]:
    """Seconds of `count` bulks of one task, each sent when the one before it has been answered."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        comm.Send([next(bulks(1, 1)), MPI.BYTE], 1, TAG)
        (_result,) = [pickle.loads(result) for result in unpack(receive(comm, 1))]
        seconds.append(time.perf_counter() - start)
    return seconds
