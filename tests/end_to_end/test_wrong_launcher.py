"""Launcher and MPI library that do not fit: every rank is a world of its own, and none may run the script."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from launching import mpiexec_of, our_mpiexec

if TYPE_CHECKING:
    from launching import Jobs, Mpiexec

pytestmark = pytest.mark.timeout(60)

SCRIPT = """
    open("ran.txt", "a").write("ran\\n")
    print("the script ran")
"""

#: What a launcher says, to a process that MPI starts as a world of one: name, and variables with the rank.
LAUNCHERS = {
    "Open MPI (PRRTE)": {"OMPI_COMM_WORLD_RANK": "RANK", "OMPI_COMM_WORLD_SIZE": "4"},
    "hydra (MPICH)": {"PMI_RANK": "RANK", "PMI_SIZE": "4"},
    "Slurm srun": {"SLURM_STEP_ID": "0", "SLURM_PROCID": "RANK", "SLURM_STEP_NUM_TASKS": "4"},
    "PALS": {"PALS_RANKID": "RANK", "PALS_SIZE": "4"},
}


def pretended(launcher: str, rank: int) -> dict[str, str]:
    """The environment of a rank."""
    return {name: value.replace("RANK", str(rank)) for name, value in LAUNCHERS[launcher].items()}


@pytest.mark.parametrize("name", ["Open MPI (PRRTE)", "hydra (MPICH)", "Slurm srun"])
def test_a_world_of_one_among_four_ranks_refuses_to_run(jobs: Jobs, launcher: Mpiexec, name: str) -> None:
    """Rank 0 names the loaded library, the launcher and the cure, the others are silent, all end with 72."""
    if name == "Open MPI (PRRTE)" and launcher.flavour == "openmpi":
        pytest.skip("Open MPI takes these for its own launcher's and looks for that one")
    script = str(jobs.write("script.py", SCRIPT))
    command = [sys.executable, "-m", "mpiflow", script]
    first = jobs.command(command, env=pretended(name, 0)).wait()
    assert first.code == 72, str(first)
    assert f"mpiflow: {name} started 4 ranks, but MPI sees one rank in each of them." in first.err
    library = {"hydra": "MPICH Version", "openmpi": "Open MPI v"}[launcher.flavour]
    assert f"loaded MPI:  {library}" in first.err
    assert "its library: /" in first.err
    assert "libmpi" in first.err.partition("its library: ")[2].splitlines()[0]
    assert f"launcher:    {name}\n" in first.err
    assert "python -m mpiflow -n 4 script.py" in first.err

    other = jobs.command(command, env=pretended(name, 1)).wait()
    assert other.code == 72, str(other)
    assert "mpiflow:" not in other.err
    assert first.out == other.out == ""
    assert not (jobs.directory / "ran.txt").exists()


def test_doctor_refuses_as_well(jobs: Jobs, launcher: Mpiexec) -> None:
    """It is asked exactly when something is wrong."""
    command = [sys.executable, "-m", "mpiflow", "doctor"]
    ended = jobs.command(command, env=pretended("PALS", 0)).wait()
    assert "PALS started 4 ranks, but MPI sees one rank" in ended.failed(72)


def test_mpiexec_of_another_mpi(jobs: Jobs) -> None:
    """The real thing, where a virtual environment beside this one holds the other MPI.

    MPICH itself aborts in MPI_Init under prterun, with words of its own; either way the script does not run.
    """
    ours = our_mpiexec()
    others = [
        found
        for directory in sorted(Path(sys.prefix).parent.glob("*/bin"))
        if (found := mpiexec_of(os.fspath(directory))) is not None and ours is not None
        if found.flavour != ours.flavour
    ]
    if not others or ours is None:
        pytest.skip("one MPI only beside this interpreter's environment")
    script = str(jobs.write("script.py", SCRIPT))
    ended = jobs.command([*others[0].line(3), sys.executable, "-m", "mpiflow", script]).wait()
    assert not (jobs.directory / "ran.txt").exists()
    if ours.flavour == "openmpi":
        assert ended.code == 72, str(ended)
        assert ended.err.count("mpiflow: hydra (MPICH) started 3 ranks") == 1
    else:
        assert ended.code != 0, str(ended)
        assert "PMI version PMIx" in ended.err or "mpiflow: Open MPI (PRRTE) started 3 ranks" in ended.err


def test_launcher_that_agrees_is_not_refused(jobs: Jobs, launcher: Mpiexec) -> None:
    """A batch system's own variables, left over from the job round it, are no reason."""
    around = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "64", "SLURM_PROCID": "0"}
    assert jobs.run(SCRIPT, env=around, ranks=2).well() == "the script ran\n"
    assert (jobs.directory / "ran.txt").read_text() == "ran\n"
