"""``mpiflow supervise``: what is started again, what is not, and what is said about it."""

from __future__ import annotations

import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from launching import Jobs, Mpiexec, Running

pytestmark = pytest.mark.timeout(180)

#: Each task leaves a letter each time that it runs. In its first life the script does something at half time.
HALVES = """
    import os, signal, sys, time, mpiflow

    @mpiflow.python_app(cache=True)
    def square(x):
        with open(f"ran-{x}", "a") as file:
            file.write("x")
        return x * x

    def launcher():
        '''The uppermost process that was told what a launcher is told.'''
        pid = os.getpid()
        while True:
            with open(f"/proc/{pid}/stat") as stat:
                parent = int(stat.read().rpartition(")")[2].split()[1])
            with open(f"/proc/{parent}/environ", "rb") as environ:
                if b"MPIFLOW_INTERRUPT=" not in environ.read():
                    return pid
            pid = parent

    first = sum(square(x).result() for x in range(5))
    if not os.path.exists("second"):
        open("second", "w").close()
        HALF_TIME
    print(first + sum(square(x).result() for x in range(5, 10)))
"""


def supervised(
    jobs: Jobs, launcher: Mpiexec, script: str, *arguments: str, options: Sequence[str] = (), ranks: int = 3
) -> Running:
    """Start a script below ``mpiflow supervise``."""
    jobs.write("script.py", script)
    farm = [sys.executable, "-m", "mpiflow", "script.py", *arguments]
    return supervise(jobs, [*options, "--", *launcher.line(ranks), *farm])


def supervise(jobs: Jobs, arguments: Sequence[str]) -> Running:
    return jobs.command([sys.executable, "-m", "mpiflow", "supervise", *arguments])


def decisions(err: str) -> list[str]:
    """What was said by the supervisor, the seconds apart."""
    lines = [line for line in err.splitlines() if line.startswith("mpiflow supervise: ")]
    return [re.sub(r"after \d+ s", "after S s", line.removeprefix("mpiflow supervise: ")) for line in lines]


# --- what is started again ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("half_time", "why"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", r"(rank 0 was lost|mpiexec ended with code \d+|mpiexec was killed)"),
        ("os.kill(launcher(), signal.SIGKILL); time.sleep(60)", "mpiexec was killed by SIGKILL"),
        ("sys.exit(86)", "the farm asked for it"),
    ],
    ids=["rank 0 dies", "the launcher dies", "the farm asks for it"],
)
def test_a_farm_that_died_goes_on_from_its_journal(jobs: Jobs, launcher: Mpiexec, half_time: str, why: str) -> None:
    ended = supervised(jobs, launcher, HALVES.replace("HALF_TIME", half_time)).wait(90)
    assert (ended.code, ended.out) == (0, "285\n"), str(ended)
    [said] = decisions(ended.err)
    assert re.match(rf"relaunch 1 of 3: {why}", said), str(ended)
    assert "5 results were taken from earlier runs" in ended.err
    ran = {x: (jobs.directory / f"ran-{x}").read_text() for x in range(10)}
    assert ran == dict.fromkeys(range(10), "x")
    assert [path.name for path in jobs.directory.glob(".mpiflow-*")] == []


def test_a_farm_that_dies_while_it_is_drained_is_not_started_again(jobs: Jobs, launcher: Mpiexec) -> None:
    """Whoever asked for the drain wants it to end, and the next life would know nothing of it."""
    script = HALVES.replace("HALF_TIME", "drained()").replace(
        "    def launcher():",
        """    @mpiflow.python_app
    def stays():
        time.sleep(60)

    def drained():
        import subprocess
        running = stays()
        subprocess.run([sys.executable, "-m", "mpiflow", "drain", "runinfo"], check=True)
        time.sleep(2)
        os.kill(os.getpid(), signal.SIGKILL)

    def launcher():""",
    )
    ended = supervised(jobs, launcher, script).wait(90)
    assert ended.code == 85, str(ended)
    assert decisions(ended.err)[-1].endswith("no relaunch, because it was being drained; code 85"), str(ended)


