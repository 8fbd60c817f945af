"""`mpiflow submit`, `status`, `logs` and `cancel` with HTCondor: whole jobs, descriptions read by its own parser."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from standins.standin import Standin

pytestmark = pytest.mark.timeout(240)

pytest.importorskip("classad", reason="PyPI htcondor (23.10) is not installed")

QUICK = "import sys; print('got', sys.argv[1:], flush=True); sys.exit(3)"
FOREVER = "import time; print('here', flush=True); time.sleep(600)"
#: Tasks of a second each in the first life, of no time in the second.
TASKS = """
import sys, mpiflow

@mpiflow.python_app(cache=True)
def numbered(number):
    import os, time
    with open("log", "a") as log:
        log.write(f"{number}\\n")
    if not os.path.exists("second"):
        time.sleep(1)
    return number

print("sum", sum(future.result() for future in [numbered(number) for number in range(int(sys.argv[1]))]), flush=True)
"""


class Pool:
    """A user in front of a pool."""

    def __init__(self, standin: Standin, place: Path) -> None:
        self.standin, self.place = standin, place

    def types(self, *words: str, code: int = 0, limit: float = 150.0) -> str:
        """Type a command of mpiflow; what it printed."""
        ran = subprocess.run(
            [sys.executable, "-m", "mpiflow", *words],
            env=self.standin.environment, cwd=self.place, capture_output=True, text=True, timeout=limit, check=False,
        )  # fmt: skip
        assert ran.returncode == code, f"{ran}\n{self.story()}"
        return ran.stdout + ran.stderr

    def submits(self, text: str, *options: str, arguments: tuple[str, ...] = ()) -> str:
        """Submit a script; the id of the job."""
        (self.place / "script.py").write_text(text)
        said = self.types("submit", "--system", "htcondor", "--ranks-per-node", "2", *options, "script.py", *arguments)
        found = re.match(r"submitted: job (\d+) \(HTCondor\), 2 ranks on 1 node", said)
        assert found, said
        return found[1]

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something."""
        end = time.monotonic() + 90
        while not condition():
            assert time.monotonic() < end, self.story()
            time.sleep(0.1)

    def prints(self, text: str) -> None:
        """Wait until a job prints this."""
        self.until(lambda: any(text in path.read_text() for path in self.place.glob("runinfo/jobs/*/*.out")))

    def story(self) -> str:
        """All that was written, for a failed test."""
        left = [path for path in sorted(self.place.glob("runinfo/jobs/*/*")) if path.suffix not in (".sh", ".sub")]
        return self.standin.story() + "\n".join(f"--- {path}\n{path.read_text()}" for path in left)


@pytest.fixture
def pool(standin: Callable[[str], Standin], tmp_path: Path) -> Pool:
    """A pool of one machine, and a directory."""
    return Pool(standin("htcondor"), tmp_path)


def test_wait(pool: Pool) -> None:
    (pool.place / "script.py").write_text(QUICK)
    pool.standin.environment["CONDOR_CONFIG"] = "/dev/null"  # more than a program: this machine is part of a pool
    said = pool.types("submit", "--ranks-per-node", "2", "--wait", "script.py", "--wait", "a  b", code=3)
    assert "submitted: job 1 (HTCondor)" in said, "found by itself"
    assert "got ['--wait', 'a  b']" in said
    assert "mpiflow: failed with code 3" in said
    assert "job 1 (HTCondor): failed with code 3" in pool.types("status", "1")
    assert "job 1 (HTCondor): failed with code 3" in pool.types("status", "1.0"), "as HTCondor's own tools say it"
    assert "got ['--wait', 'a  b']" in pool.types("logs", "-f", "1")
    assert pool.standin.run("condor_q", "1", "-af", "JobStatus", cwd=pool.place) == "", "it has left the queue"


def test_told_that_it_must_leave_it_goes_on_by_itself(pool: Pool) -> None:
    """As before an eviction: SIGUSR1 to the script alone, 85, another life, and no task twice."""
    job = pool.submits(TASKS, arguments=("60",))
    log = pool.place / "log"
    pool.until(lambda: log.exists() and len(log.read_text().split()) > 2)
    os.kill(int((pool.standin.base / "jobs" / job / "pid").read_text()), signal.SIGUSR1)
    ended = next(pool.place.glob("runinfo/jobs/*")) / "ended"
    pool.until(ended.exists)
    assert len(log.read_text().split()) < 60
    (pool.place / "second").touch()
    assert pool.standin.wait(int(job)) == 0, pool.story()
    assert pool.standin.runs(int(job)) == 2
    assert ended.read_text() == "1.0 1 85\n1.0 2 0\n"
    assert sorted(map(int, log.read_text().split())) == list(range(60))
    assert f"job {job} (HTCondor): done" in pool.types("status", job)
    assert f"sum {sum(range(60))}" in pool.types("logs", job)


