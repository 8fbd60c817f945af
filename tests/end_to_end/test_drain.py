"""The job's time is nearly over, or somebody asks: what runs ends, nothing is begun that could not, and code 85."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mpiflow.exitcodes import DRAINED
from mpiflow.kernel.drain import SAME_SIGNAL

if TYPE_CHECKING:
    from launching import Form, Jobs, Running

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("launcher")]

#: Each task waits for a file that a test makes, so that it is the test that says when one ends.
GATED = """
    import os, time, mpiflow

    @mpiflow.python_app(cache=True)
    def gated(number):
        print("begun", number, flush=True)
        while not os.path.exists(f"gate.{number}"):
            time.sleep(0.02)
        return number

    futures = [gated(number) for number in range(6)]
"""
WAITING = (
    GATED
    + """
    try:
        for future in futures:
            try:
                # in one piece: what tasks print is written between any two
                print(f"got {future.result()}\\n", end="", flush=True)
            except Exception as error:
                print("swallowed", repr(error))
    finally:
        print("tidied", flush=True)
"""
)


def begun(running: Running, number: int) -> Running:
    return running.shows(f"begun {number}\n")


def opened(jobs: Jobs, *numbers: int) -> None:
    for number in numbers:
        (jobs.directory / f"gate.{number}").touch()


def says(running: Running, text: str, limit: float = 30.0) -> None:
    end = time.monotonic() + limit
    while text not in running.err:
        assert time.monotonic() < end, f"no {text!r} in {limit:g} s:\n{running.out}\n{running.err}"
        assert running.process.poll() is None, f"it has ended:\n{running.out}\n{running.err}"
        time.sleep(0.02)


def own_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("[task ")]


def told(command: str, *directory: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "mpiflow", command, *directory]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("form", ["mpiexec", "own", "lone"])
def test_walltime_is_near(jobs: Jobs, form: Form) -> None:
    """SIGUSR1: what runs ends, the script is told past its ``except Exception``, and the next run goes on from it."""
    options = ["--runners-per-rank", "2"] if form == "lone" else []
    running = begun(begun(jobs.start(WAITING, form=form, options=options), 0), 1)
    running.process.send_signal(signal.SIGUSR1)
    says(running, "mpiflow: draining: SIGUSR1; 2 running tasks may end, 4 wait, nothing more is started")
    opened(jobs, 0, 1)
    ended = running.wait(30)
    assert ended.code == DRAINED, str(ended)
    assert own_lines(ended.out) == ["got 0", "got 1", "tidied"], str(ended)
    assert "mpiflow: drained (SIGUSR1): 4 tasks have not ended. To resume, run the same command" in ended.err

    opened(jobs, 2, 3, 4, 5)
    again = jobs.run(WAITING, form=form, options=options)
    assert again.code == 0, str(again)
    assert own_lines(again.out) == [*[f"got {number}" for number in range(6)], "tidied"]
    assert "begun 0" not in again.out
    assert "mpiflow: 2 results were taken from earlier runs" in again.err


@pytest.mark.parametrize("form", ["mpiexec", "lone"])
def test_what_a_worker_holds_and_has_not_begun_is_not_begun(jobs: Jobs, form: Form) -> None:
    """Tasks of an app that took microseconds so far, hundreds of which are given ahead, and take long now."""
    script = """
        import os, threading, time, mpiflow

        @mpiflow.python_app(cache=True)
        def gated(number):
            if number >= 0:
                open(f"begun.{number}", "w").close()
                while not os.path.exists("gate"):
                    time.sleep(0.02)
            return number

        def open_gate():
            # The worker gives back at once what its runner has not; when that has come, the runner has been told too.
            while not any(future.task_status() == "fail_retryable" for future in futures):
                time.sleep(0.01)
            open("gate", "w").close()

        [future.result() for future in [gated(-1 - number) for number in range(2000)]]
        futures = [gated(number) for number in range(1000)]
        threading.Thread(target=open_gate, daemon=True).start()
        for future in futures:
            future.result()
        print("all", flush=True)
    """
    options = ["--runners-per-rank", "1"] if form == "lone" else []
    running = jobs.start(script, form=form, ranks=2, options=options)
    end = time.monotonic() + 30
    while not (jobs.directory / "begun.0").exists():
        assert time.monotonic() < end, f"{running.out}\n{running.err}"
        time.sleep(0.02)
    running.process.send_signal(signal.SIGUSR1)
    ended = running.wait(30)
    assert ended.code == DRAINED, str(ended)
    assert [path.name for path in jobs.directory.glob("begun.*")] == ["begun.0"]
    assert "mpiflow: drained (SIGUSR1): 999 tasks have not ended" in ended.err
    again = jobs.run(script, form=form, ranks=2, options=options)
    assert (again.code, again.out) == (0, "all\n"), str(again)
    assert len(list(jobs.directory.glob("begun.*"))) == 1000


@pytest.mark.parametrize("form", ["own", "lone"])
def test_signal_again_and_again(jobs: Jobs, form: Form) -> None:
    """Within seconds it is one warning; and one that comes in the last moment does not take the code's place."""
    running = begun(jobs.start(WAITING, form=form), 0)
    running.process.send_signal(signal.SIGUSR1)
    says(running, "mpiflow: draining: SIGUSR1")
    opened(jobs, *range(6))
    end = time.monotonic() + 30
    while running.process.poll() is None and time.monotonic() < end:
        running.process.send_signal(signal.SIGUSR1)
        time.sleep(0.001)
    ended = running.wait(1)
    assert ended.code == DRAINED, str(ended)
    assert "tidied" in ended.out


