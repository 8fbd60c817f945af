"""Tasks over several ranks on rank 0: `farm.gangs` says which ranks and when, this has them run there.

Each member of a gang holds an attempt of its own in the farm's books, and answers for it like any other task. So who
holds what, how long a function takes, and what a lost worker had, need no second bookkeeping; the answers come into an
inbox of this module instead of an executor's, and when the last has come the executor gets one answer for all.

What the executor gets, by what the members have said:

===========================  ===============================================================================
all returned                 what the first rank of the communicator returned
one raised                   that exception, the first that came; the others are called off
a member's rank is lost      the same as for any task: another hand-out, of the whole gang
MPI failed in a member       the same; MPI's own exception where that does not speak of other ranks
the walltime is over         `AppTimeout`; the members are called off
===========================  ===============================================================================

What is called off has some seconds to come back (`worker.gangs`); a rank that does not is given up here as well.
All of this is called with the fleet's lock held.
"""

from __future__ import annotations

import pickle
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mpiflow.comm import wire
from mpiflow.comm.wire import DIED, DONE, GANG, HEADER, OVERTIME, RAISED
from mpiflow.executors.fleet import LOST, REFUSED, Answer, Delivery
from mpiflow.farm.gangs import Gang, Gangs, Lane, Shape

if TYPE_CHECKING:
    from mpiflow.executors.fleet import Fleet
    from mpiflow.executors.programs import Program
    from mpiflow.farm.farm import Farm

#: Tasks that wait of which `GangMaster.in_words` tells.
MOST_WAITING = 10
#: Seconds after which a rank that was called off and says nothing is taken for lost. More than `worker.gangs.GRACE`:
#: where it can, it ends itself and is seen to.
GIVE_UP_AFTER = 15.0
#: The same for a gang that was still making its communicator: no other gang starts meanwhile, and MPI does not let
#: them out.
GIVE_UP_MEETING_AFTER = 5.0
#: Seconds after which a gang that has not met is called off, since no other one starts until then. More than
#: `worker.gangs.MEET_WITHIN`, after which its members say so themselves, where they can.
MEET_WITHIN = 30.0
#: Seconds in which the death of a rank is noticed, wherever it is: less than `worker.gangs.GRACE`.
OWN_DEATH_SEEN_WITHIN = 4.0
#: Seconds that a rank has to notice by itself that the walltime is over.
OVERTIME_SEEN_WITHIN = 2.0


class GangTask:
    """A task that needs several ranks, from the executor's hand to its answer.

    Parameters
    ----------
    delivery : Delivery
        The executor's; its record is the packed arguments.
    shape : Shape
        What it asks for.
    among : frozenset of int
        Workers it may have.
    lane : Lane
        Of its executor.
    program : Program, optional
        What its environment is made of, for a program of several nodes; it runs in a runner of the first one.
    """

    __slots__ = ("called_off_at", "delivery", "due", "failure", "gang", "loss", "parts", "program", "value", "wanted")

    def __init__(
        self, delivery: Delivery, shape: Shape, among: frozenset[int], lane: Lane, program: Program | None = None
    ) -> None:
        self.delivery = delivery
        self.program = program
        self.gang = Gang(self, shape, among, lane, delivery.task.priority)
        #: Attempts of members that have not answered, by number.
        self.parts: dict[int, Delivery] = {}
        #: What its members have said so far.
        self.value: Answer | None = None
        self.failure: Answer | None = None
        self.loss: Answer | None = None
        #: When something is to be done about it, in seconds of `time.monotonic`; 0: never.
        self.due = 0.0
        #: When its members were told to come back; 0: never.
        self.called_off_at = 0.0
        #: Whether anybody waits for its answer.
        self.wanted = True


