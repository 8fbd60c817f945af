"""Rank 0's end of the workers, over a way to them that only writes down what is sent."""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mpiflow.comm import wire
from mpiflow.comm.segments import Segment, private
from mpiflow.comm.wire import HEADER, record, records
from mpiflow.executors.fleet import LOST, Answer, Delivery, Fleet
from mpiflow.worker.worker import Worker
from mpiflow.worker.zygote import Zygote

Said = tuple[int, int, bytes]


class Paper:
    """A `Comm` on paper: what is sent is kept until a test names it, what arrives is what a test says."""

    def __init__(self, peers: int) -> None:
        self.peers = list(range(1, peers + 1))
        self.lost: list[int] = []
        self.gone: dict[int, bool] = {}
        self.sent: list[tuple[int, bytes, list[Any]]] = []
        self.arriving: list[tuple[int, bytearray, list[Segment]]] = []

    def send(self, peer: int, head: bytes, attachments: Sequence[Any] = ()) -> None:
        assert peer not in self.gone, f"a message to {peer}, which is lost"
        self.sent.append((peer, bytes(head), list(attachments)))

    def poll(self) -> list[tuple[int, bytearray, list[Segment]]]:
        arrived, self.arriving = self.arriving, []
        return arrived

    def drop(self, peer: int, for_good: bool) -> None:
        self.gone[peer] = for_good

    def take_back(self, peer: int) -> None:
        assert not self.gone.pop(peer)

    def wait(self, seconds: float) -> None:
        """Nothing comes by itself."""

    def close(self) -> None:
        """Nothing is open."""


class Play:
    """A fleet on paper, with an inbox for its results."""

    def __init__(self, peers: int = 2, runners: int = 1) -> None:
        self.comm = Paper(peers)
        self.printed: list[tuple[Any, ...]] = []
        self.fleet = Fleet(
            self.comm,
            {"directory": "/", "path": [], "in_rank": False},
            lambda *words: self.printed.append(words),
        )
        self.inbox: deque[Answer] = deque()
        self.fid = self.fleet.register("add", b"function")
        self.fleet.configure(runners, self.fleet.comm.peers)
        for peer in self.comm.peers:
            self.hear(peer, record(wire.HELLO, pickle.dumps({"host": f"node{peer}"})))
        self.sent()

    def submit(self, *names: str, beside: Sequence[Any] = ()) -> list[Delivery]:
        made = self.deliveries(*names, beside=beside)
        self.fleet.submit(made)
        self.check()
        return made

    def deliveries(self, *names: str, beside: Sequence[Any] = ()) -> list[Delivery]:
        made = []
        for name in names:
            aid = next(self.fleet.aids)
            head = HEADER.pack(aid, aid, self.fid, len(name), 0.0, wire.TASK, len(beside))
            task: Any = name
            made.append(Delivery(aid, self.fid, task, head + name.encode(), list(beside), self.inbox))
        return made

    def hear(self, peer: int, *parts: bytes, attachments: Sequence[Segment] = ()) -> None:
        self.comm.arriving.append((peer, bytearray(b"".join(parts)), list(attachments)))
        self.fleet.pump()
        self.check()

    def sent(self) -> list[Said]:
        """What has been sent since the last look, record by record."""
        sent, self.comm.sent = self.comm.sent, []
        return [
            (peer, kind, head[start:end])
            for peer, head, _ in sent
            for _, _, _, _, kind, _, start, end in records(head)
        ]

    def received(self) -> list[tuple[Any, int, bytes, int]]:
        """What has come into the inbox since the last look."""
        found: list[tuple[Any, int, bytes, int]] = [
            (d.task, kind, bytes(payload), worker) for d, kind, payload, _, worker in self.inbox
        ]
        self.inbox.clear()
        return found

    def check(self) -> None:
        self.fleet._farm.sanity_check()

    def end(self) -> None:
        """Nothing is left unasserted."""
        assert self.sent() == []
        assert not self.inbox
        assert self.printed == []


def done(delivery: Delivery, payload: bytes = b"", kind: int = wire.DONE, more: int = 0) -> bytes:
    return HEADER.pack(delivery.aid, 0, 0, len(payload), 0.5, kind, more) + payload


