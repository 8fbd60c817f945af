"""What tasks print, on the console of rank 0."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from mpiflow.monitor import console as module
from mpiflow.monitor.console import MOST_LINES, Console


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that it is, to be set."""
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.mark.parametrize(
    ("worker", "prefix"),
    [(3, "[task 7 add, rank 3] "), (0, "[task 7 add] ")],
    ids=["a rank", "a lone process"],
)
def test_each_line_says_where_it_comes_from(
    worker: int, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Console().printed(worker, 7, "add", 1, b"one\ntwo\n", 0)
    assert capsys.readouterr().out == f"{prefix}one\n{prefix}two\n"


def test_output_and_errors_stay_apart(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.printed(1, 7, "add", 1, b"out\n", 0)
    console.printed(1, 7, "add", 2, b"err\n", 0)
    assert capsys.readouterr() == ("[task 7 add, rank 1] out\n", "[task 7 add, rank 1] err\n")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"no end", ["no end"]),
        (b"\n\n", ["", ""]),
        ("schön ☃".encode(), ["schön ☃"]),
        (b"\xff\xfe", ["\\xff\\xfe"]),
        (b"a\r\nb", ["a", "b"]),
    ],
)
def test_whatever_was_printed_is_shown_as_lines(
    text: bytes, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Console().printed(0, 1, "f", 1, text, 0)
    assert capsys.readouterr().out.split("\n")[:-1] == [f"[task 1 f] {line}" for line in lines]


def test_what_the_worker_left_out_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    Console().printed(0, 1, "f", 1, b"begin\n", 12_345)
    assert (
        capsys.readouterr().out == "[task 1 f] begin\n[task 1 f] … and 12,345 bytes more that are not shown\n"
    )


def test_more_lines_than_a_person_reads_are_counted(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console()
    for _ in range(3):
        console.printed(0, 1, "f", 1, b"line\n" * 100, 0)
    out, err = capsys.readouterr()
    assert (out.count("\n"), err) == (MOST_LINES, "")
    clock[0] += 1
    console.printed(0, 1, "f", 1, b"line\n", 0)
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert err == f"mpiflow: 100 lines printed by tasks are not shown (over {MOST_LINES} a second)\n"
    console.tell_left_out()
    assert capsys.readouterr().err == "", "told once"


def test_what_was_not_shown_in_the_last_second_is_told_at_the_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console()
    console.printed(0, 1, "f", 2, b"line\n" * (MOST_LINES + 5), 0)
    capsys.readouterr()
    console.tell_left_out()
    assert capsys.readouterr().err.startswith("mpiflow: 5 lines")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_console_that_cannot_show_a_character_shows_something(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never an exception: it would come out of whatever the script waits in."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    Console().printed(0, 1, "größe", 1, "snow ☃\n".encode(), 3)
    assert b"snow" in raw.getvalue()
    assert b"3 bytes more" in raw.getvalue()


class _Gone(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("kind", ["closed", "none", "broken pipe"])
def test_a_console_that_is_gone_harms_nobody(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``python -m mpiflow script.py | head``, a script that closes its output, a start without one."""
    stream = {"closed": io.StringIO(), "none": None, "broken pipe": _Gone()}[kind]
    if kind == "closed" and stream is not None:
        stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    console = Console()
    console.printed(0, 1, "f", 1, b"line\n" * (MOST_LINES + 1), 3)
    console.printed(0, 1, "f", 2, b"line\n", 0)
    console.tell_left_out()
