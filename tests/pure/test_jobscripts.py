"""Rendered batch scripts: as they were approved, and sound in the eyes of shellcheck."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import golden_scripts
import pytest

from mpiflow.errors import ConfigurationError
from mpiflow.jobs import systems
from mpiflow.jobs.launchers import LAUNCHERS, SENSIBLE
from mpiflow.jobs.render import render, templates
from mpiflow.jobs.spec import JobSpec

#: Files that are sourced are not there to be followed; and what is in single quotes is meant not to be expanded.
SHELLCHECK = ("shellcheck", "--norc", "-e", "SC1090,SC1091,SC2016")
BASE = JobSpec(script="sweep.py", directory="/lus/project", python="/lus/env/bin/python", time=3600)


def shellcheck(*scripts: Path) -> None:
    program = Path(sysconfig.get_path("scripts")) / "shellcheck"
    line = [str(program) if program.exists() else SHELLCHECK[0], *SHELLCHECK[1:], *map(str, scripts)]
    checked = subprocess.run(line, capture_output=True, text=True, check=False, timeout=100)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize(("system", "launcher", "amount"), list(golden_scripts.cases()))
def test_a_script_is_as_it_was_approved(system: str, launcher: str, amount: str) -> None:
    for name, text in golden_scripts.texts(system, launcher, amount).items():
        assert text == (golden_scripts.GOLDEN / name).read_text(), (
            "if this is meant: python tests/pure/golden_scripts.py, and read the difference"
        )


def test_no_approved_script_is_left_over() -> None:
    made = {name for case in golden_scripts.cases() for name in golden_scripts.texts(*case)}
    assert {path.name for path in golden_scripts.GOLDEN.iterdir()} == made


def test_every_template_is_somebodys() -> None:
    there = {path.name for path in templates().glob("*.j2")}
    wanted = {f"{name}.sh.j2" for name in systems.SYSTEMS} | {"_common.j2", "_launchers.j2", "htcondor.sub.j2"}
    assert there == wanted


@pytest.mark.parametrize("system", sorted({system for system, _, _ in golden_scripts.cases()}))
def test_shellcheck_finds_nothing_in_approved_scripts(system: str) -> None:
    shellcheck(*sorted(golden_scripts.GOLDEN.glob(f"{system}-*.sh")))


@pytest.mark.parametrize(
    "more",
    [
        {"container": "/lus/my image.sif"},
        {"container": "docker:me/image:1", "container_runtime": "shifter"},
        {"container": "me/image:1", "container_runtime": "podman-hpc"},
        {"conda": "my env"},
        {"stage_env": "/lus/env $x.tar.gz"},
        {"chain": 3},
        {"array": "1-9%2"},
        {"warn_before": 0, "max_restarts": 0},
    ],
    ids=lambda more: "-".join(map(str, more)),
)
@pytest.mark.parametrize("system", ["slurm", "gridengine", "lsf"])
def test_shellcheck_finds_nothing_in_other_forms(system: str, more: dict[str, object], tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(render(dataclasses.replace(BASE, **more).completed(system)))  # type: ignore[arg-type]
    shellcheck(script)


@pytest.mark.parametrize(
    ("system", "array", "words"),
    [
        ("gridengine", "0-9", "array is '0-9': Grid Engine counts from 1"),
        ("lsf", "1,0-9", "array is '1,0-9': LSF counts from 1"),
        ("gridengine", "1,3", "array is '1,3': ',' means something else to this batch system"),
        ("cobalt", "1-3", "array is '1-3': Cobalt has no arrays; legal is nothing"),
    ],
)
def test_arrays_that_a_batch_system_does_not_have(system: str, array: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        render(dataclasses.replace(BASE, array=array).completed(system))
    assert str(caught.value) == words


def test_an_array_with_a_limit() -> None:
    job = dataclasses.replace(BASE, array="1-9%2")
    assert "#BSUB -J sweep[1-9]%2\n" in render(job.completed("lsf"))
    assert "#SBATCH --array=1-9%2\n" in render(job.completed("slurm"))
    assert "#$ -t 1-9\n#$ -tc 2\n" in render(job.completed("gridengine"))


# --- which launchers make sense -------------------------------------------------------------------------------


@pytest.mark.parametrize("system", SENSIBLE)
def test_senseless_launchers_are_refused_with_the_sensible_ones_named(system: str) -> None:
    senseless = set(LAUNCHERS) - set(SENSIBLE[system])
    assert senseless
    for launcher in senseless:
        with pytest.raises(ConfigurationError) as caught:
            JobSpec(script="a.py", system=system, launcher=launcher, wrapper="x" if launcher == "wrapped" else "")
        assert f"launcher is '{launcher}', which makes no sense under system '{system}'" in str(caught.value)
        assert ", ".join(SENSIBLE[system]) in str(caught.value)


def test_a_launcher_is_checked_too_when_the_system_is_found_later() -> None:
    with pytest.raises(ConfigurationError, match="'srun', which makes no sense under system 'lsf'; sensible there are"):
        render(JobSpec(script="a.py", launcher="srun").completed("lsf"))


def test_every_launcher_and_every_system_is_in_the_table() -> None:
    assert set(SENSIBLE) == set(systems.SYSTEMS)
    assert {launcher for sensible in SENSIBLE.values() for launcher in sensible} == set(LAUNCHERS)


PAGE = Path(__file__).parents[2] / "docs" / "launchers.md"


def test_every_launcher_is_in_the_documentation() -> None:
    rows = re.findall(r"^\| (`[^|]+) \|", PAGE.read_text(), re.MULTILINE)
    assert set(LAUNCHERS) <= {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_every_block_and_every_filter_is_in_the_documentation() -> None:
    page = PAGE.read_text()
    blocks = set(re.findall(r"\{%-? ?block (\w+)", (templates() / "_common.j2").read_text())) - {"directive"}
    assert [name for name in blocks if f"\n| `{name}` | " not in page] == []
    used = {name for path in templates().glob("*.j2") for name in re.findall(r"\| ?(\w+)\(\"", path.read_text())}
    assert [name for name in used - {"replace", "join"} if f'`{name}("' not in page] == []


# --- templates of one's own -----------------------------------------------------------------------------------


def own(tmp_path: Path, text: str) -> JobSpec:
    (tmp_path / "own.j2").write_text(text)
    return dataclasses.replace(BASE, template=str(tmp_path / "own.j2")).completed("slurm")


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    made = render(own(tmp_path, "#!/bin/sh\n# {{ system.title }}\nrun {{ spec.script | word }}\n\n"))
    assert made == "#!/bin/sh\n# Slurm\nrun sweep.py\n"


def test_it_may_extend_those_of_the_package(tmp_path: Path) -> None:
    text = '{% extends "slurm.sh.j2" %}{% block again %}echo enough{% endblock %}'
    made = render(own(tmp_path, text))
    assert "echo enough" in made
    assert "scontrol requeue" not in made
    assert "#SBATCH --time=1:00:00" in made


def test_a_directory_with_templates_goes_before_the_package(tmp_path: Path) -> None:
    (tmp_path / "slurm.sh.j2").write_text("mine")
    job = dataclasses.replace(BASE, template=str(tmp_path))
    assert render(job.completed("slurm")) == "mine\n"
    assert render(job.completed("lsf")).startswith("#!/bin/bash\n#BSUB")


def test_a_directory_in_the_users_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert BASE.completed("slurm").template == "", "it is not there"
    place = tmp_path / "mpiflow" / "jobscripts"
    place.mkdir(parents=True)
    (place / "slurm.sh.j2").write_text("mine")
    assert render(BASE.completed("slurm")) == "mine\n"
    (tmp_path / "other.j2").write_text("this one")
    job = dataclasses.replace(BASE, template=str(tmp_path / "other.j2"))
    assert render(job.completed("slurm")) == "this one\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#!/bin/sh\n\n{{ spec.nodez }}", "own.j2: 'mpiflow.jobs.spec.JobSpec object' has no attribute 'nodez'"),
        ("{{ nothing }}", "own.j2: 'nothing' is undefined"),
        ("\n\n{% if %}", "own.j2, line 3: Expected an expression, got 'end of statement block'"),
        ('{% extends "other.j2" %}', "template other.j2: there is none; looked in "),
        ("{{ spec.name | shout }}", "own.j2, line 1: No filter named 'shout'."),
    ],
)
def test_a_template_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        render(own(tmp_path, text))
    assert words in str(caught.value)


def test_a_template_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.j2: No such file or directory"):
        render(dataclasses.replace(BASE, template=str(tmp_path / "none.j2")).completed("slurm"))


def test_a_template_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "own.j2").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="no text in UTF-8"):
        render(dataclasses.replace(BASE, template=str(tmp_path / "own.j2")).completed("slurm"))


def test_rendering_looks_at_nothing_but_the_job_and_the_template() -> None:
    job = BASE.completed("slurm")
    script = (
        "import os, sys, mpiflow.jobs.spec, mpiflow.jobs.render as r; os.chdir('/'); os.environ.clear(); "
        f"from mpiflow.jobs.spec import JobSpec; sys.stdout.write(r.render({job!r}))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout == render(job)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ spec.nodes + 'a' }}", "TypeError: "),
        ("{{ 1 // 0 }}", "ZeroDivisionError: "),
        ("{% for one in spec.nodes %}{% endfor %}", "TypeError: 'int' object is not iterable"),
        ("{{ spec.nodes | word }}", "TypeError: "),
    ],
)
def test_a_template_that_computes_nonsense(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"template .*own.j2: {words}"):
        render(own(tmp_path, text))


def test_grid_engine_is_asked_for_what_each_slot_takes() -> None:
    job = JobSpec(script="a.py", system="gridengine", cores_per_rank=8, gpus_per_node=16, memory=4 * 2**20)
    said = render(job.completed())
    assert "#$ -pe mpi 8\n" in said
    assert "#$ -l gpu=2\n" in said
    assert "#$ -l mem_free=1M\n" in said, "0M would be all there is, or none"
    with pytest.raises(ConfigurationError, match=r"gpus_per_node is 4: .* these are 8 slots a node"):
        render(dataclasses.replace(job, gpus_per_node=4).completed())


@pytest.mark.parametrize(("more", "code"), [({}, 99), ({}, 100), ({"chain": 2}, 99)])
def test_codes_that_grid_engine_takes_for_orders(tmp_path: Path, more: dict[str, object], code: int) -> None:
    """A script that ends with 99 is not run again for ever, and one with 100 does not stay in the queue."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$3" != supervise ] || exit {code}\n')
    python.chmod(0o755)
    job = JobSpec(script="a.py", launcher="wrapped", wrapper="env", python=str(python), directory=str(tmp_path), **more)  # type: ignore[arg-type]
    script = tmp_path / "job.sh"
    script.write_text(render(job.completed("gridengine")))
    for number in (17, 18):
        line = ["env", f"JOB_ID={number}", "bash", str(script)]
        assert subprocess.run(line, timeout=60, check=False).returncode == 1
    words = (tmp_path / "runinfo" / "jobs" / "a.17.1.err").read_text()
    assert f"mpiflow: the farm ended with code {code}" in words