def test_second_signal_ends_at_once_with_the_journal_whole(jobs: Jobs) -> None:
    running = begun(jobs.start(WAITING, form="lone", options=["--runners-per-rank", "2"]), 1)
    opened(jobs, 0)
    running.shows("got 0")
    running.process.send_signal(signal.SIGUSR1)
    says(running, "mpiflow: draining: SIGUSR1")
    time.sleep(SAME_SIGNAL + 0.2)  # sooner it is the first one, which some launchers deliver twice
    assert running.process.poll() is None
    running.process.send_signal(signal.SIGUSR1)
    ended = running.wait(20)
    assert ended.code == DRAINED, str(ended)
    assert own_lines(ended.out) == ["got 0", "tidied"]
    assert "drained (a second SIGUSR1): 5 tasks have not ended" in ended.err
    opened(jobs, 1, 2, 3, 4, 5)
    again = jobs.run(WAITING, form="lone")
    assert "mpiflow: 1 result was taken from earlier runs" in again.err, str(again)


@pytest.mark.parametrize(
    "waits",
    [
        "time.sleep(600)",
        "threading.Event().wait()",
        "for _ in iter(int, 1): pass",
        "concurrent.futures.wait(futures)",
        "asyncio.run(asyncio.sleep(600))",
        "futures[0].add_done_callback(lambda future: None); time.sleep(600)",
    ],
)
def test_script_that_does_not_wait_for_its_tasks_is_told_too(jobs: Jobs, waits: str) -> None:
    script = (
        "    import asyncio, concurrent.futures, threading\n"
        + GATED
        + f"    print('elsewhere', flush=True)\n    try:\n        {waits}\n    finally:\n        print('tidied')\n"
    )
    running = begun(jobs.start(script, form="lone", options=["--runners-per-rank", "2"]), 1).shows("elsewhere")
    running.process.send_signal(signal.SIGUSR1)
    says(running, "mpiflow: draining")
    opened(jobs, 0, 1)
    ended = running.wait(30)
    assert ended.code == DRAINED, str(ended)
    assert own_lines(ended.out) == ["elsewhere", "tidied"]
    assert "Traceback" not in ended.err, str(ended)


