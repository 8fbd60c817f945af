"""Parsl's executors under their own names: the farm, by the parameters that mean something to it."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from mpiflow.errors import ConfigurationError, InvalidResourceSpecification
from mpiflow.executors.base import Submission, check_count
from mpiflow.executors.fleet import installed
from mpiflow.executors.mpi import MPIExecutor as Farm
from mpiflow.parsl.ignored import HIGH_THROUGHPUT, MPI, take_ignored
from mpiflow.parsl.launchers import SimpleLauncher
from mpiflow.representation import RepresentationMixin

if TYPE_CHECKING:
    from mpiflow.kernel.task import Task

#: What a worker needs, and the variable that says how much of it a node has.
_BOUNDS = {"cores_per_worker": "PARSL_CORES", "mem_per_worker": "PARSL_MEMORY_GB"}


class HighThroughputExecutor(RepresentationMixin, Farm):
    """The farm, as a program asks for it that was written for Parsl.

    Parameters
    ----------
    label : str
        Name of the executor.
    provider
        Ignored, like every other parameter of Parsl's that is not named here, with one line that names them.
    storage_access, working_dir, cpu_affinity, available_accelerators, drain_period
        As for `mpiflow.MPIExecutor`.
    max_workers_per_node : int, optional
        Tasks that a node runs at once, shared out among its ranks; each has room for one at least. The variables
        ``PARSL_CORES`` and ``PARSL_MEMORY_GB`` bound it too, by `cores_per_worker` and `mem_per_worker` (in GB).
    prefetch_capacity : int, optional
        Tasks that a worker holds beyond those it runs; default: as many as keep it busy.

    Raises
    ------
    ConfigurationError
        Naming the parameter, its value and what is legal.
    TypeError
        For a parameter that Parsl does not have either.

    Examples
    --------
    >>> HighThroughputExecutor(label="cpu", max_workers_per_node=4).max_workers_per_node
    4
    """

    numbers_workers = True
    gives_out_nodes = False

    def __init__(
        self,
        label: str = "HighThroughputExecutor",
        provider: object = None,
        *,
        storage_access: list[Any] | None = None,
        working_dir: str | None = None,
        max_workers_per_node: int | None = None,
        cpu_affinity: str | None = None,
        available_accelerators: Any = None,
        prefetch_capacity: int | None = None,
        drain_period: int | None = None,
        **given: Any,
    ) -> None:
        if provider is not None:
            given["provider"] = provider
        bounding = {name for name, variable in _BOUNDS.items() if os.environ.get(variable)}
        without_effect = {name: value for name, value in given.items() if name not in bounding}
        take_ignored(type(self).__name__, without_effect, HIGH_THROUGHPUT)
        wanted = {
            "storage_access": storage_access,
            "working_dir": working_dir,
            "cpu_affinity": cpu_affinity,
            "available_accelerators": available_accelerators,
            "prefetch": prefetch_capacity,
            "drain_period": drain_period,
        }
        # what is not given keeps the farm's own default, not Parsl's
        super().__init__(label, **{name: value for name, value in wanted.items() if value is not None})
        vars(self).update(HIGH_THROUGHPUT | given)
        self.max_workers_per_node = max_workers_per_node
        self.prefetch_capacity = prefetch_capacity
        self.drain_period = drain_period
        self._check_workers()

    def _check_workers(self) -> None:
        if self.max_workers_per_node is not None:
            check_count(type(self).__name__, "max_workers_per_node", self.max_workers_per_node)

    def start(self) -> None:
        """Start the farm; programs change ``max_workers_per_node`` until then."""
        self._check_workers()
        bounds = [self._bound(name) for name, variable in _BOUNDS.items() if os.environ.get(variable)]
        bounds += [self.max_workers_per_node] if self.max_workers_per_node is not None else []
        if known := [bound for bound in bounds if bound is not None]:
            self.runners_per_rank = max(1, min(known) // _ranks_a_node())
        super().start()

    def _bound(self, name: str) -> int | None:
        """Workers of a node for which there is enough of something; None where nobody says what one needs."""
        variable, each = _BOUNDS[name], getattr(self, name)
        if not each:
            return None
        try:
            return int(float(os.environ[variable]) / float(each))
        except (TypeError, ValueError):
            words = f"{variable} is {os.environ[variable]!r} and {name} is {each!r}; legal are numbers"
            raise ConfigurationError(f"{type(self).__name__}: {words}") from None


def _ranks_a_node() -> int:
    """Workers on the node that has most of them, once all have said where they are."""
    fleet = installed()
    if fleet is None:
        return 1  # no MPI: the runners are this process's own
    fleet.meet_all()
    return max(Counter(said["host"] for said in fleet.hosts.values()).values())


def _asks_for_nothing(task: Task) -> InvalidResourceSpecification:
    words = "MPI mode requires optional parsl_resource_specification keyword argument to be configured"
    return InvalidResourceSpecification(set(), f"{task.words}: {words}")


class MPIExecutor(Farm):
    """The farm in Parsl's MPI mode: each task says how many nodes it wants, and starts its program there itself.

    `mpiflow.MPIExecutor` gives out nodes as well, and takes tasks without a specification too.

    Parameters
    ----------
    label : str
        Name of the executor.
    max_workers_per_block : int
        Tasks that run at once, however many nodes are free.
    mpi_launcher : {"mpiexec", "srun", "aprun"}
        What ``$PARSL_MPI_PREFIX`` begins with.
    **given
        As for `mpiflow.MPIExecutor`.
    """

    numbers_workers = True

    def __init__(
        self, label: str = "MPIExecutor", *, max_workers_per_block: int = 1, mpi_launcher: str = "mpiexec", **given: Any
    ) -> None:
        starts = getattr(given.get("provider"), "launcher", None)
        if starts is not None and not isinstance(starts, SimpleLauncher):
            words = "mpi_mode requires the provider to be configured to use a SimpleLauncher"
            raise TypeError(f"MPIExecutor: {words}, not {type(starts).__name__}")
        super().__init__(label, max_workers_per_block=max_workers_per_block, mpi_launcher=mpi_launcher, **given)
        vars(self).update({name: given.get(name, default) for name, default in MPI.items()})

    def submit_bulk(self, tasks: list[Submission]) -> None:
        """Take tasks; one without a specification fails, but for those by which mpiflow stages files."""
        taken: list[Submission] = []
        for submission in tasks:
            task = submission[0]
            if hasattr(task, "resources") or str(task.app.func.__module__).startswith("mpiflow."):
                taken.append(submission)
            else:
                self._exchange.refuse([task], _asks_for_nothing)
        super().submit_bulk(taken)