def test_what_the_set_up_exports_goes_to_all_nodes_under_open_mpi(tmp_path: Path) -> None:
    """Its mpiexec passes on nothing of itself; what was there before is each node's own."""
    (tmp_path / "set up.sh").write_text("export NEW='two words' CHANGED=after\nNOT_EXPORTED=1\nexport EMPTY=\n")
    mpiexec = tmp_path / "bin" / "mpiexec"
    mpiexec.parent.mkdir()
    mpiexec.write_text(
        """#!/bin/bash
[ "$1" != --version ] || { echo "mpiexec (Open MPI) 5.0.11"; exit; }
echo "$NEW" "$@" >>called
"""
    )
    mpiexec.chmod(0o755)
    job = JobSpec(
        script="a.py", launcher="openmpi", python="/usr/bin/env", setup=("set up.sh",), directory=str(tmp_path)
    )
    script = tmp_path / "job.sh"
    script.write_text(render(job.completed("fork")))
    own = {"PATH": f"{mpiexec.parent}:/usr/bin:/bin", "CHANGED": "before", "SAME": "x", "HOME": str(tmp_path)}
    subprocess.run(["bash", str(script)], env=own, timeout=60, check=False)
    words = (tmp_path / "called").read_text().splitlines()[0]
    assert words.startswith("two words -n 1 --bind-to none")
    assert set(re.findall(r"-x (\S+)", words)) == {"PATH", "NEW", "CHANGED"}


def test_a_name_that_begins_with_a_digit_under_grid_engine() -> None:
    """It takes no such name, and a script may have one."""
    said = render(JobSpec(script="2024_run.py", system="gridengine").completed())
    assert "#$ -N j2024_run\n" in said
    assert "2024_run.$job." in said, "the files have the user's name"
