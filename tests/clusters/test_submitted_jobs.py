"""From `mpiflow submit` to the end of the work, on real batch systems: what a user types, and what the queue does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_systems import BatchSystem
from desk import SLURM, Desk

import mpiflow

pytestmark = pytest.mark.timeout(300)

#: Six quick tasks, and six that wait for a gate. Each leaves a line where it has run. Each of the six is an app of its
#: own: of such nothing is known that would let it begin when the time is nearly over.
SCRIPT = (
    """
import mpiflow

def run(number, gated):
    import os, time
    while gated and not os.path.exists("gate"):
        time.sleep(0.1)
    with open("ran", "a") as file:
        file.write(f"{number}\\n")
    return number

@mpiflow.python_app(cache=True)
def quick(number):
    return run(number, False)

"""
    + "".join(
        f"""
@mpiflow.python_app(cache=True)
def gated_{number}():
    return run({number}, True)
"""
        for number in range(6, 12)
    )
    + """
futures = [quick(number) for number in range(6)]
futures += [gated() for gated in (gated_6, gated_7, gated_8, gated_9, gated_10, gated_11)]
print("sum", sum(future.result() for future in futures), flush=True)
"""
)


def test_stopped_by_the_walltime_signal_and_resumed(desk: Desk) -> None:
    """It is stopped with half of its tasks to do, and goes on by itself: each task has run once, and no more."""
    job = desk.submits("--time", "60s", "--warn-before", "35", "script.py", text=SCRIPT)
    desk.sees("mpiflow: draining: SIGUSR1", "*.1.err")
    assert len(set((desk.place / "ran").read_text().split())) == 6
    (desk.place / "gate").touch()
    out, err = desk.types("logs", "-f", job)
    assert desk.state(job).startswith("done"), f"{out}{err}"
    ran = (desk.place / "ran").read_text().split()
    assert sorted(map(int, ran)) == list(range(12)), "each task once"
    assert "sum 66" in out
    resumed = next(desk.place.glob(f"runinfo/jobs/*/*{job}.2.err")).read_text()
    taken = re.search(r"mpiflow: (\d+) results were taken from earlier runs", resumed)
    assert taken, resumed
    assert int(taken[1]) == 9, "what had ended, and what ran while it was drained, on three workers"
    ends = next(desk.place.glob("runinfo/jobs/*/ended")).read_text().split("\n")[:-1]
    assert [line.split()[:2] for line in ends] == [[job, "1"], [job, "2"]]
    assert ends[-1].endswith(" 0")


QUICK = """
import sys, mpiflow

@mpiflow.python_app
def twice(number):
    return 2 * number

print("got", [twice(number).result() for number in range(3)], sys.argv[1:], flush=True)
sys.exit(3)
"""
FOREVER = "import time; print('here', flush=True); time.sleep(600)"


def test_wait_shows_what_it_prints_and_ends_with_its_code(desk: Desk) -> None:
    (desk.place / "script.py").write_text(QUICK)
    out, err = desk.types("submit", *desk.options, "--wait", "script.py", "--nodes", "a  b", "$(c)'", code=3)
    assert "got [0, 2, 4] ['--nodes', 'a  b', \"$(c)'\"]" in out
    assert "mpiflow: failed with code 3" in err
    found = re.match(r"submitted: job (\S+)", out)
    assert found
    job = found[1]
    assert desk.state(job).startswith("failed with code 3")
    listed, _ = desk.types("jobs")
    assert re.match(rf"{job} +\w+ +20\d\d-\d\d-\d\d \d\d:\d\d  script +failed with code 3", listed)
    assert "has ended before" in desk.types("cancel", job)[0]


def test_cancel_while_it_runs(desk: Desk) -> None:
    job = desk.submits("script.py", text=FOREVER)
    desk.sees("here", "*.out")
    assert desk.state(job).startswith("running")
    assert "told to end" in desk.types("cancel", job)[0]
    state = desk.reaches(job, "cancelled|failed|done")
    assert not state.startswith("done")


def test_rejected_and_its_words_are_shown(desk: Desk) -> None:
    (desk.place / "script.py").write_text(QUICK)
    wrong = ["--queue", "no-such-queue"] if desk.system.name == "slurm" else ["--pe", "no-such-pe"]
    _, err = desk.types("submit", *desk.options, *wrong, "script.py", code=1)
    assert re.search(
        r"mpiflow submit: job script is not submitted: (Slurm|Grid Engine) refuses it \(`\w+ .*`, code \d+\):", err
    )
    assert re.search(r"invalid partition specified|no-such-pe", err)
    assert desk.types("jobs")[0] == ""


def test_an_id_that_nobody_knows(desk: Desk) -> None:
    out, _ = desk.types("status", "4711", code=1)
    assert "it is not known how it stands" in out
    _, err = desk.types("cancel", "4711", code=1)
    assert "job 4711 is not ended" in err
    _, err = desk.types("logs", "4711", code=2)
    assert "was not submitted by mpiflow" in err


def test_python(desk: Desk) -> None:
    (desk.place / "script.py").write_text(QUICK)
    nodes = 2 if desk.system.name == "slurm" else 1
    launcher = desk.options[-1] if "--launcher" in desk.options else ""
    (desk.place / "submits.py").write_text(f"""
from mpiflow.jobs.spec import JobSpec

