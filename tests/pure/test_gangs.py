"""Which ranks a gang gets, and when: by example, and by arrivals, ends and losses that hypothesis thinks of."""

from __future__ import annotations

from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mpiflow.farm.farm import Attempt, Farm
from mpiflow.farm.gangs import Gang, Gangs, Lane, Plan, Shape


class Play:
    """A farm with gangs, and what a test needs to have its workers work."""

    def __init__(self, *nodes: int, one_meets: bool = False) -> None:
        """So many workers on each node."""
        self.farm = Farm()
        self.hosts: dict[int, str] = {}
        self.gangs = Gangs(self.farm, self.hosts.__getitem__, one_meets)
        self.aids = count()
        for number, workers in enumerate(nodes):
            for _ in range(workers):
                self.join(f"n{number}")

    def join(self, host: str) -> int:
        worker = len(self.hosts) + 1
        self.hosts[worker] = host
        self.farm.on_joined(worker, slots=1)
        return worker

    def small(self, tasks: int) -> None:
        self.farm.on_ready(Attempt(next(self.aids), fid=1, size=10, task="small") for _ in range(tasks))

    def give_out(self) -> None:
        """Send what the farm has to give out; the workers acknowledge it."""
        for bulk in self.farm.plan():
            self.farm.on_results(bulk.worker, [], acknowledged=1)

    def end_one(self, worker: int, seconds: float = 1.0) -> None:
        """The first small task of a worker ends."""
        self.farm.on_results(worker, [(self.farm.held[worker][0].aid, seconds)])

    def gang(self, shape: Shape, **more: object) -> Gang:
        gang = Gang("gang", shape, **more)  # type: ignore[arg-type]
        self.gangs.on_ready(gang)
        return gang

    def step(self) -> Plan:
        """What rank 0 does with every round."""
        self.give_out()
        plan = self.gangs.plan()
        self.give_out()
        self.gangs.sanity_check()
        return plan

    def end(self, gang: Gang) -> None:
        for worker in gang.ranks.copy():
            self.gangs.on_left(gang, worker)


def test_idle_ranks_are_taken_at_once_and_on_few_nodes() -> None:
    play = Play(2, 3, 4)
    three = play.gang(Shape(3))
    assert play.step().started == [three]
    assert three.ranks == [3, 4, 5], "the node on which they just fit"
    six = play.gang(Shape(6))
    assert play.step().started == [six]
    assert six.ranks == [1, 2, 6, 7, 8, 9], "by node and then by number"


def test_busy_ranks_are_claimed_and_given_nothing_more_while_others_work_on() -> None:
    play = Play(4)
    play.small(100)
    gang = play.gang(Shape(2))
    assert play.step().started == []
    claimed = gang.ranks.copy()
    assert len(claimed) == 2
    others = [worker for worker in play.hosts if worker not in claimed]
    for worker in [*others, claimed[0]]:
        play.end_one(worker)
    assert play.step().started == []
    held = play.farm.held
    assert [len(held.get(worker, [])) for worker in (*others, *claimed)] == [1, 1, 0, 1]
    play.end_one(claimed[1])
    assert play.step().started == [gang]
    assert sorted(gang.ranks) == sorted(claimed)


def test_a_rank_that_is_idle_takes_the_place_of_one_at_a_long_task() -> None:
    play = Play(3)
    play.small(3)
    gang = play.gang(Shape(1))
    play.step()
    (first,) = gang.ranks
    other = next(worker for worker in play.hosts if worker != first)
    play.end_one(other)
    assert play.step().started == [gang]
    assert gang.ranks == [other]


def test_a_large_gang_is_not_starved_by_small_ones() -> None:
    play = Play(4)
    small = [play.gang(Shape(2)) for _ in range(2)]
    assert play.step().started == small
    large = play.gang(Shape(4))
    later = [play.gang(Shape(1)) for _ in range(20)]
    assert play.step().started == []
    play.end(small[0])
    assert play.step().started == [], "nobody overtakes the large one"
    play.end(small[1])
    assert play.step().started == [large]
    play.end(large)
    assert play.step().started == later[:4]


