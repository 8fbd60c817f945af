"""The lines of the README that submit a job, typed as they are where a batch system has just been set up."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from batch_systems import BatchSystem
from desk import has_hydra

pytestmark = pytest.mark.timeout(300)

TOP = Path(__file__).parents[2]


def submit_line(grid_engine: bool) -> str:
    """The line that somebody types who reads the README from its beginning."""
    section = (TOP / "README.md").read_text().split("\n## Run it\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("mpiflow submit ")]
    mine = [line for line in lines if ("--pe" in line.split()) == grid_engine]
    assert len(mine) == 1, lines
    return mine[0]


class Clone:
    """A copy of what a user sees of this repository, and a shell in it.

    Parameters
    ----------
    system : BatchSystem
        The batch system there is.
    place : Path
        An empty directory.
    """

    def __init__(self, system: BatchSystem, place: Path) -> None:
        self.place = place / "mpiflow"
        shutil.copytree(TOP / "examples", self.place / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        commands = place / "bin"
        commands.mkdir()
        command = commands / "mpiflow"  # as pip would make it
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mpiflow "$@"\n')
        command.chmod(0o755)
        self.environment = system.environment | {
            "PATH": f"{commands}:{system.environment['PATH']}",
            "XDG_STATE_HOME": str(place / "state"),
            "XDG_CONFIG_HOME": str(place / "config"),
        }

    def types(self, line: str) -> str:
        """Type a line into a shell; what it prints."""
        ran = subprocess.run(
            ["bash", "-c", line], env=self.environment, cwd=self.place, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=250, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{line}: {ran.returncode}\n{ran.stdout}{ran.stderr}{self}"
        return ran.stdout

    def __str__(self) -> str:
        files = sorted(self.place.glob("runinfo/jobs/*/*"))
        return "".join(f"\n--- {path.name}\n{path.read_text()}" for path in files)


@pytest.mark.parametrize("system", ["slurm", "grid_engine"])
def test_the_line_works_as_typed(system: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """And so do those that it prints itself, of how to follow the job."""
    if system == "slurm" and not has_hydra():
        pytest.skip("Slurm's PMIx starts one rank of Open MPI a node at most where nodes have not each a host name")
    clone = Clone(request.getfixturevalue(system), tmp_path)
    said = clone.types(submit_line(system == "grid_engine"))
    found = re.match(r"submitted: job (\d+) \((Slurm|Grid Engine)\), 8 ranks on \d nodes? for 0:10:00\n", said)
    assert found, said
    follow = re.findall(r": +(mpiflow .*)", said)
    assert follow == [f"mpiflow {command} {found[1]}" for command in ("status", "logs -f", "cancel")]
    out = clone.types(follow[1])
    assert "mpiflow doctor: well: 8 ranks in one world" in out, clone
    assert re.search(r"^estimate +0\.36\d+ +from 100,000 draws in 100 tasks$", out, re.MULTILINE), clone
    assert clone.types(follow[0]).startswith(f"job {found[1]} ({found[2]}): done")
    assert re.match(rf"{found[1]} .* monte_carlo +done", clone.types("mpiflow status"))
