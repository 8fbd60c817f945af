"""What an executor hears of a task over several ranks, whatever its members say: a fleet on paper."""

from __future__ import annotations

import pickle
import time
from types import SimpleNamespace
from typing import cast

import pytest
from test_fleet import Paper, Play

from mpiflow.comm import wire
from mpiflow.comm.wire import GANG, HEADER, record, records
from mpiflow.executors import gangs as gangs_module
from mpiflow.executors.fleet import LOOK_EVERY, LOST, REFUSED, Delivery, Fleet
from mpiflow.executors.gangs import GangTask
from mpiflow.executors.losses import Limits
from mpiflow.executors.programs import Program
from mpiflow.farm.gangs import Lane, Shape
from mpiflow.kernel.task import Task

TASK = cast(Task, SimpleNamespace(id=7, words="task 7 (f)", walltime=0.0, memory=0, priority=0))


class Stage(Play):
    """A fleet on paper whose workers can be lost."""

    def __init__(self, peers: int = 4, protection: str = "") -> None:
        super().__init__(1)
        self.said: list[str] = []
        self.comm = Paper(peers)
        settings = {"directory": "/", "path": [], "in_rank": False, "protection": protection}
        self.fleet = Fleet(self.comm, settings, lambda *_: None, Limits(), self.said.append)
        self.fid = self.fleet.register("f", b"function")
        self.fleet.configure(1, self.comm.peers)
        for peer in self.comm.peers:
            self.hear(peer, record(wire.HELLO, pickle.dumps({"host": f"node{(peer + 1) // 2}"})))
        self.sent()
        self.inbox.clear()

    def gang(self, shape: Shape, task: Task = TASK, program: Program | None = None) -> GangTask:
        delivery = Delivery(next(self.fleet.aids), self.fid, task, b"arguments", (), self.inbox)
        gang = GangTask(delivery, shape, frozenset(self.comm.peers), Lane(), program)
        self.fleet.submit_gangs([gang])
        self.check()
        return gang

    def parts(self, kind: int = wire.TASK_GANG) -> dict[int, tuple[int, bytes]]:
        """Attempt and payload of what each worker has been sent since the last look."""
        sent, self.comm.sent = self.comm.sent, []
        return {
            peer: (aid, head[start:end])
            for peer, head, _ in sent for aid, _, _, _, found, _, start, end in records(head) if found == kind
        }  # fmt: skip

    def answer(self, peer: int, aid: int, kind: int, payload: bytes = b"") -> None:
        self.hear(peer, record(wire.ACK, aid=1), HEADER.pack(aid, 7, self.fid, len(payload), 0.1, kind, 0) + payload)

    def dies(self, peer: int) -> None:
        self.comm.lost.append(peer)
        self.fleet.pump()
        self.check()

    def listen(self) -> None:
        """Poll so often in vain that rank 0 looks at the clock."""
        for _ in range(2 * LOOK_EVERY):
            self.fleet.pump()

    def called_off(self) -> dict[int, int]:
        """Whom the farm has told to stop, and what."""
        return {peer: int.from_bytes(payload, "little") for peer, kind, payload in self.sent() if kind == wire.DROP}

    def check(self) -> None:
        super().check()
        if self.fleet.gangs is not None:
            self.fleet.gangs.gangs.sanity_check()

    def over(self) -> bool:
        """Whether nothing is left of any gang."""
        master = self.fleet.gangs
        assert master is not None
        in_gang = self.fleet.losses.presence.in_gang if self.fleet.losses is not None else set()
        return not (master._tasks or master._parts or in_gang or master.gangs.running)