def test_drain_with_nothing_left_lets_the_script_go_on(jobs: Jobs) -> None:
    script = """
        import os, signal, sys, time, mpiflow
        futures = [mpiflow.python_app(abs)(-number) for number in range(5)]
        [future.result() for future in futures]
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(2.5)
        print("went on")
        sys.exit(3)
    """
    ended = jobs.run(script, form="lone")
    assert (ended.code, ended.out) == (3, "went on\n"), str(ended)
    assert "0 running tasks may end, 0 wait" in ended.err
    assert "drained" not in ended.err


def test_script_that_catches_everything_ends_all_the_same(jobs: Jobs) -> None:
    """What is held back never comes: every later wait says so again, and code 0 would be a lie."""
    script = (
        GATED
        + """
    caught = 0
    for future in futures:
        try:
            future.result()
        except BaseException as error:
            caught += 1
            print(type(error).__name__, flush=True)
    """
    )
    running = begun(jobs.start(script, form="lone", options=["--runners-per-rank", "2"]), 1)
    running.process.send_signal(signal.SIGUSR1)
    says(running, "mpiflow: draining")
    opened(jobs, 0, 1)
    ended = running.wait(30)
    assert ended.code == DRAINED, str(ended)
    assert own_lines(ended.out) == ["JobDrained"] * 4


def test_limit_ends_the_job_at_once(jobs: Jobs) -> None:
    """Tasks that need longer than anybody knew: the job leaves in time by itself, with what had ended."""
    running = begun(jobs.start(WAITING, form="mpiexec", options=["--deadline", "12", "--drain-before", "9"]), 1)
    opened(jobs, 0)
    ended = running.wait(40)
    assert ended.code == DRAINED, str(ended)
    assert own_lines(ended.out) == ["got 0", "tidied"], str(ended)
    assert "mpiflow: draining: the time of the job is nearly over" in ended.err
    assert "(--deadline)" in ended.err
    assert "mpiflow: drained (the time of the job is over)" in ended.err


def test_walltime_of_a_task_says_that_it_cannot_end_in_time(jobs: Jobs) -> None:
    """Nothing else is known of it; a task that may take an hour is not begun half a minute before the end."""
    script = """
        import time, mpiflow

        @mpiflow.python_app
        def quick(walltime=None):
            return 1

        @mpiflow.python_app
        def hour(walltime=3600):
            print("begun", flush=True)

        assert quick(walltime=3).result() == 1
        late = hour(walltime=3600)
        assert [quick(walltime=3).result() for _ in range(5)] == [1] * 5
        print("quick ones ran", flush=True)
        late.result()
    """
    ended = jobs.run(script, form="lone", options=["--deadline", "40", "--drain-before", "6"])
    assert ended.code == DRAINED, str(ended)
    assert ended.out == "quick ones ran\n"
    assert "1 task has not ended" in ended.err


def test_asked_to_drain(jobs: Jobs) -> None:
    running = begun(jobs.start(WAITING), 0)
    answer = told("drain", "runinfo", cwd=jobs.directory)
    assert answer.returncode == 0, str(answer)
    assert f"asked the run in {Path('runinfo', '000')} to drain" in answer.stdout
    assert "it says: draining: asked for by" in answer.stdout
    opened(jobs, 0, 1)
    ended = running.wait(30)
    assert ended.code == DRAINED, str(ended)
    assert own_lines(ended.out) == ["got 0", "got 1", "tidied"]
    requests = jobs.directory / "runinfo" / "000" / "requests"
    assert os.listdir(requests) == []
    after = told("drain", "runinfo/000", cwd=jobs.directory)
    assert (after.returncode, after.stderr) == (1, "mpiflow: the run in runinfo/000 has ended\n")


def test_asked_to_stop(jobs: Jobs) -> None:
    running = begun(jobs.start(WAITING, form="own"), 1)
    opened(jobs, 0)
    running.shows("got 0")
    answer = told("stop", "runinfo/000", cwd=jobs.directory)
    assert answer.returncode == 0, str(answer)
    assert "it says: stopping" in answer.stdout
    ended = running.wait(20)
    assert ended.code == 143, str(ended)
    assert own_lines(ended.out) == ["got 0", "tidied"]
    assert "mpiflow: stopped: asked for by" in ended.err
    opened(jobs, 1, 2, 3, 4, 5)
    assert "mpiflow: 1 result was taken from earlier runs" in jobs.run(WAITING, form="lone").err