def test_whole_nodes_are_not_starved_by_another_executors_gangs_on_the_same_nodes() -> None:
    play = Play(3)
    others = frozenset({2, 3})
    running = [play.gang(Shape(1), among=others) for _ in range(2)]
    play.step()
    whole = play.gang(Shape(0, nodes=1), among=frozenset({1}))
    play.gang(Shape(1), among=others)
    play.end(running[0])
    assert play.step().started == [], "nobody overtakes it"
    play.end(running[1])
    assert play.step().started == [whole]


def test_small_tasks_use_what_a_waiting_gang_cannot_use_yet() -> None:
    play = Play(4)
    first = play.gang(Shape(2))
    play.step()
    play.gang(Shape(4))
    play.small(2)
    play.step()
    assert len(play.farm.held) == 2, "ranks wait for nobody who cannot start anyway"
    play.end(first)


def test_small_tasks_and_gangs_take_turns() -> None:
    play = Play(2)
    play.small(1000)
    gangs = [play.gang(Shape(2)) for _ in range(5)]
    order: list[str] = []
    for _ in range(40):
        started = play.step().started
        order += ["gang"] * len(started)
        for gang in started:
            play.end(gang)
        for worker in list(play.farm.held):
            order.append("small")
            play.end_one(worker)
    assert order.count("gang") == len(gangs), "small tasks without end do not starve gangs"
    between = " ".join(order).split("gang")
    assert all("small" in words for words in between[1:]), "nor gangs small tasks"


def test_gangs_of_other_ranks_do_not_wait_for_each_other() -> None:
    play = Play(4)
    held = play.gang(Shape(1), among=frozenset({1, 2}))
    play.step()
    waits = play.gang(Shape(2), among=frozenset({1, 2}))
    free = play.gang(Shape(2), among=frozenset({3, 4}))
    assert play.step().started == [free]
    play.end(held)
    assert play.step().started == [waits]


def test_so_many_on_each_node() -> None:
    play = Play(1, 4, 2, 3)
    gang = play.gang(Shape(4, nodes=2, per_node=2))
    assert play.step().started == [gang]
    assert gang.ranks == [6, 7, 8, 9], "the nodes with least to spare"
    refused = play.gang(Shape(6, nodes=3, per_node=2))
    assert play.step().hopeless == []
    play.end(gang)
    assert play.step().started == [refused]
    too_large = play.gang(Shape(8, nodes=2, per_node=4))
    assert play.step().hopeless == [too_large]


def test_whole_nodes_wait_for_all_their_ranks_and_keep_others_off() -> None:
    play = Play(2, 2)
    play.small(3)
    play.give_out()
    one = play.gang(Shape(0, nodes=1), among=frozenset({1, 3}))
    two = play.gang(Shape(0, nodes=2))
    play.step()
    play.end_one(3)
    assert play.step().started == [one], "node 1, whose second rank has had nothing"
    assert one.ranks == [3, 4]
    play.small(5)
    play.step()
    assert set(play.farm.held) == {1, 2}
    play.end(one)
    assert two.ranks == []


def test_a_rank_that_comes_late_to_a_node_that_is_given_out_is_kept_off_it() -> None:
    play = Play(1, 1)
    whole = play.gang(Shape(0, nodes=2))
    assert play.gangs.plan(awaited=[3]).started == [], "nobody knows on which node it is"
    assert play.gangs.plan(awaited=[]).started == [whole]
    late = play.join("n1")
    play.step()
    play.small(3)
    play.step()
    assert play.farm.held == {}
    assert late in whole.ranks
    play.farm.on_lost(1)
    play.step()
    play.farm.on_joined(1, slots=1)  # it was silent only
    play.gangs.plan()
    play.step()
    assert play.farm.held == {}
    play.end(whole)
    play.step()
    assert len(play.farm.held) == 3


def test_where_one_meets_the_next_waits_until_all_of_its_ranks_have_met_or_left() -> None:
    play = Play(6, 1, one_meets=True)
    whole = play.gang(Shape(0, nodes=1), among=frozenset({7}))
    first, second, third = (play.gang(Shape(2)) for _ in range(3))
    other = play.gang(Shape(0, nodes=1), among=frozenset({7}))
    assert play.step().started == [whole, first], "whole nodes make no communicator"
    play.end(whole)
    assert play.step().started == [other]
    play.small(9)
    play.step()
    assert play.farm.held == {}, "what the others have claimed they keep"
    play.gangs.on_met(first.ranks[0])
    assert play.step().started == []
    play.gangs.on_met(first.ranks[1])
    assert play.step().started == [second]
    play.gangs.on_met(second.ranks[0])
    lost = second.ranks[1]
    play.farm.on_lost(lost)
    play.gangs.on_left(second, lost)
    assert play.step().started == [third]


