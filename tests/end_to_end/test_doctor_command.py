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
    assert lines["a rank dies"].startswith("the job goes on without it: ")
    assert {"hydra": "guardian", "openmpi": "ULFM"}[launcher.flavour] in lines["a rank dies"]
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


@pytest.fixture
def unprotected(launcher: Mpiexec) -> list[str]:
    """A launch that offers nothing against the loss of a rank."""
    if launcher.flavour != "openmpi":
        pytest.skip("every launch of MPICH's mpiexec is protected")
    flags = [flag for flag in launcher.flags if flag not in ("--with-ft", "ulfm")]
    return [launcher.path, *flags, "-n", "3", sys.executable, "-m", "mpiflow"]


def test_doctor_on_a_launch_without_protection(jobs: Jobs, unprotected: list[str]) -> None:
    """What to type to have one."""
    out = jobs.command([*unprotected, "doctor"]).wait().well()
    assert "a rank dies    the whole job ends: this launch has no protection\n" in out
    assert "to have one: mpiexec --with-ft ulfm -n 3 python -m mpiflow ..." in out


@pytest.mark.parametrize("options", [[], ["--no-progress"]])
def test_a_launch_without_protection_says_so_once_at_its_start(
    jobs: Jobs, unprotected: list[str], options: list[str]
) -> None:
    """On rank 0, whatever else is not to be shown."""
    script = str(jobs.write("script.py", "print('done')\n"))
    ended = jobs.command([*unprotected, *options, script]).wait()
    assert (ended.code, ended.out) == (0, "done\n")
    assert ended.err.splitlines() == [
        "mpiflow: when a rank dies, the whole job ends: this launch has no protection. "
        "To have one: mpiexec --with-ft ulfm -n 3 python -m mpiflow ..."
    ]


@pytest.mark.parametrize("form", ["mpiexec", "own", "lone"])
def test_a_protected_launch_and_a_lone_process_say_nothing(jobs: Jobs, launcher: Mpiexec, form: Form) -> None:
    """Neither has anything to lose."""
    assert jobs.run("\nprint('done')\n", form=form).well() == "done\n"
