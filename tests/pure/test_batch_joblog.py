"""The joblog: what is written, what is read again, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpiflow.cli.batch.joblog import HEADER, Entry, Joblog, read
from mpiflow.cli.batch.settling import exit_code
from mpiflow.cli.batch.template import BatchError
from mpiflow.exitcodes import DRAINED, NOT_STARTED, RELAUNCH, WORLDS_OF_ONE

WELL = Entry(1, "node01", 1669121213.1234, 0.0021, 2, 0, 0, b"echo a\tb")
BAD = Entry(2, "node02", 1669121214.0, 1234567.5, 0, 3, 0, b"exit 3")
KILLED = Entry(3, "node02", 1669121215.0, 1.0, 0, 0, 9, b"kill -9 $$ # \xff")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A joblog with three jobs in it."""
    log = Joblog(str(tmp_path / "log"), anew=True)
    for entry in (WELL, BAD, KILLED):
        log.add(entry)
    log.close()
    return tmp_path / "log"


def nothing(words: str) -> None:
    raise AssertionError(words)


def test_its_lines_are_those_of_gnu_parallel() -> None:
    assert WELL.line() == b"1\tnode01\t1669121213.123\t     0.002\t0\t2\t0\t0\techo a\tb\n"
    assert BAD.line() == b"2\tnode02\t1669121214.000\t1234567.500\t0\t0\t3\t0\texit 3\n"


def test_what_was_written_is_read(path: Path) -> None:
    found = read(str(path), nothing)
    assert [entry.line() for entry in found.values()] == [WELL.line(), BAD.line(), KILLED.line()]
    assert [entry.failed for entry in found.values()] == [False, True, True]


def test_the_last_entry_of_a_job_counts(path: Path) -> None:
    log = Joblog(str(path), anew=False)
    log.add(BAD._replace(exit_code=0))
    log.close()
    assert not read(str(path), nothing)[2].failed


def test_a_joblog_that_is_not_there_has_nothing_in_it(tmp_path: Path) -> None:
    assert read(str(tmp_path / "none"), nothing) == {}


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_torn_line_is_left_out_and_cut_off(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])
    said: list[str] = []
    assert list(read(str(path), said.append)) == [1, 2]
    assert said == [f"{path}: its last line is not whole; that job is run again"]
    log = Joblog(str(path), anew=False)
    log.add(KILLED)
    log.close()
    assert path.read_bytes() == HEADER + WELL.line() + BAD.line() + KILLED.line()


def test_a_torn_header_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(HEADER[:10])
    Joblog(str(tmp_path / "log"), anew=False).close()
    assert (tmp_path / "log").read_bytes() == HEADER


def test_an_older_joblog_goes_unless_it_is_taken_up(path: Path) -> None:
    Joblog(str(path), anew=True).close()
    assert path.read_bytes() == HEADER


def test_a_damaged_line_is_refused_with_its_number(path: Path) -> None:
    path.write_bytes(HEADER + WELL.line() + b"nonsense\n" + KILLED.line())
    with pytest.raises(BatchError, match=r"line 3 is damaged: b'nonsense' has not the columns of a joblog"):
        read(str(path), nothing)


def test_another_file_is_refused(path: Path) -> None:
    path.write_bytes(b"echo a\necho b\n")
    with pytest.raises(BatchError, match="is no joblog: its first line is b'echo a'"):
        read(str(path), nothing)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="cannot be written: No such file or directory"):
        Joblog(str(tmp_path / "none" / "log"), anew=True)
    with pytest.raises(BatchError, match="Is a directory"):
        read(str(tmp_path), nothing)


def test_a_full_disk_is_said() -> None:
    with pytest.raises(BatchError, match="/dev/full cannot be written"):
        Joblog("/dev/full", anew=False)


def test_the_exit_code_counts_and_never_says_something_else() -> None:
    counts = {failed: exit_code(failed) for failed in range(300)}
    assert counts[0] == 0
    assert counts[1] == 1
    assert counts[100] == 100
    assert {counts[failed] for failed in range(101, 300)} == {101}
    special = {NOT_STARTED, WORLDS_OF_ONE, DRAINED, RELAUNCH}
    assert not special & set(counts.values())
    assert {failed for failed, code in counts.items() if failed <= 101 and code != failed} == special
