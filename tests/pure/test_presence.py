"""Who is heard of, with a clock that a test moves as it likes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mpiflow.farm.presence import Presence


def listening(presence: Presence, start: float, end: float, heard: tuple[int, ...] = ()) -> dict[int, float]:
    """Look as often as rank 0 does, from one time to another; who is judged lost, and when for the first time."""
    lost: dict[int, float] = {}
    steps = round((end - start) / presence.every)
    for step in range(steps + 1):
        now = start + step * presence.every
        for worker in heard:
            presence.heard(worker, now)
        for worker, _ in presence.judge(now):
            lost.setdefault(worker, now)
    return lost


def test_a_worker_that_is_silent_for_too_long_is_lost_and_others_are_not() -> None:
    presence = Presence(silence=10.0, report=60.0)
    for worker in (1, 2):
        presence.heard(worker, 100.0)
    lost = listening(presence, 100.0, 120.0, heard=(1,))
    assert list(lost) == [2]
    assert 110.0 < lost[2] <= 110.0 + 2 * presence.every


def test_one_that_is_forgotten_is_judged_again_once_it_is_heard_of() -> None:
    presence = Presence(silence=10.0, report=60.0)
    presence.heard(1, 0.0)
    assert list(listening(presence, 0.0, 12.0)) == [1]
    presence.forget(1)
    assert listening(presence, 13.0, 40.0) == {}
    presence.heard(1, 41.0)
    assert list(listening(presence, 41.0, 60.0)) == [1]


def test_an_exempt_worker_may_be_silent_for_ever() -> None:
    presence = Presence(silence=10.0, report=60.0)
    presence.heard(1, 0.0)
    presence.exempt.add(1)
    presence.answered.add(1)
    assert listening(presence, 0.0, 1000.0) == {}


def test_time_in_which_nobody_listened_does_not_count() -> None:
    """A suspended job, a script that computes for an hour, a clock that jumps: nobody is lost by that alone."""
    presence = Presence(silence=10.0, report=60.0)
    presence.expect([2], 0.0)
    presence.heard(1, 0.0)
    listening(presence, 0.0, 5.0)
    assert presence.judge(3605.0) == []
    assert presence.missing(3605.0) == []
    lost = listening(presence, 3605.0, 3620.0)
    assert list(lost) == [1], "and then it has what was left of its time"
    assert 3610.0 <= lost[1] <= 3610.0 + 3 * presence.every


@given(
    gaps=st.lists(st.floats(min_value=0.0, max_value=1e6), min_size=1, max_size=50),
    beats=st.lists(st.booleans(), min_size=50, max_size=50),
)
def test_whatever_the_clock_does_nobody_is_lost_who_spoke_between_two_looks(
    gaps: list[float], beats: list[bool]
) -> None:
    presence = Presence(silence=10.0, report=60.0)
    now = 0.0
    presence.heard(1, now)
    presence.judge(now)
    looks = 0
    for gap, beat in zip(gaps, beats, strict=False):
        now += gap
        looks += 1
        if beat:
            presence.heard(1, now)
            looks = 0
        lost = presence.judge(now)
        # Each look adds two intervals of silence at most, however long ago the one before it was.
        assert not lost or looks * 2 * presence.every > presence.silence


def test_workers_that_do_not_report_are_named_once() -> None:
    presence = Presence(silence=10.0, report=60.0)
    presence.expect([1, 2, 3], 0.0)
    presence.reported(2)
    missing = []
    for second in range(100):
        presence.judge(float(second))
        missing += presence.missing(float(second))
    assert missing == [1, 3]
    assert not presence.awaits(1)
