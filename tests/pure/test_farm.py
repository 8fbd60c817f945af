"""The scheduler: events in, plan out, and nothing left unasserted."""

from __future__ import annotations

import heapq
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import FrameType

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mpiflow.farm import farm as module
from mpiflow.farm.farm import (
    HORIZON,
    MOST_BYTES,
    MOST_TASKS,
    PREFETCH_UP_TO,
    UNACKNOWLEDGED,
    UNKNOWN,
    WEIGHT,
    Attempt,
    Bulk,
    Farm,
)

Plan = list[tuple[int, list[int]]]
Step = Callable[["Play"], None]

#: A function whose tasks take long, one whose tasks are tiny, and one whose tasks take 20 ms.
LONG, TINY, MIDDLING = 1, 2, 3
TEACHER = 99


class Play:
    """A farm that is played events from a table; numbers attempts from 0 in the order of their coming."""

    def __init__(self) -> None:
        self.farm: Farm = Farm()
        self.next = 0

    def check(self) -> None:
        self.farm.sanity_check()


def joined(worker: int, slots: int = 1) -> Step:
    def step(play: Play) -> None:
        play.farm.on_joined(worker, slots)

    return step


def ready(number: int = 1, fid: int = LONG, size: int = 100) -> Step:
    def step(play: Play) -> None:
        aids = range(play.next, play.next + number)
        play.farm.on_ready([Attempt(aid, fid, size, f"task {aid}") for aid in aids])
        play.next += number

    return step


def plan(*bulks: tuple[int, list[int]]) -> Step:
    def step(play: Play) -> None:
        assert given(play.farm.plan()) == list(bulks)

    return step


def shares(expected: dict[int, int]) -> Step:
    """Like `plan`, where only how many each worker gets is laid down."""

    def step(play: Play) -> None:
        assert {bulk.worker: len(bulk.attempts) for bulk in play.farm.plan()} == expected

    return step


def results(worker: int, aids: list[int], late: tuple[int, ...] = (), seconds: float = 1.0) -> Step:
    def step(play: Play) -> None:
        taken = play.farm.on_results(worker, [(aid, seconds) for aid in aids])
        assert [attempt and attempt.aid for attempt in taken] == [None if a in late else a for a in aids]

    return step


def acknowledged(worker: int, messages: int = 1) -> Step:
    def step(play: Play) -> None:
        assert play.farm.on_results(worker, [], messages) == []

    return step


def lost(worker: int, *held: int) -> Step:
    def step(play: Play) -> None:
        assert [attempt.aid for attempt in play.farm.on_lost(worker)] == list(held)

    return step


def withdrawn(*aids: int, sent: dict[int, list[int]] | None = None) -> Step:
    def step(play: Play) -> None:
        dropped = play.farm.withdraw(set(aids))
        assert {worker: sorted(numbers) for worker, numbers in dropped.items()} == (sent or {})

    return step


def counts(waiting: int, outstanding: int, busy: int) -> Step:
    def step(play: Play) -> None:
        assert (play.farm.waiting, play.farm.outstanding, play.farm.busy) == (waiting, outstanding, busy)

    return step


def given(bulks: list[Bulk]) -> Plan:
    return [(bulk.worker, [attempt.aid for attempt in bulk.attempts]) for bulk in bulks]


def teach(farm: Farm, fid: int, seconds: float) -> None:
    """Have the farm learn how long a function takes, from a worker that comes for this and goes again."""
    farm.on_joined(TEACHER, 1)
    farm.on_ready([Attempt(10**9 + fid, fid, 1, None)])
    farm.plan()
    assert farm.on_results(TEACHER, [(10**9 + fid, seconds)]) != [None]
    farm.on_lost(TEACHER)