class GangMaster:
    """The gangs of a fleet.

    Parameters
    ----------
    fleet : Fleet
        Whose workers they run on.
    farm : Farm
        The same's.
    flush : callable
        Sends what the farm has to give out.
    one_meets : bool
        Whether gangs make their communicators one after the other: under ULFM.
    """

    def __init__(self, fleet: Fleet, farm: Farm, flush: Callable[[], None], one_meets: bool) -> None:
        self._fleet = fleet
        self._farm = farm
        self._flush = flush
        self.gangs = Gangs(farm, lambda worker: str(fleet.hosts[worker]["host"]), one_meets)
        self._inbox: deque[Answer] = deque()
        #: By the number of the executor's delivery, and by that of each member's attempt.
        self._tasks: dict[int, GangTask] = {}
        self._parts: dict[int, GangTask] = {}
        self._started = 0
        #: Ranks of gangs whose communicator can be the parent of later ones, by number.
        self._parents: dict[int, frozenset[int]] = {}
        #: One that is being made: its number, its ranks, and those that have not said yet that they have it.
        self._founding: tuple[int, frozenset[int], set[int]] = (0, frozenset(), set())
        #: When the gang that meets has to have met, in seconds of `time.monotonic`.
        self._meet_by = 0.0
        #: Whether ranks may have become free otherwise than by an answer.
        self._given_up = False

    # --- from executors -----------------------------------------------------------------------------------

    def submit(self, tasks: Sequence[GangTask]) -> None:
        """Take tasks; those for which there are ranks start at once."""
        for task in tasks:
            self._tasks[task.delivery.aid] = task
            self.gangs.on_ready(task.gang)
        self.step()

    def revoke(self, delivery: Delivery) -> bool | None:
        """Forget a task that has not started, whether that was so; None for one that is no gang's."""
        task = self._tasks.get(delivery.aid)
        if task is None:
            return None
        if not self.gangs.withdraw(task.gang):
            return False
        del self._tasks[delivery.aid]
        self._given_up = True
        self.step()
        return True

    def withdraw(self, aids: set[int]) -> set[int]:
        """Forget tasks, and call off what runs.

        Returns
        -------
        set of int
            The numbers that are no gang's, and those of programs, which workers drop and kill like any task.
        """
        rest = set(aids)
        self._given_up = True
        for aid in aids & self._tasks.keys():
            rest.discard(aid)
            task = self._tasks[aid]
            task.wanted = False
            if self.gangs.withdraw(task.gang):
                del self._tasks[aid]
            elif task.program is not None:
                rest.update(task.parts)
                for part in task.parts:
                    del self._parts[part]
                self._end(task)
            else:
                self._call_off(task)
        return rest

    # --- with every pump ----------------------------------------------------------------------------------

    def step(self) -> None:
        """Take what members have answered, and start what can be started."""
        if not (self._tasks or self._given_up):
            return
        self._given_up = False
        while self._inbox:
            self._take(self._inbox.popleft())
        if self._farm.waiting:
            self._flush()  # before the next gang claims ranks that have just become free
        started, hopeless = self.gangs.plan(self._awaited() if self.gangs.waiting else ())
        for gang in started:
            self._start(gang.task)
        for gang in hopeless:
            self._refuse(gang)
        if self._farm.waiting:
            self._flush()
        now = time.monotonic()
        if self.gangs.meeting and now >= self._meet_by:
            self._call_off(self.gangs.running[min(self.gangs.meeting)].task)
        for task in [task for task in self._tasks.values() if 0 < task.due <= now]:
            self._overdue(task)

    def _awaited(self) -> list[int]:
        """Workers that have yet to report, and may."""
        losses = self._fleet.losses
        return [] if losses is None else list(filter(losses.presence.awaits, self._fleet.comm.peers))

    def in_words(self) -> list[str]:
        """What waits, for who looks on: called without the lock."""
        waiting = self.gangs.waiting[:MOST_WAITING]
        lines = [f"{gang.task.delivery.task.words} waits for {gang.shape}" for gang in waiting]
        for line, gang in enumerate(waiting):
            if gang.ranks:
                claimed = ", ".join(map(str, gang.ranks))
                lines[line] += f"; it has claimed rank {claimed}"
        return lines

    # --- out ----------------------------------------------------------------------------------------------

    def _start(self, task: GangTask) -> None:
        delivery, ranks = task.delivery, task.gang.ranks
        self._started += 1
        if task.program is not None:
            first = next(rank for rank in ranks if task.gang.may_have([rank]))
            hosts = [str(self._fleet.hosts[rank]["host"]) for rank in ranks]
            head, beside = task.program.record(list(dict.fromkeys(hosts)))
            self._send(task, first, task.program.kind, head, beside)
        else:
            members = struct.pack(f"<{len(ranks)}I", *ranks)
            payload = GANG.pack(self._started, self._parent(ranks), len(ranks)) + members + delivery.record
            self._meet_by = time.monotonic() + MEET_WITHIN
            for rank in ranks:
                self._send(task, rank, wire.TASK_GANG, payload, delivery.attachments)
            if delivery.task.walltime:
                task.due = time.monotonic() + delivery.task.walltime + OVERTIME_SEEN_WITHIN
            if self._fleet.losses is not None:  # one that holds Python's lock in a long call gives no sign of life
                self._fleet.losses.presence.in_gang.update(ranks)
        delivery.worker = ranks[0]
        delivery.record, delivery.attachments = b"", ()

    def _parent(self, ranks: Sequence[int]) -> int:
        """The parent of the next gang's communicator, see `wire.GANG`: the smallest without a rank that has died."""
        dead = self._fleet.losses.dead if self._fleet.losses is not None and self.gangs.one_meets else None
        if not dead:
            return 0
        self._parents = {number: whose for number, whose in self._parents.items() if not whose & dead}
        wide = [number for number, whose in self._parents.items() if whose.issuperset(ranks)]
        if wide:
            return min(wide, key=lambda number: len(self._parents[number]))
        self._founding = (self._started, frozenset(ranks), set(ranks))
        return self._started

    def on_met(self, worker: int) -> None:
        """A member has its communicator."""
        self.gangs.on_met(worker)
        number, ranks, missing = self._founding
        if worker in missing:
            missing.discard(worker)
            if not missing:
                self._parents[number] = ranks

    def _send(self, gang: GangTask, worker: int, kind: int, payload: bytes, beside: Sequence[Any]) -> None:
        """Give a member its part."""
        fleet, task, fid = self._fleet, gang.delivery.task, gang.delivery.fid
        part = Delivery(next(fleet.aids), fid, task, b"", (), self._inbox)
        gang.parts[part.aid] = part
        self._parts[part.aid] = gang
        head = HEADER.pack(part.aid, task.id, fid, len(payload), task.walltime, kind, len(beside)) + payload
        if task.memory:
            head = wire.record(wire.LIMIT, task.memory.to_bytes(8, "little"), part.aid) + head
        fleet.send_apart(worker, part, head, beside)

    def _refuse(self, gang: Gang) -> None:
        task = gang.task
        words = f"{task.delivery.task.words} asks for {gang.shape}, and its executor has {self.gangs.there(gang)}"
        losses = self._fleet.losses
        if losses is not None and (gone := losses.gone):
            words += f"; {gone} of the job's {len(self._fleet.comm.peers)} workers are lost or out of service"
        self._answer(task, REFUSED, memoryview(pickle.dumps(words, 5)), (), 0)

    # --- back ---------------------------------------------------------------------------------------------

    def _take(self, answer: Answer) -> None:
        """A member has answered, or is lost."""
        part, kind, payload, beside, worker = answer
        task = self._parts.pop(part.aid, None)
        if task is None:
            return  # a program that was killed
        del task.parts[part.aid]
        if task.program is not None:
            self._answer(task, kind, payload, beside, worker)
            return
        first = worker == task.delivery.worker
        self._leave(task, worker)
        if kind == DONE:
            task.value = answer if first else task.value
        elif kind == LOST:
            task.loss = task.loss if self._ended_itself(task) else answer
        elif kind == DIED:
            task.loss = task.loss or (answer if payload else None)
        elif task.failure is None:
            task.failure = answer
        if task.parts:
            if kind != DONE:
                self._call_off(task)
        else:
            self._conclude(task)

    def _ended_itself(self, task: GangTask) -> bool:
        """Whether a loss now is that of a rank that was called off and did not come back, and so no reason."""
        return 0 < task.called_off_at < time.monotonic() - OWN_DEATH_SEEN_WITHIN

    def _conclude(self, task: GangTask) -> None:
        """All members have answered: tell the executor."""
        told = task.failure or task.loss or task.value
        if told is None:
            # It was killed; or MPI speaks of ranks that have died, and none of them is a member.
            why = pickle.dumps(("MPI failed in its communicator", True), 5)
            self._answer(task, LOST, memoryview(why), (), task.delivery.worker)
            return
        _, kind, payload, beside, worker = told
        self._answer(task, RAISED if kind == DIED else kind, payload, beside, worker)

    def _answer(self, task: GangTask, kind: int, payload: memoryview, beside: Sequence[Any], worker: int) -> None:
        if task.wanted:
            task.delivery.inbox.append((task.delivery, kind, payload, beside, worker))
        self._end(task)

    def _end(self, task: GangTask) -> None:
        del self._tasks[task.delivery.aid]
        for worker in task.gang.ranks.copy():  # of a program all, of a gang none any more
            self._leave(task, worker)

    def _leave(self, task: GangTask, worker: int) -> None:
        self.gangs.on_left(task.gang, worker)
        if self._fleet.losses is not None:
            self._fleet.losses.presence.in_gang.discard(worker)

    # --- what does not end --------------------------------------------------------------------------------

    def _call_off(self, task: GangTask) -> None:
        """Have the members come back that have not."""
        if task.called_off_at:
            return
        task.called_off_at = time.monotonic()
        meets = self.gangs.meeting.intersection(task.gang.ranks)
        task.due = task.called_off_at + (GIVE_UP_MEETING_AFTER if meets else GIVE_UP_AFTER)
        for part in task.parts.values():
            self._fleet.comm.send(part.worker, wire.record(wire.DROP, part.aid.to_bytes(8, "little")))

    def _overdue(self, task: GangTask) -> None:
        """Its walltime is over, or the time to come back."""
        if not task.called_off_at:
            task.failure = task.failure or (task.delivery, OVERTIME, memoryview(b""), (), task.delivery.worker)
            self._call_off(task)
            return
        task.due = 0.0
        losses = self._fleet.losses
        if losses is not None:
            for part in list(task.parts.values()):
                losses.give_up(part.worker, f"it does not come back from {task.delivery.task.words}")
