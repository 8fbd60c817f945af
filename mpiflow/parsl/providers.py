"""Parsl's providers: accepted. The nodes are those of the batch job that the script runs in."""

from __future__ import annotations

from typing import Any, ClassVar

from mpiflow.parsl.accepted import Accepted
from mpiflow.parsl.launchers import AprunLauncher, SingleNodeLauncher

#: What most of them end with.
_BLOCKS: dict[str, Any] = {"init_blocks": 1, "min_blocks": 0, "max_blocks": 1, "parallelism": 1}


class ExecutionProvider(Accepted):
    """Base of all providers."""


class LocalProvider(ExecutionProvider):
    """This machine."""

    optional: ClassVar = {
        "nodes_per_block": 1, "launcher": SingleNodeLauncher(), "init_blocks": 1, "min_blocks": 0, "max_blocks": 1,
        "worker_init": "", "cmd_timeout": 30, "parallelism": 1,
    }  # fmt: skip


class SlurmProvider(ExecutionProvider):
    """Slurm."""

    optional: ClassVar = {
        "partition": None, "account": None, "qos": None, "constraint": None, "clusters": None, "nodes_per_block": 1,
        "cores_per_node": None, "mem_per_node": None, "gpus_per_node": None, "gres": None, **_BLOCKS,
        "walltime": "00:10:00", "scheduler_options": "", "regex_job_id": r"Submitted batch job (?P<id>\S*)",
        "worker_init": "", "cmd_timeout": 10, "status_batch_size": 50, "exclusive": True,
        "launcher": SingleNodeLauncher(),
    }  # fmt: skip


class PBSProProvider(ExecutionProvider):
    """PBS Professional."""

    optional: ClassVar = {
        "account": None, "queue": None, "scheduler_options": "", "select_options": "", "worker_init": "",
        "nodes_per_block": 1, "cpus_per_node": 1, **_BLOCKS, "launcher": SingleNodeLauncher(), "walltime": "00:20:00",
        "cmd_timeout": 120,
    }  # fmt: skip


class TorqueProvider(ExecutionProvider):
    """Torque."""

    optional: ClassVar = {
        "account": None, "queue": None, "scheduler_options": "", "worker_init": "", "nodes_per_block": 1, **_BLOCKS,
        "launcher": AprunLauncher(), "walltime": "00:20:00", "cmd_timeout": 120,
    }  # fmt: skip


class CondorProvider(ExecutionProvider):
    """HTCondor."""

    optional: ClassVar = {
        "nodes_per_block": 1, "cores_per_slot": None, "mem_per_slot": None, **_BLOCKS, "environment": None,
        "project": "", "scheduler_options": "", "transfer_input_files": (), "walltime": "00:10:00", "worker_init": "",
        "launcher": SingleNodeLauncher(), "requirements": "", "cmd_timeout": 60, "cmd_chunk_size": 100,
    }  # fmt: skip


class GridEngineProvider(ExecutionProvider):
    """Grid Engine."""

    optional: ClassVar = {
        "nodes_per_block": 1, **_BLOCKS, "walltime": "00:10:00", "scheduler_options": "", "worker_init": "",
        "launcher": SingleNodeLauncher(), "cmd_timeout": 60, "queue": None,
    }  # fmt: skip


class LSFProvider(ExecutionProvider):
    """LSF."""

    optional: ClassVar = {
        "nodes_per_block": 1, "cores_per_block": None, "cores_per_node": None, **_BLOCKS, "walltime": "00:10:00",
        "scheduler_options": "", "worker_init": "", "project": None, "queue": None, "cmd_timeout": 120,
        "bsub_redirection": False, "request_by_nodes": True, "launcher": SingleNodeLauncher(),
    }  # fmt: skip


class KubernetesProvider(ExecutionProvider):
    """Kubernetes."""

    required = ("image",)
    optional: ClassVar = {
        "namespace": "default", "nodes_per_block": 1, "init_blocks": 4, "min_blocks": 0, "max_blocks": 10,
        "max_cpu": 2, "max_mem": "500Mi", "init_cpu": 1, "init_mem": "250Mi", "extra_requests": None,
        "extra_limits": None, "parallelism": 1, "worker_init": "", "pod_name": None, "user_id": None, "group_id": None,
        "run_as_non_root": False, "secret": None, "persistent_volumes": (), "service_account_name": None,
        "annotations": None,
    }  # fmt: skip


class AWSProvider(ExecutionProvider):
    """Amazon's cloud."""

    required = ("image_id", "key_name")
    optional: ClassVar = {
        "init_blocks": 1, "min_blocks": 0, "max_blocks": 10, "nodes_per_block": 1, "parallelism": 1, "worker_init": "",
        "instance_type": "t2.small", "region": "us-east-2", "spot_max_bid": 0, "key_file": None, "profile": None,
        "iam_instance_profile_arn": "", "state_file": None, "walltime": "01:00:00", "linger": False,
        "launcher": SingleNodeLauncher(),
    }  # fmt: skip


class AzureProvider(ExecutionProvider):
    """Microsoft's cloud."""

    required = ("vm_reference",)
    optional: ClassVar = {
        "init_blocks": 1, "min_blocks": 0, "max_blocks": 10, "nodes_per_block": 1, "parallelism": 1, "worker_init": "",
        "location": "westus", "group_name": "parsl.group", "key_name": None, "key_file": None,
        "vnet_name": "parsl.vnet",
        "linger": False, "launcher": SingleNodeLauncher(),
    }  # fmt: skip


class GoogleCloudProvider(ExecutionProvider):
    """Google's cloud."""

    required = ("project_id", "key_file", "region", "os_project", "os_family")
    optional: ClassVar = {
        "google_version": "v1", "instance_type": "n1-standard-1", "init_blocks": 1, "min_blocks": 0, "max_blocks": 10,
        "launcher": SingleNodeLauncher(), "parallelism": 1,
    }  # fmt: skip
