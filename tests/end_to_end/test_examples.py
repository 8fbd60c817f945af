"""The example scripts: each prints what is right and ends with 0."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Form, Jobs

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.usefixtures("launcher"),
    pytest.mark.skipif(not EXAMPLES.is_dir(), reason="examples are not beside the tests"),
]

SHOWN = {
    "monte_carlo.py": r"estimate +0\.36\d{4} +from 100,000 draws in 100 tasks\nexact +0\.363582\nstandard error ",
    "bash_pipeline.py": r"^160,000 numbers from 8 files, \d+ to 999,9\d\d\n$",
    "mapreduce_words.py": r"^[\d,]+ words, [\d,]+ different, in 24 files\n\n +[\d,]+  the\n",
    "fibonacci_join.py": r"^fibonacci\(12\) = 144 by 930 tasks\n$",
    "checkpointed_sweep.py": (
        r"^r = 3\.0 +exponent -0\.\d{4}\n(r = [34]\.\d+ +exponent [-+]\d\.\d{4}(  chaos)?\n){39}"
        r"r = 4\.0 +exponent \+0\.69\d\d  chaos\n41 exponents, 0 of them from the journal of earlier runs\n$"
    ),
    "heat_mpi.py": r"^ranks   middle    exact     largest error\n( {4}[123]   0\.74370   0\.74371   5\.0e-06\n){3}$",
    "sweep_numpy.py": r"^diffusivity +middle +exact +error\n( +[01]\.\d{3}  0\.\d{5}  0\.\d{5}  \d\.\de-\d\d\n){8}$",
}


@pytest.mark.parametrize(("name", "form"), [*((name, "mpiexec") for name in SHOWN), ("monte_carlo.py", "plain")])
def test_example(jobs: Jobs, name: str, form: Form) -> None:
    """As its docstring says it is started."""
    pytest.importorskip("numpy")
    out = jobs.run(str(EXAMPLES / name), form=form, ranks=4).well()
    assert re.search(SHOWN[name], out), out


def test_monte_carlo_gives_the_same_digits_everywhere(jobs: Jobs) -> None:
    """It says so."""
    pytest.importorskip("numpy")
    script = str(EXAMPLES / "monte_carlo.py")
    assert jobs.run(script, "--seed", "4", ranks=2).well() == jobs.run(script, "--seed", "4", form="plain").well()


def test_the_checkpointed_sweep_goes_on_after_it_was_killed(jobs: Jobs) -> None:
    """What the killed run has shown is not computed again, and the numbers are the same."""
    script = str(EXAMPLES / "checkpointed_sweep.py")
    killed = jobs.start(script, ranks=3).shows("r = 3.25 ")
    for pid in jobs.pids():
        with contextlib.suppress(ProcessLookupError):  # its launcher was faster
            os.kill(pid, signal.SIGKILL)
    killed.process.wait(10.0)
    seen = re.findall(r"^r = .*\n", killed.out, re.MULTILINE)

    ended = jobs.run(script, ranks=3)
    assert ended.code == 0, str(ended)
    assert ended.out.startswith("".join(seen)), f"{seen}\n{ended}"
    taken = re.search(r"^41 exponents, (\d+) of them from the journal of earlier runs$", ended.out, re.MULTILINE)
    assert taken is not None, str(ended)
    assert len(seen) <= int(taken[1]) < 41, f"{len(seen)}\n{ended}"


def test_every_example_is_run_here() -> None:
    """A new one needs a line above."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SHOWN), sys.path