def test_a_lane_lets_only_so_many_run() -> None:
    play = Play(1, 1, 1)
    lane = Lane(2)
    gangs = [play.gang(Shape(0, nodes=1), lane=lane) for _ in range(3)]
    other = play.gang(Shape(1))
    assert play.step().started == [*gangs[:2], other], "the third holds nobody else up"
    play.end(gangs[0])
    assert play.step().started == [gangs[2]]


def test_priority_goes_before_arrival() -> None:
    play = Play(1)
    runs = play.gang(Shape(1))
    play.step()
    play.gang(Shape(1), priority=5)
    urgent = play.gang(Shape(1), priority=-1)
    play.end(runs)
    assert play.step().started == [urgent]


def test_what_cannot_fit_is_told_at_once_and_when_ranks_are_lost() -> None:
    play = Play(3)
    too_large, fits = play.gang(Shape(4)), play.gang(Shape(3))
    play.small(1)
    plan = play.step()
    assert (plan.started, plan.hopeless) == ([], [too_large])
    play.farm.on_lost(3)
    assert play.step().hopeless == [fits]
    assert play.gangs.there(fits) == "2 ranks on 1 node"
    play.gangs.sanity_check()


def test_a_worker_that_may_yet_come_is_waited_for() -> None:
    play = Play(2)
    gang = play.gang(Shape(3))
    nodes = play.gang(Shape(2, nodes=2, per_node=1))
    assert play.gangs.plan(awaited=[9]).hopeless == []
    far = play.gang(Shape(4))
    assert play.gangs.plan(awaited=[9]).hopeless == [far]
    assert play.gangs.there(far) == "3 ranks"
    assert play.gangs.plan(awaited=[]).hopeless == [gang, nodes]


def test_a_gang_is_looked_at_again_when_a_worker_that_was_awaited_is_there() -> None:
    play = Play(1)
    gang = play.gang(Shape(2, nodes=2, per_node=1))
    assert play.gangs.plan(awaited=[2]).hopeless == []
    play.join("n0")
    assert play.gangs.plan(awaited=[]).hopeless == [gang]


def test_a_gang_that_is_withdrawn_lets_its_claims_go() -> None:
    play = Play(2)
    play.small(3)
    gang = play.gang(Shape(2))
    play.step()
    assert play.gangs.withdraw(gang)
    assert not play.gangs.withdraw(gang)
    play.step()
    play.end_one(1)
    play.step()
    assert len(play.farm.held[1]) == 1, "it works on"


def test_a_shape_in_words() -> None:
    shapes = [Shape(1), Shape(4, 2, 2), Shape(0, 1), Shape(2, 1, 2)]
    assert [*map(str, shapes)] == ["1 rank", "2 ranks on each of 2 nodes", "1 whole node", "2 ranks on each of 1 node"]


