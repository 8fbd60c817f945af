"""Every batch script is taken by its batch system, and runs: all systems that have a stand-in, with every launcher."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from standins import cobalt, flux, lsf, pbs
from standins.request import Request
from standins.standin import Standin

from mpiflow.errors import ConfigurationError
from mpiflow.jobs.launchers import SENSIBLE
from mpiflow.jobs.render import render
from mpiflow.jobs.spec import JobSpec
from mpiflow.jobs.systems import SYSTEMS

STANDINS = ("pbs", "torque", "cobalt", "lsf", "flux")
COMBINATIONS = [(system, launcher) for system in STANDINS for launcher in SENSIBLE[system]]
#: What each has a word for, beside what all have.
FULL: dict[str, dict[str, Any]] = {
    "pbs": {
        "place": "scatter",
        "filesystems": "home:eagle",
        "licenses": "matlab:2",
        "constraint": "system=polaris",
        "gpus_per_node": 4,
        "memory": 2**36,
        "exclusive": True,
        "array": "0-8:2%3",
        "mail": "user@site.org",
    },
    "torque": {
        "qos": "high",
        "reservation": "maint.1",
        "licenses": "matlab:2,ansys",
        "constraint": "bigmem",
        "gpus_per_node": 4,
        "memory": 2**36,
        "exclusive": True,
        "array": "1,3,5-7%2",
        "mail": "user@site.org",
    },
    "cobalt": {"place": "0-1", "filesystems": "home:eagle", "constraint": "mcdram=flat", "mail": "user@site.org"},
    "lsf": {
        "qos": "fast",
        "constraint": "select[type==X86_64]",
        "licenses": "matlab",
        "gpus_per_node": 4,
        "memory": 2**36,
        "exclusive": True,
        "array": "1-9",
        "mail": "user@site.org",
    },
    "flux": {"constraint": "-host:n3", "gpus_per_node": 4, "exclusive": True},
}


def job(system: str, directory: Path, **more: Any) -> JobSpec:
    """A small job of this system."""
    fields: dict[str, Any] = {
        "script": "script.py",
        "ranks_per_node": 2,
        "time": 600,
        "directory": str(directory),
        **more,
    }
    if fields.get("launcher") == "wrapped":
        fields["wrapper"] = "mpiexec -n 2"
    return JobSpec(system=system, **fields).completed()


def taken(system: str, spec: JobSpec, place: Path) -> Request:
    """What the batch system understands of its script."""
    path = place / "job.sh"
    path.write_text(render(spec))
    path.chmod(0o755)
    if system in ("pbs", "torque"):
        return pbs.submit([str(path)], None, pbs.PBS if system == "pbs" else pbs.TORQUE)
    return {"cobalt": cobalt, "lsf": lsf, "flux": flux}[system].submit([str(path)], None)  # type: ignore[attr-defined,no-any-return]


def submit(standin: Standin, spec: JobSpec) -> int:
    """Submit a job as the table of batch systems says; its number."""
    system = SYSTEMS[spec.system]
    os.makedirs(spec.output)
    script = os.path.join(spec.output, "job.sh")
    Path(script).write_text(render(spec))
    os.chmod(script, 0o755)
    line = [script if word == "{script}" else word for word in system.submit]
    said = standin.run(*line, cwd=Path(spec.directory), stdin=Path(script).read_text() if system.on_stdin else None)
    found = re.search(system.job_id, said, re.MULTILINE)
    assert found is not None, said
    number = re.search(r"\d+", found[1])
    assert number is not None
    return int(number[0])


def story(standin: Standin, spec: JobSpec) -> str:
    """All that a job has left."""
    parts = [path for path in sorted(Path(spec.output).iterdir()) if path.name != "job.sh"]
    return standin.story() + "\n".join(f"--- {path.name}\n{path.read_text()}" for path in parts)


# --- the directives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("system", "launcher"), COMBINATIONS)
def test_a_small_job_is_taken(system: str, launcher: str, tmp_path: Path) -> None:
    request = taken(system, job(system, tmp_path, launcher=launcher, nodes=3, time=5400), tmp_path)
    assert (request.nodes, request.seconds) == (3, 5400)
    assert request.name == "script"


@pytest.mark.parametrize(("system", "launcher"), COMBINATIONS)
def test_a_job_with_everything_is_taken(system: str, launcher: str, tmp_path: Path) -> None:
    spec = job(
        system,
        tmp_path,
        launcher=launcher,
        nodes=2,
        ranks_per_node=4,
        cores_per_rank=8,
        name="all of it",
        account="proj",
        queue="prod",
        **FULL[system],
    )
    request = taken(system, spec, tmp_path)
    said = request.said
    assert request.nodes == 2
    if system == "pbs":
        assert said["l.select"] == "2:ncpus=32:mpiprocs=4:ngpus=4:mem=65536mb:system=polaris"
        assert (said["l.place"], said["l.filesystems"], said["l.matlab"]) == ("scatter:excl", "home:eagle", "2")
        assert (said["A"], said["q"], said["M"], said["m"]) == ("proj", "prod", "user@site.org", "ea")
        assert request.array == [0, 2, 4, 6, 8]
    elif system == "torque":
        assert said["l.nodes"] == "2:ppn=32:gpus=4:bigmem"
        assert (said["l.mem"], said["l.naccesspolicy"], said["l.gres"]) == ("131072mb", "singlejob", "matlab:2%ansys")
        assert (said["l.qos"], said["l.advres"]) == ("high", "maint.1")
        assert request.array == [1, 3, 5, 6, 7]
    elif system == "cobalt":
        assert said["attrs"] == "filesystems=home,eagle:location=0-1:mcdram=flat"
        assert (said["project"], said["queue"], said["jobname"]) == ("proj", "prod", "all_of_it")
    elif system == "lsf":
        assert (said["P"], said["q"], request.requeue_on, request.signal) == ("proj", "prod", [85], "USR1")
        assert request.array == list(range(1, 10))
    else:
        assert (said["bank"], said["queue"], said["requires"]) == ("proj", "prod", ("-host:n3",))


@pytest.mark.parametrize("system", ["pbs", "torque"])
def test_paths_with_blanks_and_quotes(system: str, tmp_path: Path) -> None:
    place = tmp_path / """it's "a\\ b" """.strip()
    place.mkdir()
    request = taken(system, job(system, place), place)
    assert request.output == f"{place}/runinfo/jobs/"