def test_each_member_hears_of_all_and_the_first_ones_result_is_the_tasks() -> None:
    stage = Stage()
    stage.gang(Shape(3))
    parts = stage.parts()
    assert list(parts) == [1, 2, 3]
    assert len({aid for aid, _ in parts.values()}) == 3, "each has an attempt of its own"
    payload = parts[1][1]
    assert {payload for _, payload in parts.values()} == {payload}
    assert GANG.unpack_from(payload) == (1, 0, 3), "the first gang, nobody has died, three ranks"
    assert payload[GANG.size :] == b"".join(rank.to_bytes(4, "little") for rank in (1, 2, 3)) + b"arguments"
    for peer in (3, 1, 2):
        assert stage.received() == []
        stage.answer(peer, parts[peer][0], wire.DONE, b"value" if peer == 1 else b"")
    assert stage.received() == [(TASK, wire.DONE, b"value", 1)]
    assert stage.over()


def test_the_first_failure_is_the_tasks_and_the_others_are_called_off() -> None:
    stage = Stage()
    stage.gang(Shape(3))
    parts = stage.parts()
    stage.answer(1, parts[1][0], wire.DONE, b"value")
    stage.answer(3, parts[3][0], wire.RAISED, b"first")
    assert stage.called_off() == {2: parts[2][0]}
    assert stage.received() == [], "its ranks are not all back"
    stage.answer(2, parts[2][0], wire.RAISED, b"second")
    assert stage.received() == [(TASK, wire.RAISED, b"first", 3)]
    assert stage.over()


@pytest.mark.parametrize("told_first", [True, False])
def test_a_rank_that_dies_makes_it_a_loss_whatever_mpi_told_the_others(told_first: bool) -> None:
    stage = Stage()
    stage.gang(Shape(3))
    parts = stage.parts()
    if told_first:
        stage.answer(1, parts[1][0], wire.DIED, b"MPI failed")
    stage.dies(2)
    if not told_first:
        stage.answer(1, parts[1][0], wire.DIED, b"MPI failed")
    stage.answer(3, parts[3][0], wire.DIED)
    ((_, kind, payload, worker),) = stage.received()
    assert (kind, worker) == (LOST, 2)
    assert pickle.loads(payload)[0] == "MPI reports its death"
    assert stage.over()


def test_a_failure_of_mpi_without_a_loss_is_a_failure() -> None:
    stage = Stage()
    stage.gang(Shape(2))
    parts = stage.parts()
    stage.answer(1, parts[1][0], wire.DIED, b"MPI failed")
    stage.answer(2, parts[2][0], wire.DIED)
    assert stage.received() == [(TASK, wire.RAISED, b"MPI failed", 1)]


def test_where_mpi_speaks_of_others_and_none_is_lost_it_is_tried_again() -> None:
    """The dead rank is no member; or it is not known yet which one it is."""
    stage = Stage()
    stage.gang(Shape(2))
    parts = stage.parts()
    for peer, (aid, _) in parts.items():
        stage.answer(peer, aid, wire.DIED)
    ((_, kind, payload, _),) = stage.received()
    assert (kind, pickle.loads(payload)) == (LOST, ("MPI failed in its communicator", True))
    assert stage.over()


def parents(stage: Stage) -> dict[int, int]:
    """By rank, the parents of the communicators that have been started since the last look."""
    return {peer: GANG.unpack_from(payload)[1] for peer, (_, payload) in stage.parts().items()}


def test_after_a_death_gangs_make_a_parent_of_their_own_and_later_ones_take_it() -> None:
    stage = Stage(8, protection="ULFM")
    stage.gang(Shape(2))
    assert parents(stage) == {1: 0, 2: 0}
    stage.hear(1, record(wire.MET))
    stage.hear(2, record(wire.MET))
    stage.dies(8)
    four = stage.gang(Shape(4))
    assert parents(stage) == dict.fromkeys((3, 4, 5, 6), 2), "its own number: there is none yet"
    for peer in 3, 4, 5, 6:
        assert stage.parts() == {}
        stage.hear(peer, record(wire.MET))
    for aid, part in list(four.parts.items()):
        stage.answer(part.worker, aid, wire.DONE)
    stage.gang(Shape(2))
    assert parents(stage) == {3: 2, 4: 2}, "that of the second gang, in which both have been"
    for peer in 3, 4:
        stage.hear(peer, record(wire.MET))
    stage.gang(Shape(1))
    assert parents(stage) == {7: 4}, "it was in none"
    stage.hear(7, record(wire.MET))
    stage.dies(5)
    stage.gang(Shape(1))
    assert parents(stage) == {6: 5}, "no parent with a rank that has died"


