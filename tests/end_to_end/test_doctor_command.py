"""``mpiflow doctor``: under a launcher, started by itself, and the short form."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Form, Jobs, Mpiexec

pytestmark = [pytest.mark.timeout(60)]


@pytest.mark.parametrize("form", ["mpiexec", "own"])
def test_doctor_on_ranks(jobs: Jobs, form: Form, launcher: Mpiexec) -> None:
    """The library with its path, the launcher, the ranks, a round trip, and what a lost rank costs."""
    out = jobs.command(jobs.line(form, 3, ["doctor"])).wait().well()
    name, library = {"hydra": ("hydra (MPICH)", "MPICH"), "openmpi": ("Open MPI (PRRTE)", "Open MPI")}[launcher.flavour]
    lines = {line[:14].strip(): line[14:].strip() for line in out.splitlines()}
    assert lines["MPI library"].startswith(library)
    assert "libmpi" in lines[""]
    assert lines["launcher"] == f"{name}, 3 ranks, agrees with MPI"
    assert lines["ranks"] == "3: rank 0 for the script, 2 workers"
    assert "µs to rank 1 (median)" in lines["round trip"]
    assert "a rank dies" in lines
    assert sys.executable in lines["mpiflow"]
    assert "advice" not in out


def test_quick_doctor(jobs: Jobs, launcher: Mpiexec) -> None:
    """One line for a batch script, options on either side of the command."""
    expected = "mpiflow doctor: well: 3 ranks in one world on 1 nodes\n"
    assert jobs.command(jobs.line("own", 3, ["doctor", "--quick"])).wait().well() == expected


def test_doctor_alone(jobs: Jobs, launcher: Mpiexec) -> None:
    """Without a launcher: what is installed, and the command line that would be run."""
    out = jobs.command([sys.executable, "-m", "mpiflow", "doctor"]).wait().well()
    assert {"hydra": "MPICH", "openmpi": "Open MPI"}[launcher.flavour] in out
    assert "none: this process was started by itself" in out
    assert launcher.path in out.partition("would start")[2].splitlines()[0]
    assert "CPUs usable" in out
