"""Batch scripts that are really run, with a real launcher: the warning, the continuation, the end, the exit code."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import pytest
from launching import Ended, Jobs, Mpiexec, Running

from mpiflow.jobs.render import render
from mpiflow.jobs.spec import JobSpec

pytestmark = pytest.mark.usefixtures("launcher")

#: Ten tasks, each of which leaves a line when it runs. Tasks 5 and 8 wait for a gate, and what comes after, for them.
SCRIPT = """
import os, sys, time, mpiflow

@mpiflow.python_app(cache=True)
def gated(number, after=None):
    with open("ran", "a") as ran:
        ran.write(f"{number}\\n")
    while number in (5, 8) and not os.path.exists(f"gate{number}"):
        time.sleep(0.02)
    return number

futures = [gated(number) for number in range(6)]
futures += [gated(number, futures[5]) for number in range(6, 9)]
futures += [gated(9, futures[8])]
print("sum", sum(future.result() for future in futures), flush=True)
sys.exit(int(sys.argv[1]))
"""


class Scripts:
    """Batch scripts of one job, in a directory of its own."""

    def __init__(self, jobs: Jobs, **fields: object) -> None:
        self.jobs = jobs
        self.place = jobs.directory
        (self.place / "sweep.py").write_text(textwrap.dedent(SCRIPT))
        given = {"script": "sweep.py", "arguments": ("0",), "ranks_per_node": 3, "directory": str(self.place)}
        self.job = JobSpec(**{**given, "output": "job", **fields}).completed("fork")  # type: ignore[arg-type]
        self.script = self.place / "job" / "job.sh"
        self.script.parent.mkdir()
        self.script.write_text(render(self.job))

    def start(self, **environment: str) -> Running:
        return self.jobs.command(["bash", str(self.script)], env=environment)

    def shows(self, running: Running, attempt: int, text: str, ending: str = "out", limit: float = 60.0) -> None:
        """Wait until an attempt has printed this."""
        end = time.monotonic() + limit
        while not any(text in path.read_text() for path in self.script.parent.glob(f"*.{attempt}.{ending}")):
            ended = running.process.poll()
            assert ended is None, f"ended with {ended} without printing {text!r}\n{self}"
            assert time.monotonic() < end, f"no {text!r}\n{self}"
            time.sleep(0.02)

    def begins(self, running: Running, task: int) -> None:
        """Wait until a task has begun."""
        end = time.monotonic() + 60
        while f"{task}\n" not in self.ran():
            assert running.process.poll() is None, str(self)
            assert time.monotonic() < end, str(self)
            time.sleep(0.02)

    def ran(self) -> list[str]:
        path = self.place / "ran"
        return path.read_text().splitlines(keepends=True) if path.exists() else []

    def ended(self) -> list[list[str]]:
        return [line.split()[1:] for line in (self.script.parent / "ended").read_text().splitlines()]

    def __str__(self) -> str:
        return "\n".join(
            f"--- {path}\n{path.read_text()}" for path in sorted(self.script.parent.iterdir()) if path.suffix != ".sh"
        )


def drained(scripts: Scripts, running: Running, attempt: int = 1, task: int = 5) -> None:
    """Tell it that its time is nearly over while a task runs, and let that end."""
    scripts.begins(running, task)
    running.process.send_signal(signal.SIGUSR1)
    scripts.shows(running, attempt, "mpiflow: draining: SIGUSR1", "err")
    (scripts.place / f"gate{task}").touch()


def with_code(scripts: Scripts, ended: Ended, code: int) -> None:
    assert (ended.code, ended.out, ended.err) == (code, "", ""), f"{ended}\n{scripts}"


def test_it_goes_on_after_the_warning_until_all_is_done(jobs: Jobs) -> None:
    scripts = Scripts(jobs)
    (scripts.place / "gate8").touch()
    running = scripts.start()
    drained(scripts, running)
    with_code(scripts, running.wait(100), 0)
    assert sorted(map(int, scripts.ran())) == list(range(10)), "each task ran once"
    outputs = sorted(path.name.split(".", 1)[1] for path in scripts.script.parent.glob("*.out"))
    assert [name[-5:] for name in outputs] == ["1.out", "2.out"]
    scripts_last = next(scripts.script.parent.glob("*.2.out")).read_text()
    assert scripts_last.endswith("sum 45\n")
    assert not (scripts.script.parent / "attempts").exists()


@pytest.mark.parametrize(
    ("system", "again", "spent", "variable"), [("gridengine", 99, 85, "JOB_ID"), ("lsf", 85, 86, "LSB_JOBID")]
)
def test_it_goes_on_so_often_and_no_more(
    jobs: Jobs, launcher: Mpiexec, system: str, again: int, spent: int, variable: str
) -> None:
    """By an exit code: the first time that which has the batch system run it again, then one which does not."""
    wrapper = shlex.join(launcher.line(3))
    scripts = Scripts(jobs, system=system, launcher="wrapped", wrapper=wrapper, max_restarts=1)
    running = scripts.start(**{variable: "17"})
    drained(scripts, running)
    with_code(scripts, running.wait(100), again)
    assert (scripts.script.parent / "attempts").read_text() == "1\n"
    second = scripts.start(**{variable: "17"})
    drained(scripts, second, attempt=2, task=8)
    with_code(scripts, second.wait(100), spent)
    assert scripts.ended() == [["1", str(again)], ["2", str(spent)]]


def test_later_links_of_a_chain_leave_at_once_when_the_work_is_done(jobs: Jobs, launcher: Mpiexec) -> None:
    wrapper = shlex.join(launcher.line(3))
    scripts = Scripts(jobs, system="gridengine", launcher="wrapped", wrapper=wrapper, chain=3, arguments=("4",))
    first = scripts.start(JOB_ID="17")
    drained(scripts, first)
    with_code(scripts, first.wait(100), 85)
    (scripts.place / "gate8").touch()
    with_code(scripts, scripts.start(JOB_ID="18").wait(100), 4)
    assert sorted(map(int, scripts.ran())) == list(range(10))
    with_code(scripts, scripts.start(JOB_ID="19").wait(100), 4)
    assert (scripts.script.parent / "sweep.19.3.out").read_text() == "", "it has not even looked at its nodes"
    assert scripts.ended() == [["1", "85"], ["2", "4"], ["3", "4"]]


def test_the_exit_code_of_the_script_is_that_of_the_job(jobs: Jobs) -> None:
    scripts = Scripts(jobs, arguments=("3",))
    for task in (5, 8):
        (scripts.place / f"gate{task}").touch()
    with_code(scripts, scripts.start().wait(100), 3)
    assert scripts.ended() == [["1", "3"]]


def test_sigterm_ends_it_and_leaves_nothing_behind(jobs: Jobs) -> None:
    scripts = Scripts(jobs)
    running = scripts.start()
    scripts.begins(running, 5)
    running.process.send_signal(signal.SIGTERM)
    with_code(scripts, running.wait(100), 143)
    assert scripts.ended() == [["1", "143"]]


def test_a_launcher_that_does_not_fit_is_found_before_the_run(jobs: Jobs) -> None:
    """What the check ends with for worlds of one rank is the code of the job, and no copy of the script runs."""
    scripts = Scripts(jobs, system="gridengine", launcher="wrapped", wrapper="bash -c 'exit 72'")
    with_code(scripts, scripts.start(JOB_ID="17").wait(100), 72)
    words = (scripts.script.parent / "sweep.17.1.err").read_text()
    assert "mpiflow: the check before the run failed with code 72, so there is no run" in words
    assert scripts.ran() == []


def test_a_launcher_that_is_not_there(jobs: Jobs) -> None:
    scripts = Scripts(jobs, system="gridengine", launcher="wrapped", wrapper="no-such-launcher -n 3")
    ended = scripts.start(JOB_ID="17").wait(60)
    assert ended.code == 127, f"{ended}\n{scripts}"
    words = (scripts.script.parent / "sweep.17.1.err").read_text()
    assert words.startswith(f"mpiflow: no-such-launcher is not there on {os.uname().nodename}: PATH is ")


def test_a_directory_that_is_not_there_on_the_node(jobs: Jobs, tmp_path: Path) -> None:
    scripts = Scripts(jobs)
    text = scripts.script.read_text()
    scripts.script.write_text(text.replace(f"cd -- {jobs.directory}", f"cd -- {tmp_path}/none"))
    ended = scripts.start().wait(60)
    assert ended.code == 1
    assert f"{tmp_path}/none: No such file or directory" in ended.err


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root can hide a directory")
def test_a_directory_that_one_rank_does_not_see(jobs: Jobs, launcher: Mpiexec) -> None:
    """It is named, with the host; the ranks that see it do not wait for ever for the one that does not."""
    hides = """\
if [ "${PMI_RANK-$OMPI_COMM_WORLD_RANK}" = 1 ]; then
    exec unshare -m sh -c 'mount -t tmpfs none "$PWD" && exec "$@"' sh "$@"
fi
exec "$@"
"""
    (jobs.directory / "hides.sh").write_text(hides)
    wrapper = shlex.join([*launcher.line(3), "bash", "hides.sh"])
    scripts = Scripts(jobs, system="gridengine", launcher="wrapped", wrapper=wrapper, nodes=3, ranks_per_node=1)
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, timeout=30, check=False).returncode:
        pytest.skip("mount namespaces are not to be had here")
    with_code(scripts, scripts.start(JOB_ID="17").wait(100), 73)
    words = (scripts.script.parent / "sweep.17.1.err").read_text()
    assert words.count(f"mpiflow: the directory {scripts.script.parent} is not there on {os.uname().nodename}\n") == 1
    assert "mpiflow: the check before the run failed with code 73, so there is no run" in words
    assert scripts.ran() == []
