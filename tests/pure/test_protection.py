"""What a launch offers against the loss of a rank, in words."""

from __future__ import annotations

import pytest

from mpiflow.cli.protection import how_to_get_it, in_words, warn_unprotected

OPEN_MPI, MPICH = "Open MPI v5.0.8", "MPICH Version: 4.3.1"


@pytest.mark.parametrize(
    ("library", "launcher", "line"),
    [
        (OPEN_MPI, "Open MPI (PRRTE)", "mpiexec --with-ft ulfm -n 4 python -m mpiflow ..."),
        (OPEN_MPI, "Slurm srun", "mpiexec --with-ft ulfm -n 4 python -m mpiflow ..."),
        (MPICH, "Slurm srun", "srun --mpi=pmi2 -K -n 4 python -m mpiflow ..."),
        (MPICH, "PALS", "mpiexec -n 4 python -m mpiflow ..., with MPICH's own mpiexec (hydra)"),
        (MPICH, "", "mpiexec -n 4 python -m mpiflow ..., with MPICH's own mpiexec (hydra)"),
    ],
)
def test_what_to_type_depends_on_the_library_and_the_launcher(library: str, launcher: str, line: str) -> None:
    assert how_to_get_it(library, launcher, 4) == line


def test_each_protection_has_its_words() -> None:
    assert "ULFM" in in_words("ULFM")
    assert "guardian" in in_words("guardian")
    assert "-K" in in_words("guardian")
    assert in_words("") == "the whole job ends: this launch has no protection"


def test_a_launch_without_any_says_so_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    warn_unprotected("", OPEN_MPI, "Open MPI (PRRTE)", 4)
    assert capsys.readouterr().err == (
        "mpiflow: when a rank dies, the whole job ends: this launch has no protection. "
        "To have one: mpiexec --with-ft ulfm -n 4 python -m mpiflow ...\n"
    )


@pytest.mark.parametrize(("protection", "ranks"), [("ULFM", 4), ("guardian", 4), ("", 1)])
def test_a_protected_launch_and_a_lone_process_say_nothing(
    protection: str, ranks: int, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_unprotected(protection, MPICH, "hydra (MPICH)", ranks)
    assert capsys.readouterr().err == ""