def test_its_time_is_told_to_the_farm_by_the_script(pool: Pool) -> None:
    """HTCondor sends no warning before a job's time is over, and then holds it."""
    job = pool.submits(TASKS, "--time", "30s", "--warn-before", "10", arguments=("300",))
    pool.until((next(pool.place.glob("runinfo/jobs/*")) / "ended").exists)
    (pool.place / "second").touch()
    assert pool.standin.wait(int(job)) == 0, pool.story()
    assert pool.standin.runs(int(job)) == 2, pool.story()
    assert sorted(map(int, (pool.place / "log").read_text().split())) == list(range(300))


def test_it_goes_on_only_so_often(pool: Pool) -> None:
    job = pool.submits("import sys; sys.exit(85)", "--max-restarts", "1")
    assert (pool.standin.wait(int(job)), pool.standin.runs(int(job))) == (86, 2), pool.story()
    assert "failed with code 86" in pool.types("status", job)


def test_cancel(pool: Pool) -> None:
    job = pool.submits(FOREVER)
    pool.prints("here")
    assert f"job {job} (HTCondor): running" in pool.types("status", job)
    assert f"job {job} is told to end" in pool.types("cancel", job)
    assert pool.standin.wait(int(job)) < 0 or pool.standin.runs(int(job)) == 1, pool.story()
    assert f"job {job} (HTCondor): cancelled" in pool.types("status", job)
    assert f"job {job} has ended before" in pool.types("cancel", job)
    assert next(pool.place.glob("runinfo/jobs/*/ended")).read_text() == "1.0 1 143\n", "the farm has ended in order"


def test_removed_by_another_command(pool: Pool) -> None:
    job = pool.submits(FOREVER)
    pool.prints("here")
    pool.standin.run("condor_rm", job, cwd=pool.place)
    pool.standin.wait(int(job))
    assert f"job {job} (HTCondor): cancelled" in pool.types("status", job)
    assert pool.types("jobs").split()[-1] == "cancelled"


def test_held_and_released(pool: Pool) -> None:
    job = pool.submits(FOREVER)
    pool.prints("here")
    pool.standin.run("condor_hold", "-reason", "its disk  is full", job, cwd=pool.place)
    pool.until(lambda: (pool.standin.base / "jobs" / job / "state.json").read_text().find('"state": "held"') > 0)
    assert f"job {job} (HTCondor): pending (held: its disk  is full)" in pool.types("status", job)
    (pool.place / "script.py").write_text("print('well')")
    pool.standin.run("condor_release", job, cwd=pool.place)
    assert pool.standin.wait(int(job)) == 0, pool.story()
    assert f"job {job} (HTCondor): done" in pool.types("status", job)


def test_a_held_job_can_be_ended(pool: Pool) -> None:
    job = pool.submits(FOREVER)
    pool.prints("here")
    pool.standin.run("condor_hold", job, cwd=pool.place)
    pool.until(lambda: "pending (held: via condor_hold" in pool.types("status", job))
    pool.types("cancel", job)
    pool.standin.wait(int(job))
    assert f"job {job} (HTCondor): cancelled" in pool.types("status", job)


def test_a_job_that_nobody_knows(pool: Pool) -> None:
    said = pool.types("status", "--system", "htcondor", "77.0", code=1)
    assert "job 77.0 (HTCondor): it is not known how it stands (the batch system does not know it (any more))" in said
    said = pool.types("cancel", "--system", "htcondor", "77", code=1)
    assert "job 77 is not ended: HTCondor does not know it (any more)" in said


def test_a_job_of_other_tools(pool: Pool) -> None:
    """An id that mpiflow has not submitted, as HTCondor writes it."""
    job = pool.submits(FOREVER)
    pool.prints("here")
    pool.standin.environment["XDG_STATE_HOME"] = str(pool.place / "another")
    assert f"job {job}.0 (HTCondor): running" in pool.types("status", "--system", "htcondor", f"{job}.0")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (("--directive", "on_exit_hodl = true"), "the line 'on_exit_hodl = true' was unused"),
        (("--constraint", "Memory >"), "(Memory >)"),
        (("--directive", "universe = vanila"), "vanila"),
    ],
)
def test_its_words_on_a_job_that_it_refuses(pool: Pool, spoil: tuple[str, str], words: str) -> None:
    (pool.place / "script.py").write_text(QUICK)
    said = pool.types("submit", "--system", "htcondor", *spoil, "script.py", code=1)
    assert "job script is not submitted: HTCondor refuses it" in said
    assert words in said
    assert pool.standin.jobs() == []


def test_plain_words_of_its_submit_command_name_the_job(pool: Pool) -> None:
    """Where condor_submit is a site's wrapper that does not pass on -terse."""
    command = pool.standin.base / "bin" / "condor_submit"
    command.rename(command.with_name("real"))
    command.write_text('#!/bin/bash\nexec "${0%/*}/real" "${@: -1}"\n')
    command.chmod(0o755)
    job = pool.submits("pass")
    assert pool.standin.wait(int(job)) == 0
