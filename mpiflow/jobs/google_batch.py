"""A Job of Google Cloud Batch, whose tasks are the machines of one MPI job.

There is a task on each machine, and Batch sees to it that they reach each other by ssh and gives them the hosts as a
file. Task 0 runs mpiexec; a barrier before it waits until all are there, and one behind it keeps the others until it
has ended. The machines run no container, so the environment is a directory on a shared file system (``--venv``), and
an MPI of the machine's image.

A job that was drained (exit code 85) is not tried again by Batch: it would retry task 0 alone, whose barriers the
others have passed. Submit the same document again; the farm goes on from its journal.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

from mpiflow.errors import ConfigurationError
from mpiflow.jobs.cloud_job import CloudJob, first_lines, lines

#: The image with which Google runs MPI.
_IMAGE = "batch-hpc-rocky"


def document(job: CloudJob) -> dict[str, Any]:
    """The Job.

    Parameters
    ----------
    job : CloudJob
        The job.
    """
    spec = job.spec
    compute = {"cpuMilli": str(1000 * job.cores)}
    if spec.memory:
        compute["memoryMib"] = str(job.memory)
    task: dict[str, Any] = {
        "runnables": [
            {"barrier": {"name": "all-there"}},
            {"script": {"text": _script(job)}},
            {"barrier": {"name": "end"}},
        ],
        "computeResource": compute,
        "maxRetryCount": 0,
    }
    if spec.time is not None:
        task["maxRunDuration"] = f"{spec.time}s"
    if job.volumes:
        task["volumes"] = [_volume(volume.what, volume.where) for volume in job.volumes]
    return {
        "taskGroups": [
            {
                "taskSpec": task,
                "taskCount": str(spec.nodes),
                "parallelism": str(spec.nodes),
                "taskCountPerNode": "1",
                "requireHostsFile": True,
                "permissiveSsh": True,
            }
        ],
        "allocationPolicy": _allocation(job),
        "labels": {"program": "mpiflow"},
        "logsPolicy": {"destination": "CLOUD_LOGGING"},
    }


def _script(job: CloudJob) -> str:
    spec = job.spec
    made = [f"source {shlex.quote(file if '/' in file else './' + file)} || exit" for file in spec.setup]
    if spec.venv:
        made.append(f"source {shlex.quote(spec.venv + '/bin/activate')} || exit")
        if not spec.python:  # ranks on other machines have sourced nothing
            job = job._replace(spec=replace(spec, python=f"{spec.venv}/bin/python3"))
    first = ["#!/bin/bash", '[ "$BATCH_TASK_INDEX" = 0 ] || exit 0']
    return "\n".join((*first, *first_lines(job.spec), *lines(job, '"$BATCH_HOSTS_FILE"', made))) + "\n"


def _volume(what: str, where: str) -> dict[str, Any]:
    """A bucket, or an export of an NFS server."""
    if what.startswith("gs://"):
        return {"gcs": {"remotePath": what[len("gs://") :]}, "mountPath": where}
    server, colon, path = what.partition(":")
    if not colon or not path.startswith("/"):
        raise ConfigurationError(
            f"filesystems names {what!r}; legal on Google Cloud Batch are SERVER:/export=/path and gs://BUCKET=/path"
        )
    return {"nfs": {"server": server, "remotePath": path}, "mountPath": where}


def _allocation(job: CloudJob) -> dict[str, Any]:
    spec = job.spec
    policy: dict[str, Any] = {"bootDisk": {"image": _IMAGE}}
    if spec.constraint:
        policy["machineType"] = spec.constraint
    if spec.reservation:
        policy["reservation"] = spec.reservation
    instances: dict[str, Any] = {"policy": policy}
    if spec.gpus_per_node:
        kind, _, machine = spec.constraint.partition("@")
        if not machine:
            raise ConfigurationError(
                f"gpus_per_node is {spec.gpus_per_node}: say --constraint GPU@MACHINE, "
                "such as nvidia-tesla-t4@n1-standard-8"
            )
        policy["machineType"] = machine
        policy["accelerators"] = [{"type": kind, "count": str(spec.gpus_per_node)}]
        instances["installGpuDrivers"] = True
    made: dict[str, Any] = {"instances": [instances]}
    if spec.queue:
        made["location"] = {"allowedLocations": [f"regions/{spec.queue}"]}
    if spec.place:
        made["placement"] = {"collocation": spec.place}
    return made
