"""`mpiflow submit` where nothing can be written: the directory of the job, and that in which it runs."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from launching import inherited

if TYPE_CHECKING:
    from launching import Mpiexec

pytestmark = pytest.mark.timeout(240)

#: Of Linux: a capability is dropped for good from what a process may ever have; those by which root may write anywhere.
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


def as_anybody() -> None:
    """Be bound by the permissions of files, as root is not."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        if os.geteuid() == 0 and libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "this root cannot give up its rights")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory with a script, in which nothing can be made."""
    made = tmp_path / "read-only"
    made.mkdir()
    (made / "script.py").write_text("import mpiflow; print('sum', sum(mpiflow.map(abs, [-1, 2])))\n")
    made.chmod(0o555)
    yield made
    made.chmod(0o755)


def types(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Type a command of mpiflow, as somebody who is bound by permissions."""
    return subprocess.run(
        [sys.executable, "-m", "mpiflow", *words],
        cwd=place, env=inherited(), capture_output=True, text=True, timeout=150, check=False, preexec_fn=as_anybody,
    )  # fmt: skip


def test_submit_says_what_cannot_be_made_and_what_to_do(place: Path) -> None:
    ran = types(place, "submit", "--system", "fork", "script.py")
    assert ran.returncode == 2, ran
    words = f"the directory of the job, {place}/runinfo, cannot be made: Permission denied; name another place by --out"
    assert words in ran.stderr


def test_a_job_that_runs_in_such_a_directory_says_where_it_cannot_write(place: Path, tmp_path: Path) -> None:
    """What the farm and its supervisor tell each other lies where the job runs, for all nodes see that."""
    options = ("--system", "fork", "--ranks-per-node", "2", "--output", str(tmp_path / "jobs"), "--wait")
    ran = types(place, "submit", *options, "script.py")
    assert ran.returncode == 2, ran
    assert cannot_write(place) in ran.stderr, ran
    assert "Traceback" not in ran.stderr, ran


def cannot_write(place: Path) -> str:
    return (
        f"mpiflow supervise: the current directory, {place}, cannot be written: Permission denied; rank 0 tells there "
        "how it ends. Start it in a directory that you may write and that all nodes see\n"
    )


def test_supervise_says_which_directory_it_has_to_write(place: Path, launcher: Mpiexec) -> None:
    ran = types(place, "supervise", "--", *launcher.line(2), sys.executable, "-m", "mpiflow", "script.py")
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", cannot_write(place))


def test_supervise_in_a_directory_that_is_no_more(place: Path, launcher: Mpiexec) -> None:
    command = f"{sys.executable} -m mpiflow supervise -- {launcher.path} -n 2 true"
    line = f"cd {place}/gone && rmdir {place}/gone && exec {command}"
    place.chmod(0o755)
    (place / "gone").mkdir()
    ran = subprocess.run(["sh", "-c", line], env=inherited(), capture_output=True, text=True, timeout=60, check=False)
    words = "mpiflow supervise: the current directory cannot be written: No such file or directory; rank 0 tells there"
    assert ran.returncode == 2, ran
    assert words in ran.stderr
