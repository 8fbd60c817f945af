"""Arrays and chains on real batch systems: each member keeps to itself, and a chain does its work once."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from desk import Desk

pytestmark = pytest.mark.timeout(300)

#: Two members of two ranks each, which fit beside each other.
ARRAY = ("--nodes", "1", "--ranks-per-node", "2", "--array", "1-2")
MEMBER = """
import os, mpiflow

@mpiflow.python_app
def index():
    import os
    return os.environ["MPIFLOW_ARRAY_INDEX"]

kernel = mpiflow.load()
print("member", os.environ["MPIFLOW_ARRAY_INDEX"], "in", kernel.run_dir, flush=True)
assert index().result() == os.environ["MPIFLOW_ARRAY_INDEX"]
"""


def outputs(desk: Desk, attempt: int = 1) -> list[Path]:
    """What the members have printed, by their numbers."""
    return sorted(desk.place.glob(f"runinfo/jobs/*/script.*.{attempt}.out"))


def test_each_member_has_outputs_and_a_run_directory_of_its_own(desk: Desk) -> None:
    job = desk.submits(*ARRAY, "script.py", text=MEMBER)
    desk.types("logs", "-f", job)
    assert desk.state(job).startswith("done"), str(desk)
    between = "_" if desk.system.name == "slurm" else "."
    assert [path.name for path in outputs(desk)] == [f"script.{job}{between}{number}.1.out" for number in (1, 2)]
    said = [re.findall(r"^member (\d) in (\S+)$", path.read_text(), re.MULTILINE) for path in outputs(desk)]
    assert [[number for number, _ in one] for one in said] == [["1"], ["2"]]
    places = [desk.place / place for one in said for _, place in one]
    assert len(set(places)) == 2
    assert all((place / "mpiflow.log").exists() for place in places)
    ends = next(desk.place.glob("runinfo/jobs/*/ended")).read_text().splitlines()
    assert sorted(ends) == [f"{job}{between}{number} 1 0" for number in (1, 2)]


def test_cancel_ends_all_members(desk: Desk) -> None:
    text = "import time; print('here', flush=True); time.sleep(600)"
    job = desk.submits(*ARRAY, "script.py", text=text)
    end = time.monotonic() + 120
    while sum("here" in path.read_text() for path in outputs(desk)) < 2:
        assert time.monotonic() < end, str(desk)
        time.sleep(0.1)
    assert desk.state(job).startswith("running (2 of 2 tasks)")
    assert "told to end" in desk.types("cancel", job)[0]
    assert not desk.reaches(job, "cancelled|failed|done").startswith("done")
    left = {"slurm": ["squeue", "--noheader", f"--jobs={job}"], "sge": ["qstat"]}[desk.system.name]
    end = time.monotonic() + 60
    while said := desk.system.run(*left).strip():
        assert time.monotonic() < end, said
        time.sleep(0.5)


#: Two tasks, of which the second waits for a gate: nothing is known of it that would let it begin when time is short.
LINK = """
import os, time, mpiflow

@mpiflow.python_app(cache=True)
def first():
    with open("ran", "a") as file:
        file.write("first ")
    return 1

@mpiflow.python_app(cache=True)
def second(number):
    with open("ran", "a") as file:
        file.write("second ")
    return number + 1

got = first().result()
while not os.path.exists("gate"):
    time.sleep(0.1)
print("got", second(got).result(), flush=True)
"""


def test_a_link_takes_up_the_work_and_the_next_one_leaves_at_once(desk: Desk) -> None:
    """The first is told that its time is nearly over and drained, the second ends the work, the third finds it done."""
    job = desk.submits("--chain", "3", "--time", "60s", "--warn-before", "35", "script.py", text=LINK)
    desk.sees("mpiflow: draining: ", "*.1.err")
    (desk.place / "gate").touch()
    desk.types("logs", "-f", job)
    assert desk.state(job).startswith("done"), str(desk)
    assert (desk.place / "ran").read_text() == "first second ", str(desk)
    ends = [line.split() for line in next(desk.place.glob("runinfo/jobs/*/ended")).read_text().splitlines()]
    assert [code for _, _, code in ends] == ["85", "0", "0"], str(desk)
    assert len({link for link, _, _ in ends}) == 3
    words = [next(desk.place.glob(f"runinfo/jobs/*/*.{attempt}.out")).read_text() for attempt in (1, 2, 3)]
    assert ["got 2" in one for one in words] == [False, True, False]
    assert words[2] == "", "it has not even looked at its nodes"