job = JobSpec(script="script.py", nodes={nodes}, ranks_per_node={4 // nodes}, launcher={launcher!r}).submit()
print(job.status().state in ("pending", "running"), job.wait(timeout=150).exit_code, job.status().state)
""")
    line = [sys.executable, "submits.py"]
    ran = subprocess.run(
        line, env=desk.environment, cwd=desk.place, capture_output=True, text=True, timeout=200, check=False
    )
    assert ran.stdout == "True 3 failed\n", f"{ran.stderr}{desk}"


def test_an_array_is_one_job(desk: Desk) -> None:
    text = "import os; print('index', os.environ['MPIFLOW_ARRAY_INDEX'], flush=True)"
    (desk.place / "script.py").write_text(text)
    out, _ = desk.types(
        "submit", *desk.options, "--nodes", "1", "--ranks-per-node", "2", "--array", "1-3", "--wait", "script.py"
    )
    assert sorted(re.findall(r"^index (\d)$", out, re.MULTILINE)) == ["1", "2", "3"]
    found = re.match(r"submitted: job (\S+)", out)
    assert found
    assert desk.state(found[1]).startswith("done")


def test_a_chain_ends_its_work_and_the_links_that_are_left_leave(desk: Desk) -> None:
    job = desk.submits("--chain", "3", "script.py", text="print('done it', flush=True)")
    desk.types("logs", "-f", job)
    assert desk.state(job).startswith("done")
    said, _ = desk.types("status", job)
    ids = re.search(r"jobs: (\S+), (\S+), (\S+)", said)
    assert ids
    assert len(set(ids.groups())) == 3
    outputs = [path.read_text() for path in desk.place.glob("runinfo/jobs/*/*.out")]
    assert sum("done it" in text for text in outputs) == 1
    ends = next(desk.place.glob("runinfo/jobs/*/ended")).read_text().split("\n")[:-1]
    assert [line.split()[2] for line in ends] == ["0", "0", "0"]


NOBODY = 65534


@pytest.fixture
def somebody_else(slurm: BatchSystem) -> Iterator[Desk]:
    """A user of Slurm who is not root, and cannot see what only root may: the interpreter of these tests, perhaps."""
    place = Path(tempfile.mkdtemp(prefix="mpiflow-user-", dir="/tmp"))
    os.chown(place, NOBODY, NOBODY)
    desk = Desk(slurm, place, *SLURM)
    desk.interpreter = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "/usr/bin/python3"]
    packages = [str(Path(mpiflow.__file__).parent.parent), sysconfig.get_paths()["platlib"]]
    libraries = str(Path(sys.prefix, "lib"))
    desk.environment["PATH"] = f"{sys.prefix}/bin:{desk.environment['PATH']}"
    desk.environment |= {
        "PYTHONPATH": ":".join(packages),
        "LD_LIBRARY_PATH": libraries,
        "HOME": str(place),
        "USER": "nobody",
    }
    can = [*desk.interpreter, "-c", "import jinja2, mpiflow; from mpi4py import MPI"]
    tried = subprocess.run(
        can, env=desk.environment, cwd=place, capture_output=True, text=True, timeout=60, check=False
    )
    try:
        if tried.returncode != 0:
            pytest.skip(f"a user other than root has no Python with MPI here: {tried.stderr.strip().splitlines()[-1:]}")
        yield desk
    finally:
        shutil.rmtree(place)


def test_an_owner_who_is_not_root_and_another_user(somebody_else: Desk, tmp_path: Path) -> None:
    """Whoever it is: the job runs, and is theirs. Others see how it stands by its number; it is not theirs to end."""
    user = somebody_else
    job = user.submits("script.py", text=QUICK)
    user.types("logs", "-f", job)
    assert user.state(job).startswith("failed with code 3"), str(user)
    outputs = list(user.place.glob("runinfo/jobs/*/*.out"))
    assert outputs
    assert all(path.stat().st_uid == NOBODY for path in outputs)
    roots = Desk(user.system, tmp_path, *SLURM)
    assert roots.state(job).startswith("failed with code 3")
    its = roots.submits("script.py", text=FOREVER)
    roots.sees("here", "*.out")
    assert user.state(its).startswith("running")
    _, err = user.types("cancel", its, code=1)
    assert re.search(rf"job {its} is not ended: scancel: .*Access/permission denied", err), err
    assert roots.state(its).startswith("running")
    roots.types("cancel", its)


def test_a_place_where_nothing_can_be_written(somebody_else: Desk) -> None:
    user = somebody_else
    (user.place / "script.py").write_text(QUICK)
    os.chown(user.place, 0, 0)
    user.place.chmod(0o755)
    _, err = user.types("submit", *SLURM, "script.py", code=2)
    assert re.search(
        r"mpiflow submit: the directory of the job, .*, cannot be made: Permission denied; name another", err
    )
    elsewhere = user.place / "elsewhere"
    elsewhere.mkdir()
    os.chown(elsewhere, NOBODY, NOBODY)
    out, err = user.types("submit", *SLURM, "--output", "elsewhere", "script.py")
    found = re.match(r"submitted: job (\S+)", out)
    assert found
    assert "is not in the list of `mpiflow jobs`" in err, "its home is that place as well"
    user.types("cancel", str(next(elsewhere.iterdir())))
