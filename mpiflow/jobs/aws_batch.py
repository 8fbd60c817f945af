"""A job definition of AWS Batch for a multi-node parallel job.

All machines of such a job start the same container, and each knows the main one's address and its own number only.
mpiexec on the main one must know all. So each writes its address into a directory that all of them share, on EFS, which
the journal needs anyway; the others then run sshd, and end when the main one does. The image needs sshd with keys that
let its machines in, an MPI, and mpiflow.

Exit code 85 is tried again, as is a machine that was taken away; any other code is the end (``evaluateOnExit``). AWS
tries ten times at most.
"""

from __future__ import annotations

import shlex
from typing import Any

from mpiflow.errors import ConfigurationError
from mpiflow.exitcodes import DRAINED
from mpiflow.jobs.cloud_job import CloudJob, first_lines, lines

#: The most attempts that AWS Batch allows.
_ATTEMPTS = 10
#: Megabytes for a machine whose memory was not said: AWS wants a number.
_MEMORY_PER_CORE = 2048
#: Seconds in which all machines must have come.
_MEET_WITHIN = 900

_MEET = """\
meet={directory}/.mpiflow-hosts/${{AWS_BATCH_JOB_ID%%#*}}.${{AWS_BATCH_JOB_ATTEMPT:-1}}
mkdir -p -- "$meet" || exit
addresses=$(hostname -i) || exit
echo "${{addresses%% *}}" >"$meet/$AWS_BATCH_JOB_NODE_INDEX.new" || exit
mv -- "$meet/$AWS_BATCH_JOB_NODE_INDEX.new" "$meet/$AWS_BATCH_JOB_NODE_INDEX" || exit
mkdir -p /run/sshd
if [ "$AWS_BATCH_JOB_NODE_INDEX" != "$AWS_BATCH_JOB_MAIN_NODE_INDEX" ]; then
    exec /usr/sbin/sshd -De
fi
/usr/sbin/sshd || exit
waited=0
node=0
: >"$meet/hosts"
while [ "$node" -lt "$AWS_BATCH_JOB_NUM_NODES" ]; do
    if [ -s "$meet/$node" ]; then
        cat -- "$meet/$node" >>"$meet/hosts"
        node=$((node + 1))
    elif [ "$waited" -ge {within} ]; then
        echo "mpiflow: node $node of $AWS_BATCH_JOB_NUM_NODES has not come within {within} s" >&2
        exit 1
    else
        sleep 1
        waited=$((waited + 1))
    fi
done"""


def document(job: CloudJob) -> dict[str, Any]:
    """The input of RegisterJobDefinition.

    Parameters
    ----------
    job : CloudJob
        The job.
    """
    spec = job.spec
    made: dict[str, Any] = {
        "jobDefinitionName": job.name,
        "type": "multinode",
        "nodeProperties": {
            "numNodes": spec.nodes,
            "mainNode": 0,
            "nodeRangeProperties": [{"targetNodes": "0:", "container": _container(job)}],
        },
        "retryStrategy": {
            "attempts": min(spec.max_restarts + 1, _ATTEMPTS),
            "evaluateOnExit": [
                {"onExitCode": str(DRAINED), "action": "RETRY"},
                {"onStatusReason": "Host EC2*", "action": "RETRY"},
                {"onExitCode": "*", "action": "EXIT"},
            ],
        },
    }
    if spec.time is not None:
        if spec.time < 60:
            raise ConfigurationError(f"time is {spec.time!r}; legal on AWS Batch is a number of seconds from 60 up")
        made["timeout"] = {"attemptDurationSeconds": spec.time}
    return made


def _container(job: CloudJob) -> dict[str, Any]:
    spec = job.spec
    memory = job.memory or job.cores * _MEMORY_PER_CORE
    needs = {"VCPU": job.cores, "MEMORY": memory, "GPU": spec.gpus_per_node}
    made: dict[str, Any] = {
        "image": spec.container,
        "command": ["sh", "-c", _command(job)],
        "resourceRequirements": [{"type": kind, "value": str(value)} for kind, value in needs.items() if value],
        # The 64 MB that a container has in /dev/shm are too few for the ranks of a machine.
        "linuxParameters": {"sharedMemorySize": max(memory // 2, 64)},
        # Fast networks pin memory.
        "ulimits": [{"name": "memlock", "softLimit": -1, "hardLimit": -1}],
        "volumes": [
            {"name": f"volume-{number}", "efsVolumeConfiguration": {"fileSystemId": volume.what}}
            for number, volume in enumerate(job.volumes)
        ],
        "mountPoints": [
            {"sourceVolume": f"volume-{number}", "containerPath": volume.where}
            for number, volume in enumerate(job.volumes)
        ],
    }
    if spec.constraint:
        made["instanceType"] = spec.constraint
    return made


def _command(job: CloudJob) -> str:
    if not any(_within(job.directory, volume.where) for volume in job.volumes):
        raise ConfigurationError(
            f"filesystems is {job.spec.filesystems!r}: on AWS Batch the job's directory must be on a file system that "
            "all machines share; say --filesystems fs-ID=/path"
        )
    meet = _MEET.format(directory=shlex.quote(job.directory), within=_MEET_WITHIN)
    text = "\n".join((*first_lines(job.spec), meet, *lines(job, '"$meet/hosts"')))
    if "Ref::" in text:
        raise ConfigurationError('AWS Batch replaces "Ref::NAME" in a command: it can be in no argument')
    return text


def _within(path: str, directory: str) -> bool:
    return f"{path}/".startswith(directory.rstrip("/") + "/")
