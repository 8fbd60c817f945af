"""The page about batch jobs says what the program does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mpiflow.cli import job_options
from mpiflow.jobs import launchers, systems
from mpiflow.jobs.clouds import CLOUDS
from mpiflow.jobs.presets import read

PAGE = (Path(__file__).parents[2] / "docs" / "batch.md").read_text()
#: Options that are told about elsewhere, or need no word.
NOT_TOLD = {"--runners-per-rank"}


@pytest.mark.parametrize("system", list(systems.SYSTEMS))
def test_the_table_of_launchers_is_that_of_the_program(system: str) -> None:
    [row] = re.findall(rf"^\| `{system}`[^|]*\| ([^|]*) \|", PAGE, re.MULTILINE)
    assert tuple(row.split(", ")) == launchers.SENSIBLE[system]


def test_each_option_is_told_about() -> None:
    options = {option.flags[0] for option in job_options._OPTIONS} - NOT_TOLD
    assert {option for option in options if not re.search(rf"{option}\b", PAGE)} == set()


def test_each_option_that_is_told_about_exists() -> None:
    told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    known = {flag for option in job_options._OPTIONS for flag in option.flags}
    known |= {*job_options.FARM_FLAGS, *job_options.FARM_VALUES, "--dry-run", "--wait"}
    others = {
        "--toml",
        "--no-binary",
        "--gpus-per-task",
        "--steps",
        "--quick",
        "--cli-input-json",
        "--create",
        "--config",
    }
    assert told - known - others == set()


def test_each_cloud_is_told_about() -> None:
    for cloud in CLOUDS:
        assert f"| `{cloud}` |" in PAGE


def test_the_preset_on_the_page_is_one(tmp_path: Path) -> None:
    [text] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "ours.toml"
    file.write_text(text)
    machine = read(file)
    assert (machine.title, machine.cores, machine.gpus) == ("Our cluster", 96, 4)
