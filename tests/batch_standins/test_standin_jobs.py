"""The stand-ins run what they take: with its environment, its outputs, its dependencies and true MPI worlds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from standins.standin import Standin

PROGRAM = 'from mpi4py.MPI import COMM_WORLD as w; import sys; sys.stdout.write("rank %d of %d\\n" % (w.rank, w.size))'
WORLD = f"{sys.executable} -c '{PROGRAM}'"
HEADS = {
    "pbs": '#PBS -N job -l select=1:ncpus=2:mpiprocs=2 -l walltime=0:01:00 -j oe -o out\ncd "$PBS_O_WORKDIR"',
    "torque": '#PBS -N job -l nodes=1:ppn=2,walltime=0:01:00 -j oe -o out\ncd "$PBS_O_WORKDIR"',
    "cobalt": "#COBALT -n 1 -t 1 -o out -e err --jobname job",
    "lsf": "#BSUB -J job -n 2 -W 1 -o out",
    "flux": "#flux: -N1 --nslots=2 --time-limit=1m --job-name=job --output=out",
}
LAUNCH = {
    "torque": "aprun -n 2",
    "cobalt": "aprun -n 2 -N 2",
    "lsf": "jsrun -n 2",
    "flux": "flux run -n 2",
}
SUBMIT = {"pbs": ["qsub"], "torque": ["qsub"], "cobalt": ["qsub"], "lsf": ["bsub"], "flux": ["flux", "batch"]}


def write(place: Path, system: str, body: str, head: str = "") -> list[str]:
    """A script of this system, and how it is submitted."""
    path = place / "job.sh"
    path.write_text(f"#!/bin/bash\n{HEADS[system]}{head}\n{body}\n")
    path.chmod(0o755)
    return [*SUBMIT[system], "job.sh"]


@pytest.mark.parametrize("system", sorted(HEADS))
def test_a_job_has_an_mpi_world_and_its_exit_code(
    standin: Callable[[str], Standin], system: str, tmp_path: Path
) -> None:
    one = standin(system)
    launch = LAUNCH.get(system, f"{one.mpiexec} -n 2")
    one.run(*write(tmp_path, system, f"{launch} {WORLD}\nexit 7"), cwd=tmp_path)
    assert one.wait(1) == 7, one.story()
    assert sorted((tmp_path / "out").read_text().split("\n")) == ["", "rank 0 of 2", "rank 1 of 2"]


def test_a_successor_begins_when_the_first_has_ended(standin: Callable[[str], Standin], tmp_path: Path) -> None:
    pbs = standin("pbs")
    submits = 'qsub -W "depend=afterany:$PBS_JOBID" job.sh'
    body = f'echo "$PBS_JOBID" >>order; [ -e again ] || {{ touch again; {submits}; sleep 1; }}; echo end >>order'
    pbs.run(*write(tmp_path, "pbs", body), cwd=tmp_path)
    assert (pbs.wait(1), pbs.wait(2)) == (0, 0)
    assert (tmp_path / "order").read_text().split() == ["1.pbs-standin", "end", "2.pbs-standin", "end"]


def test_a_dependency_that_cannot_be_met_ends_the_job(standin: Callable[[str], Standin], tmp_path: Path) -> None:
    pbs = standin("pbs")
    pbs.run(*write(tmp_path, "pbs", "exit 3"), cwd=tmp_path)
    pbs.run("qsub", "-W", "depend=afterok:1.pbs-standin", "job.sh", cwd=tmp_path)
    assert pbs.wait(2) == -1
    assert pbs.runs(2) == 0


def test_lsf_starts_a_job_again_when_its_code_says_so(standin: Callable[[str], Standin], tmp_path: Path) -> None:
    lsf = standin("lsf")
    body = 'echo run >>runs; [ "$(wc -l <runs)" -gt 2 ] || exit 85'
    lsf.run(*write(tmp_path, "lsf", body, "\n#BSUB -Q 85"), cwd=tmp_path)
    assert lsf.wait(1) == 0
    assert lsf.runs(1) == 3


def test_the_warning_reaches_the_script(standin: Callable[[str], Standin], tmp_path: Path) -> None:
    flux = standin("flux")
    body = "trap 'echo told; kill %1; exit 5' USR1; sleep 600 & wait"
    flux.run(*write(tmp_path, "flux", body, "\n#flux: --signal=USR1@58s"), cwd=tmp_path)
    assert flux.wait(1) == 5
    assert "told" in (tmp_path / "out").read_text()


def test_pbs_gives_a_job_a_fresh_environment_and_v_adds_to_it(
    standin: Callable[[str], Standin], tmp_path: Path
) -> None:
    pbs = standin("pbs")
    pbs.environment["OF_THE_SHELL"] = "1"
    line = write(tmp_path, "pbs", 'echo "${OF_THE_SHELL-none} ${SAID-none}"; pwd')
    pbs.run("qsub", "-v", "SAID=a b", *line[1:], cwd=tmp_path)
    assert pbs.wait(1) == 0
    assert (tmp_path / "out").read_text() == f"none a b\n{tmp_path}\n"


def test_a_job_that_is_deleted(standin: Callable[[str], Standin], tmp_path: Path) -> None:
    cobalt = standin("cobalt")
    cobalt.run(*write(tmp_path, "cobalt", "touch begun; exec sleep 600"), cwd=tmp_path)
    while not (tmp_path / "begun").exists():
        time.sleep(0.1)
    cobalt.run("qdel", "1", cwd=tmp_path)
    assert cobalt.wait(1) < 0
    assert cobalt.run("qstat", "1", cwd=tmp_path) == ""  # Cobalt forgets those that have ended
