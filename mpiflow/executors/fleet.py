"""Rank 0's end of all workers: one for the process, shared by every executor that uses them.

A fleet joins the pure `Farm` to a `Comm`. Workers live until the script ends; DataFlowKernels come and go, and
several may be there at once, so each result is put into the inbox of the executor that sent its task.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from mpiflow import linux
from mpiflow.comm import wire
from mpiflow.comm.wire import DONE, HEADER, OVERTIME
from mpiflow.errors import FarmLost
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
        #: Tasks that each worker runs at once.
        self.runners: dict[int, int] = {}
        self._told: dict[int, bytes] = {}
        #: Tasks a worker runs at once when nobody says.
        self.default_runners = 1
        self._settings = settings
        self._variables = dict(os.environ)
        self._printed = printed
        self._farm: Farm[Task] = Farm()
        self._lock = threading.Lock()
        #: Numbers of new attempts.
        self.aids = count(1)
        self._fids = count(1)
        self._functions: dict[int, bytes] = {}
        self._names: dict[int, str] = {}
        self._forgotten: deque[int] = deque()
        self._messages = 0

    # --- who is there -------------------------------------------------------------------------------------

    def configure(self, runners: int, workers: Iterable[int], more: dict[str, object] | None = None) -> None:
        """Set how many tasks each of these workers runs at once; of several executors, the latest word holds.

        Parameters
        ----------
        runners : int
            Tasks at a time.
        workers : iterable of int
            Which workers.
        more : dict, optional
            Other settings of their runners, those of `worker.binding`.
        """
        with self._lock:
            settings = pickle.dumps({**self._settings, **(more or {}), "runners": runners}, 5)
            for worker in workers:
                if self._told.get(worker) == settings:
                    continue
                self._told[worker] = settings
                self.runners[worker] = runners
                self.comm.send(worker, wire.record(wire.SETTINGS, settings))
                if worker in self.hosts:
                    self._farm.on_joined(worker, runners)

    def slots(self, workers: Iterable[int]) -> int:
        """Tasks that these workers can run at once."""
        return sum(self.runners.get(worker, 1) for worker in workers)

    def meet_all(self, seconds: float) -> None:
        """Wait until every worker has reported; FarmLost when the time is over first."""
        end = time.monotonic() + seconds
        while len(self.hosts) < len(self.comm.peers):
            if time.monotonic() > end:
                missing = sorted(set(self.comm.peers) - set(self.hosts))
                raise FarmLost(f"rank {missing[0]} and {len(missing) - 1} others have not reported in {seconds:g} s")
            self.pump()
            self.comm.wait(0.001)

    def surroundings(self) -> dict[str, object]:
        """This process's directory, and what the script has changed in its environment, as settings for tasks."""
        now = os.environ
        changed: dict[str, str | None] = {name: now[name] for name in now if self._variables.get(name) != now[name]}
        changed.update((name, None) for name in self._variables if name not in now)
        return {"directory": os.getcwd(), "variables": changed}

    def pool(self, workers: Sequence[int], prefetch: int | None) -> int:
        """Number of the farm's pool with these workers."""
        with self._lock:
            everyone = len(workers) == len(self.comm.peers)
            return self._farm.pool(None if everyone else workers, prefetch)

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

    def forget(self, fid: int) -> None:
        """A function is called no more. From anywhere, a garbage collection among others: it is only noted here."""
        self._forgotten.append(fid)

    def submit(self, deliveries: Sequence[Delivery], pool: int = 0, priority: int = 0) -> None:
        """Give deliveries to the farm, and send what it gives out."""
        with self._lock:
            if self._forgotten:
                self._tell_forgotten()
            self._farm.on_ready(deliveries, pool, priority)
            self._flush()

    def _tell_forgotten(self) -> None:
        """Have workers drop functions that nobody can call any more."""
        while self._forgotten:
            fid = self._forgotten.popleft()
            del self._functions[fid], self._names[fid]
            for worker in self._farm.on_forgotten(fid):
                self.comm.send(worker, wire.record(wire.FORGET, fid=fid))

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

    def revoke(self, delivery: Delivery) -> bool:
        """Forget a delivery that no worker has; whether that was so."""
        with self._lock:
            return self._farm.revoke(delivery)

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
        self._farm.on_joined(peer, self.runners.get(peer, 1))

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
