"""Who waits for whom, beside a model that takes one step at a time."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mpiflow.kernel.graph import TaskGraph


class Model:
    """The same in ten lines, looking at everything each time."""

    def __init__(self) -> None:
        self.waits: dict[int, set[int]] = {}

    def add(self, task: int, depends: list[int]) -> None:
        self.waits[task] = set(depends)

    def settle(self, task: int) -> list[int]:
        ready = [other for other, unmet in self.waits.items() if unmet == {task}]
        for other in self.waits:
            self.waits[other].discard(task)
        self.waits = {other: unmet for other, unmet in self.waits.items() if unmet}
        return ready


@st.composite
def dags(draw: st.DrawFn) -> list[list[int]]:
    """For each task the earlier ones it waits for, some named several times."""
    number = draw(st.integers(1, 25))
    return [draw(st.lists(st.integers(0, task - 1), max_size=6)) if task else [] for task in range(number)]


@given(dags(), st.randoms(use_true_random=False))
def test_a_graph_that_is_known_at_once_is_worked_off_in_any_order(
    depends: list[list[int]], chance: Random
) -> None:
    graph, model = TaskGraph(), Model()
    ready = []
    for task, others in enumerate(depends):
        if others:
            graph.add(task, others)
            model.add(task, others)
        else:
            ready.append(task)
    settled: set[int] = set()
    while ready:
        task = ready.pop(chance.randrange(len(ready)))
        assert settled.issuperset(depends[task])
        settled.add(task)
        freed = graph.settle(task)
        assert freed == model.settle(task)
        assert freed == sorted(freed), "in the order of the calls"
        graph.sanity_check()
        assert graph.waiting == len(model.waits)
        ready += freed
    assert settled == set(range(len(depends)))
    assert graph.waiting == 0


class GrowingGraph(RuleBasedStateMachine):
    """Tasks come while others end; a join waits a second time, for what was called after it."""

    def __init__(self) -> None:
        super().__init__()
        self.graph = TaskGraph()
        self.model = Model()
        self.number = 0
        self.outside = -1
        self.running: list[int] = []

    def unsettled(self) -> list[int]:
        return [*self.running, *self.model.waits]

    @rule()
    def call_without_dependencies(self) -> None:
        self.running.append(self.number)
        self.number += 1

    @precondition(lambda self: self.unsettled())
    @rule(data=st.data())
    def call_with_dependencies(self, data: st.DataObject) -> None:
        depends = data.draw(st.lists(st.sampled_from(self.unsettled()), min_size=1, max_size=5))
        self.graph.add(self.number, depends)
        self.model.add(self.number, depends)
        self.number += 1

    @rule()
    def call_with_a_future_from_elsewhere(self) -> None:
        self.graph.add(self.number, [self.outside])
        self.model.add(self.number, [self.outside])
        self.running.append(self.outside)
        self.number += 1
        self.outside -= 1

    @precondition(lambda self: self.running)
    @rule(data=st.data(), children=st.integers(1, 4))
    def join(self, data: st.DataObject, children: int) -> None:
        task = data.draw(st.sampled_from(self.running))
        self.running.remove(task)
        new = list(range(self.number, self.number + children))
        self.number += children
        self.running += new
        self.graph.add(task, new)
        self.model.add(task, new)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.running))
        self.running.remove(task)
        freed = self.graph.settle(task)
        assert freed == self.model.settle(task)
        self.running += freed

    @invariant()
    def agrees(self) -> None:
        self.graph.sanity_check()
        assert self.graph.waiting == len(self.model.waits)

    def teardown(self) -> None:
        while self.running:
            task = self.running.pop()
            freed = self.graph.settle(task)
            assert freed == self.model.settle(task)
            self.running += freed
        assert self.graph.waiting == 0, "all have run"
        self.graph.sanity_check()


TestGrowingGraph = GrowingGraph.TestCase


def test_a_task_nobody_waits_for_frees_nobody() -> None:
    graph = TaskGraph()
    assert graph.settle(5) == []
    graph.add(2, [1])
    assert graph.settle(5) == []
    assert graph.waiting == 1
    graph.sanity_check()


def test_a_dependency_named_twice_is_met_once() -> None:
    graph = TaskGraph()
    graph.add(2, [1, 1])
    assert graph.settle(1) == [2]
    assert graph.settle(1) == []


def test_nothing_is_kept_of_what_has_settled() -> None:
    graph = TaskGraph()
    for task in range(1, 1000):
        graph.add(task, [task - 1])
    for task in range(1000):
        graph.settle(task)
    assert not graph._unmet
    assert not graph._dependants
