"""A disk that is full, or cannot be written at all: the run goes on or does not begin, and says why."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mpiflow.errors import ConfigurationError
from mpiflow.kernel.journal import LARGE
from mpiflow.monitor.logfile import LogFile
from mpiflow.monitor.rundir import RunDirectory


def _record(words: str) -> logging.LogRecord:
    return logging.LogRecord("mpiflow", logging.INFO, __file__, 1, words, None, None)


def test_a_log_on_a_full_disk_ends_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """/dev/full is a disk without room."""
    handler = LogFile("/dev/full")
    for number in range(3):
        handler.handle(_record(f"line {number}"))
    handler.close()
    assert capfd.readouterr().err == (
        "mpiflow: /dev/full: the log cannot be written: No space left on device; it ends here, and the run goes on\n"
    )


def test_another_error_of_a_log_is_shown_as_always(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    handler = LogFile(tmp_path / "log")
    handler.handle(logging.LogRecord("mpiflow", logging.INFO, __file__, 1, "%d", ("no number",), None))
    handler.handle(_record("after it"))
    handler.close()
    assert "--- Logging error ---" in capfd.readouterr().err
    assert (tmp_path / "log").read_text() == "after it\n"


def test_a_run_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    directory = RunDirectory(tmp_path / "file" / "runs", enabled=False)
    with pytest.raises(ConfigurationError) as caught:
        assert directory.path
    assert str(caught.value) == (
        f"the run directory {tmp_path}/file/runs cannot be made: Not a directory; "
        "name another one by --run-dir or Config(run_dir=...)"
    )


def test_half_a_large_result_is_not_left(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    script = f"""
import resource, signal, sys
from mpiflow.kernel.journal import LARGE, JournalWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({LARGE // 2}, {LARGE // 2}))
writer = JournalWriter({str(tmp_path)!r})
writer.add("11" * 16, b"small")
try:
    writer.add("22" * 16, bytes(LARGE + 1))
except OSError as error:
    print(error.strerror)
writer.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "File too large\n"
    assert os.listdir(tmp_path) == ["0000.journal"]
