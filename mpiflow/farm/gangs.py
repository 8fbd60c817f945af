"""Tasks that need several ranks at once: which ranks a gang gets, and when.

A gang starts when enough ranks are idle at the same moment. In a busy farm that moment never comes by itself, so
ranks are *claimed*: the farm gives a claimed rank nothing more, it finishes what it has, and when all claims of a
gang are idle the gang starts there. Plain data and plain functions, as in `farm.farm`.

**Nobody starves.** Gangs are served in order of priority and arrival. The first one claims as soon as enough ranks
are there that no gang runs on; a gang that has to wait for ranks of running gangs bars those behind it from the
ranks it could use, but not small tasks: these go on until the claim. So a gang waits at most for the gangs before
it and for the longest small task on its claims, however many small tasks or small gangs come after it. And when a
gang ends, the farm plans its ranks before the next gang may claim them: where both kinds wait, each rank takes them by
turns, so gangs without end do not starve small tasks either.

**Which ranks.** Idle ones first, and those with the least work left before others; among idle ones as few nodes as
will do. Claims are chosen anew with every plan, so a rank that has become idle takes the place of one that is at a
long task. Ranks come by node and then by number, which is the order in the gang's communicator.

**One at a time.** Where the death of a rank leaves those for ever in MPI who are making a communicator just then, one
gang *meets*, and the next one starts when all of its ranks have said that they have met: a death costs one gang's ranks
then, and not every rank that had a gang to start. Elsewhere gangs start as soon as their ranks are idle.

**Whole nodes.** A program of several nodes has all ranks of its nodes withheld, though only the first of them
runs anything of ours.

Rejected: to plan ahead with estimated ends (backfilling as batch systems do it). Estimates here are means of
functions and not promises, and a plan that trusts them delays exactly the gangs it meant to help.

A plan looks at every rank while a gang waits, and costs nothing while none does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from mpiflow.farm.farm import Farm


class Shape(NamedTuple):
    """What a gang asks for.

    Attributes
    ----------
    ranks : int
        How many in all; 0 for whole nodes.
    nodes : int
        On so many nodes; 0: wherever there is room.
    per_node : int
        Ranks on each of them; 0 where `nodes` is, and for whole nodes.

    Examples
    --------
    >>> Shape(4), Shape(4, nodes=2, per_node=2), Shape(0, nodes=3)
    (4 ranks, 2 ranks on each of 2 nodes, 3 whole nodes)
    """

    ranks: int
    nodes: int = 0
    per_node: int = 0

    @property
    def whole(self) -> bool:
        """Whether it asks for whole nodes."""
        return self.ranks == 0

    def __repr__(self) -> str:
        if self.whole:
            return _count(self.nodes, "whole node")
        if self.nodes:
            return f"{_count(self.per_node, 'rank')} on each of {_count(self.nodes, 'node')}"
        return _count(self.ranks, "rank")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


class Lane:
    """Gangs of which only so many run at once: those of one executor."""

    __slots__ = ("most", "running")

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self.running = 0

    @property
    def full(self) -> bool:
        """Whether another one has to wait for the end of one."""
        return self.most is not None and self.running >= self.most


class Gang:
    """One task that needs several ranks.

    Attributes
    ----------
    task : object
        What it is for; never looked into.
    shape : Shape
        What it asks for.
    among : frozenset of int or None
        Workers that it may have; None for all.
    lane : Lane
        With whom it shares a limit.
    priority : int
        Lower goes first.
    ranks : list of int
        What it has claimed or, once it runs, has; by node and then by number.
    """

    __slots__ = ("among", "lane", "priority", "ranks", "shape", "task")

    def __init__(
        self, task: Any, shape: Shape, among: frozenset[int] | None = None, lane: Lane | None = None, priority: int = 0
    ) -> None:
        self.task = task
        self.shape = shape
        self.among = among
        self.lane = Lane() if lane is None else lane
        self.priority = priority
        self.ranks: list[int] = []

    def may_have(self, workers: Iterable[int]) -> set[int]:
        """Those of these workers that it may have."""
        return set(workers) if self.among is None else set(self.among.intersection(workers))


class Plan(NamedTuple):
    """Gangs that start now, and gangs that never can."""

    started: list[Gang]
    hopeless: list[Gang]


class Gangs:
    """The gangs of a farm.

    Parameters
    ----------
    farm : Farm
        Whose workers they are for; it is told which ones to withhold.
    host_of : callable
        The node of a worker, by its name.
    one_meets : bool, optional
        Whether a gang starts only when the one before it has met; not those of whole nodes, which make no communicator.

    Examples
    --------
    >>> farm = Farm()
    >>> for worker in 1, 2, 3:
    ...     farm.on_joined(worker, slots=1)
    >>> gangs = Gangs(farm, lambda worker: "n1")
    >>> gangs.on_ready(Gang("solve", Shape(2)))
    >>> [(gang.task, gang.ranks) for gang in gangs.plan().started]
    [('solve', [1, 2])]
    """

    def __init__(self, farm: Farm, host_of: Callable[[int], str], one_meets: bool = False) -> None:
        self._farm = farm
        self._host_of = host_of
        self.one_meets = one_meets
        #: Ranks of the gang that meets which have not said that they have; empty where gangs start as they can.
        self.meeting: set[int] = set()
        #: Those that wait, in the order in which they are served.
        self.waiting: list[Gang] = []
        #: Those that run, by rank.
        self.running: dict[int, Gang] = {}
        self._claimed: set[int] = set()
        # Nodes that are given out as a whole.
        self._whole: dict[str, Gang] = {}
        # What was there when the gangs that wait were last found to fit, and those that came since.
        self._looked_at: tuple[set[int], set[int]] = (set(), set())
        self._new: list[Gang] = []

    # --- events -------------------------------------------------------------------------------------------

    def on_ready(self, gang: Gang) -> None:
        """A gang may start, after those of its priority that wait already."""
        self.waiting.append(gang)
        self.waiting.sort(key=lambda waiting: waiting.priority)  # stable
        self._new.append(gang)

    def withdraw(self, gang: Gang) -> bool:
        """Forget a gang that waits; whether it did. Its claims are released by the next plan."""
        if gang not in self.waiting:
            return False
        self.waiting.remove(gang)
        return True

    def on_met(self, worker: int) -> None:
        """A rank of a gang has its communicator."""
        self.meeting.discard(worker)

    def on_left(self, gang: Gang, worker: int) -> None:
        """A rank has done its part of a gang, or is lost."""
        del self.running[worker]
        self.meeting.discard(worker)
        gang.ranks.remove(worker)
        self._farm.release(worker)
        if not gang.ranks:
            gang.lane.running -= 1
            self._whole = {host: other for host, other in self._whole.items() if other is not gang}

    # --- the plan -----------------------------------------------------------------------------------------

    def plan(self, awaited: Collection[int] = ()) -> Plan:
        """Claim ranks, and start what has all of its own idle.

        Parameters
        ----------
        awaited : collection of int
            Workers that are not in service, and may yet come.
        """
        if self._whole:
            self._keep_off()
        if not self.waiting:
            self._claim(set())
            return Plan([], [])
        there = self._farm.workers
        hopeless = self._hopeless(set(there), set(awaited))
        free = {worker for worker in there if worker not in self.running}
        claimed: set[int] = set()
        started: list[Gang] = []
        for gang in self.waiting.copy():
            gang.ranks = []
            if not free or gang.lane.full:
                continue
            wanted = self._wanted(gang, free)
            if not (gang.shape.whole and awaited):  # a rank that is yet to come may be on any node
                gang.ranks = self._choose(gang.shape, gang, free, there)
            if not gang.ranks:
                free -= wanted
                continue
            free.difference_update(gang.ranks)
            claimed.update(gang.ranks)
            if self.meeting and not gang.shape.whole:
                continue
            if not any(self._farm.load(worker)[0] for worker in gang.ranks):
                self._start(gang)
                started.append(gang)
        self._claim(claimed)
        return Plan(started, hopeless)

    def _wanted(self, gang: Gang, free: set[int]) -> set[int]:
        """What a gang that has to wait bars those behind it from; whole nodes are others' ranks on them, too."""
        wanted = gang.may_have(free)
        if not gang.shape.whole or gang.among is None:
            return wanted
        hosts = {self._host_of(worker) for worker in gang.may_have(self._farm.workers)}
        return {worker for worker in free if self._host_of(worker) in hosts}

    def _start(self, gang: Gang) -> None:
        self.waiting.remove(gang)
        gang.lane.running += 1
        self.running.update(dict.fromkeys(gang.ranks, gang))
        if gang.shape.whole:
            self._whole.update((self._host_of(worker), gang) for worker in gang.ranks)
        elif self.one_meets:
            self.meeting.update(gang.ranks)

    def _keep_off(self) -> None:
        """Withhold workers that have come, or have come back, to a node that is given out as a whole."""
        for worker in self._farm.workers:
            gang = self._whole.get(self._host_of(worker))
            if gang is None or self._farm.is_withheld(worker):
                continue
            self._farm.withhold(worker)
            if self.running.setdefault(worker, gang) is gang and worker not in gang.ranks:
                gang.ranks.append(worker)

    def _claim(self, claimed: set[int]) -> None:
        """Withhold these workers from the farm, and no others beside those that gangs run on."""
        for worker in self._claimed - claimed - self.running.keys():
            self._farm.release(worker)
        for worker in claimed:  # once more where it was lost and has come back
            self._farm.withhold(worker)
        self._claimed = claimed - self.running.keys()

    def _hopeless(self, there: set[int], awaited: set[int]) -> list[Gang]:
        """Take out the gangs for which there will never be ranks enough, as far as anybody knows."""
        looked_at, self._new = self._new, []
        if (there, awaited) != self._looked_at:
            self._looked_at = there, awaited
            looked_at = self.waiting.copy()
        hopeless = [gang for gang in looked_at if gang in self.waiting and not self.fits(gang, there, awaited)]
        for gang in hopeless:
            self.waiting.remove(gang)
            gang.ranks = []  # claims, which the plan releases
        return hopeless

    def fits(self, gang: Gang, there: Collection[int], awaited: Collection[int] = ()) -> bool:
        """Whether a gang could start if all these workers were idle; of those awaited nobody knows the node."""
        if coming := gang.may_have(awaited):
            return gang.shape.nodes > 0 or len(gang.may_have(there)) + len(coming) >= gang.shape.ranks
        return bool(self._choose(gang.shape, gang, set(there), there))

    def _choose(self, shape: Shape, gang: Gang, free: set[int], there: Collection[int]) -> list[int]:
        """The best ranks for a gang among those that are free; empty where there are not enough."""
        hosts: dict[str, list[int]] = {}
        for worker in sorted(there if shape.whole else gang.may_have(free)):
            hosts.setdefault(self._host_of(worker), []).append(worker)
        if shape.whole:
            return self._choose_whole(shape, gang, free, hosts)
        if shape.nodes:
            return self._choose_nodes(shape, hosts)
        return self._choose_anywhere(shape.ranks, hosts)

    def _choose_whole(self, shape: Shape, gang: Gang, free: set[int], hosts: dict[str, list[int]]) -> list[int]:
        """Nodes all of whose ranks are free, and one of whose ranks at least is the gang's to use."""
        open_to_it = [ranks for ranks in hosts.values() if free.issuperset(ranks) and gang.may_have(ranks)]
        if len(open_to_it) < shape.nodes:
            return []
        best = sorted(open_to_it, key=lambda ranks: (self._work(ranks), ranks[0]))[: shape.nodes]
        return [worker for ranks in sorted(best) for worker in ranks]

    def _choose_nodes(self, shape: Shape, hosts: dict[str, list[int]]) -> list[int]:
        """So many ranks on each of so many nodes; nodes with less to spare go first."""
        sized = [
            (sorted(ranks, key=self._by_work)[: shape.per_node], len(ranks))
            for ranks in hosts.values() if len(ranks) >= shape.per_node
        ]  # fmt: skip
        if len(sized) < shape.nodes:
            return []
        sized.sort(key=lambda choice: (self._work(choice[0]), choice[1]))
        return _ordered([ranks for ranks, _ in sized[: shape.nodes]])

    def _choose_anywhere(self, count: int, hosts: dict[str, list[int]]) -> list[int]:
        """All idle ones when they are too few, with the least busy; else idle ones on few nodes."""
        if sum(map(len, hosts.values())) < count:
            return []
        idle = [[worker for worker in ranks if not self._farm.load(worker)[0]] for ranks in hosts.values()]
        if sum(map(len, idle)) <= count:
            everyone = [worker for ranks in hosts.values() for worker in ranks]
            chosen = set(sorted(everyone, key=self._by_work)[:count])
            return _ordered([[worker for worker in ranks if worker in chosen] for ranks in hosts.values()])
        picked: list[list[int]] = []
        while count:
            fitting = [ranks for ranks in idle if len(ranks) >= count]
            best = min(fitting, key=len) if fitting else max(idle, key=len)
            picked.append(best[:count])
            idle.remove(best)
            count -= len(picked[-1])
        return _ordered(picked)

    def _by_work(self, worker: int) -> tuple[bool, float]:
        """Idle ones first, then those with the least left to do."""
        held, seconds = self._farm.load(worker)
        return held > 0, seconds

    def _work(self, ranks: Iterable[int]) -> tuple[bool, float]:
        """What that one has left to do that is last to be idle."""
        return max(map(self._by_work, ranks))

    # --- looking ------------------------------------------------------------------------------------------

    def there(self, gang: Gang) -> str:
        """The ranks that a gang may have, in words."""
        there, awaited = self._looked_at
        ranks = gang.may_have(there)
        if coming := gang.may_have(awaited):
            return _count(len(ranks | coming), "rank")
        nodes = len({self._host_of(worker) for worker in ranks})
        return f"{_count(len(ranks), 'rank')} on {_count(nodes, 'node')}"

    def sanity_check(self) -> None:
        """Check the books against each other and the farm's; tests call it after each event."""
        self._farm.sanity_check()
        for worker, gang in self.running.items():
            assert worker in gang.ranks
            assert gang not in self.waiting
        assert not self._claimed & self.running.keys()
        assert [gang.priority for gang in self.waiting] == sorted(gang.priority for gang in self.waiting)
        for gang in {id(gang): gang for gang in self.running.values()}.values():
            assert all(self.running.get(worker) is gang for worker in gang.ranks)
            assert gang.lane.most is None or gang.lane.running <= gang.lane.most
        assert self.meeting <= self.running.keys()
        assert len({id(self.running[worker]) for worker in self.meeting}) <= 1
        withheld = self._claimed | self.running.keys()
        for worker in self._farm.workers:
            assert self._farm.is_withheld(worker) == (worker in withheld), f"worker {worker}"


def _ordered(nodes: Iterable[list[int]]) -> list[int]:
    """Ranks by node and then by number; nodes by their first rank."""
    return [worker for ranks in sorted(sorted(ranks) for ranks in nodes if ranks) for worker in ranks]
