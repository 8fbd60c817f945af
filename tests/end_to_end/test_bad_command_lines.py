"""Command lines that cannot run: a word that helps, a code, and no hang on any rank."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Ended, Form, Jobs

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("launcher")]


WORDS = {
    "nowhere.py": "mpiflow: nowhere.py: there is no such file (looked in ",
    "run nowhere.py": "mpiflow: nowhere.py: there is no such file (looked in ",
    ".": "mpiflow: . is a directory; a Python script is wanted",
    "": "mpiflow: which script? Say `python -m mpiflow script.py`",
    "--fast script.py": "mpiflow: unrecognized arguments: --fast\nusage: mpiflow",
    "-n 0 script.py": "mpiflow: argument -n: is '0'; legal is a whole number from 1 up\nusage:",
    "-n two script.py": "mpiflow: argument -n: is 'two'; legal is a whole number from 1 up",
    "--isolation none script.py": "mpiflow: argument --isolation: invalid choice: 'none'",
    "--seed -1 script.py": "mpiflow: argument --seed: ",
    "--runners-per-rank 0 script.py": "mpiflow: argument --runners-per-rank: is '0'; legal is",
}


@pytest.mark.parametrize("words", WORDS)
def test_command_line_that_cannot_run(jobs: Jobs, words: str) -> None:
    """Code 2, said once, without a traceback, and before anything is launched."""
    jobs.write("script.py", "print('ran')\n")
    refused(jobs.command([sys.executable, "-m", "mpiflow", *words.split()]).wait(), WORDS[words])


@pytest.mark.parametrize("words", ["nowhere.py", "-n 0 script.py"])
def test_command_line_that_cannot_run_on_ranks(jobs: Jobs, words: str) -> None:
    """The same on rank 0 of a job; the others leave."""
    jobs.write("script.py", "print('ran')\n")
    refused(jobs.command(jobs.line("mpiexec", 3, words.split())).wait(), WORDS[words])


def refused(ended: Ended, said: str) -> None:
    err = ended.failed(2)
    assert said in err
    assert err.count("mpiflow: ") == 1
    assert "Traceback" not in err
    assert ended.out == ""


@pytest.mark.parametrize("form", ["mpiexec", "own", "lone", "plain"])
def test_syntax_error_is_shown_as_python_shows_it(jobs: Jobs, form: Form) -> None:
    """File, line, mark, and no frame of ours; code 1."""
    err = jobs.run("x = 1\ny = (2,\n", form=form).failed(1)
    assert "script.py" in err
    assert "line 2" in err
    assert err.splitlines()[-1] == "SyntaxError: '(' was never closed"
    assert "Traceback" not in err, err
    assert "rank0.py" not in err


def test_script_that_is_not_text(jobs: Jobs) -> None:
    """Not a hang, not silence."""
    (jobs.directory / "script.py").write_bytes(b"\x7fELF\x00\x01\xff\xfe")
    err = jobs.run("script.py").failed(1)
    assert "Error" in err.splitlines()[-1], err


def test_version_and_help(jobs: Jobs) -> None:
    """Answered with or without a launcher, once."""
    import mpiflow

    alone = [sys.executable, "-m", "mpiflow"]
    for line in (jobs.line("mpiexec", 2, []), alone):
        assert jobs.command([*line, "--version"]).wait().well() == f"mpiflow {mpiflow.__version__}\n"
    out = jobs.command([*alone, "--help"]).wait().well()
    assert out.count("usage: mpiflow") == 1
    assert "doctor" in out


def test_config_that_cannot_run(jobs: Jobs) -> None:
    """Each names the field, its value and what is legal."""
    script = """
        import mpiflow
        from mpiflow.errors import ConfigurationError

        def refused(make):
            try:
                make()
            except ConfigurationError as error:
                return str(error)
            raise AssertionError("it was taken")

        print(refused(lambda: mpiflow.Config(retries=-1)))
        print(refused(lambda: mpiflow.load({"retries": 1})))
        print(refused(lambda: mpiflow.MPIExecutor(isolation="none")))
        print(refused(lambda: mpiflow.Config(executors=[mpiflow.MPIExecutor("a"), mpiflow.MPIExecutor("a")])))
        config = mpiflow.Config()
        config.exit_mode = "later"
        print(refused(lambda: mpiflow.load(config)))
        with mpiflow.load():
            print(refused(mpiflow.load))
    """
    out = jobs.run(script, ranks=2).well().splitlines()
    assert out[0] == "Config: retries is -1; legal is a whole number from 0 up"
    assert out[1].startswith("load() takes a Config, not dict:")
    assert out[2] == "MPIExecutor: isolation is 'none'; legal are 'runner', 'rank' and 'task'"
    assert out[3] == "Config: executors: two have the label 'a'"
    assert out[4] == "Config: exit_mode is 'later'; legal is 'cleanup', 'skip' or 'wait'"
    assert out[5] == "Config has already been loaded"
