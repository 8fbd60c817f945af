"""`mpiflow submit --system fork`: the whole way of a job on a machine without a batch system."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import LAUNCHERS_OWN

pytestmark = pytest.mark.timeout(240)

QUICK = """
import sys, mpiflow

@mpiflow.python_app
def twice(number):
    return 2 * number

print("got", [twice(number).result() for number in range(3)], sys.argv[1:], flush=True)
sys.exit(3)
"""
FOREVER = "import time; print('here', flush=True); time.sleep(600)"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """That of a user of no batch system."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith((*LAUNCHERS_OWN, "SLURM_", "SGE_"))}
    return kept | {"XDG_STATE_HOME": str(tmp_path / "state")}


def types(
    environment: dict[str, str], place: Path, *words: str, limit: float = 150.0
) -> subprocess.CompletedProcess[str]:
    """Type a command of mpiflow."""
    line = [sys.executable, "-m", "mpiflow", *words]
    return subprocess.run(line, env=environment, cwd=place, capture_output=True, text=True, timeout=limit, check=False)


def submitted(environment: dict[str, str], place: Path, text: str, *options: str) -> str:
    """Submit a script; the id of the job."""
    (place / "script.py").write_text(text)
    ran = types(environment, place, "submit", "--system", "fork", "--ranks-per-node", "3", *options, "script.py")
    found = re.match(r"submitted: job (\S+) ", ran.stdout)
    assert found, ran
    return found[1]


def eventually(place: Path, text: str, files: str) -> None:
    """Wait until this is in one of the files that the job prints into."""
    end = time.monotonic() + 90
    while not any(text in path.read_text() for path in place.glob(f"runinfo/jobs/*/{files}")):
        words = "".join(path.read_text() for path in place.glob("runinfo/jobs/*/*") if path.suffix != ".json")
        assert time.monotonic() < end, words
        time.sleep(0.1)


def test_wait(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(QUICK)
    options = ("--system", "fork", "--ranks-per-node", "3", "--wait")
    ran = types(environment, tmp_path, "submit", *options, "script.py", "--wait", "a  b")
    assert ran.returncode == 3, ran
    assert "got [0, 2, 4] ['--wait', 'a  b']" in ran.stdout
    assert "mpiflow: failed with code 3" in ran.stderr
    listed = types(environment, tmp_path, "jobs").stdout
    assert re.search(r" fork +\S+ \S+ +script +failed with code 3", listed), listed


def test_a_batch(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "tasks.txt").write_text("echo one\nfalse\n[ -e mark ] || { touch mark; exit 1; }\n")
    options = ("--system", "fork", "--ranks-per-node", "3", "--wait")
    ran = types(environment, tmp_path, "submit", *options, "batch", "tasks.txt", "--retries", "2")
    assert ran.returncode == 1, ran
    assert "one" in ran.stdout.splitlines()
    joblog = (tmp_path / "runinfo/jobs/batch-000/joblog").read_text().splitlines()
    assert sorted(line.split("\t")[6] for line in joblog[1:]) == ["0", "0", "1"]


def test_a_doctor(environment: dict[str, str], tmp_path: Path) -> None:
    options = ("--system", "fork", "--ranks-per-node", "3", "--relaunches", "1", "--wait")
    ran = types(environment, tmp_path, "submit", *options, "doctor")
    assert ran.returncode in (0, 1), ran  # 1: not all is as it should be on this machine
    assert ran.stdout.count("ranks          3: rank 0 for the script, 2 workers") == 1, "and is not started again"


def test_it_goes_on_after_its_submitter_and_can_be_ended(environment: dict[str, str], tmp_path: Path) -> None:
    job = submitted(environment, tmp_path, FOREVER)
    eventually(tmp_path, "here", "*.out")
    assert f"job {job} (" in (said := types(environment, tmp_path, "status", job).stdout)
    assert ": running" in said
    ended = types(environment, tmp_path, "cancel", job)
    assert ended.returncode == 0, ended
    assert ": cancelled with code 143" in types(environment, tmp_path, "status", job).stdout
    assert "has ended before" in types(environment, tmp_path, "cancel", job).stdout


def test_killed_outright_it_has_failed(environment: dict[str, str], tmp_path: Path) -> None:
    job = submitted(environment, tmp_path, FOREVER)
    eventually(tmp_path, "here", "*.out")
    os.killpg(int(job.split(".")[0]), signal.SIGKILL)
    end = time.monotonic() + 60
    while ": running" in (said := types(environment, tmp_path, "status", job).stdout):
        assert time.monotonic() < end
    assert "it was killed, or the machine went down: its script has left no exit code" in said


def test_logs_of_a_job_that_is_followed_end_with_it(environment: dict[str, str], tmp_path: Path) -> None:
    job = submitted(environment, tmp_path, QUICK)
    ran = types(environment, tmp_path, "logs", "-f", job)
    assert ran.returncode == 0
    assert "got [0, 2, 4] []" in ran.stdout


def test_the_number_of_a_process_that_is_another_now_is_left_alone(environment: dict[str, str], tmp_path: Path) -> None:
    """An id is the process and the moment it began: one that has the number by chance is not told to end."""
    job = submitted(environment, tmp_path, "print('here', flush=True)")
    types(environment, tmp_path, "logs", "-f", job)
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        for path in tmp_path.glob("runinfo/jobs/*/job.json"):
            path.write_text(path.read_text().replace(job, f"{other.pid}.{job.split('.')[1]}"))
        types(environment, tmp_path, "cancel", f"{other.pid}.{job.split('.')[1]}")
        assert other.poll() is None
        other.kill()


#: Two quick tasks, and four that wait for a gate; each of those is an app of its own, of which nothing is known.
GATED = (
    """
import os, time, mpiflow

def run(number, gated):
    while gated and not os.path.exists("gate"):
        time.sleep(0.1)
    with open("ran", "a") as file:
        file.write(f"{number}\\n")
    return number

@mpiflow.python_app(cache=True)
def quick(number):
    return run(number, False)

"""
    + "".join(
        f"""
@mpiflow.python_app(cache=True)
def gated_{number}():
    return run({number}, True)
"""
        for number in range(2, 6)
    )
    + """
futures = [quick(0), quick(1), gated_2(), gated_3(), gated_4(), gated_5()]
print("sum", sum(future.result() for future in futures), flush=True)
"""
)


def test_told_that_time_is_nearly_over_it_goes_on_by_itself(environment: dict[str, str], tmp_path: Path) -> None:
    job = submitted(environment, tmp_path, GATED)
    eventually(tmp_path, "0", "../../../ran")
    os.kill(int(job.split(".")[0]), signal.SIGUSR1)
    eventually(tmp_path, "mpiflow: draining: SIGUSR1", "*.1.err")
    (tmp_path / "gate").touch()
    ran = types(environment, tmp_path, "logs", "-f", job)
    assert "sum 15" in ran.stdout
    assert ": done" in types(environment, tmp_path, "status", job).stdout
    assert sorted((tmp_path / "ran").read_text().split()) == ["0", "1", "2", "3", "4", "5"], "each task once"
    ends = next(tmp_path.glob("runinfo/jobs/*/ended")).read_text().split("\n")[:-1]
    assert [line.split()[1:] for line in ends][-1] == ["2", "0"]
