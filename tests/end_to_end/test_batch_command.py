"""`mpiflow batch`: commands across real ranks, counted; and its joblog beside that of GNU parallel."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from mpiflow.cli.batch.joblog import HEADER, Entry, read
from mpiflow.exitcodes import RELAUNCH

if TYPE_CHECKING:
    from launching import Ended, Form, Jobs, Mpiexec

pytestmark = [pytest.mark.timeout(110), pytest.mark.usefixtures("launcher")]

FORMS = ["mpiexec", "own", "lone"]
TASKS = """\
echo one
exit 3
kill -9 $$
printf 'no end of line'
echo error >&2
# a comment, and an empty line

printf '%s\\n' "tab\there" 'quo"tes'
if
"""


def batch(jobs: Jobs, *words: str, form: Form = "mpiexec", ranks: int = 3, stdin: bytes = b"") -> Ended:
    return jobs.command(jobs.line(form, ranks, ["batch", *words]), stdin=stdin).wait(60)


def joblog(jobs: Jobs, name: str = "log") -> dict[int, Entry]:
    said: list[str] = []
    found = read(str(jobs.directory / name), said.append)
    assert said == []
    return found


def write(jobs: Jobs, name: str, text: str) -> str:
    path = jobs.directory / name
    path.write_bytes(text.encode())
    return str(path)


@pytest.mark.parametrize("form", FORMS)
def test_commands_of_a_file_run_and_are_counted(jobs: Jobs, form: Form) -> None:
    ended = batch(jobs, "--joblog", "log", write(jobs, "tasks", TASKS), form=form)
    assert ended.code == 3, str(ended)
    assert sorted(ended.out.replace("no end of line", "").splitlines()) == ["one", 'quo"tes', "tab\there"]
    assert "no end of line" in ended.out
    assert "error\n" in ended.err
    assert "syntax error" in ended.err
    ends = {number: (entry.exit_code, entry.signal) for number, entry in joblog(jobs).items()}
    well = (0, 0)
    assert ends == {1: well, 2: (3, 0), 3: (0, 9), 4: well, 5: well, 6: well, 7: well, 8: well, 9: (2, 0)}


def test_its_joblog_is_that_of_gnu_parallel(jobs: Jobs) -> None:
    """All but host and times, which are those of another run; GNU parallel reads ours, and we read its."""
    parallel = shutil.which("parallel")
    if parallel is None or b"GNU" not in subprocess.run([parallel, "--version"], capture_output=True).stdout:
        pytest.skip("GNU parallel is not installed")
    tasks = write(jobs, "tasks", TASKS)
    line = [parallel, "--will-cite", "-j2", "--joblog", "theirs"]
    with open(tasks, "rb") as commands:
        theirs = subprocess.run(
            line,
            stdin=commands,
            cwd=jobs.directory,
            capture_output=True,
            timeout=60,
            env={**os.environ, "SHELL": "/bin/bash"},
        )
    assert theirs.returncode == batch(jobs, "--joblog", "ours", tasks).code
    columns = {
        name: {e.number: (e.received, e.exit_code, e.signal, e.command) for e in joblog(jobs, name).values()}
        for name in ("ours", "theirs")
    }
    assert columns["ours"] == columns["theirs"]
    assert (jobs.directory / "theirs").read_bytes().startswith(HEADER)
    with open(tasks, "rb") as commands:
        line[-1:] = ["ours", "--resume-failed", "--dry-run"]
        again = subprocess.run(line, stdin=commands, cwd=jobs.directory, capture_output=True, timeout=60)
    assert sorted(again.stdout.splitlines()) == [b"exit 3", b"if", b"kill -9 $$"]
    ended = batch(jobs, "--joblog", "theirs", "--resume", tasks)
    assert (ended.code, ended.out) == (3, ""), str(ended)


@pytest.mark.parametrize("form", FORMS)
def test_a_template_is_filled_from_the_command_line_and_from_standard_input(
    jobs: Jobs, launcher: Mpiexec, form: Form
) -> None:
    ended = batch(jobs, "echo {/.}-{#} $PARALLEL_SEQ {}", ":::", "a/b.c", "x  y", "$(exit)", form=form)
    assert sorted(ended.well().splitlines()) == ["$(exit)-3 3 $(exit)", "b-1 1 a/b.c", "x  y-2 2 x  y"]
    if (form, launcher.flavour) == ("mpiexec", "openmpi"):
        return  # it never tells the end of standard input, see `comm.launcher.meet_front`
    ended = batch(jobs, "echo", "in", "{}", form=form, stdin=b"a\nb c\n")
    assert sorted(ended.well().splitlines()) == ["in a", "in b c"]


def test_output_of_one_command_stays_together(jobs: Jobs) -> None:
    line = "for i in 1 2 3 4 5; do echo {}; sleep 0.01; done"
    out = batch(jobs, line, ":::", *map(str, range(40)), ranks=5).well().splitlines()
    assert len(out) == 200
    assert all(len(set(out[first : first + 5])) == 1 for first in range(0, 200, 5))


def test_more_output_than_travels_comes_out_whole_and_leaves_no_file(jobs: Jobs, launcher: Mpiexec) -> None:
    """40 MB of each stream. Open MPI's own launcher hangs on 20 MB that any program of one rank prints."""
    form: Form = "lone" if launcher.flavour == "openmpi" else "mpiexec"
    line = "head -c 40000000 /dev/zero | tr '\\0' "
    ended = batch(jobs, ":::", line + "x", line + "y >&2", form=form)
    assert (ended.code, ended.out.count("x"), ended.err.count("y")) == (0, 40_000_000, 40_000_000)
    assert not list(jobs.directory.glob("runinfo/*/output/*"))