TABLE: list[tuple[str, list[Step]]] = [
    ("no worker, no plan", [ready(2), plan(), counts(2, 0, 0)]),
    ("no task, no plan", [joined(1), plan(), counts(0, 0, 0)]),
    ("tasks that came before the workers", [ready(2), joined(1), joined(2), plan((1, [0]), (2, [1]))]),
    ("first in, first out", [joined(1), ready(3), plan((1, [0])), results(1, [0]), plan((1, [1]))]),
    (
        "the worker that has waited longest is served first",
        [
            *(joined(worker) for worker in (1, 2, 3)),
            ready(3),
            plan((1, [0]), (2, [1]), (3, [2])),
            *(acknowledged(worker) for worker in (1, 2, 3)),
            *(results(worker, [worker - 1]) for worker in (3, 1, 2)),
            ready(3),
            plan((3, [3]), (1, [4]), (2, [5])),
        ],
    ),
    (
        "every worker gets one before any gets a second",
        [joined(1, 4), joined(2, 4), joined(3, 4), ready(3), plan((1, [0]), (2, [1]), (3, [2]))],
    ),
    (
        "slots are shared out evenly",
        [joined(1, 4), joined(2, 4), joined(3, 4), ready(6), plan((1, [0, 1]), (2, [2, 3]), (3, [4, 5]))],
    ),
    (
        "slots that others have taken do not stay empty",
        [joined(1, 4), joined(2, 1), ready(4), shares({1: 3, 2: 1}), counts(0, 4, 2)],
    ),
    (
        "a long task waits here and not behind another",
        [joined(1), ready(2), plan((1, [0])), acknowledged(1), plan(), counts(1, 1, 1)],
    ),
    (
        "tiny ones are held ahead, as many as last ten milliseconds",
        [joined(1), ready(100, TINY), plan((1, list(range(10)))), counts(90, 10, 1)],
    ),
    (
        "ten milliseconds for each slot",
        [joined(1, 2), ready(100, TINY), plan((1, list(range(20))))],
    ),
    (
        "a middling one has one successor beside it",
        [joined(1), ready(4, MIDDLING), plan((1, [0, 1])), acknowledged(1), counts(2, 2, 1)],
    ),
    (
        "free slots first, then what is left is shared out",
        [joined(1), joined(2), ready(6, TINY), plan((1, [0, 2, 3]), (2, [1, 4, 5]))],
    ),
    (
        "a tiny task behind a long one waits for it: first in, first out",
        [joined(1), ready(2, LONG), ready(1, TINY), plan((1, [0])), acknowledged(1), counts(2, 1, 1)],
    ),
    (
        "a tiny task is not put behind a long one that runs",
        [joined(1), ready(1, LONG), plan((1, [0])), acknowledged(1), ready(1, TINY), counts(1, 1, 1)],
    ),
    (
        "none to a worker with two unacknowledged messages",
        [
            joined(1, 3),
            ready(1),
            plan((1, [0])),
            ready(1),
            plan((1, [1])),
            ready(1),
            plan(),
            acknowledged(1, 2),
            plan((1, [2])),
        ],
    ),
    (
        "one acknowledgement is enough to go on",
        [
            joined(1, 3), ready(1), plan((1, [0])), ready(1), plan((1, [1])), ready(1), plan(),
            acknowledged(1), plan((1, [2])),
        ],
    ),
    (
        "what a silent worker cannot be given goes to another",
        [
            *(joined(1, 3), ready(1), plan((1, [0])), ready(1), plan((1, [1]))),
            *(joined(2), ready(1), plan((2, [2]))),
        ],
    ),
    (
        "a bulk stays small enough to be received in one go",
        [
            joined(1, 4),
            ready(3, size=MOST_BYTES // 2),
            plan((1, [0, 1])),
            plan((1, [2])),
        ],
    ),
    (
        "a task above the limit goes alone",
        [joined(1, 2), ready(2, size=2 * MOST_BYTES), plan((1, [0])), plan((1, [1]))],
    ),
    (
        "a function is sent to a worker once",
        [
            *(joined(1, 2), ready(2), plan((1, [0, 1]))),
            *(acknowledged(1), results(1, [0]), ready(1), plan((1, [2]))),
        ],
    ),
    (
        "a result frees its slot, in any order",
        [
            joined(1, 3), ready(5), plan((1, [0, 1, 2])), acknowledged(1),
            results(1, [1]), plan((1, [3])), results(1, [2, 0]), plan((1, [4])),
        ],
    ),
    (
        "a result nobody waits for is late",
        [joined(1), ready(1), plan((1, [0])), results(1, [7, 0], late=(7,)), results(1, [0], late=(0,))],
    ),
    ("a result of a worker nobody knows is late", [results(5, [1, 2], late=(1, 2))]),
    (
        "a result of another worker's task is late",
        [joined(1), joined(2), ready(1), plan((1, [0])), results(2, [0], late=(0,)), results(1, [0])],
    ),
    (
        "what a lost worker held is given back, and it is given nothing more",
        [joined(1, 2), ready(3), plan((1, [0, 1])), lost(1, 0, 1), plan(), counts(1, 0, 0)],
    ),
    ("a worker that nobody knows is lost without harm", [lost(3)]),
    (
        "a lost worker may come back, and then knows no function",
        [
            *(joined(1), ready(2), plan((1, [0])), lost(1, 0), results(1, [0], late=(0,))),
            *(joined(1), plan((1, [1]))),
        ],
    ),
    (
        "more slots are used at once",
        [joined(1), ready(3), plan((1, [0])), acknowledged(1), joined(1, 3), plan((1, [1, 2]))],
    ),
    (
        "fewer slots are kept to",
        [
            joined(1, 3), ready(5), plan((1, [0, 1, 2])), acknowledged(1), joined(1, 1),
            results(1, [0, 1]), plan(), results(1, [2]), plan((1, [3])),
        ],
    ),
    (
        "withdrawn before it was sent",
        [joined(1), ready(3), plan((1, [0])), acknowledged(1), withdrawn(1), results(1, [0]), plan((1, [2]))],
    ),
    (
        "withdrawn from the workers that have it",
        [
            joined(1), joined(2), ready(3), plan((1, [0]), (2, [1])), withdrawn(0, 1, sent={1: [0], 2: [1]}),
            results(1, [0], late=(0,)), plan((1, [2])),
        ],
    ),
    ("withdrawn twice, or never there", [joined(1), ready(1), withdrawn(0, 7), withdrawn(0), plan()]),
]  # fmt: skip


@pytest.mark.parametrize("steps", [steps for _, steps in TABLE], ids=[name for name, _ in TABLE])
def test_events_in_plan_out(steps: list[Step]) -> None:
    play = Play()
    teach(play.farm, TINY, 0.001)
    teach(play.farm, MIDDLING, 0.020)
    for step in steps:
        step(play)
        play.check()
    assert play.farm.plan() == [], "something was given out that the table does not name"


def test_an_acknowledgement_of_a_stranger_is_nothing() -> None:
    farm: Farm = Farm()
    assert farm.on_results(5, [], 3) == []
    farm.on_joined(5, 1)
    farm.sanity_check()


def test_a_bulk_names_the_functions_its_worker_has_not_seen_in_order_and_once() -> None:
    farm: Farm = Farm()
    farm.on_joined(1, 8)
    farm.on_joined(2, 8)
    farm.on_ready([Attempt(aid, fid, 1, None) for aid, fid in enumerate([5, 3, 5, 4])])
    assert [bulk.new_functions for bulk in farm.plan()] == [[5, 3], [5, 4]]
    farm.on_ready([Attempt(aid, fid, 1, None) for aid, fid in enumerate([3, 5, 6, 3, 4, 5], start=10)])
    assert [bulk.new_functions for bulk in farm.plan()] == [[6], [3]]
    farm.sanity_check()


def test_a_bulk_holds_at_most_so_many_tasks() -> None:
    farm: Farm = Farm()
    teach(farm, TINY, 1e-9)
    farm.on_joined(1, 1)
    farm.on_ready([Attempt(aid, TINY, 1, None) for aid in range(MOST_TASKS + 5)])
    assert [len(bulk.attempts) for bulk in farm.plan()] == [MOST_TASKS]
    assert [len(bulk.attempts) for bulk in farm.plan()] == [5]
    assert farm.plan() == []
    farm.sanity_check()


def test_a_function_without_a_result_counts_as_long() -> None:
    farm: Farm = Farm()
    farm.on_joined(1, 1)
    farm.on_ready([Attempt(aid, TINY, 1, None) for aid in range(50)])
    assert given(farm.plan()) == [(1, [0])]
    assert farm.on_results(1, [(0, 0.0001)])[0] is not None
    (bulk,) = farm.plan()
    assert len(bulk.attempts) == 49, "its first result says how short it is"
    farm.sanity_check()


def test_durations_are_learnt_as_a_running_mean_and_old_charges_stay() -> None:
    farm: Farm = Farm()
    farm.on_joined(1, 1)
    for aid, seconds in enumerate([0.030, 0.020, 0.045]):
        farm.on_ready([Attempt(aid, TINY, 1, None)])
        (bulk,) = farm.plan()
        expected = [UNKNOWN, 0.030, 0.030 + WEIGHT * (0.020 - 0.030)][aid]
        assert bulk.attempts[0].charge == pytest.approx(expected)
        farm.on_results(1, [(aid, seconds)], acknowledged=1)
        assert bulk.attempts[0].charge == pytest.approx(expected)
        farm.sanity_check()


def test_an_attempt_shows_who_has_it() -> None:
    attempt = Attempt(3, 1, 1, None)
    farm: Farm = Farm()
    farm.on_ready([attempt])
    assert repr(attempt) == "W(3)"
    farm.on_joined(7, 1)
    farm.plan()
    assert repr(attempt) == "R(3, 7)"


# --- anything, in any order ---------------------------------------------------------------------------------

_WORKERS = st.integers(1, 4)
_FUNCTIONS = st.integers(1, 4)
_SECONDS = st.sampled_from([0.0, 1e-6, 0.001, 0.020, 0.049, 0.051, 0.2, 10.0])


class AnyHistory(RuleBasedStateMachine):
    """The farm beside a plain model of it: who holds what, and who was told which functions."""

    def __init__(self) -> None:
        super().__init__()
        self.farm: Farm = Farm()
        self.next_aid = 0
        self.next_task = 0
        self.waiting: list[Attempt] = []
        self.slots: dict[int, int] = {}
        self.held: dict[int, list[Attempt]] = {}
        self.unacknowledged: Counter[int] = Counter()
        self.told: dict[int, set[int]] = {}
        self.estimates: dict[int, float] = {}
        self.gone: set[int] = set()  # attempts that must never be seen again
        self.unfinished: set[int] = set()  # tasks

    def attempts_of(self, tasks: list[int], fid: int, size: int) -> None:
        new = [Attempt(self.next_aid + place, fid, size, task) for place, task in enumerate(tasks)]
        self.next_aid += len(new)
        self.waiting += new
        self.farm.on_ready(new)

    @rule(worker=_WORKERS, slots=st.integers(1, 4))
    def join(self, worker: int, slots: int) -> None:
        self.farm.on_joined(worker, slots)
        self.slots[worker] = slots
        self.held.setdefault(worker, [])
        self.told.setdefault(worker, set())

    @rule(number=st.integers(1, 12), fid=_FUNCTIONS)
    def ready_and_planned(self, number: int, fid: int) -> None:
        self.ready(number, fid, 1)
        self.plan()

    @rule(
        number=st.integers(1, 12),
        fid=_FUNCTIONS,
        size=st.sampled_from([1, 2, 3, 1000, MOST_BYTES // 3, MOST_BYTES, 2 * MOST_BYTES]),
    )
    def ready(self, number: int, fid: int, size: int) -> None:
        tasks = list(range(self.next_task, self.next_task + number))
        self.next_task += number
        self.unfinished.update(tasks)
        self.attempts_of(tasks, fid, size)

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data(), seconds=_SECONDS, strangers=st.lists(st.integers(0, 60), max_size=3))
    def results(self, data: st.DataObject, seconds: float, strangers: list[int]) -> None:
        worker = data.draw(st.sampled_from(sorted(w for w, held in self.held.items() if held)))
        own = [attempt.aid for attempt in self.held[worker]]
        done = data.draw(st.lists(st.sampled_from(own), unique=True))
        named = data.draw(st.permutations(done + [aid for aid in strangers if aid not in own]))
        taken = self.farm.on_results(worker, [(aid, seconds) for aid in named])
        assert [attempt.aid if attempt else None for attempt in taken] == [
            aid if aid in done else None for aid in named
        ]
        for attempt in taken:
            if attempt is not None:
                self.held[worker].remove(attempt)
                self.note_result(attempt, seconds)

    @precondition(lambda self: any(self.held.values()))
    @rule(seconds=_SECONDS)
    def all_results(self, seconds: float) -> None:
        for worker, held in self.held.items():
            results = [(attempt.aid, seconds) for attempt in held]
            assert self.farm.on_results(worker, results, self.unacknowledged.pop(worker, 0)) == held
            for attempt in held:
                self.note_result(attempt, seconds)
            held.clear()

    def note_result(self, attempt: Attempt, seconds: float) -> None:
        self.gone.add(attempt.aid)
        self.unfinished.remove(attempt.task)
        mean = self.estimates.get(attempt.fid)
        self.estimates[attempt.fid] = seconds if mean is None else mean + WEIGHT * (seconds - mean)

    @rule(worker=st.integers(7, 9), aids=st.lists(st.integers(0, 60), max_size=3))
    def results_of_a_stranger(self, worker: int, aids: list[int]) -> None:
        assert self.farm.on_results(worker, [(aid, 1.0) for aid in aids]) == [None] * len(aids)

    @precondition(lambda self: any(self.unacknowledged.values()))
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(w for w, n in self.unacknowledged.items() if n)))
        messages = data.draw(st.integers(1, self.unacknowledged[worker]))
        self.unacknowledged[worker] -= messages
        assert self.farm.on_results(worker, [], messages) == []

    @rule(worker=_WORKERS)
    def lose(self, worker: int) -> None:
        given_back = self.farm.on_lost(worker)
        assert sorted(a.aid for a in given_back) == sorted(a.aid for a in self.held.pop(worker, []))
        self.gone.update(attempt.aid for attempt in given_back)
        self.unacknowledged.pop(worker, None)
        self.slots.pop(worker, None)
        self.told.pop(worker, None)
        for attempt in given_back:
            self.attempts_of([attempt.task], attempt.fid, attempt.size)

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        aids = set(data.draw(st.lists(st.integers(0, max(self.next_aid, 1)), max_size=6)))
        dropped = self.farm.withdraw(aids)
        for worker, held in self.held.items():
            own = [attempt for attempt in held if attempt.aid in aids]
            assert sorted(dropped.pop(worker, [])) == sorted(attempt.aid for attempt in own)
            self.held[worker] = [attempt for attempt in held if attempt not in own]
            self.forget(own)
        assert dropped == {}
        self.forget([attempt for attempt in self.waiting if attempt.aid in aids])
        self.waiting = [attempt for attempt in self.waiting if attempt.aid not in aids]

    def forget(self, attempts: list[Attempt]) -> None:
        for attempt in attempts:
            self.gone.add(attempt.aid)
            self.unfinished.remove(attempt.task)

    @rule()
    def plan(self) -> None:
        receiving = {w for w in self.slots if self.unacknowledged[w] < UNACKNOWLEDGED}
        before = {worker: len(held) for worker, held in self.held.items()}
        bulks = self.farm.plan()
        assert len({bulk.worker for bulk in bulks}) == len(bulks), "one message a worker"
        handed_out = [attempt for bulk in bulks for attempt in bulk.attempts]
        first = self.waiting[: len(handed_out)]
        assert sorted(a.aid for a in handed_out) == sorted(a.aid for a in first), "first in, first out"
        for bulk in bulks:
            assert bulk.worker in receiving
            self.take(bulk)
        del self.waiting[: len(first)]
        self.check_spreading(bulks, receiving, before)

    def take(self, bulk: Bulk) -> None:
        """A bulk has arrived: it keeps to all limits."""
        worker, attempts = bulk.worker, bulk.attempts
        assert attempts
        assert [a.aid for a in attempts] == sorted(a.aid for a in attempts), "in the order of the queue"
        assert len(attempts) <= MOST_TASKS
        assert len(attempts) == 1 or sum(attempt.size for attempt in attempts) <= MOST_BYTES
        unseen = dict.fromkeys(a.fid for a in attempts if a.fid not in self.told[worker])
        assert bulk.new_functions == list(unseen)
        self.told[worker].update(unseen)
        held, slots = self.held[worker], self.slots[worker]
        for attempt in attempts:
            seconds = self.estimates.get(attempt.fid, UNKNOWN)
            assert attempt.aid not in self.gone
            assert attempt.worker == worker
            assert attempt.charge == pytest.approx(seconds)
            if len(held) >= slots:  # held ahead: it must be short, and there must be credit for it
                load = sum(a.charge for a in held)
                assert seconds <= PREFETCH_UP_TO
                assert load < HORIZON * slots + 1e-9 or (
                    len(held) < 2 * slots and load <= PREFETCH_UP_TO * slots + 1e-9
                )
            held.append(attempt)
        self.unacknowledged[worker] += 1
        assert self.unacknowledged[worker] <= UNACKNOWLEDGED

    def check_spreading(self, bulks: list[Bulk], receiving: set[int], before: dict[int, int]) -> None:
        """Free slots are filled over all workers before any holds work ahead."""
        sizes = [a.size for a in self.waiting] + [a.size for bulk in bulks for a in bulk.attempts]
        full = {  # the next one may have been too large for the message, and another worker has it now
            bulk.worker for bulk in bulks if sum(a.size for a in bulk.attempts) + max(sizes) > MOST_BYTES
        }
        free = {w for w in receiving if len(self.held[w]) < self.slots[w]} - full
        if self.waiting:
            assert not free, f"workers {free} have free slots, and attempts wait"
        served = {bulk.worker for bulk in bulks}
        empty_handed = {w for w in receiving if before[w] < self.slots[w]} - served
        if empty_handed:
            assert all(len(bulk.attempts) == 1 for bulk in bulks), f"{empty_handed} have none, others several"
        if any(len(self.held[w]) > max(self.slots[w], before[w]) for w in served):
            assert not free, f"workers {free} have free slots, and another holds work ahead"

    @invariant()
    def agrees(self) -> None:
        self.farm.sanity_check()
        assert self.farm.waiting == len(self.waiting)
        assert self.farm.outstanding == sum(map(len, self.held.values()))
        assert self.farm.busy == sum(map(bool, self.held.values()))
        assert sorted(self.farm.workers) == sorted(self.slots)
        known = Counter(a.task for a in self.waiting)
        known.update(attempt.task for held in self.held.values() for attempt in held)
        assert known == Counter(self.unfinished), "no task lost, none twice"

    def teardown(self) -> None:
        """Whatever happened, one patient worker gets all that is left."""
        for worker in list(self.slots):
            self.lose(worker)
        self.join(1, 2)
        while self.unfinished:
            self.plan()
            self.agrees()
            assert self.held[1], "attempts wait, and nobody has any"
            self.all_results(0.01)
        assert self.farm.plan() == []


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=200, stateful_step_count=40)