def test_a_parent_that_not_all_have_made_is_none() -> None:
    stage = Stage(4, protection="ULFM")
    stage.dies(4)
    stage.gang(Shape(2))
    (first, (aid, _)), (second, (other, _)) = stage.parts().items()
    stage.hear(first, record(wire.MET))
    stage.answer(second, other, wire.DIED)
    stage.answer(first, aid, wire.DIED)
    stage.gang(Shape(2))
    assert set(parents(stage).values()) == {2}


def test_without_ulfm_a_death_changes_nothing() -> None:
    stage = Stage(protection="guardian")
    stage.dies(4)
    stage.gang(Shape(2))
    assert parents(stage) == {1: 0, 2: 0}


def test_ranks_that_end_because_they_were_called_off_are_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure is the exception, even if the others have to die of it."""
    stage = Stage()
    stage.gang(Shape(3))
    parts = stage.parts()
    stage.answer(1, parts[1][0], wire.RAISED, b"wrong")
    later = time.monotonic() + gangs_module.OWN_DEATH_SEEN_WITHIN + 1
    monkeypatch.setattr(gangs_module.time, "monotonic", lambda: later)
    stage.dies(2)
    stage.dies(3)
    assert stage.received() == [(TASK, wire.RAISED, b"wrong", 1)]
    assert stage.over()


def test_a_rank_that_never_comes_back_is_given_up_and_may_yet_return(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a rank cannot end itself, or nobody listens in it."""
    stage = Stage()
    stage.gang(Shape(2))
    parts = stage.parts()
    stage.answer(1, parts[1][0], wire.RAISED, b"wrong")
    later = time.monotonic() + gangs_module.GIVE_UP_AFTER + 1
    monkeypatch.setattr(gangs_module.time, "monotonic", lambda: later)
    stage.listen()
    assert stage.received() == [(TASK, wire.RAISED, b"wrong", 1)]
    assert "rank 2 on node1 is lost: it does not come back from task 7 (f)" in stage.said[-1]
    stage.comm.sent.clear()
    stage.hear(2, HEADER.pack(parts[2][0], 7, stage.fid, 0, 0.1, wire.DIED, 0))
    assert "heard of again" in stage.said[-1]
    assert stage.received() == [], "its answer comes too late"
    assert stage.over()
    stage.gang(Shape(4))
    assert len(stage.parts()) == 4


