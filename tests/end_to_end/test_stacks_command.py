"""``mpiflow doctor --stacks``: what every process of a running job is at, asked from another process."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Ended, Jobs, Mpiexec

pytestmark = [pytest.mark.timeout(120)]

SCRIPT = """
    import time
    import mpiflow

    @mpiflow.python_app
    def sleeps_long(path):
        open(path, "w").close()
        time.sleep(1000)

    @mpiflow.python_app
    def multiplies_long(path):
        import numpy
        open(path, "w").close()
        while True:
            numpy.linalg.eigvals(numpy.ones((300, 300)))

    import os
    calls = [sleeps_long("a"), multiplies_long("b"), sleeps_long("c"), multiplies_long("d")]
    while not all(map(os.path.exists, "abcd")):
        time.sleep(0.01)
    print("under way", flush=True)
    calls[0].result()
    """
#: A worker that runs a task itself says nothing until the task has ended.
IN_THE_RANK = """
    import os, time
    import mpiflow

    @mpiflow.python_app
    def sleeps_long(path):
        open(path, "w").close()
        time.sleep(1000)

    call = sleeps_long("a")
    while not os.path.exists("a"):
        time.sleep(0.01)
    print("under way", flush=True)
    call.result()
    """


def ask(jobs: Jobs, *words: str) -> Ended:
    return jobs.command([sys.executable, "-m", "mpiflow", "doctor", "--stacks", *words]).wait(60.0)


def parts_of(answer: str) -> dict[str, str]:
    """The stacks by the names of the processes."""
    pieces = ("\n" + answer).split("\n--- ")[1:]
    return {piece.partition(" ---")[0]: piece for piece in pieces}


@pytest.mark.parametrize("given", ["run", "above"])
def test_the_stacks_of_all_ranks_and_runners(jobs: Jobs, launcher: Mpiexec, given: str) -> None:
    """Runners in time.sleep and in numpy, two for each rank."""
    options = ["--runners-per-rank", "2", *(["--run-dir", "run"] if given == "run" else [])]
    job = jobs.start(SCRIPT, options=options).shows("under way")
    parts = parts_of(ask(jobs, "run" if given == "run" else "runinfo").well())
    host = os.uname().nodename
    rank0 = next(text for name, text in parts.items() if name.startswith("rank 0, pid "))
    assert "thread MainThread" in rank0
    assert "calls[0].result()" in rank0
    assert "thread mpiflow-helper" in rank0
    assert "in start_rank" in parts[f"rank 1 on {host}"]
    runners = {name: text for name, text in parts.items() if ": runner " in name}
    assert [sum(f"rank {rank} on {host}" in name for name in runners) for rank in (1, 2)] == [2, 2]
    assert sum("in sleeps_long" in text for text in runners.values()) == 2
    assert sum("in multiplies_long" in text for text in runners.values()) == 2
    assert job.process.poll() is None, "the job goes on as it was"
    assert len(parts_of(ask(jobs, "run" if given == "run" else "runinfo").well())) == len(parts), "a second time too"
    jobs.kill_all()


def test_a_rank_that_runs_a_task_itself_is_named(jobs: Jobs, launcher: Mpiexec) -> None:
    """Nobody waits for it for ever; the others answer."""
    jobs.start(IN_THE_RANK, options=["--run-dir", "run", "--isolation", "rank"]).shows("under way")
    parts = parts_of(ask(jobs, "run").well())
    silent = [text for text in parts.values() if "It has not answered within 5 s" in text]
    assert len(silent) == 1
    assert "isolation='rank'" in silent[0]
    assert "It has task 0 (sleeps_long)." in silent[0]
    workers = {name: text for name, text in parts.items() if not name.startswith("rank 0, pid ")}
    answered = [name for name, text in workers.items() if "in start_rank" in text]
    assert len(answered) == 1
    assert answered[0].startswith(("rank 1 on ", "rank 2 on "))
    jobs.kill_all()


@pytest.mark.parametrize("form", ["lone", "mpiexec"])
def test_a_script_that_does_nothing_answers_too(jobs: Jobs, launcher: Mpiexec, form: str) -> None:
    """The main thread sleeps, no task has been called for a long time, and nobody drives."""
    script = """
        import time
        import mpiflow
        mpiflow.load()
        print("under way", flush=True)
        time.sleep(1000)
        """
    jobs.start(script, form=form, options=["--run-dir", "run"]).shows("under way")  # type: ignore[arg-type]
    assert "time.sleep(1000)" in ask(jobs, "run").well()
    jobs.kill_all()


def test_rank_0_that_does_not_answer_is_said_to_be_stuck(jobs: Jobs, launcher: Mpiexec) -> None:
    """With what to do about it."""
    script = """
        import os, mpiflow
        mpiflow.load()
        print(os.getpid(), "under way", flush=True)
        __import__("time").sleep(1000)
        """
    job = jobs.start(script, form="lone", options=["--run-dir", "run"]).shows("under way")
    os.kill(int(job.out.split()[0]), signal.SIGSTOP)
    said = ask(jobs, "run").failed(1)
    assert "has not answered within 15 s" in said
    assert "py-spy dump --pid" in said
    jobs.kill_all()


@pytest.mark.parametrize(
    ("directory", "words"),
    [("nowhere", "there is no such directory"), (".", "is no run directory"), ("run", "has ended")],
)
def test_a_directory_where_nobody_answers_is_named(jobs: Jobs, directory: str, words: str) -> None:
    """It is none, or nothing runs there any more."""
    if directory == "run":
        jobs.run("import mpiflow\nmpiflow.load()\n", form="lone", options=["--run-dir", "run"]).well()
    said = ask(jobs, directory).failed(1)
    assert said.startswith("mpiflow: ")
    assert words in said
