"""The watchdog: when it speaks, and what it says when it cannot tell."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest
from fakes import eventually

from mpiflow.monitor.watchdog import Watchdog


class Farm:
    """Something that may stall, and a watchdog of it that looks after ten seconds."""

    def __init__(self, after: float = 10.0) -> None:
        self.mark: Hashable | None = 0
        self.lines = ["task 7 (simulate): rank 3 on n5 has it", "and more"]
        self.logged: list[str] = []
        self.dog = Watchdog(after, lambda: self.mark, lambda: self.lines, self.logged.append)

    def spoke_at(self, times: range) -> list[int]:
        """At which of these seconds it spoke."""
        spoke = []
        for second in times:
            before = len(self.logged)
            self.dog.look(float(second))
            if len(self.logged) > before:
                spoke.append(second)
        return spoke


def test_it_speaks_once_in_a_stall_and_again_at_growing_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    farm = Farm()
    assert farm.spoke_at(range(100)) == [10, 20, 40, 80]
    err = capsys.readouterr().err
    assert err.startswith("mpiflow: no progress for 10 s:\n  task 7 (simulate): rank 3 on n5 has it\n  and more\n")
    assert "mpiflow: no progress for 80 s:" in err


def test_what_it_says_is_logged_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    farm = Farm()
    farm.spoke_at(range(11))
    assert farm.logged == ["no progress for 10 s:", "  task 7 (simulate): rank 3 on n5 has it", "  and more"]


def test_progress_begins_the_time_anew(capsys: pytest.CaptureFixture[str]) -> None:
    farm = Farm()
    assert farm.spoke_at(range(9)) == []
    farm.mark = 1
    assert farm.spoke_at(range(9, 18)) == []
    assert farm.spoke_at(range(18, 40)) == [19, 29]
    farm.mark = 2
    assert farm.spoke_at(range(40, 60)) == [50]


def test_where_nothing_is_waited_for_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    farm = Farm()
    farm.mark = None
    assert farm.spoke_at(range(100)) == []
    farm.mark = 3
    assert farm.spoke_at(range(100, 109)) == [], "the time in which there was nothing to wait for does not count"


def test_no_words_are_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    farm = Farm()
    farm.lines = []
    assert farm.spoke_at(range(100)) == []
    assert capsys.readouterr().err == ""


def test_its_thread_speaks_by_itself_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    farm = Farm(after=0.03)
    farm.dog.start()
    assert eventually(lambda: len(farm.logged) >= 6), "it speaks a second time"
    farm.dog.close()
    assert farm.dog._thread is not None
    assert not farm.dog._thread.is_alive()


def test_a_failure_while_it_looks_is_said_and_it_looks_again(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[int] = []
    logged: list[str] = []

    def mark() -> Any:
        calls.append(1)
        raise RuntimeError("dictionary changed size")

    dog = Watchdog(0.03, mark, list, logged.append)
    dog.start()
    assert eventually(lambda: len(calls) > 1)
    dog.close()
    assert logged[0] == "the watchdog cannot tell what is waited for: RuntimeError('dictionary changed size')"
    assert f"mpiflow: {logged[0]}\n" in capsys.readouterr().err
