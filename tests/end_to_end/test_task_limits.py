"""Tasks that die, take too long or take too much, in whole jobs; tests have the names of rows of the design's table."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Form, Jobs

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.usefixtures("launcher"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

#: Whether processes that a task has written into a file are gone.
GONE = """
import os, time, mpiflow
from mpiflow.errors import *

def gone(path):
    end = time.monotonic() + 10
    with open(path) as file:
        pids = [int(pid) for pid in file.read().split()]
    assert pids
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        assert time.monotonic() < end, pids
        time.sleep(0.01)
    return True
"""


def script(text: str) -> str:
    """A script that knows `gone`."""
    from textwrap import dedent

    return GONE + dedent(text)


@pytest.mark.parametrize("form", ["mpiexec", "plain"])
def test_task_exceeds_its_memory(jobs: Jobs, form: Form) -> None:
    """On the decorator or per call; the words name task, limit and peak; it counts as a failure, and is tried again."""
    ended = jobs.run(
        script("""
        @mpiflow.python_app(memory="200MiB")
        def take(size):
            with open("tries", "a") as file:
                file.write(f"{size}\\n")
            data = bytearray(size << 20)
            time.sleep(20 if size > 250 else 0.1)
            return len(data) >> 20

        @mpiflow.bash_app
        def tree():
            hog = "python3 -c 'import time; data = bytearray(90 << 20); time.sleep(600)'"
            return f"for i in 1 2 3 4; do setsid {hog} & echo $! >> pids; done; wait"

        with mpiflow.load(mpiflow.Config(retries=1)):
            small, large, more = take(50), take(300), take(240, memory=10**9)
            command = tree(memory="250MiB")
            error = large.exception()
            assert type(error) is MemoryLimitExceeded, repr(error)
            assert str(error).startswith("task 1 (take): exceeded its memory limit of 200 MiB: "), error
            assert error.limit == 200 << 20 < error.peak < 400 << 20
            assert (small.result(), more.result()) == (50, 240)
            assert type(command.exception()) is MemoryLimitExceeded, repr(command.exception())
            assert open("tries").read().split().count("300") == 2
            assert gone("pids")
        print("fine")
        """),
        form=form,
    )
    assert ended.well() == "fine\n"


@pytest.mark.parametrize("isolation", ["runner", "task"])
def test_task_exceeds_its_walltime(jobs: Jobs, isolation: str) -> None:
    """Its whole process tree goes, what made itself a daemon too; what waits behind it runs."""
    ended = jobs.run(
        script("""
        @mpiflow.python_app(walltime=1.5)
        def hang(number):
            import subprocess
            children = [subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in range(2)]
            daemon = subprocess.run(["setsid", "sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!"], stdout=-1)
            with open("pids", "a") as file:
                print(*(child.pid for child in children), daemon.stdout.decode(), file=file)
            time.sleep(600)

        @mpiflow.bash_app
        def tree():
            return "setsid sleep 600 & echo $! >> pids; (sleep 600 & echo $! >> pids; wait) & wait"

        futures = [hang(0), hang(1), tree(walltime=1.5)]
        behind = [mpiflow.python_app(abs)(-n) for n in range(20)]
        errors = [future.exception() for future in futures]
        assert all(type(error) is AppTimeout for error in errors), errors
        assert str(errors[0]) == "App hang exceeded walltime: 1.5 seconds"
        assert [future.result() for future in behind] == list(range(20))
        assert gone("pids")
        print("fine")
        """),
        options=["--isolation", isolation],
    )
    assert ended.well() == "fine\n"


@pytest.mark.parametrize("isolation", ["runner", "task"])
def test_runner_dies_by_signal_exit_or_the_out_of_memory_killer(jobs: Jobs, isolation: str) -> None:
    """The last is a SIGKILL, and the kernel's choice would be the task: it and all it starts stand at 1000."""
    ended = jobs.run(
        script("""
        @mpiflow.python_app
        def die(how):
            import signal, subprocess
            data = bytearray(120 << 20)
            child = subprocess.Popen(["setsid", "sleep", "600"])
            with open("pids", "a") as file:
                print(child.pid, file=file)
            time.sleep(0.2)
            assert open(f"/proc/{child.pid}/oom_score_adj").read() == "1000\\n"
            if how > 0:
                os.kill(os.getpid(), how)
            os._exit(-how)

        for how, words in [(9, "was killed by SIGKILL"), (11, "was killed by SIGSEGV"), (-3, "ended with exit code 3")]:
            error = die(how).exception()
            assert type(error) is WorkerLost, repr(error)
            assert words in str(error) and " on " in str(error), error
            peak = int(str(error).partition("its peak memory was ")[2].partition(" MiB")[0])
            assert 120 < peak < 1000, error
        assert gone("pids")
        print("fine")
        """),
        options=["--isolation", isolation],
    )
    assert ended.well() == "fine\n"


