"""How far a run has come: on a terminal, and in a log."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpiflow.monitor.progress import BAR_EVERY, LINE_EVERY, Counts, Progress, describe, duration

NOTHING = Counts(0, 0, 0, 0, 0, 0, 1, 0)
SOME = Counts(called=10, done=4, failed=1, running=2, waiting=3, busy=1, workers=2, superstep=7)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("counts", "seconds", "words"),
    [
        (
            NOTHING,
            0.0,
            "0 of 0 tasks done, 0 running, 0 waiting, 0.0 tasks/s, 0 of 1 workers busy, superstep 0",
        ),
        (
            SOME,
            2.5,
            "4 of 10 tasks done, 1 failed, 2 running, 3 waiting, 2.0 tasks/s, 2 s left, 1 of 2 workers busy, "
            "superstep 7",
        ),
        (
            Counts(2_000_000, 1_000_000, 0, 512, 999_488, 16, 16, 12_345),
            10.0,
            "1,000,000 of 2,000,000 tasks done, 512 running, 999,488 waiting, 100,000 tasks/s, 10 s left, "
            "16 of 16 workers busy, superstep 12,345",
        ),
        (
            Counts(3, 3, 0, 0, 0, 0, 2, 5),
            1.0,
            "3 of 3 tasks done, 0 running, 0 waiting, 3.0 tasks/s, 0 of 2 workers busy, superstep 5",
        ),
    ],
    ids=["nothing yet", "some", "many", "all"],
)
def test_the_counts_as_one_line(counts: Counts, seconds: float, words: str) -> None:
    assert describe(counts, seconds) == words


_numbers = st.integers(0, 10**9)


@given(st.builds(Counts, *[_numbers] * 8), st.floats(0, 1e9))
def test_any_counts_are_one_line(counts: Counts, seconds: float) -> None:
    assert "\n" not in describe(counts, seconds)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (119.4, "119 s"),
        (120, "2 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d 0 h"),
        (200_000, "2 d 7 h"),
    ],
)
def test_a_duration_is_for_a_person(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_log_gets_a_line_every_half_minute_and_one_at_the_end() -> None:
    stream = io.StringIO()
    progress = Progress(lambda: SOME, stream)
    start = progress._started
    for second in range(100):
        progress.tick(start + second)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert LINE_EVERY == 30
    assert all(line.startswith("mpiflow: 4 of 10 tasks done, 1 failed") for line in lines)
    progress.close()
    last = stream.getvalue().splitlines()[-1]
    assert last.startswith("mpiflow: 4 tasks done, 1 failed in ")
    assert last.endswith("7 supersteps")


def test_a_short_run_says_nothing() -> None:
    stream = io.StringIO()
    progress = Progress(lambda: SOME, stream)
    progress.tick(progress._started + LINE_EVERY / 2)
    progress.close()
    assert stream.getvalue() == ""


def test_looking_is_cheap_when_it_is_not_time() -> None:
    looks = []

    def counts() -> Counts:
        looks.append(1)
        return SOME

    progress = Progress(counts, io.StringIO())
    for _ in range(1000):
        progress.tick(progress._started)
    assert looks == []


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    pytest.importorskip("rich")
    stream = Terminal()
    progress = Progress(lambda: SOME, stream)
    progress.tick(progress._started + BAR_EVERY / 2)
    assert stream.getvalue() == ""
    progress.tick(progress._started + BAR_EVERY)
    shown = " ".join(stream.getvalue().split())
    assert "4 of 10" in shown
    progress.tick(progress._started + 3 * BAR_EVERY)
    progress.close()
    assert stream.getvalue().splitlines()[-1].endswith("supersteps")


def test_a_terminal_with_no_task_yet_shows_a_bar_too() -> None:
    pytest.importorskip("rich")
    progress = Progress(lambda: NOTHING, Terminal())
    progress.tick(progress._started + BAR_EVERY)
    progress.close()
