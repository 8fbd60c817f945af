"""Jobs in clouds: one document for each cloud that can start the ranks of an MPI job on several machines.

==============  ==================================================  =============================================
cloud           document                                            machines for the ranks are started by
==============  ==================================================  =============================================
kubernetes      MPIJob, kubeflow.org/v2beta1                        the MPI operator, as pods
aws-batch       a multi-node parallel job definition                AWS Batch, as containers
google-batch    a Job of Google Cloud Batch                         Google Batch, as they are
==============  ==================================================  =============================================

AWS ParallelCluster, and OpenStack clouds such as Jetstream2, give a Slurm cluster: that is ``system="slurm"``, and none
of this.

A document is JSON, which ``kubectl`` takes as well as YAML, so that nothing a user wrote can break it. The command in
it is a few lines of shell, in which each word of the user's is quoted for the shell, and then as the cloud wants it.
Nothing is submitted from here: a cloud wants its own tool, with its own credentials. What a cloud has no place for is
refused, and never left out in silence.

Documents are checked in the tests against the schemas that the clouds publish, and the shell by running it; none was
tried in a cloud.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple

from mpiflow.errors import ConfigurationError
from mpiflow.jobs import aws_batch, google_batch, kubernetes
from mpiflow.jobs.cloud_job import CloudJob, Volume

if TYPE_CHECKING:  # a JobSpec knows the names of the clouds
    from mpiflow.jobs.spec import JobSpec

#: What every cloud can be told, or is the command's own business.
_EVERYWHERE = (
    "script", "arguments", "system", "launcher", "nodes", "ranks_per_node", "cores_per_rank", "runners_per_rank",
    "time", "name", "gpus_per_node", "memory", "filesystems", "python", "farm_options", "launcher_options", "directory",
    "warn_before", "relaunches", "container_runtime", "mail_events",
)  # fmt: skip
#: Launchers, and whose command line that is.
_LAUNCHERS = {"": "hydra", "mpiexec": "hydra", "mpirun": "hydra", "hydra": "hydra", "openmpi": "openmpi"}


class Cloud(NamedTuple):
    """A cloud.

    Attributes
    ----------
    title : str
        Its name in a sentence.
    document : callable
        Makes the document.
    sayable : tuple of str
        Fields of a `JobSpec` that it has a place for, beside those that every cloud has.
    contained : bool
        Whether it starts containers, and so needs an image.
    name : str
        What a job's name must match.
    volume : str
        What a file system is called there, in ``--filesystems WHAT=/where``.
    submit : tuple of str
        The commands that submit the document; ``{file}`` is its path.
    """

    title: str
    document: Callable[[CloudJob], dict[str, Any]]
    sayable: tuple[str, ...]
    contained: bool
    name: str
    volume: str
    submit: tuple[str, ...]


CLOUDS: dict[str, Cloud] = {
    "kubernetes": Cloud(
        title="Kubernetes",
        document=kubernetes.document,
        sayable=("container", "queue", "qos", "constraint", "exclusive", "max_restarts"),
        contained=True,
        # of a pod: "-worker-" and a number are put behind it
        name=r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?",
        volume="CLAIM",
        submit=("kubectl create -f {file}",),
    ),
    "aws-batch": Cloud(
        title="AWS Batch",
        document=aws_batch.document,
        # The queue is told to submit-job, and stands in no job definition.
        sayable=("container", "constraint", "max_restarts", "queue"),
        contained=True,
        name=r"[A-Za-z0-9_-]{1,128}",
        volume="fs-ID",
        submit=(
            "aws batch register-job-definition --cli-input-json file://{file}",
            "aws batch submit-job --job-name {name} --job-definition {name} --job-queue {queue}",
        ),
    ),
    "google-batch": Cloud(
        title="Google Cloud Batch",
        document=google_batch.document,
        sayable=("queue", "constraint", "reservation", "place", "setup", "venv"),
        contained=False,
        name=r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
        volume="SERVER:/export",
        submit=("gcloud batch jobs submit {name} --location {queue} --config {file}",),
    ),
}


def find(name: str) -> Cloud:
    """The record of a cloud.

    Parameters
    ----------
    name : str
        Its name, as in ``--system``.

    Raises
    ------
    ConfigurationError
        There is none of that name.
    """
    if name not in CLOUDS:
        raise ConfigurationError(f"cloud is {name!r}; legal are {', '.join(CLOUDS)}")
    return CLOUDS[name]


def render(spec: JobSpec, cloud: str) -> str:
    """Make the document of a job. Pure: nothing is looked at but the arguments.

    Parameters
    ----------
    spec : JobSpec
        The job.
    cloud : str
        Which cloud: kubernetes, aws-batch or google-batch.

    Returns
    -------
    str
        The document, as JSON.

    Raises
    ------
    ConfigurationError
        The job needs something that was not said, or says something that the cloud has no place for.

    Examples
    --------
    >>> from mpiflow.jobs.spec import JobSpec
    >>> text = render(JobSpec(script="sweep.py", nodes=4, container="example.org/sweep:1"), "kubernetes")
    >>> json.loads(text)["kind"]
    'MPIJob'
    """
    return json.dumps(find(cloud).document(_job(spec, cloud)), indent=2, ensure_ascii=False) + "\n"


def how_to_submit(spec: JobSpec, cloud: str, file: str) -> list[str]:
    """The command lines that submit a document.

    Parameters
    ----------
    spec : JobSpec
        The job.
    cloud : str
        Which cloud.
    file : str
        Where the document is.
    """
    words = {"file": shlex.quote(file), "name": _job(spec, cloud).name, "queue": shlex.quote(spec.queue or "QUEUE")}
    return [line.format_map(words) for line in find(cloud).submit]


def _job(spec: JobSpec, name: str) -> CloudJob:
    """The job as the documents want it, checked."""
    cloud = find(name)
    _refuse_the_unsayable(spec, cloud)
    if cloud.contained and not spec.container:
        raise ConfigurationError(f"container is '': {cloud.title} starts containers; say --container IMAGE")
    if spec.launcher not in _LAUNCHERS:
        raise ConfigurationError(
            f"launcher is {spec.launcher!r}, which makes no sense on {cloud.title}; "
            "sensible there are hydra and openmpi"
        )
    volumes = _volumes(spec, cloud)
    return CloudJob(
        spec=spec,
        name=_name(spec, cloud),
        mpi=_LAUNCHERS[spec.launcher],
        volumes=volumes,
        directory=spec.directory or (volumes[0].where if volumes else ""),
    )


def _refuse_the_unsayable(spec: JobSpec, cloud: Cloud) -> None:
    for field in fields(spec):
        value = getattr(spec, field.name)
        if field.name not in (*_EVERYWHERE, *cloud.sayable) and value != field.default:
            raise ConfigurationError(
                f"{field.name} is {value!r}: {cloud.title} has no place for it; beside what every job has it can be "
                f"told {', '.join(cloud.sayable)}"
            )


def _name(spec: JobSpec, cloud: Cloud) -> str:
    """The job's name; made of the script's where none was said."""
    if spec.name:
        if not re.fullmatch(cloud.name, spec.name):
            raise ConfigurationError(f"name is {spec.name!r}; legal on {cloud.title} is what matches {cloud.name}")
        return spec.name
    stem = os.path.splitext(os.path.basename(spec.script))[0].lower()
    return "job-" + (re.sub(r"[^a-z0-9]+", "-", stem)[:40].strip("-") or "mpiflow")


def _volumes(spec: JobSpec, cloud: Cloud) -> tuple[Volume, ...]:
    """What ``--filesystems`` says: ``WHAT=/where``, with commas between."""
    volumes = []
    for text in filter(None, spec.filesystems.split(",")):
        what, _, where = text.partition("=")
        if not what or not where.startswith("/"):
            raise ConfigurationError(
                f"filesystems is {spec.filesystems!r}; legal on {cloud.title} is {cloud.volume}=/path, "
                "with commas between"
            )
        volumes.append(Volume(what, where))
    return tuple(volumes)
