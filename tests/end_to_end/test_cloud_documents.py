"""The shell in the documents for clouds, run for real on this machine: it stands in for both of theirs."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest
from launching import Jobs, Mpiexec

from mpiflow.jobs.clouds import render
from mpiflow.jobs.spec import JobSpec

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import sys
from mpiflow import python_app

@python_app
def square(x):
    return x * x

print(sum(square(x).result() for x in range(10)), sys.argv[1:])
"""


def spec(launcher: Mpiexec, directory: Path, **fields: object) -> JobSpec:
    more = {"script": "script.py", "arguments": ("a b", "$(id)"), "python": sys.executable, "ranks_per_node": 3}
    options = tuple(flag for flag in launcher.flags if flag == "--oversubscribe")
    told = {"launcher": launcher.flavour, "launcher_options": options, "directory": str(directory), "time": 600}
    return JobSpec(**{**more, **told, **fields})  # type: ignore[arg-type]


def hostfile(launcher: Mpiexec, jobs: Jobs) -> str:
    """As the operator of Kubernetes writes it: Open MPI has another form than hydra."""
    return str(jobs.write("hosts", "localhost slots=3\n" if launcher.flavour == "openmpi" else "localhost:3\n"))


def environ(launcher: Mpiexec) -> dict[str, str]:
    return {"PATH": os.path.dirname(launcher.path) + os.pathsep + os.environ["PATH"]}


@pytest.mark.parametrize("code", [0, 3])
def test_the_launcher_of_kubernetes(code: int, jobs: Jobs, launcher: Mpiexec) -> None:
    jobs.write("script.py", SCRIPT + f"\nsys.exit({code})\n")
    job = spec(launcher, jobs.directory, container="image")
    document = json.loads(render(job, "kubernetes"))
    container = document["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]["containers"][0]
    text = container["command"][2].replace("$$", "$").replace("/etc/mpi/hostfile", hostfile(launcher, jobs))
    ended = jobs.command(["sh", "-c", text], env=environ(launcher)).wait(90)
    assert ended.code == code, ended
    assert "285 ['a b', '$(id)']" in ended.out
    assert "3 ranks in one world on 1 nodes" in ended.out


def test_the_first_machine_of_google(jobs: Jobs, launcher: Mpiexec) -> None:
    jobs.write("script.py", SCRIPT)
    job = spec(launcher, jobs.directory, filesystems=f"1.2.3.4:/export={jobs.directory}")
    [group] = json.loads(render(job, "google-batch"))["taskGroups"]
    script = jobs.write("task.sh", group["taskSpec"]["runnables"][1]["script"]["text"])
    told = {"BATCH_TASK_INDEX": "0", "BATCH_HOSTS_FILE": str(jobs.write("hosts", "localhost\n"))}
    ended = jobs.command(["bash", str(script)], env={**environ(launcher), **told}).wait(90)
    assert ended.code == 0, ended
    assert "285 ['a b', '$(id)']" in ended.out
