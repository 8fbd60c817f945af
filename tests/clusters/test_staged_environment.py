"""``submit --stage-env``: an environment that lies in one archive, and the ranks of a real Slurm that run from it."""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_systems import BatchSystem
from desk import SLURM, Desk

import mpiflow

pytestmark = pytest.mark.timeout(300)

SCRIPT = """
import sys, mpiflow

@mpiflow.python_app
def where(number):
    import sys, mpiflow
    return sys.prefix, mpiflow.__file__

print(sys.prefix, mpiflow.__file__)
for prefix, file in {where(number).result() for number in range(6)}:
    print(prefix, file)
"""


def environment(place: Path) -> Path:
    """A venv with what a rank needs and no more: without numpy and the tests' tools it is a twentieth of this one."""
    packages = Path(sysconfig.get_paths()["platlib"])
    inside = place / packages.relative_to(sys.prefix)
    inside.mkdir(parents=True)
    for package in (Path(mpiflow.__file__).parent, packages / "mpi4py", packages / "cloudpickle"):
        shutil.copytree(package, inside / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    for library in Path(sys.prefix, "lib").iterdir():  # that of MPI is found beside the interpreter
        if not library.name.startswith("python"):
            (place / "lib" / library.name).symlink_to(library)
    (place / "bin").mkdir()
    (place / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    shutil.copy(Path(sys.prefix, "pyvenv.cfg"), place / "pyvenv.cfg")
    return place


@pytest.fixture
def user(slurm: BatchSystem, tmp_path: Path) -> Iterator[Desk]:
    """A user with an environment in an archive, of a name that nobody else has."""
    desk = Desk(slurm, tmp_path, *SLURM)
    archive = f"{tmp_path.parent.name}-{tmp_path.name}.tar.gz"
    desk.types("stage", "--create", str(environment(tmp_path / "made")), archive)
    shutil.rmtree(tmp_path / "made")
    desk.options += ("--stage-env", archive)
    try:
        yield desk
    finally:
        for left in Path("/tmp").glob(f"mpiflow-env-*/{archive}*"):
            shutil.rmtree(left)


def test_all_ranks_run_from_the_unpacked_copy(user: Desk) -> None:
    job = user.submits("script.py", text=SCRIPT)
    out, err = user.types("logs", "-f", job)
    assert user.state(job).startswith("done"), f"{out}{err}{user}"
    staged = re.search(r"^mpiflow stage: (/tmp/mpiflow-env-\S+) is on \d nodes?: .* unpacked on", out, re.MULTILINE)
    assert staged, out
    packages = Path(sysconfig.get_paths()["platlib"]).relative_to(sys.prefix)
    at = f"{staged[1]} {staged[1]}/{packages}/mpiflow/__init__.py"
    assert out.count(at + "\n") == 2, "rank 0, and every task"
    assert "well: 4 ranks in one world" in out
    assert sys.prefix + "/" not in out


def test_a_damaged_archive_ends_the_job_with_words(user: Desk) -> None:
    archive = user.place / user.options[-1]
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    job = user.submits("script.py", text=SCRIPT)
    out, _ = user.types("logs", "-f", job)
    assert re.search(rf"^mpiflow stage: .*{archive.name} is damaged", out, re.MULTILINE), f"{out}{user}"
    assert "the check before the run failed with code 73, so there is no run" in out
    assert user.state(job).startswith("failed with code 73")
    assert "Traceback" not in out
    assert "bin/python: No such file" not in out, "nothing is asked of what is not there yet"
    assert list(Path("/tmp").glob(f"mpiflow-env-*/{archive.name}*")) == []