def test_cobalt_cannot_say_a_blank_and_says_so(tmp_path: Path) -> None:
    place = tmp_path / "a b"
    place.mkdir()
    with pytest.raises(ConfigurationError, match=r"output is .*a directive of this batch system cannot say .*' '"):
        render(job("cobalt", place))


@pytest.mark.parametrize(("system", "longest"), [("pbs", 120), ("torque", 15)])
def test_names_that_pbs_does_not_take_are_shortened_and_mended(system: str, longest: int, tmp_path: Path) -> None:
    request = taken(system, job(system, tmp_path, name=f"9 täsks/{'x' * 300}"), tmp_path)
    assert request.name.startswith("j9_t_sks_x")
    assert len(request.name) <= longest + 1


@pytest.mark.parametrize(
    ("system", "fields", "complaint"),
    [
        ("pbs", {"qos": "high"}, "qos is 'high': PBS has none"),
        ("pbs", {"queue": "q", "reservation": "r"}, "legal is one of queue and reservation"),
        ("pbs", {"array": "1,3"}, "array is '1,3': PBS takes one range"),
        ("pbs", {"account": "two words"}, "account is 'two words': a directive of this batch system cannot say"),
        ("pbs", {"constraint": "a=1+2:b"}, "constraint"),
        ("pbs", {"pe": "mpi"}, "pe is 'mpi': parallel environments are Grid Engine's"),
        ("pbs", {"directives": ("-l a=1\n#PBS -q other",)}, "directive"),
        ("torque", {"filesystems": "home"}, "filesystems is 'home': Torque knows no such option"),
        ("torque", {"array": "0-8:2"}, "array is '0-8:2': Torque takes no steps"),
        ("torque", {"place": "scatter"}, "place is 'scatter'"),
        ("cobalt", {"time": None}, "Cobalt takes no job without"),
        ("cobalt", {"memory": 2**30}, "Cobalt gives out whole nodes"),
        ("cobalt", {"array": "0-8"}, "Cobalt has no arrays"),
        ("cobalt", {"licenses": "matlab"}, "licenses is 'matlab': Cobalt has none"),
    ],
)
def test_what_a_system_has_no_word_for(system: str, fields: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        render(job(system, tmp_path, **fields))
    assert complaint in str(refused.value)


# --- the runs ----------------------------------------------------------------------------------------------

SCRIPT = """
import sys, time, mpiflow

@mpiflow.python_app(cache=True)
def numbered(number):
    import os, time
    with open("log", "a") as log:
        log.write(f"{number}\\n")
    if not os.path.exists("second"):
        time.sleep(1)
    return number

print("sum", sum(future.result() for future in [numbered(number) for number in range(int(sys.argv[1]))]))
"""
RUNS = [
    ("pbs", "hydra"),
    ("pbs", "openmpi"),
    ("pbs", "pals"),
    ("pbs", "mpirun"),
    ("torque", "aprun"),
    ("cobalt", "aprun"),
    ("cobalt", "hydra"),
    ("cobalt", "openmpi"),
    ("lsf", "jsrun"),
    ("lsf", "mpiexec"),
    ("flux", "flux"),
    ("torque", "wrapped"),
]


@pytest.mark.parametrize(("system", "launcher"), RUNS)
def test_a_job_runs_to_its_end(standin: Callable[[str], Standin], system: str, launcher: str, tmp_path: Path) -> None:
    one = standin(system)
    if launcher in ("hydra", "openmpi") and launcher != one.flavour:
        pytest.skip(f"the mpiexec of this interpreter is of the other kind: {one.flavour}")
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "second").touch()  # its tasks need not take long
    spec = job(system, tmp_path, launcher=launcher, arguments=("4",))
    if launcher == "wrapped":
        spec = replace(spec, wrapper=f"{one.mpiexec} -n 2")
    if launcher == "pals":  # an mpiexec beside the interpreter would come before that of the site
        one.plays("mpiexec", "pals")
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        spec = replace(spec, python=str(python), launcher="mpiexec")
    number = submit(one, spec)
    code = one.wait(number)
    told = story(one, spec)
    assert code == 0, told
    assert "sum 6" in told
    assert sorted((tmp_path / "log").read_text().split()) == list("0123")


