"""An MPIJob of the MPI operator (kubeflow.org/v2beta1): a launcher's pod, and one for each machine with ranks.

The workers' pods run sshd, with keys that the operator makes; the launcher's pod has the hosts in
``/etc/mpi/hostfile``. The image needs sshd, an MPI, and mpiflow.

Exit code 85 fails the launcher's pod, as any other code but 0, and a failed pod is started again up to
``--max-restarts`` times: the MPIJob has no place for an exit code that should, or should not, be tried again. A script
that fails is therefore run again, too, and finds its results in the journal.
"""

from __future__ import annotations

from typing import Any

from mpiflow.errors import ConfigurationError
from mpiflow.jobs.cloud_job import CloudJob, first_lines, lines

#: Where the operator puts the hosts.
_HOSTS = "/etc/mpi/hostfile"
_IMPLEMENTATIONS = {"hydra": "MPICH", "openmpi": "OpenMPI"}


def document(job: CloudJob) -> dict[str, Any]:
    """The MPIJob.

    Parameters
    ----------
    job : CloudJob
        The job.
    """
    spec = job.spec
    policy: dict[str, Any] = {"cleanPodPolicy": "Running", "backoffLimit": spec.max_restarts}
    if spec.time is not None:
        policy["activeDeadlineSeconds"] = spec.time * (spec.max_restarts + 1)  # it is for all attempts together
    if scheduling := _without_empty({"queue": spec.queue, "priorityClass": spec.qos}):
        policy["schedulingPolicy"] = scheduling
    return {
        "apiVersion": "kubeflow.org/v2beta1",
        "kind": "MPIJob",
        "metadata": {"name": job.name},
        "spec": {
            "slotsPerWorker": spec.ranks_per_node,
            "mpiImplementation": _IMPLEMENTATIONS[job.mpi],
            # mpiexec does not wait for machines that are not there yet
            "launcherCreationPolicy": "WaitForWorkersReady",
            "runPolicy": policy,
            "mpiReplicaSpecs": {
                "Launcher": {"replicas": 1, "restartPolicy": "OnFailure", "template": {"spec": _launcher(job)}},
                "Worker": {"replicas": spec.nodes, "template": _worker(job)},
            },
        },
    }


def _launcher(job: CloudJob) -> dict[str, Any]:
    text = "\n".join((*first_lines(job.spec), *lines(job, _HOSTS)))
    # "$(NAME)" would be replaced by Kubernetes, and "$$" is how it spells "$"
    container = _container(job, "launcher") | {"command": ["sh", "-c", text.replace("$", "$$")]}
    return {"containers": [container], **_pod(job)}


def _worker(job: CloudJob) -> dict[str, Any]:
    spec = job.spec
    resources: dict[str, Any] = {"cpu": str(job.cores)}
    if spec.memory:
        resources["memory"] = f"{job.memory}Mi"
    if spec.gpus_per_node:
        resources["nvidia.com/gpu"] = str(spec.gpus_per_node)
    container = _container(job, "worker") | {
        "command": ["/usr/sbin/sshd", "-De"],
        "resources": {"limits": resources, "requests": resources},
    }
    pod = {"containers": [container], **_pod(job)}
    labels = {"app.kubernetes.io/name": "mpiflow", "app.kubernetes.io/instance": job.name}
    if spec.constraint:
        pod["nodeSelector"] = _selector(spec.constraint)
    if spec.exclusive:
        term = {"labelSelector": {"matchLabels": labels}, "topologyKey": "kubernetes.io/hostname"}
        pod["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return {"metadata": {"labels": labels}, "spec": pod}


def _container(job: CloudJob, name: str) -> dict[str, Any]:
    mounts = [{"name": f"volume-{number}", "mountPath": volume.where} for number, volume in enumerate(job.volumes)]
    return {
        "name": name,
        "image": job.spec.container,
        "volumeMounts": [{"name": "shared-memory", "mountPath": "/dev/shm"}, *mounts],
    }


def _pod(job: CloudJob) -> dict[str, Any]:
    claims = [
        {"name": f"volume-{number}", "persistentVolumeClaim": {"claimName": volume.what}}
        for number, volume in enumerate(job.volumes)
    ]
    # The 64 MB that a container has in /dev/shm are too few for the ranks of a machine.
    return {"volumes": [{"name": "shared-memory", "emptyDir": {"medium": "Memory"}}, *claims]}


def _selector(text: str) -> dict[str, str]:
    """Labels of the machines, ``KEY=VALUE`` with commas between."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(key and equals for key, equals, _ in pairs):
        raise ConfigurationError(f"constraint is {text!r}; legal on Kubernetes is KEY=VALUE, with commas between")
    return {key: value for key, _, value in pairs}


def _without_empty(table: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in table.items() if value}
