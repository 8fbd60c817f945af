"""Batch systems for the tests: each is started by the first test that asks for it, and ended after the last."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from batch_systems import BatchSystem, NotHere


def _system(name: str, programs: list[str], ports: list[str]) -> Iterator[BatchSystem]:
    try:
        system = BatchSystem(name, programs, ports)
    except NotHere as why:
        pytest.skip(str(why))
    try:
        yield system
    finally:
        system.close()


@pytest.fixture(scope="session")
def slurm() -> Iterator[BatchSystem]:
    """A Slurm of two nodes."""
    programs = ["slurmctld", "slurmd", "munged", "sbatch", "srun", "scancel"]
    yield from _system("slurm", programs, ["CONTROLLER_PORT", "FIRST_NODE_PORT"])


@pytest.fixture(scope="session")
def grid_engine() -> Iterator[BatchSystem]:
    """A Grid Engine of one host."""
    programs = ["/usr/lib/gridengine/sge_qmaster", "/usr/lib/gridengine/sge_execd", "qsub", "qconf"]
    yield from _system("sge", programs, ["MASTER_PORT", "EXEC_PORT"])