# --- a fleet that does not exist ----------------------------------------------------------------------------


class Fleet:
    """Pretended workers in virtual time: messages take `latency` each way, runners take tasks in order."""

    def __init__(self, workers: int, slots: int, latency: float, seconds: Callable[[int], float]) -> None:
        self.farm: Farm = Farm()
        self.slots = slots
        self.latency = latency
        self.seconds = seconds  # of a task, by its number
        self.now = 0.0
        self.finished: list[int] = []
        self.started: dict[int, float] = {}
        self.queues: dict[int, list[Attempt]] = {w: [] for w in range(1, workers + 1)}
        self.running: dict[int, int] = dict.fromkeys(self.queues, 0)
        self.busy_until = 0.0
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        for worker in self.queues:
            self.farm.on_joined(worker, slots)

    def at(self, when: float, what: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, what))

    def dispatch(self) -> None:
        for bulk in self.farm.plan():
            self.at(self.now + self.latency, partial(self.arrive, bulk))
        if self._count % 64 == 0:
            self.farm.sanity_check()

    def arrive(self, bulk: Bulk) -> None:
        self.queues[bulk.worker] += bulk.attempts
        self.at(self.now + self.latency, partial(self.farm.on_results, bulk.worker, [], 1))
        self.start(bulk.worker)

    def start(self, worker: int) -> None:
        while self.queues[worker] and self.running[worker] < self.slots:
            attempt = self.queues[worker].pop(0)
            assert attempt.task not in self.started, "given out twice"
            self.started[attempt.task] = self.now
            self.running[worker] += 1
            seconds = self.seconds(attempt.task)
            self.at(self.now + seconds, partial(self.finish, worker, attempt, seconds))

    def finish(self, worker: int, attempt: Attempt, seconds: float) -> None:
        self.running[worker] -= 1
        self.busy_until = self.now
        self.start(worker)
        self.at(self.now + self.latency, partial(self.report, worker, attempt, seconds))

    def report(self, worker: int, attempt: Attempt, seconds: float) -> None:
        (taken,) = self.farm.on_results(worker, [(attempt.aid, seconds)])
        assert taken is attempt
        self.finished.append(attempt.task)

    def run(self) -> None:
        self.dispatch()
        while self._events:
            self.now, _, what = heapq.heappop(self._events)
            what()
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            self.dispatch()


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("workers", [1, 7, 20])
@pytest.mark.parametrize("kind", ["tiny", "middling", "long", "mixed"])
def test_a_pretended_fleet_drains_all_tasks_and_is_kept_busy(kind: str, workers: int, slots: int) -> None:
    chance = random.Random(f"{kind} {workers} {slots}")
    means = {
        "tiny": [0.0005, 0.002],
        "middling": [0.01, 0.04],
        "long": [0.2, 1.0],
        "mixed": [0.001, 0.03, 0.6],
    }
    number = 12 * workers * slots + 37
    fids = [chance.randrange(len(means[kind])) for _ in range(number)]
    seconds = [means[kind][fid] * chance.uniform(0.7, 1.3) for fid in fids]
    fleet = Fleet(workers, slots, latency=100e-6, seconds=seconds.__getitem__)
    fleet.farm.on_ready([Attempt(task, fid, 100, task) for task, fid in enumerate(fids)])
    fleet.run()
    assert sorted(fleet.finished) == list(range(number))
    assert (fleet.farm.waiting, fleet.farm.outstanding, fleet.farm.plan()) == (0, 0, [])
    # What list scheduling guarantees, and a little for learning how long the functions take.
    ideal = sum(seconds) / (workers * slots)
    learning = 2 * max(seconds) + 0.05
    assert fleet.busy_until <= 1.1 * ideal + learning


