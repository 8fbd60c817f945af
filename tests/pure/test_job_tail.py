"""What jobs print, read on from where it was left."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpiflow.jobs.tail import Tail


def test_it_reads_on_and_finds_new_files(tmp_path: Path) -> None:
    first, second = tmp_path / "a.out", tmp_path / "b.out"
    first.write_bytes(b"one\n")
    tail = Tail(lambda: sorted(tmp_path.iterdir()))
    assert tail.read() == [(first, b"one\n")]
    assert tail.read() == []
    with open(first, "ab") as file:
        file.write(b"tw")
    second.write_bytes(b"new\n")
    assert tail.read() == [(first, b"tw"), (second, b"new\n")]


def test_a_file_that_was_cut_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "a.out"
    path.write_bytes(b"a long line\n")
    tail = Tail(lambda: [path])
    tail.read()
    path.write_bytes(b"new\n")
    assert tail.read() == [(path, b"new\n")]


def test_a_file_that_goes_away_in_between(tmp_path: Path) -> None:
    assert Tail(lambda: [tmp_path / "none"]).read() == []


LINES = st.lists(
    st.binary(max_size=5).map(lambda line: bytes(byte for byte in line if byte not in b"\r\n")), max_size=8
)


@given(lines=LINES, last=st.integers(0, 9))
def test_the_last_lines(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], last: int) -> None:
    path = tmp_path_factory.getbasetemp() / "last.out"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    found = b"".join(text for _, text in Tail(lambda: [path], last).read())
    assert found == b"".join(line + b"\n" for line in (lines[-last:] if last else []))
