"""Any graph of calls that fail, are tried again, join, are cancelled and killed ends as a plain program says."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

from fakes import LONG, Hand, eventually, make_kernel
from hypothesis import given, settings
from hypothesis import strategies as st

from mpiflow.errors import DependencyError, JoinError, PropagatedException, TaskKilled
from mpiflow.executors.base import Submission
from mpiflow.kernel.app import App
from mpiflow.kernel.futures import AppFuture
from mpiflow.kernel.task import FINAL_STATES, Task

RETRIES = 2


class Yielding(Hand):
    """Gives back what is asked for, as an executor whose queue is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.times: Counter[str] = Counter()

    def submit_bulk(self, tasks: Any) -> None:
        bulk: list[Submission] = list(tasks)
        for task, args, _ in bulk:
            assert task.state not in FINAL_STATES, "what has ended is sent"
            self.times[args[0]] += 1
        super().submit_bulk(bulk)

    def revoke(self, task: Task) -> bool:
        return self.given.pop(task.id, None) is not None

    kill = revoke


@dataclass
class Call:
    """One call: whose values it needs, how many of its tries fail, and of a join_app how often each inner call does."""

    needs: list[int]
    fails: int
    inner: list[int] | None
    futures: list[AppFuture] = field(default_factory=list)
    bodies: int = 0

    def begin(self, kernel: Any, name: str, futures: list[AppFuture]) -> AppFuture:
        needed = tuple(futures[n] for n in self.needs)
        if self.inner is None:
            return kernel.call(App(_never_called), (name, self.fails, *needed), {})
        lock = threading.Lock()  # the body of one join: its tries come one after the other, in any thread

        def body(*_: object) -> list[AppFuture]:
            with lock:
                self.bodies += 1
                if self.bodies <= self.fails:
                    raise OSError(name)
                calls = enumerate(self.inner or [])
                self.futures = [kernel.call(App(_never_called), (f"{name}/{i}", fails), {}) for i, fails in calls]
                return self.futures

        return kernel.call(App(body, join=True), (name, *needed), {})


def _never_called(*_: object) -> None:
    raise AssertionError("the executor of this test calls nothing")


@st.composite
def _graphs(draw: st.DrawFn) -> list[Call]:
    fails = st.sampled_from([0, 0, 0, 0, 1, RETRIES, RETRIES + 1])
    inner = st.one_of(st.none(), st.none(), st.lists(fails, max_size=3))
    calls = []
    for place in range(draw(st.integers(1, 12))):
        needs = draw(st.lists(st.integers(0, place - 1), max_size=3)) if place else []
        calls.append(Call(needs, draw(fails), draw(inner)))
    return calls


def expected(calls: list[Call], ended_early: dict[int, type[BaseException]]) -> list[object]:
    """What a program without tasks would make of the calls: a value, or the class of what it fails with."""
    ends: list[object] = []
    for number, call in enumerate(calls):
        if number in ended_early:
            ends.append(ended_early[number])
        elif any(isinstance(ends[n], type) for n in call.needs):
            ends.append(DependencyError)
        elif call.fails > RETRIES:
            ends.append(OSError)
        elif any(fails > RETRIES for fails in call.inner or []):
            ends.append(JoinError)
        else:
            own = str(number) if call.inner is None else [f"{number}/{i}" for i in range(len(call.inner))]
            ends.append(own)
    return ends


@settings(max_examples=80)
@given(_graphs(), st.integers(0, 2**32), st.sampled_from([0, 0, 1, 4]))
def test_any_graph_ends_as_a_sequential_program_does(calls: list[Call], seed: int, violence: int) -> None:
    hand = Yielding()
    kernel = make_kernel(hand, retries=RETRIES)
    try:
        futures: list[AppFuture] = []
        for number, call in enumerate(calls):
            futures.append(call.begin(kernel, str(number), futures))
        ended_early = _play(kernel, hand, futures, random.Random(seed), violence)
        for number, (call, end) in enumerate(zip(calls, expected(calls, ended_early), strict=True)):
            _check(futures, number, call, end, hand)
            if number not in ended_early:
                _check_tries(call, number, end, hand)
        assert sum(kernel.task_state_counts.values()) == kernel.task_count
        assert not hand.given
        assert kernel._resolver._graph.waiting == 0
        kernel._resolver._graph.sanity_check()
        assert kernel.places.load == dict.fromkeys(kernel.places.load, 0), "what has come back counts as under way"
    finally:
        kernel.cleanup()


