"""Rank 0's end of all workers: one for the process, shared by every executor that uses them.

A fleet joins the pure `Farm` to a `Comm`. Workers live until the script ends; DataFlowKernels come and go, and
several may be there at once, so each result is put into the inbox of the executor that sent its task.
"""

from __future__ import annotations

import pickle
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from mpiflow import linux
from mpiflow.comm import wire
from mpiflow.comm.wire import DONE, HEADER, OVERTIME
from mpiflow.farm.farm import Attempt, Farm

if TYPE_CHECKING:
    from mpiflow.comm import Comm
    from mpiflow.comm.segments import Segment
    from mpiflow.kernel.task import Task


class Delivery(Attempt["Task"]):
    """An attempt as it goes over the wire.

    Attributes
    ----------
    inbox : deque
        Where its result belongs.
    record : bytes
        Header and payload; empty once it has been sent.
    attachments : sequence of buffers
        What goes beside.
    """

    __slots__ = ("attachments", "inbox", "record")

    def __init__(
        self, aid: int, fid: int, task: Task, record: bytes, attachments: Sequence[Any], inbox: deque[Answer]
    ) -> None:
        # written out: calling the base's __init__ would cost as much as all of this
        self.aid = aid
        self.fid = fid
        self.size = len(record)
        self.task = task
        self.worker = -1
        self.charge = 0.0
        self.record = record
        self.attachments = attachments
        self.inbox = inbox


#: One result as it arrived: (delivery, kind, payload, attachments, worker).
Answer = tuple[Delivery, int, memoryview, "Sequence[Segment]", int]
#: What tasks printed: (worker, task number, function number, stream, text, bytes left out).
Print = Callable[[int, int, str, int, bytes, int], None]


class Fleet:
    """All workers of this process.

    Parameters
    ----------
    comm : Comm
        The way to them.
    settings : dict
        What every worker is told first: ``path``, ``directory``, ``environment``.
    printed : callable
        Called with what tasks print.
    """

    def __init__(self, comm: Comm, settings: dict[str, object], printed: Print) -> None:
        linux.sleep_exactly()  # this thread, and those it starts
        self.comm = comm
        self.hosts: dict[int, dict[str, object]] = {}
        self.runners = 0
        #: Tasks a worker runs at once when nobody says.
        self.default_runners = 1
        self._settings = settings
        self._printed = printed
        self._farm: Farm[Task] = Farm()
        self._lock = threading.Lock()
        self._aids = count(1)
        self._fids = count(1)
        self._functions: dict[int, bytes] = {}
        self._names: dict[int, str] = {}
        self._messages = 0

    # --- who is there -------------------------------------------------------------------------------------

    def configure(self, runners: int) -> None:
        """Set how many tasks a worker runs at once; the latest word holds for all executors."""
        with self._lock:
            if runners == self.runners:
                return
            self.runners = runners
            settings = dict(self._settings, runners=runners)
            for peer in self.comm.peers:
                self.comm.send(peer, wire.record(wire.SETTINGS, pickle.dumps(settings, 5)))
            for worker in self._farm.workers:
                self._farm.on_joined(worker, runners)

    @property
    def slots(self) -> int:
        """Tasks that all workers can run at once."""
        return len(self.comm.peers) * max(1, self.runners)

    @property
    def busy(self) -> int:
        """Workers that have something to do."""
        return self._farm.busy

    @property
    def outstanding(self) -> int:
        """Tasks that workers have."""
        return self._farm.outstanding

    # --- the way out --------------------------------------------------------------------------------------

    def register(self, name: str, payload: bytes) -> int:
        """Number a function; it is sent to a worker with the first task that calls it."""
        fid = next(self._fids)
        self._functions[fid] = wire.record(wire.FUNCTION, payload, fid=fid)
        self._names[fid] = name
        return fid

    def number(self) -> int:
        """The number of a new attempt."""
        return next(self._aids)

    def submit(self, deliveries: Sequence[Delivery]) -> None:
        """Give deliveries to the farm, and send what it gives out."""
        with self._lock:
            self._farm.on_ready(deliveries)
            self._flush()

    def _flush(self) -> None:
        for bulk in self._farm.plan():
            parts = [self._functions[fid] for fid in bulk.new_functions]
            attachments: list[Any] = []
            for delivery in bulk.attempts:
                assert isinstance(delivery, Delivery)
                parts.append(delivery.record)
                delivery.record = b""
                if delivery.attachments:
                    attachments += delivery.attachments
                    delivery.attachments = ()
            self.comm.send(bulk.worker, b"".join(parts), attachments)
            self._messages += 1

    def withdraw(self, aids: set[int]) -> None:
        """Forget deliveries; workers drop theirs and kill what runs."""
        with self._lock:
            for worker, dropped in self._farm.withdraw(aids).items():
                payload = b"".join(aid.to_bytes(8, "little") for aid in dropped)
                self.comm.send(worker, wire.record(wire.DROP, payload))

    # --- the way back -------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Take every message that has arrived, put each result into its inbox, and give out more."""
        with self._lock:
            messages = self.comm.poll()
            for peer, head, attachments in messages:
                self._take(peer, head, attachments)
            if messages and self._farm.waiting:
                self._flush()

    def _take(self, peer: int, head: bytearray, attachments: list[Segment]) -> None:
        # `wire.records` written out: this loop is run for each result of the job.
        unpack, header, end = HEADER.unpack_from, HEADER.size, len(head)
        results: list[tuple[int, float]] = []
        places: list[tuple[int, int, int, int]] = []
        acknowledged = position = 0
        while position < end:
            aid, _, _, size, seconds, kind, more = unpack(head, position)
            start = position + header
            position = start + size
            if DONE <= kind <= OVERTIME:
                results.append((aid, seconds))
                places.append((kind, more, start, position))
            elif kind == wire.ACK:
                acknowledged += aid
            else:
                self._hear(peer, kind, pickle.loads(head[start:position]))
        view = memoryview(head)
        deliveries = self._farm.on_results(peer, results, acknowledged)
        taken = 0
        for delivery, (kind, more, start, stop) in zip(deliveries, places):  # noqa: B905, of one length by contract
            beside: Sequence[Segment] = ()
            if more:
                beside = attachments[taken : taken + more]
                taken += more
            if delivery is not None:
                delivery.inbox.append((delivery, kind, view[start:stop], beside, peer))  # type: ignore[attr-defined]

    def _hear(self, peer: int, kind: int, said: Any) -> None:
        """What a worker says beside results."""
        if kind == wire.OUTPUT:
            for tid, fid, stream, text, left_out in said:
                self._printed(peer, tid, self._names.get(fid, "?"), stream, text, left_out)
        elif kind == wire.HELLO:
            self.on_hello(peer, said)

    def on_hello(self, peer: int, hello: dict[str, object]) -> None:
        """A worker has reported: take it into service."""
        self.hosts[peer] = hello
        self._farm.on_joined(peer, max(1, self.runners))

    def where(self, worker: int) -> str:
        """A worker in words."""
        host = self.hosts.get(worker, {}).get("host", "?")
        return f"rank {worker} on {host}" if worker else f"this process on {host}"

    def wait(self, seconds: float) -> None:
        """Sleep until something may have arrived, at most so long."""
        self.comm.wait(seconds)


_fleet: Fleet | None = None


def install(fleet: Fleet | None) -> None:
    """Make a fleet the one of this process."""
    global _fleet
    _fleet = fleet


def installed() -> Fleet | None:
    """The fleet of this process, if it has one."""
    return _fleet