ACK = record(wire.ACK, aid=1)


def test_workers_are_told_their_settings_first() -> None:
    comm = Paper(2)
    fleet = Fleet(comm, {"directory": "/here"}, print)
    fleet.configure(3, [1, 2])
    assert [peer for peer, _, _ in comm.sent] == [1, 2]
    for _, head, _ in comm.sent:
        ((_, _, _, _, kind, _, start, end),) = records(head)
        assert kind == wire.SETTINGS
        assert pickle.loads(head[start:end]) == {"directory": "/here", "runners": 3}
    fleet.configure(3, [1, 2])
    assert len(comm.sent) == 2, "the same again is not sent"
    assert fleet.slots([1, 2]) == 6


def test_a_task_is_sent_with_its_function_the_first_time_and_its_result_comes_into_the_inbox() -> None:
    play = Play(peers=1)
    (first,) = play.submit("a")
    assert play.sent() == [(1, wire.FUNCTION, b"function"), (1, wire.TASK, b"a")]
    play.hear(1, ACK, done(first, b"result"))
    assert play.received() == [("a", wire.DONE, b"result", 1)]
    (second,) = play.submit("b")
    assert play.sent() == [(1, wire.TASK, b"b")]
    play.hear(1, ACK, done(second, b"words", wire.RAISED))
    assert play.received() == [("b", wire.RAISED, b"words", 1)]
    play.end()


def test_what_waits_is_given_out_when_a_result_makes_room() -> None:
    play = Play(peers=1)
    first, _ = play.submit("a", "b")
    assert play.sent() == [(1, wire.FUNCTION, b"function"), (1, wire.TASK, b"a")]
    play.hear(1, ACK, done(first))
    assert play.sent() == [(1, wire.TASK, b"b")]
    assert len(play.received()) == 1
    play.end()


def test_a_message_carries_the_attachments_of_its_tasks_in_order_and_they_are_let_go() -> None:
    play = Play(peers=1, runners=3)
    play.submit("a", "b", beside=[b"one", b"two"])
    ((_, _, attachments),) = play.comm.sent
    assert attachments == [b"one", b"two"] * 2
    assert all(
        not delivery.attachments and not delivery.record  # type: ignore[attr-defined]
        for delivery in play.fleet._farm._workers[1].held.values()
    )


def test_attachments_of_results_go_to_their_own_results_the_late_ones_too() -> None:
    play = Play(peers=1, runners=3)
    first, second, third = play.submit("a", "b", "c")
    play.fleet.withdraw({second.aid})
    segments = [private(size) for size in (1, 2, 3, 4)]
    play.hear(1, done(first, more=1), done(second, more=2), done(third, more=1), attachments=segments)
    received: list[tuple[Any, list[Segment]]] = [(d.task, list(beside)) for d, _, _, beside, _ in play.inbox]
    assert received == [("a", [segments[0]]), ("c", [segments[3]])]


def test_results_go_to_the_inbox_of_whoever_sent_the_task() -> None:
    play = Play(peers=1, runners=2)
    (mine,) = play.submit("a")
    other: deque[Answer] = deque()
    aid = next(play.fleet.aids)
    theirs = Delivery(aid, play.fid, play.submit("b")[0].task, b"", (), other)
    play.fleet.submit([theirs])
    play.hear(1, ACK, ACK, done(mine))
    play.hear(1, done(theirs))
    assert [d.aid for d, *_ in play.inbox] == [mine.aid]
    assert [d.aid for d, *_ in other] == ([theirs.aid] if theirs.worker == 1 else [])


@pytest.mark.parametrize("number", [0, 999])
def test_a_result_of_an_attempt_that_nobody_knows_is_dropped(number: int) -> None:
    play = Play(peers=1)
    play.hear(1, HEADER.pack(number, 0, 0, 1, 0.5, wire.DONE, 0) + b"x")
    play.end()


