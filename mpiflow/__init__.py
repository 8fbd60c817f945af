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
    from mpiflow.apps.decorators import bash_app, join_app, python_app
    from mpiflow.config import Config
    from mpiflow.context import rng
    from mpiflow.data.files import File
    from mpiflow.data.futures import DataFuture
    from mpiflow.executors.mpi import MPIExecutor
    from mpiflow.executors.threads import ThreadPoolExecutor
    from mpiflow.kernel.dataflow import DataFlowKernel
    from mpiflow.kernel.futures import AppFuture
    from mpiflow.kernel.loader import clear, dfk, load, superstep, wait_for_current_tasks
    from mpiflow.kernel.reserved import AUTO_LOGNAME
    from mpiflow.kernel.task import States

__version__ = "0.1.0"

_HOME = {
    "AUTO_LOGNAME": "mpiflow.kernel.reserved",
    "AppFuture": "mpiflow.kernel.futures",
    "Config": "mpiflow.config",
    "DataFlowKernel": "mpiflow.kernel.dataflow",
    "DataFuture": "mpiflow.data.futures",
    "File": "mpiflow.data.files",
    "MPIExecutor": "mpiflow.executors.mpi",
    "States": "mpiflow.kernel.task",
    "ThreadPoolExecutor": "mpiflow.executors.threads",
    "bash_app": "mpiflow.apps.decorators",
    "clear": "mpiflow.kernel.loader",
    "dfk": "mpiflow.kernel.loader",
    "join_app": "mpiflow.apps.decorators",
    "load": "mpiflow.kernel.loader",
    "map": "mpiflow.apps.bulk",
    "python_app": "mpiflow.apps.decorators",
    "rng": "mpiflow.context",
    "superstep": "mpiflow.kernel.loader",
    "wait_for_current_tasks": "mpiflow.kernel.loader",
}

__all__ = [
    "AUTO_LOGNAME",
    "AppFuture",
    "Config",
    "DataFlowKernel",
    "DataFuture",
    "File",
    "MPIExecutor",
    "States",
    "ThreadPoolExecutor",
    "bash_app",
    "clear",
    "dfk",
    "join_app",
    "load",
    "map",
    "python_app",
    "rng",
    "superstep",
    "wait_for_current_tasks",
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
