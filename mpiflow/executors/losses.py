"""What becomes of workers that die, fall silent, or fail whatever they are given.

How a loss is noticed depends on the launch. Under ULFM MPI itself says who has died, within milliseconds. Where a
guardian stands between launcher and rank, it leaves a note in the run directory (a second), and where that is not
to be seen from here, silence tells (`farm.presence`). A host that fails task after task while others do well is
taken out of service (`farm.quarantine`); its ranks live on, and leave with all others at the end.

In every case the tasks that the worker had are given out again, under new numbers and without being charged for
it; what it may still send of the old ones is not known any more, and is dropped. One that was only silent comes
back into service when it is heard of again, after it has been told to forget what it had.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from mpiflow.comm import wire
from mpiflow.comm.notes import take_notes
from mpiflow.errors import ConfigurationError, FarmLost
from mpiflow.farm.presence import Presence
from mpiflow.farm.quarantine import Quarantine

if TYPE_CHECKING:
    from mpiflow.comm import Comm
    from mpiflow.executors.fleet import Delivery
    from mpiflow.farm.farm import Farm

#: Seconds between two looks for notes of guardians.
LOOK_FOR_NOTES_EVERY = 1.0


class Limits(NamedTuple):
    """When a worker counts as lost.

    Attributes
    ----------
    silence : float
        Seconds of silence.
    report : float
        Seconds that workers have to report at the start.
    failures : int
        Tasks that fail in a row on one host while others do well; 0: any number.
    """

    silence: float = 15.0
    report: float = 120.0
    failures: int = 32


class Losses:
    """The workers of a fleet, as far as they may be lost; called with the fleet's lock held.

    Parameters
    ----------
    farm, comm
        Of the fleet.
    limits : Limits
        When a worker counts as lost.
    say : callable
        Tells the user, a line at a time.
    host_lost : callable
        Called with the name of a host that is not to be used again.
    give_back : callable
        Called with what a worker had, its number, why it has it no more, and whether a task may be the reason.
    """

    def __init__(
        self,
        farm: Farm,
        comm: Comm,
        limits: Limits,
        say: Callable[[str], None],
        host_lost: Callable[[str], None],
        give_back: Callable[[Iterable[Delivery], int, str, bool], None],
    ) -> None:
        self._farm = farm
        self._comm = comm
        self._say = say
        self._host_lost = host_lost
        self._give_back = give_back
        self.presence = Presence(limits.silence, limits.report)
        self.presence.expect(comm.peers, time.monotonic())
        self.quarantine = Quarantine(limits.failures)
        self._hosts: dict[int, str] = {}
        self._own_host = os.uname().nodename
        #: Silent workers, with the numbers of what they had.
        self._silent: dict[int, list[int]] = {}
        #: Workers that have said that they are stuck, and in what.
        self._stuck: list[tuple[int, str]] = []
        #: Workers that are not to be given anything: they cannot start tasks, or their host is in quarantine.
        self.out_of_service: set[int] = set()
        #: Workers that are no more: what is still read of them says nothing of the present.
        self.dead: set[int] = set()
        self._failures: list[str] = []
        #: Whether the job ends: then nobody need be told of a rank that goes, and none need be left.
        self.leaving = False
        #: Where guardians leave their notes; empty where there are none.
        self.notes = ""
        self._notes_due = 0.0
        #: When `look` has something to do again.
        self.due = 0.0

    @property
    def present(self) -> list[int]:
        """Workers that can be told to leave, and will say that they do."""
        return [peer for peer in self._comm.peers if peer not in self.dead and peer not in self._silent]

    @property
    def silent(self) -> list[int]:
        """Workers that are silent, and may yet be alive."""
        return list(self._silent)

    @property
    def gone(self) -> int:
        """How many workers are lost or out of service, for now or for good."""
        return len(self.dead.union(self._silent, self.out_of_service))

    # --- events -------------------------------------------------------------------------------------------

    def on_hello(self, worker: int, hello: dict[str, object]) -> bool:
        """A worker has reported; whether it can work."""
        self._hosts[worker] = str(hello["host"])
        self.presence.reported(worker)
        if "failed" not in hello:
            return True
        self.out_of_service.add(worker)
        self.presence.exempt.add(worker)  # it sends no signs of life
        self.presence.answered.add(worker)
        trace = str(hello["failed"]).rstrip()
        self._failures.append(trace)
        reason = trace.splitlines()[-1]
        self._say(f"rank {worker} on {hello['host']} cannot work, and is left out: {reason}")
        if len(self._failures) == len(self._comm.peers):
            raise ConfigurationError(f"no worker can start; rank {worker} on {hello['host']} says:\n{trace}")
        return False

    def came_back(self, worker: int) -> list[int] | None:
        """A worker has said something: the numbers of what it must forget, if it had been struck off as silent."""
        forgotten = self._silent.pop(worker, None)
        if forgotten is not None:
            self._comm.take_back(worker)
            self._say(f"{self._words(worker)} is heard of again, and goes on")
        return forgotten

    def on_results(self, worker: int, done: int, failed: int) -> None:
        """Tasks have ended on a worker."""
        host = self._hosts.get(worker, "")
        if self.quarantine.on_results(host, done, failed) and worker not in self.out_of_service:
            self._quarantine(host)

    def on_stuck(self, worker: int, why: str) -> None:
        """A worker's last word until it comes back: given up by the next `look`, as this word still tells of life."""
        self._stuck.append((worker, why))
        self.due = 0.0

    def look(self, now: float) -> None:
        """Strike off whoever is lost by now."""
        while self._comm.lost:
            self._strike_off(self._comm.lost.pop(), "MPI reports its death", dead=True)
        if now < self.due:
            return
        self.due = now + self.presence.every
        while self._stuck:
            self.give_up(*self._stuck.pop())
        if self.notes and now >= self._notes_due:
            self._notes_due = now + LOOK_FOR_NOTES_EVERY
            for worker in take_notes(self.notes):
                self._strike_off(worker, "its guardian reports its death", dead=True)
        self._end_if_tasks_are_stranded()
        for worker, seconds in self.presence.judge(now):
            self._strike_off(worker, f"silent for {seconds:.0f} s", dead=False)
        if late := self.presence.missing(now):
            for worker in late:
                self._comm.drop(worker, for_good=False)
                self._silent[worker] = []
            ranks = ", ".join(map(str, late))
            self._say(f"rank {ranks} has not reported in {self.presence.report:g} s; the job goes on without it")
            self._end_if_nobody_is_left()

    def give_up(self, worker: int, why: str) -> None:
        """Take a worker for lost that is alive and of no use; it is taken back when it is heard of."""
        self._strike_off(worker, why, dead=False)

    # --- consequences -------------------------------------------------------------------------------------

    def _strike_off(self, worker: int, why: str, dead: bool) -> None:
        if worker in self.dead or worker not in self._comm.peers:
            return
        again = worker in self._silent  # its tasks have been given out again already
        self._comm.drop(worker, for_good=dead)
        self.presence.forget(worker)
        had: list[Any] = self._farm.on_lost(worker)
        if dead:
            self.dead.add(worker)
            self._silent.pop(worker, None)
        else:
            self._silent[worker] = [delivery.aid for delivery in had]
        left = len(self._farm.workers)
        if not again and not self.leaving:
            tasks = f"; its {len(had):,} tasks are given out again" if had else ""
            self._say(f"{self._words(worker)} is lost: {why}{tasks}. {left} workers go on")
        self._give_back(had, worker, why, True)
        host = self._hosts.get(worker, "")
        if host and not any(self._hosts.get(other) == host for other in self._farm.workers):
            self._tell_host_lost(host)
        self._end_if_nobody_is_left()

    def _quarantine(self, host: str) -> None:
        """Give the workers of a host nothing more; they are not told why."""
        members = [worker for worker in self._farm.workers if self._hosts.get(worker) == host]
        if self._farm.lives_by(members):
            return  # there is nobody else
        given_back = 0
        for worker in members:
            had: list[Any] = self._farm.on_lost(worker)
            self.out_of_service.add(worker)
            if had:
                numbers = b"".join(delivery.aid.to_bytes(8, "little") for delivery in had)
                self._comm.send(worker, wire.record(wire.DROP, numbers))
            self._give_back(had, worker, f"host {host} is in quarantine", False)
            given_back += len(had)
        self._say(
            f"host {host} is in quarantine: {self.quarantine.limit} tasks in a row have failed there, and others did "
            f"well elsewhere. Its {given_back:,} tasks are given out again, and it gets no more"
        )
        self._tell_host_lost(host)

    def _tell_host_lost(self, host: str) -> None:
        if host != self._own_host:
            self._host_lost(host)

    def _end_if_nobody_is_left(self) -> None:
        """FarmLost, when no worker is there and none may still come."""
        awaited = [
            peer for peer in self._comm.peers
            if peer not in self._hosts and peer not in self.dead and self.presence.awaits(peer)
        ]  # fmt: skip
        if not self._farm.workers and not awaited and not self.leaving:
            raise FarmLost(f"none of the {len(self._comm.peers)} workers is left to run tasks")

    def _end_if_tasks_are_stranded(self) -> None:
        """FarmLost, when tasks wait for ranks of which none is there, and none may still come."""
        for members in self._farm.stranded():
            ranks = members if members is not None else self._comm.peers
            if not self.leaving and not any(self.presence.awaits(rank) for rank in ranks):
                named = ", ".join(map(str, sorted(ranks)))
                raise FarmLost(f"tasks wait for rank {named}, and none of them is left to run tasks")

    def _words(self, worker: int) -> str:
        host = self._hosts.get(worker)
        return f"rank {worker} on {host}" if host else f"rank {worker}"
