"""What can be done to a job from outside, and what is asked of it then."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, NamedTuple

from . import victims

if TYPE_CHECKING:
    import random

    from .victims import Process, Rank


class Fault(NamedTuple):
    """A kind of fault.

    Attributes
    ----------
    name : str
        What the table calls it.
    target : str
        "runner", "zygote", "worker", "guardian", "rank0", "launcher", or "any" rank that is just starting.
    signal : Signals
        What is sent to it.
    pause : tuple of float, optional
        SIGCONT follows after a time between these two, in seconds. None: it does not.
    live : bool
        Whether the job has to live on. If not it may end, and is resumed.
    weight : int
        How often it is drawn, against the others.
    costs_worker : bool
        Whether a worker is gone after it, for good or for long.
    early : bool
        Whether it comes in the first second of a life and not after some tasks.
    cuts : bool
        Whether the newest journal loses its end after the life that this fault ends.
    """

    name: str
    target: str
    signal: signal.Signals
    pause: tuple[float, float] | None = None
    live: bool = False
    weight: int = 2
    costs_worker: bool = False
    early: bool = False
    cuts: bool = False

    @property
    def final(self) -> bool:
        """Whether nothing else should come after it in a life: it is to end by this one."""
        return not self.live and self.target in ("rank0", "launcher", "guardian", "any")


_KILL, _SEGV, _STOP, _TERM = signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP, signal.SIGTERM

#: By name; the order is that of the table.
FAULTS = {
    fault.name: fault
    for fault in (
        Fault("runner-kill", "runner", _KILL, live=True, weight=6),
        Fault("runner-segv", "runner", _SEGV, live=True, weight=4),
        Fault("runner-stop", "runner", _STOP, live=True, weight=1),
        Fault("zygote-kill", "zygote", _KILL, live=True, weight=4),
        Fault("zygote-segv", "zygote", _SEGV, live=True),
        Fault("zygote-stop", "zygote", _STOP, weight=1),
        Fault("worker-kill", "worker", _KILL, live=True, weight=5, costs_worker=True),
        Fault("worker-segv", "worker", _SEGV, live=True, costs_worker=True),
        Fault("worker-pause", "worker", _STOP, pause=(0.2, 2.0), live=True),
        Fault("worker-stop", "worker", _STOP, live=True, weight=1, costs_worker=True),
        Fault("guardian-kill", "guardian", _KILL),
        Fault("guardian-pause", "guardian", _STOP, pause=(0.2, 2.0), live=True, weight=1),
        Fault("rank0-kill", "rank0", _KILL, weight=3),
        Fault("rank0-segv", "rank0", _SEGV, weight=1),
        Fault("rank0-pause", "rank0", _STOP, pause=(0.2, 2.0), live=True, weight=1),
        Fault("launcher-kill", "launcher", _KILL),
        Fault("launcher-term", "launcher", _TERM, weight=1),
        Fault("launcher-pause", "launcher", _STOP, pause=(0.2, 2.0), live=True, weight=1),
        Fault("start-kill", "any", _KILL, weight=1, early=True),
        Fault("journal-cut", "rank0", _KILL, weight=3, cuts=True),
    )
}

class Injected(NamedTuple):
    """A fault that came: what, to whom, and when it is to be taken back."""

    fault: Fault
    victim: Process
    where: str
    until: float | None


def candidates(fault: Fault, launcher: int, hurt: set[int]) -> list[tuple[Process, str]]:
    """Whom a fault can hit now, and what to call each.

    Parameters
    ----------
    fault : Fault
        What is to come.
    launcher : int
        The launcher's process id.
    hurt : set of int
        Ranks that something irrevocable has happened to in this life.
    """
    if fault.target == "launcher":
        process = victims.look(launcher)
        return [(process, "the launcher")] if process is not None else []
    ranks = victims.ranks(launcher)
    if fault.target == "any":
        return [(rank.rank, f"rank {rank.number}") for rank in ranks.values()]
    if fault.target == "rank0":
        return [(ranks[0].rank, "rank 0")] if 0 in ranks else []
    workers = [rank for rank in ranks.values() if rank.number > 0 and rank.number not in hurt]
    if fault.target != "guardian" and len(workers) < 2:
        return []  # one is left alone, so that there is somebody to live on with
    return [found for rank in workers for found in _of_worker(fault.target, rank)]


def _of_worker(target: str, rank: Rank) -> list[tuple[Process, str]]:
    where = f"rank {rank.number}"
    if target == "runner":
        return [(runner, f"a runner of {where}") for runner in rank.runners]
    one = {"worker": rank.rank, "zygote": rank.zygote, "guardian": rank.guardian}[target]
    if one is None or rank.zygote is None:  # not there, or not told apart yet
        return []
    return [(one, where if target == "worker" else f"the {target} of {where}")]


def inject(fault: Fault, launcher: int, hurt: set[int], draw: random.Random, now: float) -> Injected | None:
    """Do it; None if there is nobody whom it could be done to."""
    possible = candidates(fault, launcher, hurt)
    if not possible:
        return None
    victim, where = draw.choice(possible)
    if not _send(victim, fault.signal):
        return None
    if fault.target in ("worker", "zygote") and fault.pause is None:
        number = where.split()[-1]
        if fault.costs_worker or fault.signal == _STOP:
            hurt.add(int(number))
    until = now + draw.uniform(*fault.pause) if fault.pause is not None else None
    return Injected(fault, victim, where, until)


def take_back(injected: Injected) -> None:
    """Let a paused process go on."""
    _send(injected.victim, signal.SIGCONT)


def _send(victim: Process, number: signal.Signals) -> bool:
    """Signal a process, unless it has ended; its number may be another's by now."""
    if not victims.still_there(victim):
        return False
    try:
        os.kill(victim.pid, number)
    except ProcessLookupError:
        return False
    return True


def cut(journals: list[os.PathLike[str]], draw: random.Random) -> str:
    """Take the end off the newest journal, as the death of a node does; what was done, in words."""
    if not journals:
        return "there is no journal yet"
    newest = journals[-1]
    size = os.path.getsize(newest)
    keep = draw.randint(size // 2, size)
    if draw.random() < 0.3:  # the size has reached the disk, the bytes have not
        with open(newest, "r+b") as file:
            file.truncate(keep)
            file.truncate(size)
        return f"{newest}: from byte {keep} of {size} on there are zeros"
    os.truncate(newest, keep)
    return f"{newest}: {keep} of {size} bytes are left"