def test_what_is_withdrawn_is_forgotten_here_and_dropped_there() -> None:
    play = Play(peers=2)
    first, second, waiting = play.submit("a", "b", "c")
    play.sent()
    play.fleet.withdraw({first.aid, second.aid, waiting.aid})
    assert play.sent() == [
        (1, wire.DROP, first.aid.to_bytes(8, "little")),
        (2, wire.DROP, second.aid.to_bytes(8, "little")),
    ]
    play.hear(1, record(wire.ACK, aid=1), done(first))
    assert play.fleet.outstanding == 0
    play.end()


def test_what_a_worker_holds_behind_what_runs_is_asked_back_once_and_comes_back_as_lost() -> None:
    """Of those that hold no more than they can run, nothing is asked."""
    play = Play(peers=2)
    for lesson in play.submit("a", "b"):
        worker = lesson.worker
        play.hear(worker, ACK, HEADER.pack(lesson.aid, 0, 0, 0, 0.000001, wire.DONE, 0))
    made = play.submit(*"cdefgh")
    late = [delivery for delivery in made if delivery.worker == 2]
    assert len(late) > 1, "several are with each"
    play.sent()
    play.received()
    play.hear(1, *[done(delivery) for delivery in made if delivery.worker == 1][:-1])
    play.received()
    aids = {delivery.aid for delivery in made}
    play.fleet.ask_back(aids)
    play.fleet.ask_back(aids)
    wanted = b"".join(delivery.aid.to_bytes(8, "little") for delivery in late)
    assert play.sent() == [(2, wire.HAND_BACK, wanted)]
    unknown = 10**9
    play.hear(2, record(wire.NOT_BEGUN, pickle.dumps([*[delivery.aid for delivery in late[1:]], unknown])))
    words = pickle.dumps(("the job is being drained", False), 5)
    assert play.received() == [(delivery.task, LOST, words, 2) for delivery in late[1:]]
    play.hear(2, ACK, *[done(delivery) for delivery in late])
    assert [(task, kind) for task, kind, _, _ in play.received()] == [(late[0].task, wire.DONE)]
    play.end()


def test_a_worker_hands_back_what_waits_to_run_in_the_rank_itself() -> None:
    read, write = os.pipe()
    worker = Worker(cast(Zygote, SimpleNamespace(fd=read)), 1)
    head = b"".join(HEADER.pack(aid, aid, 1, 0, 0.0, wire.TASK_RANK, 0) for aid in (5, 6, 7))
    worker.receive(bytearray(head), [])
    numbers = b"".join(aid.to_bytes(8, "little") for aid in (6, 7, 8))
    worker.receive(bytearray(record(wire.HAND_BACK, numbers)), [])
    answer, _ = worker.take(acknowledge=False)
    said = [(kind, answer[start:end]) for _, _, _, _, kind, _, start, end in records(answer)]
    assert [(kind, pickle.loads(text)) for kind, text in said if kind == wire.NOT_BEGUN] == [(wire.NOT_BEGUN, [6, 7])]
    assert [task.aid for task in worker._in_rank] == [5]
    os.close(read)
    os.close(write)


def test_messages_that_are_no_tasks_do_not_loosen_the_limit_when_they_are_acknowledged() -> None:
    """With a real worker at the other end, which says what it says of settings and drops."""
    read, write = os.pipe()
    worker = Worker(cast(Zygote, SimpleNamespace(fd=read)), 1)
    play = Play(peers=1)

    def exchange() -> None:
        sent, play.comm.sent = play.comm.sent, []
        for _, head, _ in sent:
            worker.receive(bytearray(head), [])
        answer, _ = worker.take(acknowledge=True)
        play.hear(1, answer)

    for runners in (2, 3, 9):
        play.fleet.configure(runners, play.fleet.comm.peers)
        exchange()
    (dropped,) = play.submit("a")
    exchange()
    play.fleet.withdraw({dropped.aid})
    exchange()
    bulks = 0
    for name in "bcde":
        play.submit(name)
        bulks += bool(play.sent())
    assert bulks == 2, "two unacknowledged messages are the limit"
    os.close(read)
    os.close(write)