def test_after_so_many_relaunches_it_gives_up(jobs: Jobs, launcher: Mpiexec) -> None:
    """Each life keeps one more result, so none of them is in vain."""
    script = """
        import sys, mpiflow

        @mpiflow.python_app(cache=True)
        def square(x):
            return x * x

        for x in range(100):
            square(x).result()
            if not mpiflow.python_app(__import__("os").path.exists)(f"seen-{x}").result():
                open(f"seen-{x}", "w").close()
                sys.exit(86)
    """
    ended = supervised(jobs, launcher, script, options=["--relaunches", "2"]).wait(90)
    assert decisions(ended.failed(86)) == [
        "relaunch 1 of 2: the farm asked for it after S s",
        "relaunch 2 of 2: the farm asked for it after S s",
        "the farm asked for it after S s; given up: it was relaunched 2 times; code 86",
    ]
    assert sorted(path.name for path in jobs.directory.glob("seen-*")) == ["seen-0", "seen-1", "seen-2"]


def test_dying_at_once_twice_in_a_row_is_not_tried_again(jobs: Jobs, launcher: Mpiexec) -> None:
    ended = supervised(jobs, launcher, "import sys\nsys.exit(86)\n", options=["--relaunches", "9"]).wait(90)
    assert decisions(ended.failed(86)) == [
        "relaunch 1 of 9: the farm asked for it after S s",
        "the farm asked for it after S s; given up: twice in a row it died within 10 s, and no result was kept; "
        "code 86",
    ]


def test_no_relaunch_was_wanted(jobs: Jobs, launcher: Mpiexec) -> None:
    ended = supervised(jobs, launcher, "import sys\nsys.exit(86)\n", options=["--relaunches", "0"]).wait(60)
    assert decisions(ended.failed(86)) == ["the farm asked for it after S s; no relaunch; code 86"]


# --- what is not -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("print('fine')\n", 0, []),
        ("raise ValueError('mine')\n", 1, ["the script ended with code 1: no relaunch"]),
        ("import sys\nsys.exit(3)\n", 3, ["the script ended with code 3: no relaunch"]),
        ("import sys\nsys.exit(85)\n", 85, ["the job was drained: run it again and it goes on; code 85"]),
    ],
)
def test_the_scripts_own_end_is_the_end(jobs: Jobs, launcher: Mpiexec, script: str, code: int, said: list[str]) -> None:
    ended = supervised(jobs, launcher, script).wait(60)
    assert decisions(ended.failed(code)) == said
    if code == 1:
        assert "ValueError: mine" in ended.err
    if code == 0:
        assert (ended.out, ended.err) == ("fine\n", "")


def test_a_script_that_is_not_there(jobs: Jobs, launcher: Mpiexec) -> None:
    farm = [*launcher.line(2), sys.executable, "-m", "mpiflow", "none.py"]
    ended = supervise(jobs, ["--", *farm]).wait(60)
    assert "mpiflow: none.py: there is no such file" in ended.failed(2)
    assert decisions(ended.err) == ["the script ended with code 2: no relaunch"]


