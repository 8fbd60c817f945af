"""Parsl's executors under their own names: the farm, by the parameters that mean something to it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mpiflow.executors.base import check_count
from mpiflow.executors.fleet import installed
from mpiflow.executors.mpi import MPIExecutor as Farm
from mpiflow.parsl.ignored import HIGH_THROUGHPUT, MPI, take_ignored
from mpiflow.parsl.launchers import SimpleLauncher
from mpiflow.representation import RepresentationMixin


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
        Tasks that a node runs at once, shared out among its ranks; each has room for one at least.
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
        take_ignored(type(self).__name__, given, HIGH_THROUGHPUT)
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
        if self.max_workers_per_node is not None:
            self._check_workers()
            self.runners_per_rank = max(1, self.max_workers_per_node // _ranks_a_node())
        super().start()


def _ranks_a_node() -> int:
    """Workers on the node that has most of them, once all have said where they are."""
    fleet = installed()
    if fleet is None:
        return 1  # no MPI: the runners are this process's own
    fleet.meet_all()
    return max(Counter(said["host"] for said in fleet.hosts.values()).values())


class MPIExecutor(Farm):
    """The farm, under the label that Parsl's executor of this name has by default.

    `mpiflow.MPIExecutor` takes the same parameters; it differs in its default label alone.

    Parameters
    ----------
    label : str
        Name of the executor.
    **given
        As for `mpiflow.MPIExecutor`.
    """

    def __init__(self, label: str = "MPIExecutor", **given: Any) -> None:
        starts = getattr(given.get("provider"), "launcher", None)
        if starts is not None and not isinstance(starts, SimpleLauncher):
            words = "mpi_mode requires the provider to be configured to use a SimpleLauncher"
            raise TypeError(f"MPIExecutor: {words}, not {type(starts).__name__}")
        super().__init__(label, **given)
        vars(self).update({name: given.get(name, default) for name, default in MPI.items()})