def tell(standin: Standin, number: int) -> None:
    """Let the walltime be near: the signal to all processes of the job."""
    os.killpg(int((standin.base / "jobs" / str(number) / "pid").read_text()), signal.SIGUSR1)


def until(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    """Wait for something."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.1)


@pytest.mark.parametrize("system", STANDINS)
def test_stopped_by_the_signal_it_goes_on_by_itself(
    standin: Callable[[str], Standin], system: str, tmp_path: Path
) -> None:
    """Stopped in the midst of 60 tasks; the second life does the others, and no task twice.

    The farm must not know when the time is over: it would go on with these short tasks, and rightly so.
    """
    one = standin(system)
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "forget.sh").write_text("unset COBALT_ENDTIME\n")
    spec = job(system, tmp_path, arguments=("60",), time=7200 if system == "cobalt" else None, setup=("forget.sh",))
    first = submit(one, spec)
    log = tmp_path / "log"
    until(lambda: log.exists() and len(log.read_text().split()) > 2, lambda: story(one, spec))
    tell(one, first)
    until(lambda: (Path(spec.output) / "ended").exists(), lambda: story(one, spec))
    assert len(log.read_text().split()) < 60
    (tmp_path / "second").touch()
    code = one.wait(first)
    if SYSTEMS[system].continuation == "successor":
        assert code == (0 if system == "cobalt" else 85), story(one, spec)
        named = (Path(spec.output) / "successors").read_text().split()
        assert named == [standin_id(system, 2)], story(one, spec)
        code = one.wait(2)
        assert one.jobs() == [1, 2]
    else:
        assert one.runs(first) == 2
    told = story(one, spec)
    assert code == 0, told
    assert f"sum {sum(range(60))}" in told
    assert sorted(map(int, log.read_text().split())) == list(range(60)), told
    assert len(list(Path(spec.output).glob("script.*.out"))) == 2, told  # named by job and attempt


def standin_id(system: str, number: int) -> str:
    """The id of a job in its system's form."""
    return {"pbs": f"{number}.pbs-standin", "torque": f"{number}.pbs-standin", "flux": f"ƒStand{number}"}.get(
        system, str(number)
    )


def test_pbs_is_told_its_time_by_the_script_alone(standin: Callable[[str], Standin], tmp_path: Path) -> None:
    """No signal, and no qstat that answers: what the script says by --deadline ends the farm before PBS does."""
    one = standin("pbs")
    (one.base / "bin" / "qstat").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    spec = job("pbs", tmp_path, arguments=("300",), time=20, warn_before=10)
    first = submit(one, spec)
    until(lambda: (Path(spec.output) / "ended").exists(), lambda: story(one, spec))
    (tmp_path / "second").touch()
    assert one.wait(first) == 85, story(one, spec)
    assert one.wait(2) == 0, story(one, spec)
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == list(range(300))


@pytest.mark.parametrize("system", ["pbs", "lsf"])
def test_it_goes_on_only_so_often(standin: Callable[[str], Standin], system: str, tmp_path: Path) -> None:
    one = standin(system)
    (tmp_path / "script.py").write_text("import sys\nsys.exit(85)\n")
    spec = job(system, tmp_path, max_restarts=1)
    first = submit(one, spec)
    if system == "pbs":
        one.wait(first)
        assert (one.wait(2), one.jobs()) == (85, [1, 2]), story(one, spec)
    else:
        assert (one.wait(first), one.runs(first)) == (86, 2), story(one, spec)


@pytest.mark.parametrize("system", ["pbs", "torque"])
def test_one_of_an_array_goes_on_alone(standin: Callable[[str], Standin], system: str, tmp_path: Path) -> None:
    one = standin(system)
    (tmp_path / "script.py").write_text(
        "import os, sys\nindex = os.environ['MPIFLOW_ARRAY_INDEX']\nprint('index', index)\n"
        "mark = f'mark.{index}'\nagain = index == '2' and not os.path.exists(mark)\nopen(mark, 'w').close()\n"
        "sys.exit(85 * again)\n"
    )
    spec = job(system, tmp_path, array="1-2")
    first = submit(one, spec)
    one.wait(first)
    assert one.wait(2) == 0, story(one, spec)
    assert one.jobs() == [1, 2]
    printed = [path.read_text() for path in sorted(Path(spec.output).glob("*.out"))]
    assert sorted(re.findall(r"index \d", "".join(printed))) == ["index 1", "index 2", "index 2"]


def test_cobalt_links_that_find_the_work_done_leave_at_once(standin: Callable[[str], Standin], tmp_path: Path) -> None:
    one = standin("cobalt")
    (tmp_path / "script.py").write_text(
        "import os, sys\nlast = os.path.exists('mark')\nopen('mark', 'w').close()\nsys.exit(0 if last else 85)\n"
    )
    spec = job("cobalt", tmp_path, chain=3)
    submit(one, spec)
    script = os.path.join(spec.output, "job.sh")
    for before in "12":
        one.run("qsub", "--dependencies", before, script, cwd=tmp_path)
    assert [one.wait(number) for number in (1, 2, 3)] == [0, 0, 0], story(one, spec)
    runs = Path(spec.output).glob("script.*.err")
    assert sum("doctor" in path.read_text() for path in Path(spec.output).glob("script.*.out")) == 2, story(one, spec)
    assert len(list(runs)) == 3


def test_a_site_that_lets_no_job_submit_is_told_of_chain(standin: Callable[[str], Standin], tmp_path: Path) -> None:
    one = standin("pbs")
    (tmp_path / "script.py").write_text("import sys\nsys.exit(85)\n")
    spec = job("pbs", tmp_path)
    os.makedirs(spec.output)
    number = submit(one, replace(spec, output=f"{spec.output}/1"))
    qsub = one.base / "bin" / "qsub"
    qsub.write_text("#!/bin/sh\necho 'qsub: submission from this host is not allowed' >&2\nexit 15\n")
    assert one.wait(number) == 85
    written = "".join(path.read_text() for path in Path(spec.output, "1").glob("*.err"))
    assert "qsub: submission from this host is not allowed" in written
    assert "or submit with --chain" in written


def test_every_script_passes_bash(tmp_path: Path) -> None:
    for system, launcher in COMBINATIONS:
        checked = subprocess.run(
            ["bash", "-n"],
            input=render(job(system, tmp_path, launcher=launcher)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (checked.returncode, checked.stderr) == (0, ""), (system, launcher)
