"""Whole programs as they are written for Parsl: unmodified by ``--as-parsl``, and with their import lines changed.

They print the same under Parsl itself, by which what is expected here was found. How import lines change is said in
``docs/from-parsl.md``; its commands are taken from there and used.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Ended, Jobs

PROGRAMS = Path(__file__).parents[1] / "parsl_programs"
PAGE = Path(__file__).parents[2] / "docs" / "from-parsl.md"

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("launcher")]

EXPECTED = {
    "pi_joins": """\
pi 3.142 from 16 batches
within four errors True
reproducible True, 4 batches
left in the books 0
""",
    "genome": """\
2000 reads, 0 is the exit code
ACGT 400
CGTT 400
GTTG 400
TGCA 400
TTGC 400
aligned 2000
task_0000_make_reads.stderr: making 2000 reads
--> executable follows <--
validate ends with 1
""",
    "sweep": """\
bent [0.05, 0.1, 0.15, 0.2]
relaxed 1 archived 0
given up ValueError
hanging True
from memory 0 computed so far 6
""",
    "active": """\
best 0.7 with 1.008 after 29 of 81 simulations
told of [-2.0, -1.0, 0.0, 1.0, 2.0]
model here True {'model'}
simulated elsewhere True
executors ['_parsl_internal', 'model', 'simulations'] failed 0
""",
    "mosaic": """\
tile 2 is damaged: invalid literal for int() with base 10: 'eight'
mean 18.0
lost: ValueError, True, dep_fail
Dependency failure for task C. The representative cause is via task B <- task A
['# tile0', '1 2 3']
True header of tile0
forgotten ['nowhere.fits']
said no-such-tile: No such file or directory
""",
}
#: The sweep, run again: what had been computed is there, the failed one is tried again.
AGAIN = EXPECTED["sweep"].replace("from memory 0 computed so far 6", "from memory 6 computed so far 7")

WAYS = ["as it is, one process", "as it is, on ranks", "with other imports, on ranks"]


def _run(jobs: Jobs, name: str, way: str) -> Ended:
    program, options = PROGRAMS / f"{name}.py", ["--as-parsl"]
    if way == "with other imports, on ranks":
        program, options = _with_other_imports(jobs, program), []
    form = "lone" if way == "as it is, one process" else "mpiexec"
    return jobs.run(str(program), "work", form=form, ranks=3, options=options)  # type: ignore[arg-type]


def _with_other_imports(jobs: Jobs, program: Path) -> Path:
    """A copy, changed by the `sed` commands of the migration page; nothing of Parsl's is imported by it."""
    if not PAGE.exists():
        pytest.skip("the documentation is not beside the tests")
    (commands,) = re.findall(r"^sed -i (.*?) my_script\.py$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    copy = jobs.directory / program.name
    copy.write_text(program.read_text())
    subprocess.run(f"sed -i {commands} {copy.name}", shell=True, check=True, cwd=jobs.directory, timeout=10)
    assert not re.search(r"^(from|import) parsl", copy.read_text(), re.MULTILINE), copy.read_text()
    return copy


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", EXPECTED)
def test_program(jobs: Jobs, name: str, way: str) -> None:
    ended = _run(jobs, name, way)
    assert (ended.code, ended.out) == (0, EXPECTED[name]), str(ended)
    if name == "sweep":
        again = _run(jobs, name, way)
        assert (again.code, again.out) == (0, AGAIN), str(again)


def test_every_program_is_run_here() -> None:
    assert {path.stem for path in PROGRAMS.glob("*.py")} == set(EXPECTED)
