"""The walltime is near, as real batch systems say it: their signals reach rank 0 as a drain, and no task dies of them.

Every task of the script runs below a shell: a ``sleep``, or a C program that does nothing about signals. Either would
die of a SIGUSR1, which both batch systems send to every process of a job that they can find.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from batch_systems import BatchSystem, Job

from mpiflow.exitcodes import DRAINED

pytestmark = pytest.mark.timeout(150)

SCRIPT = """
import os, mpiflow

@mpiflow.bash_app(cache=True)
def gated(program, number):
    return f"echo begun {number}; while [ ! -e gate ]; do {program}; done; echo ended {number} >ended.{number}"

try:
    futures = [gated(program, number) for number, program in enumerate(["sleep 1", "./nap", "sleep 1", "./nap"])]
    for number, future in enumerate(futures):
        future.result()
        print("got", number, flush=True)
finally:
    print("tidied", flush=True)
"""
NAP = """
#include <time.h>
int main(void) { struct timespec second = {1, 0}; return nanosleep(&second, 0); }
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the script, and the program that it runs."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "nap.c").write_text(NAP)
    subprocess.run([compiler, "-o", "nap", "nap.c"], cwd=tmp_path, check=True, timeout=60)
    return tmp_path


def batch_script(place: Path, ranks: int = 3, options: str = "") -> str:
    """A job that passes the signal on, and writes down its exit code."""
    path = place / "job.sh"
    # a shell passes nothing on, and goes on with its script only when what it waits for has ended
    line = f"{sys.executable} -m mpiflow -n {ranks} {options} script.py & child=$!"
    tells = """trap 'kill -USR1 "$child"' USR1"""
    waits = 'while wait "$child"; code=$?; kill -0 "$child" 2>/dev/null; do :; done'
    path.write_text("\n".join(["#!/bin/bash", line, tells, waits, 'echo "$code" >code', ""]))
    return str(path)


def drains(job: Job, place: Path) -> None:
    """It says so, what runs ends, it has code 85, and the same job again takes it up from there."""
    job.complains("mpiflow: draining: SIGUSR1")
    (place / "gate").touch()
    code = job.wait()
    assert code == DRAINED, str(job)
    out, err = (place / "out").read_text(), (place / "err").read_text()
    assert [line for line in out.splitlines() if not line.startswith("[task")] == ["got 0", "got 1", "tidied"], str(job)
    assert "drained (SIGUSR1): 2 tasks have not ended" in err
    assert sorted(path.name for path in place.glob("ended.*")) == ["ended.0", "ended.1"]


SBATCH = ("sbatch", "--output=out", "--error=err", "--ntasks=3", "--nodes=1")


@pytest.mark.parametrize("to", ["--batch", "--full"])
def test_signal_from_slurm(slurm: BatchSystem, place: Path, to: str) -> None:
    """To the batch script alone; to it, and to every process of every step, some of which get it several times."""
    job = slurm.submit(*SBATCH, batch_script(place), cwd=place)
    job.shows("begun 0")
    job.shows("begun 1")
    slurm.run("scancel", to, "--signal=USR1", job.number)
    drains(job, place)


def test_resume_in_another_job_and_with_other_ranks(slurm: BatchSystem, place: Path) -> None:
    """The same command in the same directory, one rank less, on another node: what had ended is not run again."""
    job = slurm.submit(*SBATCH, "--nodelist=n1", batch_script(place), cwd=place)
    job.shows("begun 1")
    job.shows("begun 0")
    slurm.run("scancel", "--batch", "--signal=USR1", job.number)
    drains(job, place)
    again = slurm.submit(*SBATCH, "--nodelist=n2", batch_script(place, ranks=2), cwd=place)
    assert again.wait() == 0, str(again)
    out, err = (place / "out").read_text(), (place / "err").read_text()
    assert "begun 0" not in out
    assert "begun 1" not in out
    assert out.endswith("got 3\ntidied\n")
    assert "mpiflow: 2 results were taken from earlier runs" in err


def test_rank0_knows_the_end_of_a_slurm_job(slurm: BatchSystem, place: Path) -> None:
    """``--time`` of a minute and a margin of two: nothing of unknown length is begun."""
    job = slurm.submit(*SBATCH, "--time=1", drain_before(place, 120), cwd=place)
    code = job.wait()
    assert code == DRAINED, str(job)
    err = (place / "err").read_text()
    assert "the time of the job is nearly over" in err
    assert "s are left (S" in err, "(Slurm) or (SLURM_JOB_END_TIME)"


QSUB = ("qsub", "-cwd", "-V", "-o", "out", "-e", "err", "-pe", "mpi", "3")


def test_soft_limit_of_grid_engine(grid_engine: BatchSystem, place: Path) -> None:
    """``s_rt`` is SIGUSR1 to the whole group of the job, the batch script and the launcher among them."""
    job = grid_engine.submit(*QSUB, "-l", "s_rt=4", batch_script(place), cwd=place)
    job.shows("begun 0")
    job.shows("begun 1")
    drains(job, place)


def test_rank0_knows_the_end_of_a_grid_engine_job(grid_engine: BatchSystem, place: Path) -> None:
    """``h_rt`` of a minute and a margin of two."""
    job = grid_engine.submit(*QSUB, "-l", "h_rt=60", drain_before(place, 120), cwd=place)
    assert job.wait() == DRAINED, str(job)
    assert "s are left (Grid Engine)" in (place / "err").read_text()


def drain_before(place: Path, seconds: int) -> str:
    """The job with a margin, and a script that waits for the news of the end before it calls anything."""
    script = place / "script.py"
    script.write_text(SCRIPT.replace("\ntry:", "\nimport time\nmpiflow.load()\ntime.sleep(4)\ntry:", 1))
    return batch_script(place, options=f"--drain-before {seconds}")