BUSY = """
    import time, mpiflow
    sleep = mpiflow.python_app(time.sleep)
    sleep(0).result()
    futures = [sleep(600) for _ in range(4)]
    print("busy", flush=True)
    futures[0].result()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_and_all_below_it(jobs: Jobs, launcher: Mpiexec, number: signal.Signals, code: int) -> None:
    running = supervised(jobs, launcher, BUSY).shows("busy")
    running.process.send_signal(number)
    ended = running.wait(40)
    assert decisions(ended.failed(code)) == [f"ended by {number.name}; code {code}"]
    assert "mpiflow: interrupted" in ended.err
    assert jobs.left_behind(5.0) == []


def test_nothing_outlives_a_supervisor_that_is_killed(jobs: Jobs, launcher: Mpiexec) -> None:
    running = supervised(jobs, launcher, BUSY).shows("busy")
    running.process.kill()
    running.wait(10)
    assert jobs.left_behind(15.0) == []


def test_a_launcher_that_does_not_end_is_ended(jobs: Jobs, launcher: Mpiexec) -> None:
    """Stopped by its own script, which ends well all the same: by `supervise`, and by mpiflow's own command.

    Both at once, since each gives its launcher the same quarter of a minute.
    """
    script = HALVES.replace("HALF_TIME", "os.kill(launcher(), signal.SIGSTOP)")
    own = jobs.command(jobs.line("own", 3, ["script.py"]), cwd=jobs.write("own/script.py", script).parent)
    below_supervise = supervised(jobs, launcher, script).wait(90)
    assert (below_supervise.code, below_supervise.out) == (0, "285\n"), str(below_supervise)
    assert decisions(below_supervise.err) == []
    below_own = own.wait(90)
    assert (below_own.code, below_own.out) == (0, "285\n"), str(below_own)


# --- bad command lines -------------------------------------------------------------------------------------


def test_a_launcher_that_is_not_there(jobs: Jobs) -> None:
    ended = supervise(jobs, ["--", "mpiexec-of-nobody", "-n", "2", "python", "-m", "mpiflow", "script.py"]).wait(30)
    assert ended.failed(127) == "mpiflow supervise: mpiexec-of-nobody: there is no such program\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "which launcher? Its command line comes after --"),
        (["--"], "which launcher? Its command line comes after --"),
        (["--relaunches", "-1", "--", "true"], "argument --relaunches: "),
        (["--relaunches", "x", "--", "true"], "argument --relaunches: is 'x'; legal is a whole number from 0 up"),
        (["--leave-out", "a,,b", "--", "true"], "argument --leave-out: is 'a,,b'; legal are names of hosts"),
        (["mpiexec", "-n", "2", "--", "true"], "unrecognized arguments: mpiexec -n 2"),
    ],
)
def test_bad_options(jobs: Jobs, arguments: list[str], words: str) -> None:
    ended = supervise(jobs, arguments).wait(30)
    assert f"mpiflow supervise: {words}" in ended.failed(2)
    assert "usage: mpiflow supervise" in ended.err
    assert "Traceback" not in ended.err


def test_a_hostfile_that_is_not_there(jobs: Jobs, launcher: Mpiexec) -> None:
    line = [launcher.path, "-hostfile", "hosts.txt", "-n", "2", sys.executable, "-m", "mpiflow", "script.py"]
    words = f"hostfile hosts.txt: No such file or directory (looked in {jobs.directory})"
    assert supervise(jobs, ["--", *line]).wait(30).failed(2) == f"mpiflow supervise: {words}\n"


def test_no_host_is_left(jobs: Jobs, launcher: Mpiexec) -> None:
    line = [launcher.path, "-host", "n1,n2", "-n", "2", sys.executable, "-m", "mpiflow", "script.py"]
    ended = supervise(jobs, ["--leave-out", "n1,n2.site.edu", "--", *line]).wait(30)
    assert ended.failed(86) == "mpiflow supervise: no host is left; code 86\n"
    ended = supervise(jobs, ["--leave-out", "n1", "--", *line]).wait(30)
    words = "only n2 is left, with room for rank 0 alone; code 86"
    assert ended.failed(86) == f"mpiflow supervise: {words}\n"


def test_a_program_that_is_no_farm(jobs: Jobs, launcher: Mpiexec) -> None:
    ended = supervise(jobs, ["--", *launcher.line(2), "true"]).wait(30)
    words = "mpiexec ended with code 0, and no farm was heard of: does it pass on MPIFLOW_VERDICT?"
    assert ended.failed(0) == f"mpiflow supervise: {words}\n"
