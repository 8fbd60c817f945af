"""The run directory: a place of its own for each run, and the log in it."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest
from fakes import LONG, in_thread

import mpiflow
from mpiflow.monitor.rundir import RunDirectory, logger


def test_runs_are_numbered_from_zero(tmp_path: Path) -> None:
    parent = tmp_path / "deep" / "runinfo"
    paths = []
    for _ in range(3):
        run = RunDirectory(parent, enabled=True)
        paths.append(run.path)
        run.close()
    assert paths == [str(parent / name) for name in ("000", "001", "002")]
    assert sorted(os.listdir(parent)) == ["000", "001", "002"]


@pytest.mark.parametrize(
    ("there", "following"),
    [
        ([], "000"),
        (["007"], "008"),
        (["999"], "1000"),
        (["1000", "2"], "1001"),
        (["notes.txt", "x12"], "000"),
    ],
)
def test_the_next_number_is_above_all_that_are_there(
    tmp_path: Path, there: list[str], following: str
) -> None:
    for name in there:
        (tmp_path / name).mkdir()
    run = RunDirectory(tmp_path, enabled=True)
    run.close()
    assert os.path.basename(run.path) == following


def test_runs_that_start_together_get_a_directory_each(tmp_path: Path) -> None:
    paths: list[str] = []

    def start() -> None:
        run = RunDirectory(tmp_path, enabled=True)
        paths.append(run.path)
        run.close()

    threads = [in_thread(start) for _ in range(8)]
    for thread in threads:
        thread.join(LONG)
    assert len(set(paths)) == 8


def test_a_directory_may_be_named_exactly_and_used_again(tmp_path: Path) -> None:
    here = tmp_path / "here"
    for _ in range(2):
        run = RunDirectory(tmp_path, enabled=True, exactly=str(here))
        run.close()
        assert run.path == str(here)
    assert (here / "mpiflow.log").read_text().count("command:") == 2


def test_without_logging_nothing_is_written(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "runinfo", enabled=False)
    run.log("not to be seen")
    run.close()
    assert os.listdir(tmp_path) == []


def test_without_logging_a_directory_is_made_when_it_is_asked_for(tmp_path: Path) -> None:
    """For checkpoints and for what tasks write."""
    runs = [RunDirectory(tmp_path, enabled=False) for _ in range(2)]
    assert [runs[1].path, runs[0].path, runs[1].path] == [str(tmp_path / name) for name in ("000", "001", "000")]
    assert os.listdir(tmp_path / "000") == []
    exactly = RunDirectory(tmp_path, enabled=False, exactly=str(tmp_path / "here"))
    assert exactly.path == str(tmp_path / "here")
    assert os.path.isdir(exactly.path)


def test_the_path_stays_when_the_script_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunDirectory("runinfo", enabled=True)
    run.close()
    assert run.path == str(tmp_path / "runinfo" / "000")


def test_the_log_says_what_ran_and_what_was_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", "--steps", "3"])
    run = RunDirectory(tmp_path, enabled=True)
    run.log("task %d failed: %r", 7, ValueError("x"))
    run.log("100 % sure")
    run.close()
    run.log("after the end")
    log = Path(run.path, "mpiflow.log").read_text()
    assert f"mpiflow {mpiflow.__version__}, Python" in log
    assert f"pid {os.getpid()}" in log
    assert "command: script.py --steps 3" in log
    assert "task 7 failed: ValueError('x')" in log
    assert "100 % sure" in log
    assert "ended after 0.0 s" in log
    assert "after the end" not in log


def test_the_log_is_closed_and_its_handler_taken_away(tmp_path: Path) -> None:
    before = list(logger.handlers)
    run = RunDirectory(tmp_path, enabled=True)
    assert len(logger.handlers) == len(before) + 1
    run.close()
    run.close()
    assert logger.handlers == before


def test_a_scripts_own_handlers_hear_it_too(tmp_path: Path) -> None:
    class Hearing(logging.Handler):
        def __init__(self) -> None:
            super().__init__()
            self.heard: list[str] = []

        def emit(self, record: logging.LogRecord) -> None:
            self.heard.append(record.getMessage())

    own, root = Hearing(), Hearing()
    logger.addHandler(own)
    logging.getLogger().addHandler(root)
    try:
        run = RunDirectory(tmp_path, enabled=True)
        run.log("something")
        run.close()
    finally:
        logger.removeHandler(own)
        logging.getLogger().removeHandler(root)
    assert "something" in own.heard
    assert root.heard == own.heard


def test_two_runs_of_one_process_do_not_write_into_each_others_log(tmp_path: Path) -> None:
    runs = [RunDirectory(tmp_path, enabled=True) for _ in range(2)]
    for place, run in enumerate(runs):
        run.log("said by run %d", place)
    for run in runs:
        run.close()
    logs = [Path(run.path, "mpiflow.log").read_text() for run in runs]
    assert ["said by run 0" in log for log in logs] == [True, False]
    assert ["said by run 1" in log for log in logs] == [False, True]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o027, 0o750), (0o077, 0o700)])
def test_modes_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        run = RunDirectory(tmp_path / "runinfo", enabled=True)
        run.close()
    finally:
        os.umask(before)
    assert os.stat(run.path).st_mode & 0o777 == mode
    assert os.stat(os.path.join(run.path, "mpiflow.log")).st_mode & 0o777 == mode & 0o666