def test_a_worker_of_a_pretended_fleet_that_is_slow_does_not_hold_long_tasks_back() -> None:
    """One worker takes ten times as long: the others do its share, since long tasks wait on rank 0."""
    owner: dict[int, int] = {}
    fleet = Fleet(4, 1, latency=100e-6, seconds=lambda task: 2.0 if owner[task] == 1 else 0.2)
    start = fleet.start

    def noting(worker: int) -> None:
        owner.update((attempt.task, worker) for attempt in fleet.queues[worker])
        start(worker)

    fleet.start = noting  # type: ignore[method-assign]
    fleet.farm.on_ready([Attempt(task, 1, 100, task) for task in range(100)])
    fleet.run()
    assert sorted(fleet.finished) == list(range(100))
    shares = Counter(owner.values())
    assert shares[1] <= 5
    assert min(shares[worker] for worker in (2, 3, 4)) >= 30


def test_first_in_first_out_in_a_pretended_fleet() -> None:
    fleet = Fleet(3, 2, latency=100e-6, seconds=lambda task: 0.1)
    fleet.farm.on_ready([Attempt(task, 1, 100, task) for task in range(60)])
    fleet.run()
    begun = [fleet.started[task] for task in range(60)]
    assert begun == sorted(begun)


# --- what it costs ------------------------------------------------------------------------------------------


