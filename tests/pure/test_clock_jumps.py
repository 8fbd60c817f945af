"""Clocks that jump: a job that was suspended, a rank 0 that was stopped, a script that computed for an hour.

The farm itself takes no clock. What judges silence is told the time, so any clock can be played here.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mpiflow
from mpiflow.farm.presence import Presence

SILENCE = 15.0
HOUR = 3600.0


def _listened(presence: Presence, begin: float, seconds: float, *speaking: int) -> list[int]:
    """Rank 0 listens, and these workers say something each second; who is lost in the end."""
    lost: list[int] = []
    for second in range(1, int(seconds) + 1):
        now = begin + second
        for worker in speaking:
            presence.heard(worker, now)
        lost = [worker for worker, _ in presence.judge(now)]
    return lost


@given(st.lists(st.floats(0.0, 100 * HOUR), max_size=20))
def test_nobody_is_lost_by_a_jump(jumps: list[float]) -> None:
    """However long nobody listened, whoever speaks again when they do is there."""
    presence, now = Presence(SILENCE, 60.0), 0.0
    _listened(presence, now, 3, 1, 2)
    for jump in jumps:
        now += 3 + jump
        # Rank 0 looks before the first message is read.
        assert presence.judge(now) == []
        assert _listened(presence, now, 3, 1, 2) == []


@pytest.mark.parametrize("jump", [2.0, 60.0, HOUR, 100 * HOUR])
@pytest.mark.parametrize("order", ["judged first", "heard first"])
def test_a_worker_that_dies_after_a_jump_is_found_as_soon_as_ever(jump: float, order: str) -> None:
    """The time of a jump is taken off a silence, and not given on top of what comes after it."""
    presence = Presence(SILENCE, 60.0)
    _listened(presence, 0.0, 5, 1, 2)
    now = 5.0 + jump
    if order == "judged first":
        presence.judge(now)
    for worker in (1, 2):
        presence.heard(worker, now)
    presence.judge(now)
    assert _listened(presence, now, SILENCE - 2, 1) == []
    assert _listened(presence, now + SILENCE - 2, 5, 1) == [2]


def test_silence_before_and_after_a_jump_adds_up() -> None:
    """A jump is not a sign of life."""
    presence = Presence(SILENCE, 60.0)
    _listened(presence, 0.0, 2, 1, 2)
    assert _listened(presence, 2.0, 10, 1) == []
    assert _listened(presence, 12.0 + HOUR, 10, 1) == [2]


def test_whoever_is_yet_to_report_is_not_late_by_a_jump() -> None:
    presence = Presence(SILENCE, 60.0)
    presence.expect([1], 0.0)
    _listened(presence, 0.0, 5)
    presence.judge(HOUR)
    assert presence.missing(HOUR) == []
    _listened(presence, HOUR, 70)
    assert presence.missing(HOUR + 70) == [1]


@pytest.mark.parametrize("room", ["farm", "comm", "worker", "executors"])
def test_nothing_that_waits_goes_by_the_time_of_day(room: str) -> None:
    """That clock is set by people and by NTP, forward and back; `time.monotonic` is not."""
    source = Path(mpiflow.__file__).parent / room
    for path in source.rglob("*.py"):
        if path.name != "usage.py":  # which tells the time of day, and waits for nothing
            assert not re.search(r"\btime\.time\(|from time import .*\btime\b", path.read_text()), path
