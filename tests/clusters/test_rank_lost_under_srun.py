"""A worker rank dies in a step of a real Slurm, and the job goes on: ``srun -K --mpi=pmi2`` with a guardian."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from batch_systems import BatchSystem

from mpiflow.exitcodes import RELAUNCH

pytestmark = pytest.mark.timeout(150)

SCRIPT = """
import os, signal, sys, mpiflow

def parent(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])

@mpiflow.python_app
def square(number):
    import time
    time.sleep(0.01)
    return number * number, parent(os.getppid())

futures = [square(number) for number in range(400)]
victim = os.getpid() if sys.argv[1] == "rank 0" else futures[50].result()[1]
os.kill(victim, signal.SIGKILL)
assert [future.result()[0] for future in futures] == [number * number for number in range(400)]
print("all right", flush=True)
sys.exit(3)
"""


def submit(slurm: BatchSystem, place: Path, victim: str) -> tuple[int, str, str]:
    """Exit code of the step, and what the job printed."""
    (place / "script.py").write_text(SCRIPT)
    step = f"srun -K --mpi=pmi2 {sys.executable} -m mpiflow script.py '{victim}'"
    (place / "job.sh").write_text(f"#!/bin/bash\n{step}\necho $? >code\n")
    line = ("sbatch", "--output=out", "--error=err", "--nodes=2", "--ntasks=4", "job.sh")
    code = slurm.submit(*line, cwd=place).wait()
    return code, (place / "out").read_text(), (place / "err").read_text()


def has_pmi2() -> bool:
    """Whether the MPI of these tests speaks it: MPICH does."""
    from mpi4py import get_config

    return "ompi" not in str(get_config()).lower() and (Path(sys.executable).parent / "mpiexec.hydra").exists()


@pytest.mark.skipif(not has_pmi2(), reason="the wheel of Open MPI speaks no PMI-2, and srun starts worlds of one")
def test_worker_rank_dies_and_the_job_goes_on(slurm: BatchSystem, tmp_path: Path) -> None:
    code, out, err = submit(slurm, tmp_path, "a worker")
    assert (code, out) == (3, "all right\n"), err
    assert "is lost: its guardian reports its death" in err
    assert "2 workers go on" in err


@pytest.mark.skipif(not has_pmi2(), reason="the wheel of Open MPI speaks no PMI-2, and srun starts worlds of one")
def test_rank_0_dies_and_nothing_hangs(slurm: BatchSystem, tmp_path: Path) -> None:
    code, out, err = submit(slurm, tmp_path, "rank 0")
    assert code != 0, err
    assert out == ""
    assert f"task 0: Exited with exit code {RELAUNCH}" in err