def test_a_command_is_tried_again(jobs: Jobs) -> None:
    line = "echo try >> tries-{}; test $(wc -l < tries-{}) = {}"
    ended = batch(jobs, "--retries", "3", "--joblog", "log", line, ":::", "1", "2", "3", "4")
    assert ended.code == 1, str(ended)
    tries = [len((jobs.directory / f"tries-{n}").read_text().splitlines()) for n in (1, 2, 3, 4)]
    assert tries == [1, 2, 3, 3]
    assert [entry.exit_code for _, entry in sorted(joblog(jobs).items())] == [0, 0, 0, 1]


def test_resume_runs_what_is_left_and_counts_what_failed(jobs: Jobs) -> None:
    lines = [f"echo {n} >> ran; test {n} != 2 -o -e fixed" for n in range(1, 6)]
    tasks = write(jobs, "tasks", "\n".join(lines) + "\n")
    assert batch(jobs, "--joblog", "log", "--resume", tasks).code == 1
    log = jobs.directory / "log"
    kept = [line for line in log.read_bytes().splitlines(True) if not line.startswith((b"4", b"5"))]
    log.write_bytes(b"".join(kept) + b"5\tnode\t16691")
    ended = batch(jobs, "--joblog", "log", "--resume", tasks)
    assert ended.failed(1) == "mpiflow: log: its last line is not whole; that job is run again\n"
    (jobs.directory / "fixed").touch()
    assert batch(jobs, "--joblog", "log", "--resume-failed", tasks).code == 0
    ran = (jobs.directory / "ran").read_text().split()
    assert {n: ran.count(n) for n in "12345"} == {"1": 1, "2": 2, "3": 1, "4": 2, "5": 2}


def test_other_commands_than_before_are_not_resumed(jobs: Jobs) -> None:
    assert batch(jobs, "--joblog", "log", ":::", "true", "echo b").code == 0
    for commands in (["true", "echo c"], ["true"]):
        ended = batch(jobs, "--joblog", "log", "--resume", ":::", *commands)
        assert "job 2 was 'echo b', and " in ended.failed(255)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none"], "none: there is no such file (looked in "),
        (["."], ". cannot be read: Is a directory"),
        (["nul"], "nul, line 2: there is a NUL byte in it"),
        (["--resume", "nul"], "--resume needs --joblog FILE"),
        (["--joblog", "none/log", ":::", "true"], "--joblog none/log cannot be written: No such file or directory"),
        (["--joblog", "nul", "--resume", ":::", "true"], "--joblog nul is no joblog"),
        (["echo {9}", ":::", "a"], "{9} in the template: there are 1 sources"),
    ],
)
def test_what_cannot_be_run_is_said_and_ends_with_255(jobs: Jobs, words: list[str], said: str) -> None:
    (jobs.directory / "nul").write_bytes(b"touch ran\ntouch \0ran\n")
    err = batch(jobs, *words, ranks=2).failed(255)
    assert said in err
    assert "Traceback" not in err
    assert not (jobs.directory / "ran").exists()


def test_an_empty_file_is_a_batch_that_is_done(jobs: Jobs) -> None:
    ended = batch(jobs, "--joblog", "log", write(jobs, "tasks", ""))
    assert (ended.code, ended.err) == (0, "mpiflow: there are no commands: nothing to run\n")
    assert (jobs.directory / "log").read_bytes() == HEADER


def test_a_file_of_windows_runs(jobs: Jobs) -> None:
    ended = batch(jobs, write(jobs, "tasks", "echo a\r\necho b\r\n"), ranks=2)
    assert (ended.code, sorted(ended.out.splitlines(True))) == (0, ["a\n", "b\n"])
    assert "lines end in CR LF" in ended.err


def test_a_command_that_is_too_long_is_a_failed_job(jobs: Jobs) -> None:
    tasks = write(jobs, "tasks", f"true {'x' * 200_000}\necho after\n")
    ended = batch(jobs, "--joblog", "log", tasks)
    assert (ended.code, ended.out) == (1, "after\n"), str(ended)
    assert "mpiflow: job 1 (true xxx" in ended.err
    assert "Argument list too long" in ended.err
    assert joblog(jobs)[1].exit_code == 255


