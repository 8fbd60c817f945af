"""mpiflow: a task farm inside one MPI job, in Parsl's vocabulary.

A script decorates functions, calls them, and holds futures; rank 0 runs the script and keeps the graph of
tasks, every other rank is a worker::

    script ── app ──▶ DataFlowKernel ──▶ Executor ──▶ Farm ──▶ Comm ═MPI═▶ worker ──▶ runner
      ▲                    │  ▲                                                          │
      └── AppFuture ◀──────┘  └──────────── Completion ◀── Farm ◀── Comm ◀═MPI═ worker ◀─┘

Public names are looked up when first used: a worker rank imports this package as well, and at a thousand
ranks every module it does not need is a thousand opens on a parallel file system.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's constant, without importing typing on every rank
if TYPE_CHECKING:
    from mpiflow.apps.bulk import map
    from mpiflow.apps.decorators import bash_app, join_app, mpi_app, python_app
    from mpiflow.concurrent import ParslPoolExecutor
    from mpiflow.config import Config
    from mpiflow.context import rng
    from mpiflow.data.files import File
    from mpiflow.data.futures import DataFuture
    from mpiflow.data.staging.base import Staging
    from mpiflow.data.staging.defaults import default_staging
    from mpiflow.data.staging.ftp import FTPInTaskStaging, FTPSeparateTaskStaging
    from mpiflow.data.staging.http import HTTPInTaskStaging, HTTPSeparateTaskStaging
    from mpiflow.data.staging.noop import NoOpFileStaging
    from mpiflow.data.staging.rsync import RSyncStaging
    from mpiflow.data.staging.zip import ZipAuthorityError, ZipFileStaging, zip_path_split
    from mpiflow.executors.base import Executor, ParslExecutor
    from mpiflow.executors.mpi import MPIExecutor
    from mpiflow.executors.threads import ThreadPoolExecutor
    from mpiflow.jobs.job import Job
    from mpiflow.jobs.spec import JobSpec
    from mpiflow.kernel.dataflow import DataFlowKernel
    from mpiflow.kernel.dependency_resolvers import (
        DEEP_DEPENDENCY_RESOLVER,
        SHALLOW_DEPENDENCY_RESOLVER,
        DependencyResolver,
    )
    from mpiflow.kernel.earlier_runs import get_all_checkpoints, get_last_checkpoint
    from mpiflow.kernel.futures import AppFuture
    from mpiflow.kernel.loader import DataFlowKernelLoader, clear, dfk, load, superstep, wait_for_current_tasks
    from mpiflow.kernel.memo_key import id_for_memo
    from mpiflow.kernel.memoizer import BasicMemoizer, Memoizer
    from mpiflow.kernel.reserved import AUTO_LOGNAME
    from mpiflow.kernel.task import FINAL_STATES, States, TaskRecord
    from mpiflow.monitor.hub import MonitoringHub
    from mpiflow.monitor.logs import (
        FileLogging,
        JSONLogging,
        LogConfig,
        NoopLogging,
        set_file_logger,
        set_stream_logger,
        wrap_with_logs,
    )
    from mpiflow.parsl.executors import HighThroughputExecutor
    from mpiflow.parsl.files import time_limited_open
    from mpiflow.parsl.launchers import (
        AprunLauncher,
        GnuParallelLauncher,
        JsrunLauncher,
        MpiExecLauncher,
        MpiRunLauncher,
        SimpleLauncher,
        SingleNodeLauncher,
        SrunLauncher,
        SrunMPILauncher,
        WrappedLauncher,
    )
    from mpiflow.parsl.providers import (
        AWSProvider,
        AzureProvider,
        CondorProvider,
        GoogleCloudProvider,
        GridEngineProvider,
        KubernetesProvider,
        LocalProvider,
        LSFProvider,
        PBSProProvider,
        SlurmProvider,
        TorqueProvider,
    )
    from mpiflow.parsl.timeouts import timeout
    from mpiflow.representation import RepresentationMixin

__version__ = "0.1.0"

_HOME = {
    "AUTO_LOGNAME": "mpiflow.kernel.reserved",
    "AWSProvider": "mpiflow.parsl.providers",
    "AppFuture": "mpiflow.kernel.futures",
    "AprunLauncher": "mpiflow.parsl.launchers",
    "AzureProvider": "mpiflow.parsl.providers",
    "BasicMemoizer": "mpiflow.kernel.memoizer",
    "CondorProvider": "mpiflow.parsl.providers",
    "Config": "mpiflow.config",
    "DEEP_DEPENDENCY_RESOLVER": "mpiflow.kernel.dependency_resolvers",
    "DataFlowKernel": "mpiflow.kernel.dataflow",
    "DataFlowKernelLoader": "mpiflow.kernel.loader",
    "DataFuture": "mpiflow.data.futures",
    "DependencyResolver": "mpiflow.kernel.dependency_resolvers",
    "Executor": "mpiflow.executors.base",
    "FINAL_STATES": "mpiflow.kernel.task",
    "FTPInTaskStaging": "mpiflow.data.staging.ftp",
    "FTPSeparateTaskStaging": "mpiflow.data.staging.ftp",
    "File": "mpiflow.data.files",
    "FileLogging": "mpiflow.monitor.logs",
    "GnuParallelLauncher": "mpiflow.parsl.launchers",
    "GoogleCloudProvider": "mpiflow.parsl.providers",
    "GridEngineProvider": "mpiflow.parsl.providers",
    "HTTPInTaskStaging": "mpiflow.data.staging.http",
    "HTTPSeparateTaskStaging": "mpiflow.data.staging.http",
    "HighThroughputExecutor": "mpiflow.parsl.executors",
    "JSONLogging": "mpiflow.monitor.logs",
    "Job": "mpiflow.jobs.job",
    "JobSpec": "mpiflow.jobs.spec",
    "JsrunLauncher": "mpiflow.parsl.launchers",
    "KubernetesProvider": "mpiflow.parsl.providers",
    "LSFProvider": "mpiflow.parsl.providers",
    "LocalProvider": "mpiflow.parsl.providers",
    "LogConfig": "mpiflow.monitor.logs",
    "MPIExecutor": "mpiflow.executors.mpi",
    "Memoizer": "mpiflow.kernel.memoizer",
    "MonitoringHub": "mpiflow.monitor.hub",
    "MpiExecLauncher": "mpiflow.parsl.launchers",
    "MpiRunLauncher": "mpiflow.parsl.launchers",
    "NoOpFileStaging": "mpiflow.data.staging.noop",
    "NoopLogging": "mpiflow.monitor.logs",
    "PBSProProvider": "mpiflow.parsl.providers",
    "ParslExecutor": "mpiflow.executors.base",
    "ParslPoolExecutor": "mpiflow.concurrent",
    "RSyncStaging": "mpiflow.data.staging.rsync",
    "RepresentationMixin": "mpiflow.representation",
    "SHALLOW_DEPENDENCY_RESOLVER": "mpiflow.kernel.dependency_resolvers",
    "SimpleLauncher": "mpiflow.parsl.launchers",
    "SingleNodeLauncher": "mpiflow.parsl.launchers",
    "SlurmProvider": "mpiflow.parsl.providers",
    "SrunLauncher": "mpiflow.parsl.launchers",
    "SrunMPILauncher": "mpiflow.parsl.launchers",
    "Staging": "mpiflow.data.staging.base",
    "States": "mpiflow.kernel.task",
    "TaskRecord": "mpiflow.kernel.task",
    "ThreadPoolExecutor": "mpiflow.executors.threads",
    "TorqueProvider": "mpiflow.parsl.providers",
    "WrappedLauncher": "mpiflow.parsl.launchers",
    "ZipAuthorityError": "mpiflow.data.staging.zip",
    "ZipFileStaging": "mpiflow.data.staging.zip",
    "bash_app": "mpiflow.apps.decorators",
    "clear": "mpiflow.kernel.loader",
    "default_staging": "mpiflow.data.staging.defaults",
    "dfk": "mpiflow.kernel.loader",
    "get_all_checkpoints": "mpiflow.kernel.earlier_runs",
    "get_last_checkpoint": "mpiflow.kernel.earlier_runs",
    "id_for_memo": "mpiflow.kernel.memo_key",
    "join_app": "mpiflow.apps.decorators",
    "load": "mpiflow.kernel.loader",
    "map": "mpiflow.apps.bulk",
    "mpi_app": "mpiflow.apps.decorators",
    "python_app": "mpiflow.apps.decorators",
    "rng": "mpiflow.context",
    "set_file_logger": "mpiflow.monitor.logs",
    "set_stream_logger": "mpiflow.monitor.logs",
    "superstep": "mpiflow.kernel.loader",
    "time_limited_open": "mpiflow.parsl.files",
    "timeout": "mpiflow.parsl.timeouts",
    "wait_for_current_tasks": "mpiflow.kernel.loader",
    "wrap_with_logs": "mpiflow.monitor.logs",
    "zip_path_split": "mpiflow.data.staging.zip",
}

__all__ = [
    "AUTO_LOGNAME",
    "DEEP_DEPENDENCY_RESOLVER",
    "FINAL_STATES",
    "SHALLOW_DEPENDENCY_RESOLVER",
    "AWSProvider",
    "AppFuture",
    "AprunLauncher",
    "AzureProvider",
    "BasicMemoizer",
    "CondorProvider",
    "Config",
    "DataFlowKernel",
    "DataFlowKernelLoader",
    "DataFuture",
    "DependencyResolver",
    "Executor",
    "FTPInTaskStaging",
    "FTPSeparateTaskStaging",
    "File",
    "FileLogging",
    "GnuParallelLauncher",
    "GoogleCloudProvider",
    "GridEngineProvider",
    "HTTPInTaskStaging",
    "HTTPSeparateTaskStaging",
    "HighThroughputExecutor",
    "JSONLogging",
    "Job",
    "JobSpec",
    "JsrunLauncher",
    "KubernetesProvider",
    "LSFProvider",
    "LocalProvider",
    "LogConfig",
    "MPIExecutor",
    "Memoizer",
    "MonitoringHub",
    "MpiExecLauncher",
    "MpiRunLauncher",
    "NoOpFileStaging",
    "NoopLogging",
    "PBSProProvider",
    "ParslExecutor",
    "ParslPoolExecutor",
    "RSyncStaging",
    "RepresentationMixin",
    "SimpleLauncher",
    "SingleNodeLauncher",
    "SlurmProvider",
    "SrunLauncher",
    "SrunMPILauncher",
    "Staging",
    "States",
    "TaskRecord",
    "ThreadPoolExecutor",
    "TorqueProvider",
    "WrappedLauncher",
    "ZipAuthorityError",
    "ZipFileStaging",
    "bash_app",
    "clear",
    "default_staging",
    "dfk",
    "get_all_checkpoints",
    "get_last_checkpoint",
    "id_for_memo",
    "join_app",
    "load",
    "map",
    "mpi_app",
    "python_app",
    "rng",
    "set_file_logger",
    "set_stream_logger",
    "superstep",
    "time_limited_open",
    "timeout",
    "wait_for_current_tasks",
    "wrap_with_logs",
    "zip_path_split",
]


def __getattr__(name: str) -> object:
    """Import the module that holds a public name when the name is first used."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'mpiflow' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, for completion at a prompt."""
    return [*__all__, "__version__", "errors"]