def test_the_walltime_is_kept_by_rank_0_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members that are inside MPI do not notice."""
    stage = Stage()
    stage.gang(Shape(2), cast(Task, SimpleNamespace(**{**vars(TASK), "walltime": 5.0})))
    parts = stage.parts()
    started = time.monotonic()
    monkeypatch.setattr(gangs_module.time, "monotonic", lambda: started + 4)
    stage.listen()
    assert stage.called_off() == {}
    monkeypatch.setattr(gangs_module.time, "monotonic", lambda: started + 8)
    stage.listen()
    assert stage.called_off() == {peer: aid for peer, (aid, _) in parts.items()}
    for peer, (aid, _) in parts.items():
        stage.answer(peer, aid, wire.DIED)
    ((_, kind, payload, _),) = stage.received()
    assert (kind, payload) == (wire.OVERTIME, b"")


def test_a_gang_that_is_withdrawn_is_called_off_and_nobody_hears_of_it() -> None:
    stage = Stage()
    runs, waits = stage.gang(Shape(4)), stage.gang(Shape(2))
    parts = stage.parts()
    assert stage.fleet.revoke(waits.delivery)
    assert not stage.fleet.revoke(runs.delivery)
    stage.fleet.withdraw({runs.delivery.aid})
    assert stage.called_off() == {peer: aid for peer, (aid, _) in parts.items()}
    for peer, (aid, _) in parts.items():
        stage.answer(peer, aid, wire.DIED)
    assert stage.received() == []
    assert stage.over()


def test_a_gang_that_is_revoked_lets_its_ranks_go_at_once() -> None:
    stage = Stage()
    (first,) = stage.submit("small")
    gang = stage.gang(Shape(4))
    (second,) = stage.submit("small")
    assert second.worker < 0, "all ranks are claimed"
    assert stage.fleet.revoke(gang.delivery)
    assert second.worker > 0
    assert first.worker != second.worker


def test_what_a_gang_waits_for_is_told_in_words() -> None:
    stage = Stage()
    stage.submit("small")
    stage.gang(Shape(4))
    stage.gang(Shape(2, nodes=1, per_node=2))
    assert stage.fleet.gangs is not None
    assert stage.fleet.gangs.in_words() == [
        "task 7 (f) waits for 4 ranks; it has claimed rank 1, 2, 3, 4",
        "task 7 (f) waits for 2 ranks on each of 1 node",
    ]


def test_members_are_not_judged_by_their_silence() -> None:
    stage = Stage()
    assert stage.fleet.losses is not None
    stage.gang(Shape(2))
    parts = stage.parts()
    assert stage.fleet.losses.presence.in_gang == {1, 2}
    for peer, (aid, _) in parts.items():
        stage.answer(peer, aid, wire.DONE)
    assert stage.fleet.losses.presence.in_gang == set()


def test_too_large_names_what_is_there_and_what_is_lost() -> None:
    stage = Stage()
    stage.gang(Shape(5))
    stage.dies(4)
    stage.gang(Shape(4))
    words = [pickle.loads(payload) for _, kind, payload, _ in stage.received() if kind == REFUSED]
    assert words == [
        "task 7 (f) asks for 5 ranks, and its executor has 4 ranks on 2 nodes",
        "task 7 (f) asks for 4 ranks, and its executor has 3 ranks on 2 nodes; "
        "1 of the job's 4 workers are lost or out of service",
    ]


def test_a_rank_that_says_that_it_is_stuck_is_given_up_and_the_gang_handed_out_again() -> None:
    stage = Stage()
    stage.gang(Shape(2))
    parts = stage.parts()
    stage.hear(2, record(wire.STUCK, pickle.dumps("it cannot meet")))
    assert stage.said[-1].startswith("rank 2 on node1 is lost: it cannot meet")
    assert stage.called_off() == {1: parts[1][0]}
    stage.answer(1, parts[1][0], wire.DIED)
    ((_, kind, _, worker),) = stage.received()
    assert (kind, worker) == (LOST, 2)
    stage.hear(2, HEADER.pack(parts[2][0], 7, stage.fid, 0, 0.1, wire.DIED, 0))
    assert "heard of again" in stage.said[-1]
    assert stage.over()


def test_under_ulfm_the_next_gang_starts_when_all_of_one_have_met() -> None:
    stage = Stage(protection="ULFM")
    stage.gang(Shape(2))
    stage.gang(Shape(2))
    assert stage.parts().keys() == {1, 2}
    stage.hear(1, record(wire.MET))
    assert stage.parts() == {}
    stage.hear(2, record(wire.MET))
    assert stage.parts().keys() == {3, 4}


def meets_while_another_waits() -> Stage:
    stage = Stage(protection="ULFM")
    stage.gang(Shape(2))
    stage.parts()
    stage.gang(Shape(2))
    return stage


def test_a_gang_in_whose_meeting_a_rank_dies_holds_the_others_up_for_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = meets_while_another_waits()
    stage.dies(2)
    stage.listen()
    assert stage.parts() == {}
    monkeypatch.setattr(gangs_module, "GIVE_UP_MEETING_AFTER", 0.0)
    stage = meets_while_another_waits()
    stage.dies(2)
    stage.listen()
    assert stage.said[-1].startswith("rank 1 on node1 is lost: it does not come back from task 7 (f)")
    assert stage.parts().keys() == {3, 4}
    ((_, kind, _, _),) = stage.received()
    assert kind == LOST


def test_a_gang_whose_members_never_meet_and_never_say_so_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gangs_module, "GIVE_UP_MEETING_AFTER", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(gangs_module, "MEET_WITHIN", 0.0)
        stage = meets_while_another_waits()
    stage.listen()
    assert [words.partition(":")[0] for words in stage.said] == ["rank 1 on node1 is lost", "rank 2 on node1 is lost"]
    assert stage.parts().keys() == {3, 4}, "the other one has its time"
    ((_, kind, _, _),) = stage.received()
    assert kind == LOST


def test_a_gang_that_has_claimed_ranks_is_refused_when_a_loss_leaves_too_few() -> None:
    stage = Stage()
    stage.submit("small")
    gang = stage.gang(Shape(4))
    assert gang.gang.ranks == [1, 2, 3, 4], "claimed, and one of them busy"
    stage.dies(4)
    words = [pickle.loads(payload) for _, kind, payload, _ in stage.received() if kind == REFUSED]
    assert words == [
        "task 7 (f) asks for 4 ranks, and its executor has 3 ranks on 2 nodes; "
        "1 of the job's 4 workers are lost or out of service"
    ]
    assert stage.over()
    small = stage.submit("small", "small")
    assert min(delivery.worker for delivery in small) > 0, "its claims are released"


def test_the_end_of_a_gang_leaves_alone_whom_another_executor_has_exempted_meanwhile() -> None:
    """One with isolation="rank" that starts while the gang runs: its tasks are silent, too."""
    stage = Stage()
    assert stage.fleet.losses is not None
    presence = stage.fleet.losses.presence
    stage.gang(Shape(2))
    parts = stage.parts()
    presence.exempt.update({1, 2})
    presence.answered.update(stage.comm.peers)
    for peer, (aid, _) in parts.items():
        stage.answer(peer, aid, wire.DONE)
    presence.judge(time.monotonic())
    lost = [now for step in range(1, 60) for now in presence.judge(time.monotonic() + step)]
    assert {worker for worker, _ in lost} <= {3, 4}


@pytest.mark.parametrize("end", ["result", "loss", "kill"])
def test_a_program_has_its_nodes_until_it_ends_in_whatever_way(end: str) -> None:
    stage = Stage()
    program = Program({"num_nodes": 2}, (2, 0, 0), "mpiexec", False, wire.TASK, pickle.dumps(((1,), {})), ())
    gang = stage.gang(Shape(0, nodes=2), program=program)
    ((peer, (aid, payload)),) = stage.parts(wire.TASK).items()
    assert peer == 1, "one runner, on the first node"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARSL_MPI_NODELIST", "")
        assert pickle.loads(payload) == ((1,), {})
        import os

        assert os.environ["PARSL_MPI_NODELIST"] == "node1,node2"
    small = stage.submit("small")[0]
    assert stage.sent() == [], "others keep off"
    if end == "result":
        stage.answer(1, aid, wire.DONE, b"0")
        assert stage.received() == [(TASK, wire.DONE, b"0", 1)]
    elif end == "loss":
        stage.dies(1)
        ((_, kind, _, _),) = stage.received()
        assert kind == LOST
    else:
        stage.fleet.withdraw({gang.delivery.aid})
        assert stage.called_off() == {1: aid}
        stage.fleet.pump()
    assert small.worker > 0, "the nodes are there again"
    assert stage.over()