def test_a_command_may_start_mpi_itself(jobs: Jobs) -> None:
    """Nothing of the launch is in its environment."""
    assert batch(jobs, "env | grep -c -E '^(PMI_|PMIX_|OMPI_|HYDI_)'; true", ":::", "x").well() == "0\n"


def test_a_drained_batch_goes_on_where_it_was(jobs: Jobs) -> None:
    """Ended by the signal of a batch system with code 85, then resumed: each command has run once."""
    tasks = write(jobs, "tasks", "".join(f"echo {n} >> ran; sleep 0.3\n" for n in range(40)))
    line = [sys.executable, "-m", "mpiflow", "-n", "1", "batch", "--joblog", "log", "--resume", tasks]
    running = jobs.command(line)
    end = time.monotonic() + 30
    while not ((jobs.directory / "log").exists() and len(joblog(jobs)) >= 3):
        assert running.process.poll() is None, str(running.wait())
        assert time.monotonic() < end
        time.sleep(0.02)
    running.process.send_signal(signal.SIGUSR1)
    assert running.wait(60).code == 85
    done = len(joblog(jobs))
    assert 3 <= done < 40
    ran = (jobs.directory / "ran").read_text().split()
    assert len(ran) == done
    ended = jobs.command([*line[:3], "-n", "1", "--runners-per-rank", "8", *line[5:]]).wait(90)
    assert ended.code == 0, str(ended)
    assert sorted((jobs.directory / "ran").read_text().split(), key=int) == [str(n) for n in range(40)]
    assert sorted(joblog(jobs)) == list(range(1, 41))


def test_a_closed_standard_output_ends_the_batch_in_words(jobs: Jobs) -> None:
    tasks = write(jobs, "tasks", "echo hello\n" * 50)
    line = " ".join([sys.executable, "-m", "mpiflow", "-n", "1", "batch", "--joblog", "log", tasks])
    ended = jobs.command(["bash", "-c", f"{line} | true; exit ${{PIPESTATUS[0]}}"]).wait(60)
    assert "standard output cannot be written: Broken pipe" in ended.failed(255)
    assert "Traceback" not in ended.err


def test_a_lost_rank_loses_no_command(jobs: Jobs) -> None:
    """Killed by a command of its own, three processes above it: that one runs again elsewhere, and is no failure."""
    up = "up() { sed -n 's/^PPid:.//p' /proc/$1/status; }"
    kill = f"{up}; test -e killed || {{ touch killed; kill -9 $(up $(up $PPID)); sleep 60; }}; echo survived"
    tasks = write(jobs, "tasks", f"{kill}\n" + "".join(f"sleep 0.05; echo {n}\n" for n in range(20)))
    ended = batch(jobs, "--joblog", "log", tasks)
    assert ended.code == 0, str(ended)
    assert sorted(ended.out.splitlines()) == sorted(["survived", *map(str, range(20))])
    assert "is lost" in ended.err
    assert sorted(joblog(jobs)) == list(range(1, 22))


def test_a_batch_without_any_rank_left_asks_to_be_started_again(jobs: Jobs) -> None:
    """What had ended has its line in the joblog, and what had not has none: it runs the next time."""
    up = "up() { sed -n 's/^PPid:.//p' /proc/$1/status; }"
    kill = f"{up}; sleep 0.5; kill -9 $(up $(up $PPID)); sleep 60"
    tasks = write(jobs, "tasks", f"echo one\necho two\n{kill}\n{kill}\n{kill}\n{kill}\n")
    ended = batch(jobs, "--joblog", "log", tasks)
    assert (ended.code, sorted(ended.out.split())) == (RELAUNCH, ["one", "two"]), str(ended)
    assert sorted(joblog(jobs)) == [1, 2]
    assert "none of the 2 workers is left to run tasks. Run it again" in ended.err


def test_a_supervised_batch_goes_on_when_rank_0_has_died(jobs: Jobs, launcher: Mpiexec) -> None:
    """The launcher's command is started again as it was; the joblog knows what has been done."""
    kill = "test -e killed || { touch killed; kill -9 $(cat victim); sleep 60; }"
    lines = [f"echo {n} >> ran" for n in range(10)] + [kill] + [f"echo {n} >> ran" for n in range(10, 20)]
    tasks = write(jobs, "tasks", "\n".join(lines) + "\n")
    rank = 'n=${PMI_RANK:-$OMPI_COMM_WORLD_RANK}; test "$n" != 0 || echo $$ > victim; exec "$@"'
    farm = ["sh", "-c", rank, "rank", sys.executable, "-m", "mpiflow", "batch", "--joblog", "log", "--resume", tasks]
    line = [sys.executable, "-m", "mpiflow", "supervise", "--", *launcher.line(2), *farm]
    ended = jobs.command(line).wait(100)
    assert ended.code == 0, str(ended)
    assert (jobs.directory / "killed").exists()
    assert {int(n) for n in (jobs.directory / "ran").read_text().split()} == set(range(20))
    assert sorted(joblog(jobs)) == list(range(1, 22))
