"""Batch systems for the tests: each is started by the first test that asks for it, and ended after the last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_systems import BatchSystem, NotHere
from desk import GRID_ENGINE, SLURM, Desk


def _system(name: str, programs: list[str], ports: list[str], **settings: str) -> Iterator[BatchSystem]:
    try:
        system = BatchSystem(name, programs, ports, settings)
    except NotHere as why:
        pytest.skip(str(why))
    try:
        yield system
    finally:
        system.close()


_SLURM = ["slurmctld", "slurmd", "munged", "sbatch", "srun", "scancel"], ["CONTROLLER_PORT", "FIRST_NODE_PORT"]


@pytest.fixture(scope="session")
def slurm() -> Iterator[BatchSystem]:
    """A Slurm of two nodes."""
    yield from _system("slurm", *_SLURM)


@pytest.fixture(scope="module")
def forgetful_slurm() -> Iterator[BatchSystem]:
    """One that forgets a job when it has ended, within a minute, and keeps no accounts."""
    yield from _system("slurm", *_SLURM, MIN_JOB_AGE="2")


@pytest.fixture(scope="session")
def grid_engine() -> Iterator[BatchSystem]:
    """A Grid Engine of one host."""
    programs = ["/usr/lib/gridengine/sge_qmaster", "/usr/lib/gridengine/sge_execd", "qsub", "qconf"]
    yield from _system("sge", programs, ["MASTER_PORT", "EXEC_PORT"])


@pytest.fixture(params=["slurm", "grid_engine"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Desk:
    """A user of four ranks, on each of the batch systems."""
    system = request.getfixturevalue(request.param)
    return Desk(system, tmp_path, *(SLURM if request.param == "slurm" else GRID_ENGINE))
