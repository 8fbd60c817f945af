"""A job's description: what is refused when it is made, and how times and sizes are read."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import pytest

import mpiflow
from mpiflow.errors import ConfigurationError
from mpiflow.jobs.render import render
from mpiflow.jobs.spec import JobSpec, parse_memory
from mpiflow.jobs.systems import SYSTEMS, find, hours, hours_minutes, minutes, parse_time


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"nodes": 0}, "nodes is 0; legal is a whole number from 1 up"),
        ({"nodes": -3}, "nodes is -3; legal is a whole number from 1 up"),
        ({"nodes": "many"}, "nodes is 'many'; legal is a whole number from 1 up"),
        ({"nodes": True}, "nodes is True; legal is a whole number from 1 up"),
        ({"nodes": 1.5}, "nodes is 1.5; legal is a whole number from 1 up"),
        ({"nodes": None}, "nodes is None; legal is a whole number from 1 up"),
        ({"ranks_per_node": 0}, "ranks_per_node is 0; legal is a whole number from 1 up"),
        ({"chain": -1}, "chain is -1; legal is a whole number from 0 up"),
        ({"time": 0}, "time is 0; legal is a number of seconds from 1 up"),
        ({"time": "2:00:00"}, "time is '2:00:00'; legal is a whole number from 1 up"),
        ({"time": 100}, "warn_before is 120; legal is a number of seconds below the 100 s of the job"),
        ({"script": ""}, "script is ''; legal is the path of a Python script"),
        ({"arguments": "one two"}, "arguments is 'one two'; legal is a tuple of texts"),
        ({"arguments": (1,)}, "arguments is (1,); legal is a tuple of texts"),
        ({"arguments": None}, "arguments is None; legal is a tuple of texts"),
        ({"modules": 3}, "modules is 3; legal is a tuple of texts"),
        ({"setup": b"x"}, "setup is b'x'; legal is a tuple of texts"),
        ({"directives": {"a": 1}}, "directives is {'a': 1}; legal is a tuple of texts"),
        ({"farm_options": {"a"}}, "farm_options is {'a'}; legal is a tuple of texts"),
        ({"memory": 64}, "memory is 64; legal is a number of bytes from 1048576 up, or 0"),
        ({"arguments": ("a\0b",)}, "arguments is 'a\\x00b'; legal is a text without NUL: no command line can hold one"),
        ({"queue": "a\0"}, "queue is 'a\\x00'; legal is a text without NUL: no command line can hold one"),
        ({"queue": 7}, "queue is 7; legal is a text"),
        ({"exclusive": "yes"}, "exclusive is 'yes'; legal is True or False"),
        ({"system": "sge"}, f"system is 'sge'; legal are {', '.join(SYSTEMS)}"),
        ({"container_runtime": "docker"}, "container_runtime is 'docker'; legal is apptainer, shifter, podman-hpc"),
        (
            {"mail_events": "begin,never"},
            "mail_events is 'begin,never'; legal is some of begin, end, fail, with commas between them",
        ),
        ({"array": "a-b"}, "array is 'a-b'; legal is numbers such as 0-9, 1,3,7 or 1-100%10"),
        ({"array": "0-3", "chain": 2}, "chain and array: legal is one of them; a chain continues one job"),
        ({"venv": "/v", "conda": "c"}, "venv and conda: legal is one of them"),
        ({"launcher": "wrapped"}, "wrapper is ''; legal is the words before the command, such as \"mpiexec -n 8\""),
        ({"wrapper": "x"}, "wrapper is 'x'; legal is nothing, unless launcher is \"wrapped\""),
        (
            {"system": "fork", "nodes": 2},
            'nodes is 2; legal is 1, because system is "fork": all ranks are on one machine',
        ),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_is_said_when_it_is_made(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        JobSpec(**{"script": "a.py", **fields})  # type: ignore[arg-type]
    assert str(caught.value) == words


def test_an_unknown_launcher() -> None:
    with pytest.raises(ConfigurationError, match=r"^launcher is 'mpiexe'; legal are mpiexec, mpirun, hydra, "):
        JobSpec(script="a.py", launcher="mpiexe")


def test_a_wrapper_with_an_open_quote_is_refused() -> None:
    job = JobSpec(script="a.py", launcher="wrapped", wrapper="run 'this")
    with pytest.raises(ConfigurationError, match=r"wrapper is \"run 'this\": No closing quotation"):
        render(job.completed("slurm"))


def test_lists_become_tuples() -> None:
    job = JobSpec(script="a.py", arguments=["x"])  # type: ignore[arg-type]
    assert job.arguments == ("x",)
    assert hash(job) == hash(dataclasses.replace(job))


def test_what_is_left_open_is_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = JobSpec(script="dir/my sweep.py").completed("slurm")
    assert (job.system, job.launcher, job.python) == ("slurm", "srun", sys.executable)
    assert (job.name, job.directory, job.output) == ("my_sweep", str(tmp_path), str(tmp_path / "runinfo" / "jobs"))
    assert job.completed("lsf") == job, "what is said is not said otherwise"


def test_the_interpreter_is_that_of_the_environment() -> None:
    assert JobSpec(script="a.py", venv="env").completed("slurm").python == os.path.abspath("env/bin/python")
    assert JobSpec(script="a.py", conda="env").completed("slurm").python == "python"
    assert JobSpec(script="a.py", conda="env", python="/x").completed("slurm").python == "/x"


def test_without_a_batch_system_there_is_nothing_to_fill_in() -> None:
    with pytest.raises(ConfigurationError, match="system is ''; legal is slurm, pbs, "):
        JobSpec(script="a.py").completed()


def test_condor_over_several_machines_does_not_fork() -> None:
    assert JobSpec(script="a.py").completed("htcondor").launcher == "fork"
    assert JobSpec(script="a.py", nodes=2).completed("htcondor").launcher == "mpiexec"


def test_it_is_exported() -> None:
    assert mpiflow.JobSpec is JobSpec


# --- times and sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["", *SYSTEMS])
@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2:00:00", 7200), ("0:00:01", 1), ("100:00:00", 360_000), ("1-00:00:00", 86_400), ("90m", 5400), ("1.5h", 5400),
     ("30s", 30), ("2d", 172_800), (" 1:00:00 ", 3600)],
)  # fmt: skip
def test_forms_that_mean_the_same_everywhere(system: str, text: str, seconds: int) -> None:
    assert parse_time(text, system) == seconds


@pytest.mark.parametrize(
    ("system", "text", "seconds"),
    [
        ("slurm", "90", 5400), ("slurm", "90:30", 5430), ("slurm", "1-12", 129_600), ("slurm", "1-12:30", 131_400),
        ("pbs", "90", 90), ("pbs", "01:30", 90), ("torque", "3600", 3600), ("gridengine", "90", 90),
        ("cobalt", "90", 5400), ("cobalt", "1:30", 5400), ("cobalt", "1:02:03:04", 93_784),
        ("lsf", "90", 5400), ("lsf", "1:30", 5400), ("flux", "90", 5400), ("htcondor", "90", 90),
    ],
)  # fmt: skip
def test_forms_that_each_system_has_for_itself(system: str, text: str, seconds: int) -> None:
    assert parse_time(text, system) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "0", "0:00:00", "-1", "many", "1:99:00", "1:00:60", "1-24:00:00", "1:2:3:4:5", "1h30", "٣"],
)
def test_wrong_times(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_time(text, "slurm")
    legal = "2:00:00, 1-12:00:00 or a number with a unit, such as 90m or 1.5h; a number alone is minutes in Slurm"
    assert str(caught.value) == f"time is {text!r}; legal are {legal}"


def test_two_parts_mean_nothing_without_a_system() -> None:
    with pytest.raises(ConfigurationError, match="time is '90:00'; legal are"):
        parse_time("90:00")


def test_times_as_systems_write_them() -> None:
    assert [hours(59), hours(3600), hours(360_000)] == ["0:00:59", "1:00:00", "100:00:00"]
    assert [minutes(1), minutes(60), minutes(61)] == ["1", "1", "2"]
    assert [hours_minutes(1), hours_minutes(3600), hours_minutes(7290)] == ["0:01", "1:00", "2:02"]


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_reads_back_what_it_writes(name: str) -> None:
    written = find(name).walltime(7200)
    assert parse_time(written + ("s" if written == "7200" else ""), name) == 7200


@pytest.mark.parametrize(("text", "size"), [("1k", 1024), ("64G", 2**36), ("64gb", 2**36), ("2 TiB", 2**41)])
def test_sizes(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "0", "64", "64b", "-1G", "many", "1.5G", "1X"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(ConfigurationError, match="legal is a number with a unit, such as 512M or 64G"):
        parse_memory(text)


def test_words_that_can_be_looked_at_once_only() -> None:
    assert JobSpec(script="a.py", arguments=map(str, [1, 2])).arguments == ("1", "2")  # type: ignore[arg-type]


def test_a_venv_is_looked_for_where_the_job_runs() -> None:
    """As the script does, which goes there before it sources the venv."""
    assert JobSpec(script="a.py", venv="v", directory="/d").completed("slurm").python == "/d/v/bin/python"
    assert JobSpec(script="a.py", venv="/lus/v", directory="/d").completed("slurm").python == "/lus/v/bin/python"


def test_a_script_in_a_directory_that_begins_with_a_dash() -> None:
    assert " ./-d/x.py" in render(JobSpec(script="-d/x.py").completed("slurm"))