def lines_run(work: Callable[[], None]) -> int:
    """Lines of the farm's own code that `work` runs."""
    count = 0

    def local(frame: FrameType, event: str, _: object) -> object:
        nonlocal count
        count += event == "line"
        return local

    def trace(frame: FrameType, event: str, _: object) -> object:
        return local if frame.f_code.co_filename == module.__file__ else None

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def crowd(workers: int) -> Farm:
    farm: Farm = Farm()
    teach(farm, TINY, 0.001)
    teach(farm, LONG, 10.0)
    for worker in range(1, workers + 1):
        if worker != TEACHER:
            farm.on_joined(worker, 1)
    farm.on_joined(TEACHER, 1)
    return farm


def one_at_a_time(farm: Farm, tasks: int, fid: int) -> None:
    for aid in range(tasks):
        farm.on_ready([Attempt(aid, fid, 100, aid)])
        (bulk,) = farm.plan()
        farm.on_results(bulk.worker, [(aid, 0.001)], 1)


def all_at_once(farm: Farm, tasks: int, fid: int) -> None:
    farm.on_ready([Attempt(aid, fid, 100, aid) for aid in range(tasks)])
    while bulks := farm.plan():
        for bulk in bulks:
            farm.on_results(bulk.worker, [(attempt.aid, 0.001) for attempt in bulk.attempts], 1)