class Life(RuleBasedStateMachine):
    """Gangs and small tasks come and end, workers come and go, in any order."""

    @initialize(nodes=st.lists(st.integers(1, 4), min_size=1, max_size=4), one_meets=st.booleans())
    def begin(self, nodes: list[int], one_meets: bool) -> None:
        self.play = Play(*nodes, one_meets=one_meets)
        self.lane = Lane(2)
        self.running: list[Gang] = []
        self.order: list[Gang] = []

    def run(self) -> None:
        meeting = self.play.gangs.meeting.copy()
        plan = self.play.step()
        if meeting:
            assert all(gang.shape.whole for gang in plan.started)
        for gang in plan.started:
            self.running.append(gang)
            assert len(set(gang.ranks)) == len(gang.ranks)
            shape = gang.shape
            hosts = [self.play.hosts[worker] for worker in gang.ranks]
            if shape.nodes:
                assert len(set(hosts)) == shape.nodes
                assert hosts == sorted(hosts, key=hosts.index), "by node"
            if shape.ranks:
                assert len(gang.ranks) == shape.ranks
            else:
                there = [worker for worker in self.play.farm.workers if self.play.hosts[worker] in hosts]
                assert sorted(gang.ranks) == sorted(there)
            assert not any(self.play.farm.load(worker)[0] for worker in gang.ranks)
            # first in, first out: whoever came before, and could have had these ranks only, has started or is full
            for earlier in self.order[: self.order.index(gang)]:
                if earlier.shape == shape and earlier.among == gang.among and earlier.lane is gang.lane:
                    assert earlier not in self.play.gangs.waiting
        for gang in plan.hopeless:
            self.order.remove(gang)

    @rule(
        shape=st.sampled_from([Shape(1), Shape(2), Shape(5), Shape(2, 2, 1), Shape(4, 2, 2), Shape(0, 1), Shape(0, 2)]),
        limited=st.booleans(), few=st.booleans(),
    )  # fmt: skip
    def gang_comes(self, shape: Shape, limited: bool, few: bool) -> None:
        among = frozenset({1, 2, 3, 4}) if few else None
        self.order.append(self.play.gang(shape, among=among, lane=self.lane if limited else None))
        self.run()

    @rule(tasks=st.integers(1, 9))
    def small_tasks_come(self, tasks: int) -> None:
        self.play.small(tasks)
        self.run()

    @precondition(lambda self: self.play.farm.held)
    @rule(data=st.data(), seconds=st.sampled_from([0.001, 1.0]))
    def small_task_ends(self, data: st.DataObject, seconds: float) -> None:
        self.play.end_one(data.draw(st.sampled_from(sorted(self.play.farm.held))), seconds)
        self.run()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), whole=st.booleans())
    def member_ends(self, data: st.DataObject, whole: bool) -> None:
        gang = data.draw(st.sampled_from(self.running))
        for worker in gang.ranks.copy() if whole or gang.shape.whole else gang.ranks[:1]:
            self.play.gangs.on_left(gang, worker)
        self.running = [gang for gang in self.running if gang.ranks]
        self.run()

    @precondition(lambda self: self.play.gangs.meeting)
    @rule(data=st.data())
    def member_meets(self, data: st.DataObject) -> None:
        self.play.gangs.on_met(data.draw(st.sampled_from(sorted(self.play.gangs.meeting))))
        self.run()

    @precondition(lambda self: self.play.gangs.waiting)
    @rule(data=st.data())
    def gang_is_withdrawn(self, data: st.DataObject) -> None:
        gang = data.draw(st.sampled_from(self.play.gangs.waiting))
        assert self.play.gangs.withdraw(gang)
        self.order.remove(gang)
        self.run()

    @rule(data=st.data())
    def worker_is_lost(self, data: st.DataObject) -> None:
        if len(self.play.farm.workers) < 2:
            return
        worker = data.draw(st.sampled_from(self.play.farm.workers))
        self.play.farm.on_lost(worker)
        gang = self.play.gangs.running.get(worker)
        if gang is not None:
            self.play.gangs.on_left(gang, worker)
            self.running = [gang for gang in self.running if gang.ranks]
        self.run()

    @rule(node=st.integers(0, 3))
    def worker_comes(self, node: int) -> None:
        if len(self.play.hosts) < 20:
            self.play.join(f"n{node}")
        self.run()

    @invariant()
    def books_agree(self) -> None:
        if hasattr(self, "play"):
            self.play.gangs.sanity_check()
            whole = [gang for gang in self.running if gang.shape.whole]
            for gang in whole:
                hosts = {self.play.hosts[worker] for worker in gang.ranks}
                on_them = {worker for worker in self.play.farm.workers if self.play.hosts[worker] in hosts}
                assert on_them == set(gang.ranks)

    def teardown(self) -> None:
        """Whatever has come ends, when all go on working: nobody starves, and nothing is left."""
        if not hasattr(self, "play"):
            return
        for _ in range(2000):
            if not (self.play.gangs.waiting or self.running or self.play.farm.held or self.play.farm.waiting):
                break
            for gang in self.running:
                self.play.end(gang)
            self.running = []
            for worker in list(self.play.farm.held):
                self.play.end_one(worker)
            self.run()
        assert not self.play.gangs.waiting
        assert not self.play.gangs.running
        assert not self.play.farm.waiting
        assert not any(map(self.play.farm.is_withheld, self.play.farm.workers))
        assert self.lane.running == 0


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
