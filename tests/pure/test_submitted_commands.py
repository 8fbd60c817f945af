"""`mpiflow submit batch ...` and `submit doctor`: the words in the batch script, and what is refused at the prompt."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from mpiflow.cli.main import main
from mpiflow.jobs.render import render
from mpiflow.jobs.spec import JobSpec

SYSTEMS: dict[str, tuple[str, ...]] = {
    "slurm": (), "pbs": (), "torque": (), "cobalt": ("--time", "5m"), "gridengine": ("--pe", "mpi"), "htcondor": (),
    "lsf": (), "flux": (), "fork": (),
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with commands."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks.txt").write_text("echo one\necho two\n")
    return tmp_path


def words_in(script: str) -> list[str]:
    """The words that the script gives to every rank, after ``-m mpiflow``."""
    joined = script.replace("\\\n", " ")
    (line,) = (one for one in joined.splitlines() if '"${interpreter[@]}" -m mpiflow' in one and one.endswith("&"))
    return shlex.split(line.split('"${interpreter[@]}" -m mpiflow')[1].removesuffix("&"))


def dry_run(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """What every rank is given."""
    assert main(["submit", "--dry-run", *words]) == 0
    return words_in(capsys.readouterr().out)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_batch(place: Path, capsys: pytest.CaptureFixture[str], system: str) -> None:
    words = dry_run(capsys, "--system", system, *SYSTEMS[system], "batch", "tasks.txt", "--retries", "2")
    batch = words[words.index("batch") :]
    joblog = str(place / "runinfo/jobs/batch-000/joblog")
    assert batch == ["batch", "--joblog", joblog, "--resume", "tasks.txt", "--retries", "2"]


def test_a_batch_with_a_template_and_options_on_both_sides(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--system", "slurm", "--isolation", "task", "--name", "it")
    words = dry_run(capsys, *options, "batch", "--retries=3", "echo '{}' $HOME", ":::", "a b", "c")
    joblog = str(place / "runinfo/jobs/it-000/joblog")
    own = ["--retries=3", "echo '{}' $HOME", ":::", "a b", "c"]
    assert words == ["--isolation", "task", "batch", "--joblog", joblog, "--resume", *own]


def test_a_template_with_a_joblog_of_its_own_has_none(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = dry_run(capsys, "--system", "slurm", "batch", "--retries", "2", "prog", "--joblog", "{}", ":::", "a", "b")
    assert words[:2] == ["batch", "--joblog"]
    assert words[3:] == ["--resume", "--retries", "2", "prog", "--joblog", "{}", ":::", "a", "b"]


def test_a_joblog_of_ones_own(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = dry_run(capsys, "--system", "slurm", "batch", "--joblog", "log", "--resume", "tasks.txt")
    assert words == ["batch", "--joblog", "log", "--resume", "tasks.txt"]


def test_doctor(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run(capsys, "--system", "slurm", "doctor") == ["doctor"]


@pytest.mark.parametrize("name", ["batch", "doctor"])
def test_a_script_of_that_name(place: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (place / name).write_text("print('here')\n")
    assert dry_run(capsys, "--system", "slurm", f"./{name}", "--retries", "2") == [f"./{name}", "--retries", "2"]
    assert dry_run(capsys, "--system", "slurm", str(place / name)) == [str(place / name)]


def test_files_are_looked_for_where_the_job_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "there").mkdir()
    (place / "there/more.txt").write_text("true\n")
    assert dry_run(capsys, "--system", "slurm", "--directory", "there", "batch", "more.txt")[-1] == "more.txt"
    assert Path.cwd() == place


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["batch"], "batch: a job has no standard input; name a file with the commands"),
        (["batch", "-"], "batch: a job has no standard input"),
        (["batch", "gzip {}"], "batch: a job has no standard input"),
        (["batch", "gzip", "::::", "-"], "batch: a job has no standard input"),
        (["batch", "none.txt"], "batch: none.txt: there is no such file (looked in "),
        (["batch", "--joblog", "log", "tasks.txt"], "--joblog without --resume: each time the job goes on"),
        (["batch", "--retries", "often", "tasks.txt"], "argument --retries: is 'often'; legal is a whole number"),
        (["batch", "--bogus", "tasks.txt"], "unrecognized arguments: --bogus"),
        (["batch", "-n", "8", "tasks.txt"], "-n: how many ranks a job has is said by --nodes and --ranks-per-node"),
        (["--array", "0-3", "batch", "tasks.txt"], "array is '0-3'; legal is nothing: batch is one job"),
        (["--directory", "none", "batch", "tasks.txt"], "directory none: No such file or directory"),
        (["--system", "kubernetes", "batch", "tasks.txt"], "batch: a document for a cloud is made for a script only"),
        (["doctor", "--stacks", "run"], "doctor: in a job it looks at the job itself"),
        (["doctor", "why"], "doctor: in a job it looks at the job itself; 'why' is no use"),
        (["status"], "status: there is no such file"),
    ],
)
def test_what_is_refused(place: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    try:
        code = main(["submit", "--dry-run", *(["--system", "slurm"] if "--system" not in words else []), *words])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    assert code == 2
    assert said in capsys.readouterr().err


def test_from_python(place: Path) -> None:
    spec = JobSpec(script="batch", arguments=("tasks.txt",), system="slurm").completed()
    assert words_in(render(spec)) == ["batch", "tasks.txt"]
