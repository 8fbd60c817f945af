"""Jobs that have left the queue of a real Slurm which keeps no accounts: how they ended is known by their own files."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from batch_systems import BatchSystem
from desk import SLURM, Desk

pytestmark = pytest.mark.timeout(400)

#: Seconds in which Slurm looks for jobs to forget: once a minute.
FORGOTTEN_WITHIN = 200.0
ENDS_WITH = "import sys; sys.exit(int(sys.argv[1]))"
#: Member 1 fails at once, member 2 waits for a gate.
MEMBER = """
import os, sys, time
if os.environ["MPIFLOW_ARRAY_INDEX"] == "1":
    sys.exit(3)
while not os.path.exists("gate"):
    time.sleep(0.1)
"""


def in_queue(slurm: BatchSystem, job: str) -> str:
    """What the queue has of a job; nothing, when it has forgotten it."""
    line = ["squeue", "--noheader", "--states=all", f"--jobs={job}"]
    asked = subprocess.run(line, env=slurm.environment, capture_output=True, text=True, timeout=60, check=False)
    assert asked.returncode == 0 or "Invalid job id" in asked.stderr, asked.stderr
    return asked.stdout.strip()


def forgets(slurm: BatchSystem, job: str, but: str = "") -> None:
    """Wait until the queue knows a job no more, or of an array only this member."""
    end = time.monotonic() + FORGOTTEN_WITHIN
    while (said := in_queue(slurm, job)) and not (but and said.count("\n") == 0 and f" {but} " in f" {said} "):
        assert time.monotonic() < end, said
        time.sleep(1)


@pytest.fixture
def user(forgetful_slurm: BatchSystem, tmp_path: Path) -> Desk:
    """A user where nobody keeps accounts."""
    line = ["sacct"]
    asked = subprocess.run(
        line, env=forgetful_slurm.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "accounting storage is disabled" in asked.stderr, "else these tests show nothing"
    return Desk(forgetful_slurm, tmp_path, *SLURM)


def test_how_they_ended_is_known_without_accounts(user: Desk) -> None:
    codes = {user.submits("--nodes", "1", "script.py", code, text=ENDS_WITH): code for code in ("0", "7")}
    for job in codes:
        user.reaches(job, "done|failed|cancelled")
        forgets(user.system, job)
    well, failed = codes
    assert user.state(well) == "done (as its script has left word)"
    assert user.state(failed) == "failed with code 7 (as its script has left word)"
    assert "supervise: the script ended with code 7" in user.types("logs", failed)[0], (
        "what it printed is still to be seen"
    )
    assert "has ended before" in user.types("cancel", well)[0]
    assert user.types("jobs")[0].count("as its script has left word") == 2


def test_a_member_that_failed_long_ago_still_counts(user: Desk) -> None:
    """The queue forgets the members of an array one by one."""
    job = user.submits("--nodes", "1", "--ranks-per-node", "1", "--array", "1-2", "script.py", text=MEMBER)
    forgets(user.system, job, but=f"{job}_2")
    assert user.state(job).startswith("running")
    (user.place / "gate").touch()
    assert user.reaches(job, "done|failed|cancelled|it is not").startswith("failed with code 3"), str(user)
    forgets(user.system, job)
    assert user.state(job) == "failed with code 3 (as its script has left word)"
