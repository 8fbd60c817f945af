"""What a worker has said before it died, and is read when its death is known."""

from __future__ import annotations

import pickle

import pytest
from test_losses import LossyPlay, done, given_back, tasks_of

from mpiflow.comm import wire
from mpiflow.comm.wire import record


def _greeting(peer: int) -> tuple[int, bytearray, list[object]]:
    return peer, bytearray(record(wire.HELLO, pickle.dumps({"host": f"node{peer}"}))), []


class Unheard(LossyPlay):
    """Workers of which none has reported yet."""

    def __init__(self) -> None:
        super().__init__()
        for peer in self.comm.peers:  # the base class has greeted them for another fleet
            assert peer not in self.fleet._farm.workers


@pytest.mark.parametrize("order", ["in one round", "death first"])
def test_a_worker_that_dies_as_it_reports_gets_nothing(order: str) -> None:
    play = Unheard()
    play.comm.lost.append(2)
    if order == "death first":
        play.fleet.pump()
    play.comm.arriving += [_greeting(peer) for peer in (1, 2, 3)]  # type: ignore[misc]
    play.fleet.pump()
    assert sorted(play.fleet._farm.workers) == [1, 3]
    play.submit("a", "b", "c", "d")
    assert set(tasks_of(play)) == {1, 3}


def test_a_result_that_came_before_the_death_counts() -> None:
    """It need not be computed again."""
    play = LossyPlay()
    play.greet()
    made = {delivery.task: delivery for delivery in play.submit("a", "b", "c")}
    (held,) = tasks_of(play)[2]
    play.comm.lost.append(2)
    play.comm.arriving.append((2, bytearray(done(made[held], b"result")), []))
    play.fleet.pump()
    assert [(task, kind, payload) for task, kind, payload, _ in play.received()] == [(held, wire.DONE, b"result")]
    assert given_back(play) == []