def _play(
    kernel: Any, hand: Yielding, futures: list[AppFuture], chance: random.Random, violence: int
) -> dict[int, type[BaseException]]:
    """End tries in any order, and now and then a whole task; which tasks were ended so, and as what."""
    ended_early: dict[int, type[BaseException]] = {}
    tries: Counter[str] = Counter()
    while kernel.tasks:
        if kernel.driver.failure is not None:
            raise kernel.driver.failure
        if chance.randrange(10) < violence:
            number = chance.randrange(len(futures))
            by_force = chance.randrange(2)
            if futures[number].kill() if by_force else futures[number].cancel():
                before = ended_early.setdefault(number, TaskKilled if by_force else CancelledError)
                assert before is (TaskKilled if by_force else CancelledError) or not by_force
        elif eventually(lambda: hand.given or not kernel.tasks, seconds=0.002) and hand.given:
            tid = chance.choice(sorted(hand.given))
            task, args, _ = hand.given.pop(tid)
            name, fails = args[:2]
            tries[name] += 1
            error = OSError(name) if tries[name] <= fails else None
            hand.inbox.append((task, name, error))
    return ended_early


def _check(futures: list[AppFuture], number: int, call: Call, end: object, hand: Yielding) -> None:
    """The future shows the end that was to be expected, with fields and words that fit."""
    future = futures[number]
    error = future.exception(LONG)
    if not isinstance(end, type):
        assert error is None
        assert (future.result(), future.task_status()) == (end, "exec_done")
        return
    assert type(error) is end
    assert future.task_status() == ("dep_fail" if end is DependencyError else "failed")
    assert future.cancelled() == (end is CancelledError)
    if not isinstance(error, PropagatedException):
        return
    sources = [futures[n] for n in call.needs] if end is DependencyError else call.futures
    failed = [(source.exception(), f"task {source.tid}") for source in sources if source.exception() is not None]
    assert error.dependent_exceptions_tids == failed
    assert error.task_id == future.tid
    root: BaseException | None = error
    while isinstance(root, PropagatedException):
        root = root.dependent_exceptions_tids[0][0]
    assert error.__cause__ is root
    others = " (+ others)" if len(failed) > 1 else ""
    assert f"for task {future.tid}. The representative cause is via {failed[0][1]}{others}" in str(error)


def _check_tries(call: Call, number: int, end: object, hand: Yielding) -> None:
    """Each was tried as often as its failures and its budget allow, and not at all when what it needs has failed."""
    tries = 0 if end is DependencyError else min(call.fails, RETRIES) + 1
    if call.inner is None:
        assert hand.times[str(number)] == tries
        return
    assert call.bodies == tries
    ran = end is not DependencyError and end is not OSError
    for place, fails in enumerate(call.inner):
        assert hand.times[f"{number}/{place}"] == (min(fails, RETRIES) + 1 if ran else 0)


def test_whoever_joins_many_that_fail_hears_of_all_of_them() -> None:
    hand = Yielding()
    kernel = make_kernel(hand, retries=0)
    call = Call([], 0, [1, 0, 1])
    try:
        future = call.begin(kernel, "0", [])
        _play(kernel, hand, [future], random.Random(0), 0)
        error = future.exception(LONG)
        assert isinstance(error, JoinError)
        assert [words for _, words in error.dependent_exceptions_tids] == ["task 1", "task 3"]
        assert str(error) == "Join failure for task 0. The representative cause is via task 1 (+ others)"
    finally:
        kernel.cleanup()
