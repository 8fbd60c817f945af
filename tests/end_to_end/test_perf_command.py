"""``mpiflow perf``, with and without a launcher."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Form, Jobs

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("launcher")]

BATCH = re.compile(
    r"""==== Iteration (\d+) ====
Will run (\d+) tasks
Submitting tasks / invoking apps
All \2 tasks submitted ... waiting for completion
Submission took [\d.]+ seconds = [\d.]+ tasks/second
Runtime: actual ([\d.]+)s vs target ([\d.]+)s
Tasks per second: ([\d.]+)
"""
)
#: Times are printed as whole milliseconds: more than a half one is not lost by that.
ROUNDED = 0.00051
THE_END = "Tests complete - leaving DFK block\nThe end\n"


def batches(out: str) -> list[tuple[int, float, float]]:
    """Of each batch: how many tasks, how long it took, how many a second; all that was printed is accounted for."""
    assert BATCH.sub("", out) == THE_END
    found = BATCH.findall(out)
    assert [int(number) for number, *_ in found] == list(range(1, len(found) + 1))
    return [(int(size), float(took), float(rate)) for _, size, took, _, rate in found]


@pytest.mark.parametrize("form", ["mpiexec", "own", "lone"])
def test_batches_grow_until_one_takes_the_target_time(jobs: Jobs, form: Form) -> None:
    found = batches(jobs.command(jobs.line(form, 3, ["perf", "--time", "0.4"])).wait().well())
    assert found[0][0] == 10
    assert len(found) >= 2
    assert all(took <= 0.75 * 0.4 for _, took, _ in found[1:-1])
    assert found[-1][1] >= 0.75 * 0.4
    for (size, took, rate), (following, _, _) in pairwise(found):
        assert size / (took + ROUNDED) < rate < size / (took - ROUNDED)
        assert following == pytest.approx(0.4 * rate, rel=0.01, abs=1)


def test_sizes_that_double_and_sizes_that_are_given(jobs: Jobs) -> None:
    line = jobs.line("lone", 1, ["perf", "--iterate", "exponential", "--time", "0.02", "--argsize", "1000"])
    sizes = [size for size, _, _ in batches(jobs.command(line).wait().well())]
    assert sizes == [10 * 2**n for n in range(len(sizes))]
    line = jobs.line("lone", 1, ["perf", "--iterate", "3,1,20", "--resources", "dict(priority=2)"])
    assert [size for size, _, _ in batches(jobs.command(line).wait().well())] == [3, 1, 20]


def test_the_config_of_a_file_is_run_by(jobs: Jobs) -> None:
    """One that was written for Parsl, a function that makes one, and a TOML file."""
    jobs.write("fixed.py", "from parsl.config import Config\nconfig = Config(run_dir='of_fixed')\n")
    jobs.write("fresh.py", "import mpiflow\ndef fresh_config():\n    return mpiflow.Config(run_dir='of_fresh')\n")
    jobs.write("table.toml", 'run_dir = "of_table"\n')
    for name in ("fixed.py", "fresh.py", "table.toml"):
        line = jobs.line("lone", 1, ["perf", "--iterate", "2", "--config", name])
        assert [size for size, _, _ in batches(jobs.command(line).wait().well())] == [2]
        assert (jobs.directory / f"of_{name.split('.')[0]}" / "000").is_dir()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--time", "0"], "mpiflow perf: argument --time: is '0'; legal is a number of seconds above 0"),
        (["--argsize", "-1"], "mpiflow perf: argument --argsize: is '-1'; legal is a whole number from 0 up"),
        (["--iterate", "twice"], "argument --iterate: is 'twice'; legal are estimate, exponential, and sizes such as"),
        (["--iterate", "3,0"], "argument --iterate: is '3,0'; legal are"),
        (["--resources", "[1]"], "argument --resources: is '[1]'; legal is a dict such as {'priority': 1}"),
        (["--resources", "{"], "argument --resources: is '{', which fails: SyntaxError"),
        (["more"], "mpiflow perf: 'more' is not an option; perf --help says which there are"),
        (["--tim", "3"], "mpiflow: unrecognized arguments: --tim"),
        (["--config", "no.py"], "mpiflow perf: --config no.py: there is no such file (looked in "),
        (["--config", "empty.py"], "--config empty.py: it defines neither `config` nor `fresh_config()`"),
        (["--config", "number.py"], "--config number.py: its Config is 3; legal is a mpiflow.Config"),
        (["--config", "bad.toml"], "bad.toml, line 1: retires: there is no such key; legal are "),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_measured(jobs: Jobs, words: list[str], said: str) -> None:
    jobs.write("empty.py", "")
    jobs.write("number.py", "config = 3\n")
    jobs.write("bad.toml", "retires = 3\n")
    ended = jobs.command([sys.executable, "-m", "mpiflow", "-n", "1", "perf", *words]).wait()
    assert ended.code == 2, str(ended)
    assert said in ended.err
    assert ended.out == ""


def test_help_is_there(jobs: Jobs) -> None:
    out = jobs.command([sys.executable, "-m", "mpiflow", "perf", "--help"]).wait().well()
    assert all(option in out for option in ("--config", "--resources", "--time", "--argsize", "--iterate"))


def test_tasks_that_fail_are_an_error(jobs: Jobs) -> None:
    ended = jobs.command(jobs.line("lone", 1, ["perf", "--iterate", "2", "--resources", "{'cores': 1}"])).wait()
    assert "InvalidResourceSpecification" in ended.failed(1)
