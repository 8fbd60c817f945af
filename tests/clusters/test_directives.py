"""What is written into directives is what the real batch systems read from them."""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from batch_systems import BatchSystem

from mpiflow.jobs.quoting import file_name
from mpiflow.jobs.render import render
from mpiflow.jobs.spec import JobSpec

pytestmark = pytest.mark.timeout(150)


def held(system: BatchSystem, job: JobSpec, place: Path) -> str:
    """Submit a job that never begins; its number."""
    script = place / "job.sh"
    script.write_text(render(job))
    Path(job.output).mkdir(parents=True, exist_ok=True)
    hold = {"slurm": ["sbatch", "--hold"], "sge": ["qsub", "-h"]}[system.name]
    return re.findall(r"\d+", system.run(*hold, str(script), cwd=place))[0]


@pytest.mark.parametrize(
    "name",
    ["plain", "two words", "it's", 'a "b" c', "back\\slash", "#hash", "a#b", "a=b", "$HOME", "-dash", "'", "ünï", "%j",
     "a;b"],
)  # fmt: skip
def test_slurm_reads_names_and_paths(slurm: BatchSystem, name: str, tmp_path: Path) -> None:
    where = tmp_path / name.replace("\\", "").replace("%", "")
    job = JobSpec(
        script="s.py", name=name, nodes=1, ranks_per_node=2, time=3600, directory=str(where),
        directives=('--comment="x y"',),
    ).completed("slurm")  # fmt: skip
    where.mkdir()
    number = held(slurm, job, tmp_path)
    try:
        said = slurm.run("scontrol", "show", "job", number)
        assert f" JobName={name}\n" in said, said
        assert " TimeLimit=01:00:00 " in said
        assert f"StdOut={where}/runinfo/jobs/{file_name(name)}.{number}.log\n" in said, said
        assert "Comment=x y" in said
    finally:
        slurm.run("scancel", number)


def test_ranks_with_several_slots_under_grid_engine(grid_engine: BatchSystem, tmp_path: Path) -> None:
    """Two ranks of two slots each, as the launcher is told by a hostfile made of Grid Engine's."""
    (tmp_path / "s.py").write_text("import mpiflow\nprint(mpiflow.python_app(abs)(-7).result())\n")
    job = JobSpec(script="s.py", ranks_per_node=2, cores_per_rank=2, directory=str(tmp_path)).completed("gridengine")
    script = Path(job.output, "job.sh")
    script.parent.mkdir(parents=True)
    script.write_text(render(job))
    number = grid_engine.run("qsub", "-terse", str(script), cwd=tmp_path).strip()
    ended = script.parent / "ended"
    end = time.monotonic() + 100
    while not ended.exists() and time.monotonic() < end:
        time.sleep(0.1)
    words = "\n".join(path.read_text() for path in script.parent.glob("s.*"))
    assert ended.exists() and ended.read_text() == f"{number} 1 0\n", words  # noqa: PT018
    said = (script.parent / f"s.{number}.1.out").read_text()
    assert said == "mpiflow doctor: well: 2 ranks in one world on 1 nodes\n7\n"
    assert re.fullmatch(r"\S+(:| slots=)2\n", (script.parent / f"hosts.{number}").read_text())


def test_grid_engine_reads_all_it_is_told(grid_engine: BatchSystem, tmp_path: Path) -> None:
    job = JobSpec(
        script="s.py", name="a=b+c", ranks_per_node=3, time=3600, warn_before=100, directory=str(tmp_path), pe="mpi",
        mail="somebody@example.org", mail_events="begin,fail", array="1-9%2",
    ).completed("gridengine")  # fmt: skip
    number = held(grid_engine, job, tmp_path)
    try:
        said = ElementTree.fromstring(grid_engine.run("qstat", "-j", number, "-xml"))
        assert said.findtext(".//JB_job_name") == "a=b+c"
        assert said.findtext(".//JB_pe") == "mpi"
        assert said.findtext(".//JB_pe_range//RN_min") == "3"
        limits = {one.findtext("CE_name"): one.findtext("CE_doubleval") for one in said.iter("qstat_l_requests")}
        assert {name: float(value or 0) for name, value in limits.items()} == {"h_rt": 3600.0, "s_rt": 3500.0}
        assert said.findtext(".//JB_stdout_path_list//PN_path") == f"{job.output}/a_b+c.log"
        assert said.findtext(".//JB_restart") == "1"
        assert [said.findtext(f".//JB_ja_structure//{name}") for name in ("RN_min", "RN_max")] == ["1", "9"]
        assert said.findtext(".//JB_ja_task_concurrency") == "2"
    finally:
        grid_engine.run("qdel", number)
