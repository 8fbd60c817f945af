"""Workers that are lost, over a way to them that only writes down what is sent."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from test_fleet import Play, done

from mpiflow.comm import wire
from mpiflow.comm.wire import record
from mpiflow.errors import ConfigurationError, FarmLost
from mpiflow.executors.fleet import LOST, Fleet
from mpiflow.executors.losses import Limits, Losses


class LossyPlay(Play):
    """A fleet whose workers can be lost, and what the user hears of it."""

    def __init__(self, peers: int = 3, runners: int = 1, limits: Limits | None = None) -> None:
        super().__init__(peers, runners)
        self.said: list[str] = []
        self.lost_hosts: list[str] = []
        self.fleet = Fleet(
            self.comm,
            {"directory": "/", "path": [], "in_rank": False},
            lambda *words: self.printed.append(words),
            limits or Limits(),
            self.said.append,
            self.lost_hosts.append,
        )
        self.fid = self.fleet.register("add", b"function")
        self.fleet.configure(runners, self.fleet.comm.peers)

    @property
    def losses(self) -> Losses:
        assert self.fleet.losses is not None
        return self.fleet.losses

    def greet(self, *peers: int) -> None:
        for peer in peers or tuple(self.comm.peers):
            self.hear(peer, record(wire.HELLO, pickle.dumps({"host": f"node{peer}"})))
        self.sent()

    def stay_silent(self, seconds: float, but: tuple[int, ...] = ()) -> None:
        """Let so many seconds go by in which only some are heard of."""
        start = 10.0**6  # later than the clock of this machine, which `pump` has looked at
        for peer in self.comm.peers:
            if peer not in self.comm.gone:
                self.losses.presence.heard(peer, start)
        for look in range(int(seconds / self.losses.presence.every) + 1):
            now = start + look * self.losses.presence.every
            for peer in but:
                self.losses.presence.heard(peer, now)
            self.losses.look(now)


def tasks_of(play: Play) -> dict[int, list[str]]:
    """The tasks that have been sent since the last look, by worker."""
    found: dict[int, list[str]] = {}
    for peer, kind, payload in play.sent():
        if kind == wire.TASK:
            found.setdefault(peer, []).append(payload.decode())
    return found


def given_back(play: Play) -> list[tuple[str, bool]]:
    """What has come back unanswered: the task, and whether it may have been the reason."""
    return [(task, pickle.loads(words)[1]) for task, kind, words, _ in play.received() if kind == LOST]


def test_tasks_of_a_worker_that_mpi_reports_dead_are_given_back() -> None:
    play = LossyPlay(runners=2)
    play.greet()
    play.submit("a", "b", "c", "d", "e", "f")
    held = tasks_of(play)
    play.comm.lost.append(2)
    play.fleet.pump()
    assert [task for task, _ in given_back(play)] == held[2]
    assert play.comm.gone == {2: True}
    tasks = "its 2 tasks are given out again. 2 workers go on"
    assert play.said == [f"rank 2 on node2 is lost: MPI reports its death; {tasks}"]
    assert play.losses.present == [1, 3]
    assert play.lost_hosts == ["node2"]
    play.submit("g", "h", "i", "j")
    assert 2 not in tasks_of(play)


def test_only_what_was_in_a_slot_may_have_been_the_reason() -> None:
    play = LossyPlay(peers=2, runners=1)
    play.greet()
    (first,) = play.submit("quick")
    ((worker, _),) = tasks_of(play).items()
    play.hear(worker, record(wire.ACK, aid=1), wire.HEADER.pack(first.aid, 0, 0, 0, 0.0001, wire.DONE, 0))
    play.inbox.clear()
    play.submit(*(f"t{number}" for number in range(8)))
    held = tasks_of(play)[worker]
    assert len(held) > 1
    play.comm.lost.append(worker)
    play.fleet.pump()
    assert given_back(play) == [(task, place == 0) for place, task in enumerate(held)]


def test_a_silent_worker_is_lost_and_its_late_results_do_not_count() -> None:
    play = LossyPlay()
    play.greet()
    sent = play.submit("a", "b", "c")
    held = tasks_of(play)
    play.stay_silent(16.0, but=(1, 3))
    assert play.losses.silent == [2]
    assert play.comm.gone == {2: False}
    assert given_back(play) == [(held[2][0], True)]
    assert len(play.said) == 1
    assert play.said[0].startswith("rank 2 on node2 is lost: silent for 16 s; its 1 tasks are given out again")
    late = next(delivery for delivery in sent if delivery.worker == 2)
    play.hear(2, record(wire.ACK, aid=1), done(late))
    assert play.received() == [], "its answer comes too late"
    assert play.said[1] == "rank 2 on node2 is heard of again, and goes on"
    told = play.sent()
    assert [(peer, kind) for peer, kind, _ in told] == [(2, wire.SETTINGS), (2, wire.PING), (2, wire.DROP)]
    assert told[2][2] == late.aid.to_bytes(8, "little")
    play.submit("d", "e", "f")
    assert 2 in tasks_of(play)
    assert play.losses.present == [1, 2, 3]


def test_a_worker_that_runs_tasks_itself_may_be_silent() -> None:
    play = LossyPlay()
    play.greet()
    play.losses.presence.exempt.update([1, 2, 3])
    for peer in (1, 2):
        play.hear(peer, record(wire.ACK))
    play.stay_silent(1000.0)
    assert [line[:33] for line in play.said] == ["rank 3 on node3 is lost: silent f"], "its guardian knows no place"


def test_all_workers_are_told_one_place_for_the_notes_of_their_deaths_and_answer() -> None:
    play = LossyPlay(peers=2)
    play.fleet.leaves_notes = True
    play.sent()
    for directory, worker in (("first", 1), ("second", 2)):
        play.fleet.configure(1, [worker], {"notes": directory})
    told = play.sent()
    words = [(peer, kind) for peer, kind, _ in told]
    assert words == [(peer, kind) for peer in (1, 2) for kind in (wire.SETTINGS, wire.PING)]
    assert [pickle.loads(payload)["notes"] for _, kind, payload in told if kind == wire.SETTINGS] == ["first", "first"]
    assert play.losses.notes == "first"


def test_a_note_of_a_guardian_is_a_death(tmp_path: Path) -> None:
    play = LossyPlay()
    play.greet()
    play.submit("a", "b", "c")
    play.losses.notes = str(tmp_path)
    (tmp_path / "lost-rank-3.note").write_text("rank 3 has died\n")
    play.losses.look(10.0**6)
    tasks = "its 1 tasks are given out again. 2 workers go on"
    assert play.said == [f"rank 3 on node3 is lost: its guardian reports its death; {tasks}"]
    assert list(tmp_path.iterdir()) == []
    play.losses.notes = str(tmp_path / "not there")
    play.losses.look(10.0**6 + 10)


def test_a_silent_worker_that_turns_out_to_be_dead_is_told_once() -> None:
    play = LossyPlay()
    play.greet()
    play.stay_silent(16.0, but=(1, 3))
    play.comm.lost.append(2)
    play.losses.look(10.0**7)
    assert len(play.said) == 1
    assert play.losses.silent == []
    assert play.comm.gone == {2: True}


def test_when_the_last_worker_is_lost_the_farm_is() -> None:
    play = LossyPlay(peers=2)
    play.greet()
    play.comm.lost.append(1)
    play.fleet.pump()
    play.comm.lost.append(2)
    with pytest.raises(FarmLost, match="none of the 2 workers is left to run tasks"):
        play.fleet.pump()


def test_it_is_not_lost_while_a_worker_may_still_report() -> None:
    play = LossyPlay(peers=2)
    play.greet(1)
    play.comm.lost.append(1)
    play.fleet.pump()
    play.greet(2)
    assert play.losses.present == [2]


def test_workers_that_do_not_report_are_left_out_and_come_in_late() -> None:
    play = LossyPlay(peers=3, limits=Limits(report=60.0))
    play.greet(1)
    start = 10.0**6
    for second in range(200):
        play.losses.presence.heard(1, start + second)
        play.losses.look(start + second)
    assert play.said == ["rank 2, 3 has not reported in 60 s; the job goes on without it"]
    assert play.losses.present == [1]
    play.greet(3)
    assert play.said[1:] == ["rank 3 on node3 is heard of again, and goes on"]
    play.submit("a", "b")
    assert set(tasks_of(play)) == {1, 3}


def test_nobody_reports_at_all() -> None:
    play = LossyPlay(peers=2, limits=Limits(report=60.0))

    def wait(seconds: int) -> None:
        for second in range(seconds):
            play.losses.look(10.0**6 + second)

    with pytest.raises(FarmLost, match="none of the 2 workers is left"):
        wait(200)
    assert play.said == ["rank 1, 2 has not reported in 60 s; the job goes on without it"]


def test_a_worker_that_cannot_start_stays_out_of_service() -> None:
    play = LossyPlay(peers=2)
    trace = "Traceback (most recent call last):\n  ...\nModuleNotFoundError: No module named 'numpy'"
    play.hear(1, record(wire.HELLO, pickle.dumps({"host": "node1", "failed": trace})))
    play.greet(2)
    assert play.said == ["rank 1 on node1 cannot work, and is left out: ModuleNotFoundError: No module named 'numpy'"]
    play.submit("a", "b", "c")
    assert set(tasks_of(play)) == {2}
    assert play.losses.present == [1, 2], "it is told to leave with all others"
    play.stay_silent(1000.0, but=(2,))
    assert len(play.said) == 1, "it sends no signs of life"


def test_a_worker_that_cannot_start_and_says_so_late_stays_out_of_service() -> None:
    play = LossyPlay(peers=2, limits=Limits(report=60.0))
    play.greet(2)
    for second in range(200):
        play.losses.presence.heard(2, 10.0**6 + second)
        play.losses.look(10.0**6 + second)
    play.hear(1, record(wire.HELLO, pickle.dumps({"host": "node1", "failed": "no such module"})))
    play.sent()
    play.submit("a", "b", "c")
    assert set(tasks_of(play)) == {2}


def test_when_no_worker_can_start_the_traceback_is_shown() -> None:
    play = LossyPlay(peers=1)
    with pytest.raises(ConfigurationError, match=r"(?s)no worker can start; rank 1 on node1 says:.*No module named"):
        play.hear(1, record(wire.HELLO, pickle.dumps({"host": "node1", "failed": "...\nNo module named 'x'"})))


def test_a_host_in_quarantine_gets_nothing_more_and_is_named() -> None:
    play = LossyPlay(peers=3, limits=Limits(failures=4))
    play.greet()
    for number in range(4):
        bad, good = None, []
        for delivery in play.submit(f"x{number}", f"y{number}", f"z{number}"):
            if delivery.worker == 2:
                bad = delivery
            else:
                good.append(delivery)
        for delivery in good:
            play.hear(delivery.worker, record(wire.ACK, aid=1), done(delivery))
        assert bad is not None
        play.sent()
        failed = wire.HEADER.pack(bad.aid, 0, 0, 0, 0.001, wire.RAISED, 0)
        more = play.submit("behind") if number == 3 else []
        play.hear(2, record(wire.ACK, aid=1), failed)
    assert more
    assert len(play.said) == 1
    assert play.said[0].startswith("host node2 is in quarantine: 4 tasks in a row have failed there")
    assert play.lost_hosts == ["node2"]
    assert [suspected for _, suspected in given_back(play)] == [False], "what ran there is not the reason"
    play.submit(*(f"later{number}" for number in range(6)))
    assert 2 not in tasks_of(play)
    assert play.losses.present == [1, 2, 3]
    play.stay_silent(16.0, but=(1, 3))
    play.hear(2)
    play.sent()
    play.submit(*(f"last{number}" for number in range(6)))
    assert 2 not in tasks_of(play), "silence and a return do not end a quarantine"


def test_tasks_for_ranks_of_which_none_is_left_end_the_job_instead_of_waiting_for_ever() -> None:
    play = LossyPlay(peers=3)
    play.greet()
    pool = play.fleet.pool([2], None)
    play.comm.lost.append(2)
    play.fleet.pump()
    play.fleet.submit(play.deliveries("only there"), pool)
    assert tasks_of(play) == {}
    with pytest.raises(FarmLost, match="tasks wait for rank 2, and none of them is left"):
        play.losses.look(10.0**6)


def test_a_host_is_not_quarantined_when_it_is_the_only_one_for_some_tasks() -> None:
    play = LossyPlay(peers=2, limits=Limits(failures=1))
    play.greet()
    play.fleet.pool([2], None)
    play.losses.on_results(1, done=5, failed=0)
    play.losses.on_results(2, done=0, failed=1)
    play.losses.on_results(1, done=5, failed=0)
    play.losses.on_results(2, done=0, failed=1)
    assert play.said == []
    play.losses.on_results(1, done=0, failed=1)
    play.losses.on_results(2, done=5, failed=0)
    play.losses.on_results(1, done=0, failed=1)
    assert [line[:26] for line in play.said] == ["host node1 is in quarantin"]
