"""Running one task: from the bytes of a call to the bytes of its result. The same in a runner and in a rank."""

from __future__ import annotations

import os
from time import perf_counter

from mpiflow import context
from mpiflow.comm.pickling import pack, pack_failure, unpack
from mpiflow.comm.wire import DONE, RAISED
from mpiflow.errors import DeserializationError, SerializationError, TaskExited
from mpiflow.worker.environment import leave_fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Buffer, Callable, Sequence  # type: ignore[attr-defined]


#: Whether this process is one that the task has forked: it may come back in both. Noted when it happens, for to
#: ask the system each time would cost each task half a microsecond.
_in_fork = False


def _note_fork() -> None:
    global _in_fork
    _in_fork = True


os.register_at_fork(after_in_child=_note_fork)


class Outcome:
    """What came of a task: a record's kind, payload and attachments, and the seconds it took."""

    __slots__ = ("attachments", "kind", "payload", "seconds")

    def __init__(self, kind: int, payload: bytes, attachments: list[Buffer], seconds: float) -> None:
        self.kind = kind
        self.payload = payload
        self.attachments = attachments
        self.seconds = seconds


class Functions:
    """The functions this process has been sent, unpickled when first called."""

    def __init__(self) -> None:
        self._packed: dict[int, bytes] = {}
        self._loaded: dict[int, tuple[str, int, Callable[..., object]]] = {}

    def learn(self, fid: int, payload: bytes) -> None:
        """Keep a function until it is needed."""
        self._packed[fid] = payload

    def forget(self, fid: int) -> None:
        """Drop a function that is called no more."""
        self._packed.pop(fid, None)
        self._loaded.pop(fid, None)

    def get(self, fid: int) -> tuple[str, int, Callable[..., object]]:
        """Name, seed and function."""
        entry = self._loaded.get(fid)
        if entry is None:
            name, seed, packed = unpack(self._packed[fid])
            entry = self._loaded[fid] = (name, seed, unpack(packed))
        return entry


def run_task(
    functions: Functions, tid: int, fid: int, payload: memoryview, attachments: Sequence[Buffer]
) -> Outcome:
    """Call a function with packed arguments.

    Whatever happens short of the process's end comes back as an outcome: the worker lives on.
    """
    global _in_fork
    _in_fork = False
    context.task_id = tid
    context.item = -1
    kind = RAISED
    beside: list[Buffer] = []
    started = 0.0
    try:
        try:
            context.name, context.seed, function = functions.get(fid)
            args, kwargs = unpack(payload, attachments)
        except Exception as error:
            raise DeserializationError(_words(tid, "its function or arguments cannot be unpickled", error)) from error
        started = perf_counter()
        value = function(*args, **kwargs)
        seconds = perf_counter() - started
        try:
            packed = pack(value, beside)
            kind = DONE
        except Exception as error:
            what = f"its result of type {type(value).__name__} cannot be pickled"
            raise SerializationError(_words(tid, what, error)) from error
    except SystemExit as leaving:
        if _in_fork:
            leave_fork(leaving.code)
        seconds = perf_counter() - started if started else 0.0
        exited = TaskExited(_words(tid, f"called sys.exit({leaving.code!r})", None))
        packed = pack_failure(exited.with_traceback(leaving.__traceback__))
    except BaseException as error:  # KeyboardInterrupt too: a task must not take its worker with it
        seconds = perf_counter() - started if started else 0.0
        packed = pack_failure(error)
    if _in_fork:
        leave_fork(0 if kind == DONE else 1)
    context.task_id = -1
    if kind == RAISED:
        beside = []
    return Outcome(kind, packed, beside, seconds)


def _words(tid: int, what: str, error: Exception | None) -> str:
    reason = f": {type(error).__name__}: {error}" if error is not None else ""
    return f"task {tid} ({context.name}): {what}{reason}"