def test_signal_while_workers_leave_changes_nothing(jobs: Jobs) -> None:
    """The script has ended, and its code stands; a worker that does not leave is ended by force all the same."""
    script = """
        import os, time, mpiflow

        @mpiflow.python_app
        def stays():
            import signal, time
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
            print("stays", flush=True)
            end = time.monotonic() + 60
            while time.monotonic() < end:
                time.sleep(1)

        stays()
        time.sleep(1)
        print("rank 0 is", os.getpid(), flush=True)
    """
    running = jobs.start(script, form="mpiexec", ranks=2, options=["--isolation", "rank"]).shows("rank 0 is ")
    says(running, "they are given up")
    time.sleep(0.5)  # cleaned up: now the workers are told to leave
    rank0 = int(running.out.split("rank 0 is ")[1].split()[0])
    os.kill(rank0, signal.SIGUSR1)
    os.kill(rank0, signal.SIGTERM)
    ended = running.wait(40)
    assert ended.code == 0, str(ended)
    assert "rank 1 did not leave within 10 s" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("form", ["mpiexec", "lone"])
def test_thread_that_calls_apps_after_the_end_of_the_script(jobs: Jobs, form: Form) -> None:
    """Its calls are refused: there are no workers any more, and no MPI."""
    script = """
        import sys, threading, time, mpiflow

        left = mpiflow.DataFlowKernel(mpiflow.Config())  # nobody ends it

        @mpiflow.python_app(data_flow_kernel=left)
        def stays():
            time.sleep(60)

        @mpiflow.python_app
        def double(x):
            return 2 * x

        stays()

        def keep_calling():
            while True:
                try:
                    double(1).result()
                except mpiflow.errors.NoDataFlowKernelError as error:
                    if "script has ended" in str(error):
                        print("refused", flush=True)
                        return
                except mpiflow.errors.TasksAbandoned:
                    pass

        threading.Thread(target=keep_calling).start()
        double(2).result()
        sys.exit(3)
    """
    ended = jobs.run(script, form=form)
    assert (ended.code, ended.out) == (3, "refused\n"), str(ended)
    assert "MPI" not in ended.err


def test_script_that_calls_nothing_hears_requests_too(jobs: Jobs) -> None:
    """Nobody takes supersteps then."""
    running = jobs.start(
        """
        import time, mpiflow
        mpiflow.load()
        print("idle", flush=True)
        time.sleep(600)
        """,
        form="lone",
    ).shows("idle")
    assert "0 running tasks may end, 0 wait" in told("drain", "runinfo", cwd=jobs.directory).stdout
    assert told("stop", "runinfo", cwd=jobs.directory).returncode == 0
    assert running.wait(20).code == 143


@pytest.mark.parametrize(
    ("directory", "words"),
    [
        ((), "mpiflow: drain which run? Say `mpiflow drain RUNDIR`"),
        (("nowhere",), "mpiflow: nowhere: there is no such directory (looked in "),
        ((".",), "mpiflow: . is no run directory: there is no requests/ in it, nor a numbered run with one"),
    ],
)
def test_no_run_to_ask(tmp_path: Path, directory: tuple[str, ...], words: str) -> None:
    asked = told("drain", *directory, cwd=tmp_path)
    assert asked.returncode == (1 if directory else 2)
    assert asked.stderr.startswith(words)
    assert asked.stdout == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--deadline", "soon"), "argument --deadline: is 'soon'; legal are seconds from now, HH:MM:SS"),
        (("--deadline", "2001-01-01T00:00"), "argument --deadline: is '2001-01-01T00:00', which is over already"),
        (("--drain-before", "-3"), "argument --drain-before: is '-3'; legal is a number of seconds from 0 up"),
    ],
)
def test_bad_ends(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    line = [sys.executable, "-m", "mpiflow", *options, "script.py"]
    ended = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert words in ended.stderr
