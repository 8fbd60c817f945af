"""What a damaged preset, an odd script and wrong values do to a job: refused in words, and nothing lost in silence."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from mpiflow.cli.batch.joblog import HEADER, Joblog
from mpiflow.errors import ConfigurationError
from mpiflow.jobs import clouds
from mpiflow.jobs.deadline import find_deadline
from mpiflow.jobs.hosts import granted
from mpiflow.jobs.launchline import LaunchLine
from mpiflow.jobs.presets import read
from mpiflow.jobs.spec import JobSpec

FACT = "[[facts]]\ntopic = 'cores'\ntext = 'x'\nsource = 'y'\ndate = 2026-01-01\nchecked = false\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("requires = [['account']]\n", "requires is [['account']]; legal is a list of texts"),
        ("requires = [3]\n", "requires is [3]; legal is a list of texts"),
        ("[gpus]\nlauncher_options = [3]\n", "gpus.launcher_options is [3]; legal is a list of texts"),
        (FACT + "about = 3\n", "fact 1: about is 3; legal is a list of texts"),
        (FACT + "about = 'node.cores'\n", "fact 1: about is 'node.cores'; legal is a list of texts"),
        ("[job]\nsystem = 3\n", "job.system is 3; legal is a text"),
        ("[job]\nsystem = 'slum'\n", "job.system is 'slum'; legal are slurm, pbs,"),
        ("[job]\nsystem = {}\n", "job.system is {}; legal is a text"),
        ("[job]\nnodes = 'x'\n", "job.nodes is 'x'; legal is a whole number from 1 up"),
        ("[job]\ntime = '1:00:00'\n", "job.time is '1:00:00'; legal is a whole number"),
        ("[job]\nmodules = 'gcc'\n", "job.modules is 'gcc'; legal is a tuple of texts"),
        ("[job]\nmodules = [1]\n", "job.modules is (1,); legal is a tuple of texts"),
    ],
)
def test_a_damaged_preset_is_refused_by_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "ours.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}: {words}")


@pytest.mark.parametrize(
    "text",
    ["launcher = 'wrapped'\n", "queue = 'wrapped'\n", "wrapper = 'ibrun'\n", "time = 60\n", "warn_before = 900\n"],
)
def test_what_only_a_job_can_complete_is_no_damage(tmp_path: Path, text: str) -> None:
    file = tmp_path / "ours.toml"
    file.write_text("[job]\n" + text)
    assert read(file).job


@pytest.mark.parametrize("script", ["-n", "-n/a.py", "-x.py"])
def test_a_script_with_a_dash_is_no_option_in_a_cloud(script: str) -> None:
    spec = JobSpec(script=script, container="image")
    document = json.loads(clouds.render(spec, "kubernetes"))
    command = document["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]["containers"][0]["command"][-1]
    assert f"-m mpiflow ./{script}" in command


@pytest.mark.parametrize("anew", [True, False])
def test_a_joblog_may_go_nowhere_or_into_a_pipe(tmp_path: Path, anew: bool) -> None:
    Joblog("/dev/null", anew=anew).close()
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = Joblog(pipe, anew=anew)
    assert os.read(reading, 1000) == HEADER
    log.close()
    os.close(reading)


@pytest.mark.parametrize(
    ("environ", "answer", "asked"),
    [
        ({"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}, "2:00\n", "7_3"),
        ({"LSB_JOBID": "7", "LSB_JOBINDEX": "3"}, "0:02 L\n", "7[3]"),
        ({"LSB_JOBID": "7", "LSB_JOBINDEX": "0"}, "0:02 L\n", "7"),
    ],
)
def test_one_job_of_an_array_asks_for_itself(environ: dict[str, str], answer: str, asked: str) -> None:
    """One of them has the number of the whole array, for which the answer has a line for each."""

    def ask(line: Sequence[str]) -> str:
        return answer if asked in line else answer * 5

    assert find_deadline(environ, 1000.0, ask).moment == 1120.0


def test_a_batch_system_that_talks_nonsense_is_no_deadline() -> None:
    found = find_deadline({"SLURM_JOB_ID": "7"}, 1000.0, lambda line: "9" * 400)
    assert found.moment is None
    assert "squeue" in found.source


def test_ranks_of_a_host_that_map_by_says_count_and_not_its_cores(tmp_path: Path) -> None:
    """Torque and LSF have a line for each core, and Open MPI refuses more ranks than ``ppr`` has room for."""
    nodes = tmp_path / "nodes"
    nodes.write_text("n1\n" * 16 + "n2\n" * 16)
    words = f"mpiexec -n 8 --bind-to none --hostfile {nodes} --map-by ppr:4:node:OVERSUBSCRIBE python".split()
    shorter = LaunchLine(words, "openmpi", {}).without(["n2"], "left")
    assert shorter.ranks == 4
    assert shorter.words[:3] == ["mpiexec", "-n", "4"]


def test_a_hostfile_with_a_comment_in_another_encoding(tmp_path: Path) -> None:
    nodes = tmp_path / "nodes"
    nodes.write_bytes(b"# Knoten f\xfcr uns\nn1:2\nn2:2\n")
    line = LaunchLine(["mpiexec", "-f", str(nodes), "-n", "4", "python"], "hydra", {})
    assert [host.name for host in line.hosts] == ["n1", "n2"]
    assert granted({"PBS_NODEFILE": str(nodes)})[1].name == "n2"


def test_a_command_of_mpiflow_runs_in_a_cloud_too() -> None:
    text = clouds.render(JobSpec(script="batch", arguments=("tasks.txt",), container="image"), "kubernetes")
    assert "-m mpiflow batch tasks.txt" in text


@pytest.mark.parametrize("cloud", ["kubernetes", "aws-batch", "google-batch"])
def test_the_time_of_a_cloud_does_not_begin_again_with_each_farm(cloud: str) -> None:
    """A farm that is started again has what is left of the attempt; seconds from its own start would be too many."""
    image = "" if cloud == "google-batch" else "image"
    place = "gs://bucket=/data" if cloud == "google-batch" else "fs-1=/data"
    text = clouds.render(JobSpec(script="a.py", time=600, container=image, filesystems=place), cloud)
    assert '--deadline \\"$' in text
    assert "--deadline 600" not in text
    assert text.index("over=") < text.index("mpiflow doctor")