def test_nothing_of_a_task_outlives_it(jobs: Jobs) -> None:
    ended = jobs.run(
        script("""
        @mpiflow.bash_app
        def leave(number):
            return f"sleep 600 & echo $! > pids.{number}; setsid sh -c 'sleep 600 & echo $! >> pids.{number}'"

        futures = [leave(number) for number in range(6)]
        assert [future.result() for future in futures] == [0] * 6
        assert all(gone(f"pids.{number}") for number in range(6))
        print("fine")
        """)
    )
    assert ended.well() == "fine\n"


def test_runners_are_recycled(jobs: Jobs) -> None:
    ended = jobs.run(
        script("""
        from collections import Counter

        pid = mpiflow.python_app(os.getpid)
        with mpiflow.load(mpiflow.Config(executors=[mpiflow.MPIExecutor(max_tasks=10, max_rss="2G")])):
            ran = Counter(future.result() for future in [pid() for _ in range(200)])
        assert max(ran.values()) <= 10, ran
        print("fine")
        """)
    )
    assert ended.well() == "fine\n"


def test_where_no_limit_can_be_held_a_task_with_one_is_refused(jobs: Jobs) -> None:
    """It is better not to run than to take down the rank: in a rank, in threads, and as the body of a join_app."""
    ended = jobs.run(
        script("""
        from mpiflow.executors.threads import ThreadPoolExecutor

        take = mpiflow.python_app(bytearray, executors=["rank"])
        in_thread = mpiflow.python_app(len, executors=["threads"])

        @mpiflow.join_app
        def join():
            return take(7)

        executors = [mpiflow.MPIExecutor("rank", isolation="rank"), ThreadPoolExecutor("threads")]
        with mpiflow.load(mpiflow.Config(executors=executors)):
            errors = [take(7, memory="1G").exception(), in_thread("ab", memory=10**6).exception()]
            assert take(7).result() == bytearray(7)
            errors.append(join(memory="1G").exception())
        assert all(type(error) is UnsupportedFeatureError for error in errors), errors
        for error, where in zip(errors, ["in the rank itself", "in threads", "in threads"]):
            assert where in str(error) and "use an MPIExecutor with isolation 'runner' or 'task'" in str(error), error
        print("fine")
        """)
    )
    assert ended.well() == "fine\n"


def test_what_a_task_in_a_rank_leaves_running_ends_with_the_job(jobs: Jobs) -> None:
    """That nothing is left of it is the fixture's to say."""
    ended = jobs.run(
        """
        import subprocess, mpiflow

        @mpiflow.python_app
        def leave():
            subprocess.Popen(["sleep", "600"], start_new_session=True)
            return subprocess.run(["setsid", "sh", "-c", "sleep 600 >/dev/null 2>&1 &"]).returncode

        assert [future.result() for future in [leave() for _ in range(5)]] == [0] * 5
        print("fine")
        """,
        options=["--isolation", "rank"],
    )
    assert ended.well() == "fine\n"
