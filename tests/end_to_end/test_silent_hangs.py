"""Rows of the table of faults about waits that never end: rank 0 says what is waited for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Jobs, Mpiexec, Running

pytestmark = [pytest.mark.timeout(120)]


def says(job: Running, *texts: str, limit: float = 60.0) -> str:
    """What a job has written to standard error, once all of these are in it."""
    end = time.monotonic() + limit
    while not all(text in job.err for text in texts):
        assert job.process.poll() is None, f"it has ended\n{job.err}"
        assert time.monotonic() < end, f"not all of {texts} in {job.err!r}"
        time.sleep(0.05)
    return job.err


@pytest.mark.parametrize(
    "tasks", ["before any task", "with tasks", "after the last task", "from a library", "of objects"]
)
def test_script_uses_a_comm_world_collective(jobs: Jobs, launcher: Mpiexec, tasks: str) -> None:
    """Rank 0 sits in MPI for good: the line is named, and what to do."""
    jobs.write("library.py", "def settle(comm):\n    comm.Barrier()\n")
    lines = {
        "before any task": "MPI.COMM_WORLD.Barrier()",
        "with tasks": "nap(1000); MPI.COMM_WORLD.gather(1)",
        "after the last task": "print(nap(0).result()); MPI.COMM_WORLD.Allreduce(bytearray(1), bytearray(1))",
        "from a library": "library.settle(MPI.COMM_WORLD)",
        "of objects": "MPI.COMM_WORLD.allreduce(1)",
    }
    script = f"""
        import library, mpiflow, time
        from mpi4py import MPI

        @mpiflow.python_app
        def nap(seconds):
            time.sleep(seconds)

        {lines[tasks]}
        """
    job = jobs.start(script, options=["--stall-warning", "1"])
    call = {"with tasks": "MPI.COMM_WORLD.gather()", "after the last task": "MPI.COMM_WORLD.Allreduce()"}
    call |= {"from a library": "comm.Barrier()", "of objects": "MPI.COMM_WORLD.allreduce()"}
    said = says(job, "COMM_SELF or @mpi_app")
    assert f"the script is inside MPI: {call.get(tasks, 'MPI.COMM_WORLD.Barrier()')}" in said
    assert f"at script.py:9: {lines[tasks]}" in said
    jobs.kill_all()


def test_script_is_in_a_call_that_lets_no_other_thread_run(jobs: Jobs, launcher: Mpiexec) -> None:
    """Some libraries keep the interpreter to themselves: no thread of rank 0 could say anything."""
    script = """
        import ctypes

        ctypes.PyDLL(None).sleep(1000)
        """
    job = jobs.start(script, options=["--stall-warning", "2"])
    assert 'script.py", line 4 in <module>' in says(job, "most recent call first", "in <module>")
    jobs.kill_all()


def test_nobody_knows(jobs: Jobs, launcher: Mpiexec) -> None:
    """Tasks that never end, a future that nobody fulfils: named with ranks, and since when; the log has it too."""
    script = """
        import time
        from concurrent.futures import Future
        import mpiflow

        @mpiflow.python_app
        def nap(seconds, *after):
            time.sleep(seconds)

        naps = [nap(1000) for _ in range(3)]
        nap(0, Future())
        naps[0].result()
        """
    job = jobs.start(script, options=["--stall-warning", "1", "--run-dir", "run"])
    said = says(job, "waits for a future that is no task of this run")
    assert "mpiflow: no progress for" in said
    assert "rank 1 on" in said
    assert "rank 2 on" in said
    assert "has task 0 (nap), for" in said
    assert "in the queue of executor 'mpi': no worker of it has room" in said
    assert "the script is at script.py:12: naps[0].result()" in said
    log = (jobs.directory / "run" / "mpiflow.log").read_text()
    assert "WARNING: no progress for" in log
    assert "has task 0 (nap), for" in log
    jobs.kill_all()


def test_a_script_that_takes_its_time_is_not_suspected(jobs: Jobs, launcher: Mpiexec) -> None:
    """No task is waited for, and the call is no collective: nothing is said. All ways of waiting at once."""
    ways = ["time.sleep(8)", "threading.Event().wait(8)", "COMM_SELF.Barrier(); time.sleep(8)"]
    waiting = {way: jobs.start(_waits(jobs, way), options=["--stall-warning", "6"]) for way in ways}
    for way, job in waiting.items():
        assert job.wait().well().split() == ["1", "done"], way


def _waits(jobs: Jobs, way: str) -> str:
    """A script, in a file of its own, that waits in this way."""
    script = f"""
        import threading, time
        from mpi4py.MPI import COMM_SELF, COMM_WORLD
        import mpiflow

        @mpiflow.python_app
        def one():
            return 1

        print(one().result())
        {way}  # not COMM_WORLD.Barrier()
        print("done")
        """
    return str(jobs.write(f"{way.partition('(')[0]}.py", script))


def test_a_stall_of_a_lone_process_is_said(jobs: Jobs) -> None:
    """Without MPI too, and where the Config says the time."""
    script = """
        from concurrent.futures import Future
        import mpiflow

        mpiflow.load(mpiflow.Config(stall_warning=0.5))

        @mpiflow.python_app
        def after(other):
            return 1

        after(Future()).result()
        """
    job = jobs.start(script, form="plain")
    assert "task 0 (after) waits for a future that is no task of this run" in says(job, "is no task of this run")
    jobs.kill_all()