def test_what_tasks_print_is_handed_on_with_the_names_of_their_functions() -> None:
    play = Play(peers=1)
    lines = [(7, play.fid, 1, b"out", 0), (8, 999, 2, b"err", 5)]
    play.hear(1, record(wire.OUTPUT, pickle.dumps(lines)))
    assert play.printed == [(1, 7, "add", 1, b"out", 0), (1, 8, "?", 2, b"err", 5)]


def test_workers_are_called_by_rank_and_host() -> None:
    play = Play(peers=2)
    assert play.fleet.where(2) == "rank 2 on node2"
    assert play.fleet.where(5) == "rank 5 on ?"


def test_a_worker_that_has_not_reported_is_given_nothing() -> None:
    comm = Paper(2)
    play = Play.__new__(Play)
    play.comm, play.printed, play.inbox = comm, [], deque()
    play.fleet = Fleet(comm, {}, print)
    play.fid = play.fleet.register("add", b"function")
    play.fleet.configure(1, play.fleet.comm.peers)
    play.sent()
    play.submit("a", "b")
    assert play.sent() == []
    play.hear(2, record(wire.HELLO, pickle.dumps({"host": "late"})))
    assert play.sent() == [(2, wire.FUNCTION, b"function"), (2, wire.TASK, b"a")]
    play.end()


# --- pools, priorities, functions that go ---------------------------------------------------------------------


def tasks_sent(play: Play) -> list[tuple[int, bytes]]:
    """Worker and payload of each task that was sent since the last look."""
    return [(peer, payload) for peer, kind, payload in play.sent() if kind == wire.TASK]


def test_what_waits_in_a_pool_goes_to_its_workers_and_by_priority() -> None:
    play = Play(peers=3)
    pool = play.fleet.pool([2], None)
    first, less, more = (play.deliveries(name) for name in ("first", "less", "more"))
    play.fleet.submit(first, pool)
    play.fleet.submit(less, pool, 5)
    play.fleet.submit(more, pool, -5)
    play.check()
    assert tasks_sent(play) == [(2, b"first")]
    play.hear(2, record(wire.ACK, aid=1), done(first[0]))
    assert tasks_sent(play) == [(2, b"more")]
    play.hear(2, record(wire.ACK, aid=1), done(more[0]))
    assert tasks_sent(play) == [(2, b"less")]


def test_a_pool_of_everyone_is_the_one_of_all() -> None:
    play = Play(peers=3)
    assert play.fleet.pool([1, 2, 3], None) == 0
    assert play.fleet.pool([1, 2], None) != 0
    assert play.fleet.pool([1, 2, 3], 0) != 0


@pytest.mark.parametrize("priority", [0, 3])
def test_what_no_worker_has_can_be_revoked_and_is_never_sent(priority: int) -> None:
    play = Play(peers=1)
    (first,) = play.submit("first")
    (second,) = play.deliveries("second")
    play.fleet.submit([second], 0, priority)
    assert not play.fleet.revoke(first)
    assert play.fleet.revoke(second)
    play.check()
    assert tasks_sent(play) == [(1, b"first")]
    play.hear(1, record(wire.ACK, aid=1), done(first))
    assert play.sent() == []
    play.submit("third")
    assert tasks_sent(play) == [(1, b"third")]


def test_a_function_that_goes_is_dropped_by_the_workers_that_have_it_and_no_others() -> None:
    play = Play(peers=2)
    (delivery,) = play.submit("task")
    ((worker, _),) = tasks_sent(play)
    play.hear(worker, record(wire.ACK, aid=1), done(delivery))
    play.fleet.forget(play.fid)
    assert play.sent() == [], "it may come in the midst of anything, and is only noted"
    play.fid = play.fleet.register("other", b"other")
    play.submit("next", "another")
    said = play.sent()
    assert {peer for peer, kind, _ in said if kind == wire.TASK} == {1, 2}
    told = [(peer, kind) for peer, kind, _ in said if peer == worker]
    assert told == [(worker, wire.FORGET), (worker, wire.FUNCTION), (worker, wire.TASK)], "with what it is sent next"
    assert [peer for peer, kind, _ in said if kind == wire.FORGET] == [worker]
    assert len(play.fleet._functions) == len(play.fleet._names) == 1