@pytest.mark.parametrize("fid", [TINY, LONG])
@pytest.mark.parametrize("work", [one_at_a_time, all_at_once])
def test_a_task_costs_no_more_among_4096_workers_than_among_16(
    work: Callable[[Farm, int, int], None], fid: int
) -> None:
    few, many, tasks = crowd(16), crowd(4096), 960

    def among_few() -> None:
        if work is one_at_a_time:
            work(few, tasks, fid)
        else:  # as many tasks as workers: each has a bulk of its own, as it has among many
            for _ in range(tasks // 16):
                work(few, 16, fid)

    assert lines_run(lambda: work(many, tasks, fid)) <= 1.1 * lines_run(among_few)


def test_giving_out_to_all_workers_costs_no_more_for_each_when_there_are_many() -> None:
    """Lines do not show what one line costs, a clock has to: what grows with the workers would be 64 times as dear."""

    def seconds_for_each(workers: int, times: int) -> float:
        best = float("inf")
        for _ in range(times):
            farm = crowd(workers)
            farm.on_ready([Attempt(aid, LONG, 100, aid) for aid in range(workers)])
            started = time.thread_time()
            assert len(farm.plan()) == workers
            best = min(best, time.thread_time() - started)
        return best / workers

    assert seconds_for_each(32_768, times=2) < 12 * seconds_for_each(512, times=20)


# --- pools and priorities -------------------------------------------------------------------------------------


def numbers(bulks: list[Bulk]) -> dict[int, list[int]]:
    return dict(given(bulks))


def attempts(*aids: int, fid: int = LONG) -> list[Attempt]:
    return [Attempt(aid, fid, 1, None) for aid in aids]


def crew(*slots: int) -> Farm:
    """A farm of workers from 1 on with so many slots."""
    farm: Farm = Farm()
    for worker, number in enumerate(slots, 1):
        farm.on_joined(worker, number)
    return farm


def test_nobody_outside_a_pool_gets_what_waits_in_it() -> None:
    farm = crew(1, 1, 1)
    pool = farm.pool([2])
    farm.on_ready(attempts(1, 2, 3), pool)
    assert numbers(farm.plan()) == {2: [1]}
    farm.sanity_check()
    assert farm.waiting == 2


def test_a_worker_that_comes_later_serves_the_pools_that_name_it() -> None:
    farm: Farm = Farm()
    pool = farm.pool([5, 6])
    farm.on_ready(attempts(1, 2), pool)
    farm.on_joined(4, 8)
    assert farm.plan() == []
    farm.on_joined(6, 8)
    farm.sanity_check()
    assert numbers(farm.plan()) == {6: [1, 2]}


def test_the_same_workers_with_the_same_prefetch_are_the_same_pool() -> None:
    farm = crew(1, 1)
    assert farm.pool() == 0
    first = farm.pool([1, 2])
    assert first == farm.pool((2, 1)) != 0
    assert farm.pool([1, 2], prefetch=0) not in (0, first)


def test_a_worker_of_two_pools_has_its_slots_once() -> None:
    farm = crew(2, 2)
    one, other = farm.pool([1]), farm.pool([1, 2])
    farm.on_ready(attempts(1, 2), one)
    farm.on_ready(attempts(3, 4, 5), other)
    assert numbers(farm.plan()) == {1: [1, 2], 2: [3, 4]}
    farm.sanity_check()
    assert farm.waiting == 1


@pytest.mark.parametrize(("prefetch", "ahead"), [(0, 0), (1, 1), (3, 3), (None, 8)])
def test_a_pool_holds_no_more_ahead_than_its_prefetch(prefetch: int | None, ahead: int) -> None:
    farm: Farm = Farm()
    teach(farm, TINY, 1e-5)
    farm.on_joined(1, slots=2)
    pool = farm.pool([1], prefetch)
    farm.on_ready(attempts(*range(10), fid=TINY), pool)
    (bulk,) = farm.plan()
    assert len(bulk.attempts) == min(2 + ahead, 10)
    farm.sanity_check()


def test_lower_numbers_go_first_and_equal_ones_in_their_order() -> None:
    farm = crew(1)
    for aid, priority in enumerate([0, 5, -1, 0, -1, 5]):
        farm.on_ready(attempts(aid), priority=priority)
    order = []
    while bulks := farm.plan():
        order += numbers(bulks)[1]
        farm.on_results(1, [(order[-1], 1.0)], 1)
        farm.sanity_check()
    assert order == [2, 4, 0, 3, 1, 5]


def test_a_long_task_that_waits_is_not_overtaken_by_a_tiny_one_of_less_priority() -> None:
    farm: Farm = Farm()
    teach(farm, TINY, 1e-5)
    farm.on_joined(1, slots=1)
    farm.on_ready(attempts(1))
    farm.plan()
    farm.on_ready(attempts(2), priority=1)
    farm.on_ready(attempts(3, fid=TINY), priority=2)
    assert farm.plan() == []
    farm.on_results(1, [(1, 1.0)], 1)
    assert numbers(farm.plan()) == {1: [2]}


@pytest.mark.parametrize("priority", [0, 7, -7])
def test_what_is_revoked_is_never_given_out_though_all_of_a_priority_is(priority: int) -> None:
    farm = crew(4)
    revoked, left = attempts(1, 2), attempts(3)
    farm.on_ready(revoked, priority=priority)
    farm.on_ready(left, priority=9)
    assert all(farm.revoke(attempt) for attempt in revoked)
    assert numbers(farm.plan()) == {1: [3]}
    farm.sanity_check()
    assert farm.waiting == 0
    farm.on_ready(attempts(4), priority=priority)
    assert numbers(farm.plan()) == {1: [4]}


def test_what_a_worker_has_cannot_be_revoked() -> None:
    farm = crew(1)
    (attempt,) = attempts(1)
    farm.on_ready([attempt])
    farm.plan()
    assert not farm.revoke(attempt)
    assert farm.on_results(1, [(1, 1.0)]) == [attempt]


def test_what_is_revoked_in_one_pool_does_not_make_plans_of_another_dear() -> None:
    farm = crew(1)
    nobody = farm.pool([99])
    (waiting,) = attempts(10**6)
    farm.on_ready([waiting], nobody)
    assert farm.revoke(waiting)
    farm.on_ready(attempts(*range(20_000)))
    farm.plan()
    lines = lines_run(lambda: farm.plan() and None)
    assert lines < 2000, f"a plan that gives out nothing runs {lines} lines"


def test_a_function_that_is_forgotten_is_sent_anew() -> None:
    farm = crew(1, 1)
    farm.on_ready(attempts(1, fid=4))
    (bulk,) = farm.plan()
    farm.on_results(bulk.worker, [(1, 1e-5)], 1)
    assert farm.on_forgotten(4) == [bulk.worker]
    assert farm.on_forgotten(4) == []
    farm.on_ready(attempts(2, 3, fid=4))
    assert [again.new_functions for again in farm.plan()] == [[4], [4]]
    farm.sanity_check()


class AnyPools(RuleBasedStateMachine):
    """The farm with several pools, beside a plain model: which attempts wait where, and who has which."""

    def __init__(self) -> None:
        super().__init__()
        self.farm: Farm = Farm()
        self.next = 0
        self.pools: dict[int, tuple[frozenset[int] | None, int | None]] = {0: (None, None)}
        self.waiting: dict[tuple[int, int], list[Attempt]] = {}
        self.slots: dict[int, int] = {}
        self.held: dict[int, list[Attempt]] = {}
        self.unacknowledged: Counter[int] = Counter()
        self.told: dict[int, set[int]] = {}
        self.never: set[int] = set()  # attempts that must not be given out (again)

    @rule(worker=_WORKERS, slots=st.integers(1, 3))
    def join(self, worker: int, slots: int) -> None:
        self.farm.on_joined(worker, slots)
        self.slots[worker] = slots
        self.held.setdefault(worker, [])
        self.told.setdefault(worker, set())

    @rule(members=st.sets(_WORKERS, min_size=1), prefetch=st.sampled_from([None, 0, 1, 2]))
    def pool(self, members: set[int], prefetch: int | None) -> None:
        wanted = frozenset(members), prefetch
        number = self.farm.pool(members, prefetch)
        assert self.pools.setdefault(number, wanted) == wanted

    @rule(data=st.data(), priority=st.sampled_from([-2, 0, 0, 3, 3]), number=st.integers(1, 6), fid=_FUNCTIONS)
    def ready(self, data: st.DataObject, priority: int, number: int, fid: int) -> None:
        self.add(data.draw(st.sampled_from(sorted(self.pools))), priority, number, fid)

    def add(self, pool: int, priority: int, number: int, fid: int) -> None:
        new = [Attempt(self.next + place, fid, 1, (pool, priority)) for place in range(number)]
        self.next += number
        self.waiting.setdefault((pool, priority), []).extend(new)
        self.farm.on_ready(new, pool, priority)

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data(), seconds=_SECONDS)
    def results(self, data: st.DataObject, seconds: float) -> None:
        worker = data.draw(st.sampled_from(sorted(w for w, held in self.held.items() if held)))
        done = data.draw(st.lists(st.sampled_from(self.held[worker]), unique_by=lambda attempt: attempt.aid))
        acknowledged = self.unacknowledged.pop(worker, 0)
        assert self.farm.on_results(worker, [(attempt.aid, seconds) for attempt in done], acknowledged) == done
        for attempt in done:
            self.held[worker].remove(attempt)
            self.never.add(attempt.aid)

    @rule(worker=_WORKERS)
    def lose(self, worker: int) -> None:
        given_back = self.farm.on_lost(worker)
        held = self.held.pop(worker, [])
        assert sorted(a.aid for a in given_back) == sorted(a.aid for a in held)
        for book in (self.slots, self.told, self.unacknowledged):
            book.pop(worker, None)
        for attempt in held:
            self.never.add(attempt.aid)
            self.add(*attempt.task, 1, attempt.fid)

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        aids = set(data.draw(st.lists(st.integers(0, max(self.next, 1)), max_size=6)))
        sent = self.farm.withdraw(aids)
        for worker, held in self.held.items():
            own = {attempt.aid for attempt in held} & aids
            assert set(sent.pop(worker, [])) == own
            self.held[worker] = [attempt for attempt in held if attempt.aid not in own]
        assert sent == {}
        for place, queue in self.waiting.items():
            self.waiting[place] = [attempt for attempt in queue if attempt.aid not in aids]
        self.never |= aids & set(range(self.next))

    @precondition(lambda self: any(self.waiting.values()) or any(self.held.values()))
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        both = [*self.waiting.values(), *self.held.values()]
        attempt = data.draw(st.sampled_from([attempt for attempts in both for attempt in attempts]))
        waits = attempt.worker < 0
        assert self.farm.revoke(attempt) is waits
        if waits:
            self.waiting[attempt.task].remove(attempt)
            self.never.add(attempt.aid)

    @rule(fid=_FUNCTIONS)
    def forget(self, fid: int) -> None:
        both = [*self.waiting.values(), *self.held.values()]
        if any(attempt.fid == fid for attempts in both for attempt in attempts):
            return  # it is still called
        assert sorted(self.farm.on_forgotten(fid)) == sorted(w for w, told in self.told.items() if fid in told)
        for told in self.told.values():
            told.discard(fid)

    @rule()
    def plan(self) -> None:
        receiving = {w for w in self.slots if self.unacknowledged[w] < UNACKNOWLEDGED}
        bulks = self.farm.plan()
        assert len({bulk.worker for bulk in bulks}) == len(bulks), "one message a worker"
        out: dict[tuple[int, int], set[int]] = {}
        for bulk in bulks:
            assert bulk.worker in receiving
            assert bulk.attempts
            unseen = dict.fromkeys(a.fid for a in bulk.attempts if a.fid not in self.told[bulk.worker])
            assert bulk.new_functions == list(unseen)
            self.told[bulk.worker].update(unseen)
            self.unacknowledged[bulk.worker] += 1
            for attempt in bulk.attempts:
                self.take(bulk.worker, attempt)
                out.setdefault(attempt.task, set()).add(attempt.aid)
        for place, aids in out.items():
            first = self.waiting[place][: len(aids)]
            assert {attempt.aid for attempt in first} == aids, "first in, first out"
            del self.waiting[place][: len(aids)]
        self.check_priorities(out)
        self.check_room(receiving)

    def take(self, worker: int, attempt: Attempt) -> None:
        members, prefetch = self.pools[attempt.task[0]]
        assert members is None or worker in members, "given to a worker outside its pool"
        assert attempt.aid not in self.never
        assert attempt.worker == worker
        held = self.held[worker]
        if prefetch is not None:
            assert len(held) < self.slots[worker] + prefetch, "more ahead than the pool's prefetch"
        held.append(attempt)

    def check_priorities(self, out: dict[tuple[int, int], set[int]]) -> None:
        for pool, priority in out:
            more_urgent = [p for (other, p), queue in self.waiting.items() if other == pool and queue and p < priority]
            assert not more_urgent, "something more urgent waits in the same pool"

    def check_room(self, receiving: set[int]) -> None:
        free = {w for w in receiving if len(self.held[w]) < self.slots[w]}
        for (pool, _), queue in self.waiting.items():
            members = self.pools[pool][0]
            idle = free if members is None else free & members
            assert not queue or not idle, f"workers {idle} have free slots, and attempts wait for them"

    @invariant()
    def agrees(self) -> None:
        self.farm.sanity_check()
        assert self.farm.waiting - len(self.farm._revoked) == sum(map(len, self.waiting.values()))
        assert self.farm.outstanding == sum(map(len, self.held.values()))

    def teardown(self) -> None:
        """Whatever happened, with everybody there all that is left is done."""
        for worker in range(1, 5):
            self.join(worker, 1)
        while any(self.waiting.values()) or any(self.held.values()):
            for worker in self.held:  # a worker says so even when it has no result: what it had may be withdrawn
                self.farm.on_results(worker, [], self.unacknowledged.pop(worker, 0))
            self.plan()
            self.agrees()
            assert any(self.held.values()), "attempts wait, and nobody has any"
            for worker, held in self.held.items():
                acknowledged = self.unacknowledged.pop(worker, 0)
                self.farm.on_results(worker, [(attempt.aid, 0.01) for attempt in held], acknowledged)
                self.never.update(attempt.aid for attempt in held)
                held.clear()
        assert self.farm.plan() == []


TestAnyPools = AnyPools.TestCase
TestAnyPools.settings = settings(max_examples=60, stateful_step_count=40)
