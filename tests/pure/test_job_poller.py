"""One poller for all jobs: how often it asks, how much at once, and what it says when nobody answers."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from mpiflow.errors import BatchSystemError
from mpiflow.jobs.commands import Answer, run
from mpiflow.jobs.states import DONE, PENDING, RUNNING, UNKNOWN, JobState
from mpiflow.jobs.status import FIRST, MOST, Poller, look


class Queue:
    """A Slurm of which only the answers are there: states by job, a clock, and the command lines that came."""

    def __init__(self, **states: str) -> None:
        self.states = {job.removeprefix("j"): state for job, state in states.items()}
        self.lines: list[list[str]] = []
        self.now = 0.0
        self.fails = ""
        self.code = 1

    def run(self, line: Sequence[str], seconds: float) -> Answer:
        self.lines.append(list(line))
        if self.fails:
            return Answer(self.code, "", self.fails)
        asked = line[-1].removeprefix("--jobs=").split(",")
        if line[0] == "sacct":
            return Answer(1, "", "Slurm accounting storage is disabled")
        rows = [f"{job}  {self.states[job]}  0  None" for job in asked if job in self.states]
        return Answer(0, "\n".join(rows), "")

    def poller(self) -> Poller:
        return Poller(self.run, lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_all_jobs_are_one_question() -> None:
    queue = Queue(**{f"j{number}": "RUNNING" for number in range(150)})
    poller = queue.poller()
    poller.watch("slurm", list(queue.states))
    assert all(poller.ask("slurm", [job])[job].state == JobState(RUNNING, None, "RUNNING") for job in queue.states)
    assert len(queue.lines) == 1


def test_a_question_has_room_for_two_hundred() -> None:
    queue = Queue(**{f"j{number}": "RUNNING" for number in range(450)})
    found = look("slurm", list(queue.states), queue.run)
    assert len(found) == 450
    assert [len(line[-1].split(",")) for line in queue.lines] == [200, 200, 50]


def test_it_asks_less_often_while_nothing_changes_and_often_when_something_does() -> None:
    queue = Queue(j1="PENDING")
    poller = queue.poller()
    times = []
    for _ in range(14):
        poller.ask("slurm", ["1"])
        times.append(queue.now)
        poller.pause("slurm")
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps[0] == pytest.approx(FIRST)
    assert gaps == sorted(gaps)
    assert gaps[-1] == MOST
    queue.states["1"] = "RUNNING"
    poller.ask("slurm", ["1"])
    before = queue.now
    poller.pause("slurm")
    assert queue.now - before == pytest.approx(FIRST)


def test_between_two_looks_the_last_answer_holds() -> None:
    queue = Queue(j1="PENDING")
    poller = queue.poller()
    poller.ask("slurm", ["1"])
    queue.states["1"] = "RUNNING"
    answered = poller.ask("slurm", ["1"])["1"]
    assert answered.state is not None
    assert answered.state.state == PENDING
    assert len(queue.lines) == 1


def test_a_batch_system_that_cannot_be_asked_ends_no_job() -> None:
    queue = Queue(j1="RUNNING")
    poller = queue.poller()
    poller.ask("slurm", ["1"])
    queue.fails = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    gaps = []
    for _ in range(12):
        before = queue.now
        poller.pause("slurm")
        gaps.append(queue.now - before)
        answered = poller.ask("slurm", ["1"])["1"]
        assert answered == (
            JobState(RUNNING, None, "RUNNING"),
            "squeue: slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        )
    assert gaps[-1] == MOST
    queue.fails = ""
    poller.pause("slurm")
    assert poller.ask("slurm", ["1"])["1"].error == ""


def test_a_queue_that_has_forgotten_a_job_without_accounts() -> None:
    queue = Queue(j1="RUNNING")
    found = look("slurm", ["1", "2"], queue.run)
    assert found["1"].state == RUNNING
    assert found["2"] == (UNKNOWN, None, "it has left the queue; sacct: Slurm accounting storage is disabled")


def test_a_queue_that_says_it_does_not_know_the_only_job_asked_about() -> None:
    queue = Queue()
    queue.fails = "slurm_load_jobs error: Invalid job id specified"
    assert look("slurm", ["1"], queue.run) == {}


def test_forgotten_jobs_are_asked_about_no_longer() -> None:
    queue = Queue(j1="RUNNING", j2="RUNNING")
    poller = queue.poller()
    poller.watch("slurm", ["1", "2"])
    poller.forget("slurm", ["1"])
    poller.ask("slurm", ["2"])
    assert [line[-1] for line in queue.lines] == ["--jobs=2"]


def test_threads_share_a_look() -> None:
    queue = Queue(j1="RUNNING")
    poller = queue.poller()
    threads = [threading.Thread(target=poller.ask, args=("slurm", ["1"])) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(queue.lines) == 1


# --- commands, as real processes -----------------------------------------------------------------------------


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(BatchSystemError, match="no-such-program: there is no such program on PATH"):
        run(["no-such-program"], 5.0)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BatchSystemError, match="nowhere: there is no such directory"):
        run(["true"], 5.0, str(tmp_path / "nowhere"))


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "sbatch").write_text("")
    with pytest.raises(BatchSystemError, match="sbatch cannot be run: Permission denied"):
        run([str(tmp_path / "sbatch")], 5.0)


def test_a_command_that_hangs_is_killed_with_all_it_has_started(tmp_path: Path) -> None:
    line = ["sh", "-c", f"sleep 600 & echo $! >{tmp_path}/child; wait"]
    with pytest.raises(BatchSystemError, match=r"has not answered within 1 s, and was killed"):
        run(line, 1.0)
    child = int((tmp_path / "child").read_text())
    end = time.monotonic() + 30
    while subprocess.run(["ps", "-o", "stat=", "-p", str(child)], capture_output=True, check=False).stdout.strip()[
        :1
    ] not in (
        b"",
        b"Z",
    ):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_outputs_are_kept_apart_and_odd_bytes_do_no_harm() -> None:
    text = "import sys; sys.stdout.buffer.write(b'12\\xff'); sys.stderr.write('noise'); sys.exit(3)"
    answer = run([sys.executable, "-c", text], 30.0)
    assert answer == (3, "12\ufffd", "noise")
    assert answer.words == "noise\n12\ufffd"
    assert Answer(4, "", " ").words == "it said nothing, and ended with code 4"


def test_done_is_final_and_unknown_is_not() -> None:
    assert JobState(DONE, 0).ended
    assert not JobState(UNKNOWN).ended
