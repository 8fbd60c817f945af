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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

from mpiflow import linux
from mpiflow.comm import wire
from mpiflow.comm.wire import DONE, HEADER, HEADER_SIZE, OVERTIME
from mpiflow.executors.losses import Limits, Losses
from mpiflow.farm.farm import Attempt, Bulk, Farm

if TYPE_CHECKING:
    from mpiflow.comm import Comm
    from mpiflow.comm.segments import Segment
    from mpiflow.executors.gangs import GangMaster, GangTask
    from mpiflow.kernel.task import Task


#: Kind of an answer that no worker has given: the one that had the task is lost.
LOST = -1
#: The same: there are not, and will not be, ranks enough for the task.
REFUSED = -2
#: Of so many polls without a sleep that bring nothing, one looks at the clock, and whether somebody is lost.
LOOK_EVERY = 8
#: A wait of up to so many seconds is no sleep.
MOMENT = 50e-6
#: Seconds that one who only looks on waits for the fleet.
LOOK_WITHIN = 1.0


class Delivery(Attempt):
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
    limits : Limits, optional
        When a worker counts as lost; default: never, for one in this very process.
    say : callable, optional
        Tells the user of workers that come and go.
    host_lost : callable, optional
        Called with the name of a host that is not to be used again.
    """

    def __init__(
        self,
        comm: Comm,
        settings: dict[str, object],
        printed: Print,
        limits: Limits | None = None,
        say: Callable[[str], None] = lambda _: None,
        host_lost: Callable[[str], None] = lambda _: None,
    ) -> None:
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
        self._farm = Farm()
        #: Whether guardians leave notes of the deaths of their ranks.
        self.leaves_notes = False
        #: What becomes of workers that are lost; None where none can be.
        self.losses: Losses | None = None
        #: Tasks over several ranks; None until there is one.
        self.gangs: GangMaster | None = None
        if limits is not None:
            self.losses = Losses(self._farm, comm, limits, say, host_lost, self._give_back)
        self._lock = threading.Lock()
        #: Numbers of new attempts.
        self.aids = count(1)
        self._fids = count(1)
        self._functions: dict[int, bytes] = {}
        self._names: dict[int, str] = {}
        self._forgotten: deque[int] = deque()
        #: Attempts that workers have been asked to hand back.
        self._asked_back: set[int] = set()
        #: Words for workers that wait for their next bulk.
        self._beside: dict[int, bytes] = {}
        # Polls that have brought nothing since one looked whether somebody is lost.
        self._empty = 0
        #: Stacks that workers have sent since they were asked, each (what, text).
        self.stacks: dict[int, list[tuple[str, str]]] = {}

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
            settings = {**self._settings, **(more or {}), "runners": runners}
            if self.losses is not None and self.leaves_notes:
                # The first directory holds for the whole job: of several kernels each would tell some workers only.
                settings["notes"] = self.losses.notes = self.losses.notes or str(settings.get("notes", ""))
            payload = pickle.dumps(settings, 5)
            words = wire.record(wire.SETTINGS, payload)
            if self.losses is not None:
                words += wire.record(wire.PING)  # what its answer is good for: `farm.presence`
            for worker in workers:
                if self._told.get(worker) == words:
                    continue
                self._told[worker] = words
                self.runners[worker] = runners
                self.comm.send(worker, words)
                if worker in self._farm.workers:
                    self._farm.on_joined(worker, runners)

    def slots(self, workers: Iterable[int]) -> int:
        """Tasks that these workers can run at once."""
        return sum(self.runners.get(worker, 1) for worker in workers)

    def meet_all(self) -> None:
        """Wait until every worker has reported that still may; the limits of the fleet say how long."""
        while any(peer not in self.hosts and self._may_report(peer) for peer in self.comm.peers):
            self.pump()
            self.comm.wait(0.001)

    def _may_report(self, peer: int) -> bool:
        return self.losses is None or self.losses.presence.awaits(peer)

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

    def census(self) -> dict[int, tuple[dict[str, object], int, bool]]:
        """By number the workers that have reported: what each said of itself, tasks at once, whether it serves."""
        hosts, serving = dict(self.hosts), set(self._farm.workers)  # both in one step: this is another thread's call
        return {worker: (said, self.runners.get(worker, 1), worker in serving) for worker, said in hosts.items()}

    # --- for who looks on ---------------------------------------------------------------------------------

    def held(self) -> dict[int, list[Task]]:
        """Tasks of each worker that has any; TimeoutError when rank 0 is held up inside MPI."""
        with self._looking():
            return {worker: [attempt.task for attempt in held] for worker, held in self._farm.held.items()}

    def ask_stacks(self) -> list[int]:
        """Ask every worker in service for its stacks, which come into `stacks`; the workers asked.

        TimeoutError when rank 0 is held up inside MPI.
        """
        with self._looking():
            self.stacks.clear()
            for worker in self._farm.workers:
                self.comm.send(worker, wire.record(wire.STACKS))
            return self._farm.workers

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """The lock, for one who may not hang where rank 0 does."""
        if not self._lock.acquire(timeout=LOOK_WITHIN):
            raise TimeoutError(f"rank 0 has been inside MPI, or a plan, for more than {LOOK_WITHIN:g} s")
        try:
            yield
        finally:
            self._lock.release()

    @property
    def seconds(self) -> dict[int, float]:
        """Mean seconds of each function that has had a result, by its number; not to be changed."""
        return self._farm.seconds

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
            if len(deliveries) == 1 and (bulk := self._farm.give_at_once(deliveries[0], pool)) is not None:
                self._send(bulk)
            else:
                self._farm.on_ready(deliveries, pool, priority)
                self._flush()

    def submit_gangs(self, tasks: Sequence[GangTask]) -> None:
        """Take tasks that need several ranks each."""
        with self._lock:
            if self.gangs is None:
                from mpiflow.executors.gangs import GangMaster

                one_meets = self._settings.get("protection") == "ULFM"
                self.gangs = GangMaster(self, self._farm, self._flush, one_meets)
            self.gangs.submit(tasks)

    def _tell_forgotten(self) -> None:
        """Have workers drop functions that nobody can call any more."""
        while self._forgotten:
            fid = self._forgotten.popleft()
            del self._functions[fid], self._names[fid]
            for worker in self._farm.on_forgotten(fid):
                # With the next bulk: a worker may have died unnoticed, and gets no message that nothing limits.
                self._beside[worker] = self._beside.get(worker, b"") + wire.record(wire.FORGET, fid=fid)

    def _flush(self) -> None:
        for bulk in self._farm.plan():
            self._send(bulk)

    def _send(self, bulk: Bulk) -> None:
        parts = [self._functions[fid] for fid in bulk.new_functions]
        if self._beside and bulk.worker in self._beside:
            parts.insert(0, self._beside.pop(bulk.worker))
        attachments: list[Any] = []
        for delivery in bulk.attempts:
            assert isinstance(delivery, Delivery)
            parts.append(delivery.record)
            delivery.record = b""
            if delivery.attachments:
                attachments += delivery.attachments
                delivery.attachments = ()
        self.comm.send(bulk.worker, b"".join(parts), attachments)

    def send_apart(self, worker: int, delivery: Delivery, record: bytes, attachments: Sequence[Any]) -> None:
        """Give a worker a delivery that is for it alone; with the lock held."""
        parts = [self._beside.pop(worker)] if worker in self._beside else []
        if self._farm.give(worker, delivery):
            parts.append(self._functions[delivery.fid])
        self.comm.send(worker, b"".join([*parts, record]), attachments)

    def revoke(self, delivery: Delivery) -> bool:
        """Forget a delivery that no worker has; whether that was so."""
        with self._lock:
            if self.gangs is not None and (revoked := self.gangs.revoke(delivery)) is not None:
                return revoked
            return self._farm.revoke(delivery)

    def withdraw(self, aids: set[int]) -> None:
        """Forget deliveries; workers drop theirs and kill what runs."""
        with self._lock:
            if self.gangs is not None:
                aids = self.gangs.withdraw(aids)
            for worker, dropped in self._farm.withdraw(aids).items():
                payload = b"".join(aid.to_bytes(8, "little") for aid in dropped)
                self.comm.send(worker, wire.record(wire.DROP, payload))
            if self.gangs is not None:
                self.gangs.step()

    def ask_back(self, aids: set[int]) -> None:
        """Have workers hand back deliveries that they have not begun, as lost ones; each is asked for once."""
        with self._lock:
            for worker, behind in self._farm.behind(aids - self._asked_back).items():
                self._asked_back.update(behind)
                payload = b"".join(aid.to_bytes(8, "little") for aid in behind)
                self.comm.send(worker, wire.record(wire.HAND_BACK, payload))

    # --- the way back -------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Take every message that has arrived, put each result into its inbox, and give out more."""
        with self._lock:
            messages = self.comm.poll()
            losses = self.losses
            if not messages:
                self._empty += 1
                if losses is None or (self._empty < LOOK_EVERY and not self.comm.lost):
                    return  # asking for the time would be a tenth of an empty superstep
            self._empty = 0
            if losses is not None:
                now = time.monotonic()
                for peer, _, _ in messages:
                    losses.presence.heard(peer, now)
            for peer, head, attachments in messages:
                if losses is None or peer not in losses.dead:
                    self._take(peer, head, attachments)
            if losses is not None and (now >= losses.due or self.comm.lost):
                losses.look(now)  # last: what came before a death still counts, and what it says of itself does not
            if messages and self._farm.waiting:
                self._flush()
            if self.gangs is not None:
                self.gangs.step()

    def _take(self, peer: int, head: bytearray, attachments: list[Segment]) -> None:
        # `wire.records` written out: this loop is run for each result of the job.
        unpack, header, end = HEADER.unpack_from, HEADER_SIZE, len(head)
        # Named as whole numbers, they are compared as such when compiled.
        aid: int
        size: int
        kind: int
        more: int
        results: list[tuple[int, float]] = []
        places: list[tuple[int, int, int, int]] = []
        acknowledged = position = failed = 0
        losses = self.losses
        while position < end:
            aid, _, _, size, seconds, kind, more = unpack(head, position)
            start = position + header
            position = start + size
            if DONE <= kind <= OVERTIME:
                if kind != DONE:
                    failed += 1
                results.append((aid, seconds))
                places.append((kind, more, start, position))
            elif kind == wire.ACK:
                acknowledged += aid
                if losses is not None:
                    losses.presence.answered.add(peer)
            elif kind == wire.USED:
                self._used(peer, aid, head[start:position])
            elif kind == wire.MET:
                if self.gangs is not None:
                    self.gangs.on_met(peer)
            else:
                self._hear(peer, kind, pickle.loads(head[start:position]))
        if losses is not None:
            if (forgotten := losses.came_back(peer)) is not None:
                self._welcome_back(peer, forgotten)
            if results:
                losses.on_results(peer, len(results) - failed, failed)
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
        elif kind == wire.STACK_TEXT:
            self.stacks[peer] = said
        elif kind == wire.STUCK and self.losses is not None:
            self.losses.on_stuck(peer, said)
        elif kind == wire.NOT_BEGUN:
            back: list[Any] = self._farm.on_handed_back(peer, said)
            self._give_back(back, peer, "the job is being drained", False)

    def _used(self, peer: int, aid: int, payload: bytearray) -> None:
        """A worker says what an attempt of it uses: for the monitoring of its kernel."""
        attempt = self._farm.attempt(peer, aid)
        if attempt is not None and (monitoring := attempt.task.dfk.task_log.monitoring) is not None:
            monitoring.measured(attempt.task, str(self.hosts[peer]["host"]), payload)

    def on_hello(self, peer: int, hello: dict[str, object]) -> None:
        """A worker has reported: take it into service."""
        self.hosts[peer] = hello
        if self.losses is None or self.losses.on_hello(peer, hello):
            self._farm.on_joined(peer, self.runners.get(peer, 1))

    # --- losses -------------------------------------------------------------------------------------------

    def _give_back(self, deliveries: Iterable[Delivery], worker: int, why: str, suspected: bool) -> None:
        """Tell the executors that a worker will not answer; suspects are those in its slots, the first ones."""
        slots = self.runners.get(worker, 1) if suspected else 0
        for place, delivery in enumerate(deliveries):
            words = pickle.dumps((why, place < slots), 5)
            delivery.inbox.append((delivery, LOST, memoryview(words), (), worker))

    def _welcome_back(self, worker: int, forgotten: list[int]) -> None:
        """Take a worker back into service that was silent: it forgets what it had, and hears what it has missed."""
        numbers = b"".join(aid.to_bytes(8, "little") for aid in forgotten)
        self.comm.send(worker, self._told.get(worker, b"") + wire.record(wire.DROP, numbers))
        if worker in self.hosts and self.losses is not None and worker not in self.losses.out_of_service:
            self._farm.on_joined(worker, self.runners.get(worker, 1))

    def where(self, worker: int) -> str:
        """A worker in words."""
        host = self.hosts.get(worker, {}).get("host", "?")
        return f"rank {worker} on {host}" if worker else f"this process on {host}"

    def wait(self, seconds: float) -> None:
        """Sleep until something may have arrived, at most so long."""
        if seconds > MOMENT:
            self._empty = LOOK_EVERY
        self.comm.wait(seconds)


_fleet: Fleet | None = None


def install(fleet: Fleet | None) -> None:
    """Make a fleet the one of this process."""
    global _fleet
    _fleet = fleet


def installed() -> Fleet | None:
    """The fleet of this process, if it has one."""
    return _fleet
