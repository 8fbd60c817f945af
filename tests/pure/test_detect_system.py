"""Which batch system a machine has, told by directories of programs like those of real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpiflow.errors import ConfigurationError
from mpiflow.jobs.detect import look_for_system


def machine(place: Path, *programs: str, version: str = "", **variables: str) -> dict[str, str]:
    """The environment of a machine with these programs; `qsub --version` says this."""
    for program in programs:
        path = place / program
        path.write_text(f"#!/bin/sh\necho '{version}'\n")
        path.chmod(0o755)
    return {"PATH": str(place), **variables}


@pytest.mark.parametrize(
    ("system", "programs"),
    [
        ("slurm", ["sbatch", "srun"]),
        ("slurm", ["sbatch", "qsub"]),  # its own qsub, for people who come from elsewhere
        ("lsf", ["bsub"]),
        ("htcondor", ["condor_submit"]),
        ("gridengine", ["qsub", "qconf"]),
        ("cobalt", ["qsub", "cqadm"]),
        ("torque", ["qsub", "momctl"]),
        ("pbs", ["qsub", "pbs_rsub"]),
        ("flux", ["flux"]),
        ("slurm", ["flux", "sbatch"]),
    ],
)
def test_by_its_programs(tmp_path: Path, system: str, programs: list[str]) -> None:
    assert look_for_system(machine(tmp_path, *programs)).system == system


@pytest.mark.parametrize(
    ("system", "version"),
    [
        ("pbs", "pbs_version = 2022.1.1"),
        ("torque", "Version: 6.1.2\nCommit: 661e092552de43a785c15d39a3634a541d86898e"),
        ("pbs", "qsub: what?"),
    ],
)
def test_by_what_its_qsub_says(tmp_path: Path, system: str, version: str) -> None:
    assert look_for_system(machine(tmp_path, "qsub", version=version)).system == system


def test_what_is_set_up_in_the_environment_wins(tmp_path: Path) -> None:
    both = machine(tmp_path, "sbatch", "qsub", "qconf")
    found = look_for_system({**both, "SGE_ROOT": "/opt/sge"})
    assert found == ("gridengine", f"{tmp_path}/qsub, SGE_ROOT")
    assert look_for_system({**both, "SLURM_CONF": "/x"}).system == "slurm"


def test_a_variable_without_the_program_means_nothing(tmp_path: Path) -> None:
    assert look_for_system({**machine(tmp_path, "sbatch"), "SGE_ROOT": "/opt/sge"}).system == "slurm"


def test_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no batch system is found: none of sbatch, .*--system fork"):
        look_for_system(machine(tmp_path, "ls"))
