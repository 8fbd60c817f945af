"""The options of `mpiflow submit`: each field of a JobSpec has one, and the script's are its own."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from mpiflow.cli import arguments, job_options
from mpiflow.jobs.spec import JobSpec


def spec_of(*words: str) -> JobSpec:
    return job_options.parse(["--system", "slurm", *words]).spec


def test_every_field_can_be_said() -> None:
    said = {option.field for option in job_options._OPTIONS}
    assert said | {"script", "arguments", "farm_options"} == {field.name for field in fields(JobSpec)}


def test_options_that_are_passed_on_are_the_farms() -> None:
    """All of them but those that make sense in one run only, or are the job's business."""
    made = arguments.parser()
    known = {flag: action for action in made._actions for flag in action.option_strings if flag.startswith("--")}
    not_passed_on = {"--help", "--version", "--deadline", "--stacks", "--quick", "--fresh", "--runners-per-rank"}
    assert {*job_options.FARM_VALUES, *job_options.FARM_FLAGS} == known.keys() - not_passed_on
    assert {flag for flag in job_options.FARM_FLAGS if known[flag].nargs != 0} == set()
    assert {flag for flag in job_options.FARM_VALUES if known[flag].nargs == 0} == set()


def test_what_follows_the_script_is_its_own() -> None:
    spec = spec_of("--nodes", "2", "script.py", "--nodes", "x", "--", "-h", "")
    assert (spec.script, spec.nodes, spec.arguments) == ("script.py", 2, ("--nodes", "x", "--", "-h", ""))


def test_a_script_with_a_dash() -> None:
    assert spec_of("--", "-odd.py", "--wait").script == "-odd.py"


def test_options_of_the_farm_keep_their_order_and_form() -> None:
    spec = spec_of(
        "--checkpoint-all", "--seed", "3", "--nodes", "2", "--config=farm.toml", "--no-progress", "script.py"
    )
    assert spec.farm_options == ("--checkpoint-all", "--seed", "3", "--config", "farm.toml", "--no-progress")


def test_values() -> None:
    spec = spec_of(
        "--time", "2:00:00", "--memory", "64G", "--module", "a", "--module", "b c", "--exclusive", "--directive",
        "--nice=10", "-q", "debug", "-A", "m1", "--gpus-per-node=4", "script.py",
    )  # fmt: skip
    assert (spec.time, spec.memory, spec.modules, spec.exclusive) == (7200, 64 * 2**30, ("a", "b c"), True)
    assert (spec.directives, spec.queue, spec.account, spec.gpus_per_node) == (("--nice=10",), "debug", "m1", 4)


@pytest.mark.parametrize(("system", "seconds"), [("slurm", 5400), ("pbs", 90), ("lsf", 5400), ("gridengine", 90)])
def test_a_number_alone_means_what_it_means_there(system: str, seconds: int) -> None:
    spec = job_options.parse(["--system", system, "--time", "90", "--warn-before", "9", "script.py"]).spec
    assert spec.time == seconds


@pytest.mark.parametrize("option", ["--system", "--machine"])
def test_an_empty_name_is_none(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a variable that is not set: what is found counts, and there a number alone is seconds."""
    for name in ("qsub", "pbs_hostn"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert job_options.parse([option, "", "--time", "90", "--warn-before", "9", "script.py"]).spec.time == 90


def test_the_machine_says_which_batch_system_it_has() -> None:
    words = ["--machine", "polaris", "--time", "7200", "--account", "a", "--filesystems", "home:eagle", "-q", "debug"]
    asked = job_options.parse([*words, "script.py"])
    assert (asked.spec.system, asked.spec.time) == ("pbs", 7200)
