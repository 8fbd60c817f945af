"""MPIExecutor: tasks on the workers of the farm."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mpiflow.comm import wire
from mpiflow.errors import ConfigurationError, ExecutorError
from mpiflow.executors.base import BulkExecutor, Completion, Submission, check_count
from mpiflow.executors.exchange import Exchange
from mpiflow.executors.fleet import Fleet, installed
from mpiflow.executors.options import options
from mpiflow.executors.orders import Orders
from mpiflow.executors.ranks import Ranks, by_host, check_ranks, choose
from mpiflow.executors.sizes import LEGAL, bytes_of

if TYPE_CHECKING:
    from mpiflow.kernel.app import App
    from mpiflow.kernel.task import Task

#: How processors may be shared out among runners, beside lists of them; see `worker.binding`.
AFFINITIES = ("none", "block", "block-reverse", "alternating")
_LIST = re.compile(r"list(:\d+(-\d+)?(,\d+(-\d+)?)*)+")
_FIELDS = (
    "label", "ranks", "isolation", "runners_per_rank", "prefetch", "storage_access", "working_dir", "cpu_affinity",
    "available_accelerators", "drain_period", "max_tasks", "max_rss",
    "mpi_launcher", "max_workers_per_block",
)  # fmt: skip
_KINDS = {"runner": wire.TASK, "rank": wire.TASK_RANK, "task": wire.TASK_FORK}


def check_affinity(affinity: str) -> str:
    """The same; ConfigurationError for one that is none."""
    if affinity in AFFINITIES:
        return affinity
    if isinstance(affinity, str) and _LIST.fullmatch(affinity):
        ranges = [part.split("-") for part in re.split("[:,]", affinity)[1:]]
        if all(int(part[0]) <= int(part[-1]) for part in ranges):
            return affinity
    legal = f"{', '.join(map(repr, AFFINITIES))} and 'list:0-3:4-7'"
    raise ConfigurationError(f"MPIExecutor: cpu_affinity is {affinity!r}; legal are {legal}")


def accelerators(available: int | Sequence[str]) -> tuple[str, ...]:
    """Names of accelerators: a count stands for the numbers below it."""
    if isinstance(available, int) and not isinstance(available, bool) and available >= 0:
        return tuple(map(str, range(available)))
    if isinstance(available, list | tuple) and all(isinstance(name, str | int) for name in available):
        return tuple(map(str, available))
    words = f"MPIExecutor: available_accelerators is {available!r}; legal is a count or a list of names"
    raise ConfigurationError(words)


def _size(field: str, size: object) -> int:
    """Bytes; ConfigurationError for what is no amount of memory."""
    try:
        return bytes_of(size)
    except ValueError:
        raise ConfigurationError(f"MPIExecutor: {field} is {size!r}; legal is {LEGAL}") from None


class MPIExecutor(BulkExecutor):
    """Runs tasks on the ranks of this MPI job, or on local runners where there is one rank only.

    Parameters
    ----------
    label : str
        Name of the executor.
    ranks : str, float or list of int, optional
        Which ranks it takes: "1-511,600-"; a share of all, which begins where that of the executor before it
        in the Config ends; their numbers; or a pattern that host names match. Default: all. Where executors
        share ranks, the one that is started last says how many runners those have, and what they are bound to.
    isolation : {"runner", "rank", "task"}, optional
        Where a task runs: in a process below the rank that is used again (default); in the rank itself, for
        micro-tasks and for libraries that need MPI there; in a new process for each task. In the rank no limit of
        memory can be held, and what a task leaves running goes on until the rank ends.
    runners_per_rank : int, optional
        Tasks a rank runs at once, at least 1 (default 1, or what ``--runners-per-rank`` says; without MPI,
        one for each usable CPU).
    prefetch : int, optional
        Tasks that a rank may hold beside those it runs, at most; default: about ten milliseconds of work.
    storage_access : list of Staging, optional
        How it reaches files that are not local; default `mpiflow.default_staging`.
    working_dir : str, optional
        Where staged files go; default: the current directory.
    cpu_affinity : str
        How a rank's processors are shared out among its runners: "none" (all may use all), "block",
        "block-reverse", "alternating", or "list:0-3:4-7" with the processors of each.
    available_accelerators : int or list of str
        Accelerators of a node, as many as that or by name; each runner gets one, which ``CUDA_VISIBLE_DEVICES``
        and its like name.
    max_tasks : int, optional
        Tasks that a runner runs before another takes its place, for libraries that leak.
    max_rss : int or str, optional
        Memory, in bytes or as "4GB", above which a runner is replaced when a task of it has ended.
    drain_period : float, optional
        Seconds from the start after which workers are given nothing more: what runs may end, what waits and
        comes later fails with ExecutorError. For an allocation that ends before the script does.
    mpi_launcher : {"mpiexec", "srun", "aprun"}
        What ``$PARSL_MPI_PREFIX`` begins with in a task that asks for nodes.
    max_workers_per_block : int, optional
        Tasks with nodes of their own that run at once; default: as many as there are nodes for.
    **parsl
        Parameters that Parsl's MPIExecutor has and a farm has no use for; one line names those that were given.
    """

    def __init__(
        self,
        label: str = "mpi",
        ranks: Ranks = None,
        isolation: str | None = None,
        runners_per_rank: int | None = None,
        prefetch: int | None = None,
        storage_access: list[Any] | None = None,
        working_dir: str | None = None,
        cpu_affinity: str = "none",
        available_accelerators: int | Sequence[str] = (),
        drain_period: float | None = None,
        max_tasks: int | None = None,
        max_rss: int | str | None = None,
        mpi_launcher: str = "mpiexec",
        max_workers_per_block: int | None = None,
        **parsl: Any,
    ) -> None:
        super().__init__()
        if parsl:
            from mpiflow.parsl.ignored import MPI, take_ignored

            prefetch = parsl.pop("prefetch_capacity", prefetch)
            take_ignored("MPIExecutor", parsl, MPI)
        if not isinstance(label, str) or not label:
            raise ConfigurationError(f"MPIExecutor: label is {label!r}; legal is a text")
        if isolation is not None and isolation not in _KINDS:
            raise ConfigurationError(
                f"MPIExecutor: isolation is {isolation!r}; legal are 'runner', 'rank' and 'task'"
            )
        check_ranks(ranks)
        if runners_per_rank is not None:
            check_count("MPIExecutor", "runners_per_rank", runners_per_rank)
        if prefetch is not None:
            check_count("MPIExecutor", "prefetch", prefetch, least=0)
        self.label = label
        self.ranks = ranks
        self.isolation = isolation
        self.runners_per_rank = runners_per_rank
        self.prefetch = prefetch
        self.storage_access = storage_access
        self.working_dir = working_dir
        if drain_period is not None and not (isinstance(drain_period, int | float) and drain_period > 0):
            words = f"MPIExecutor: drain_period is {drain_period!r}; legal is a number of seconds above 0"
            raise ConfigurationError(words)
        self.drain_period = drain_period
        if max_tasks is not None:
            check_count("MPIExecutor", "max_tasks", max_tasks)
        self.max_tasks = max_tasks
        self.max_rss = max_rss
        self._max_rss = 0 if max_rss is None else _size("max_rss", max_rss)
        if mpi_launcher != "mpiexec":
            from mpiflow.executors.programs import check_launcher

            check_launcher("MPIExecutor", mpi_launcher)
        self.mpi_launcher = mpi_launcher
        if max_workers_per_block is not None:
            check_count("MPIExecutor", "max_workers_per_block", max_workers_per_block)
        self.max_workers_per_block = max_workers_per_block
        #: On the clock of `time.monotonic`; 0 for never.
        self._drain_at = 0.0
        self.cpu_affinity = check_affinity(cpu_affinity)
        self.available_accelerators = accelerators(available_accelerators)
        self._fleet: Fleet | None = None
        #: What it has under way; from `start` on.
        self._exchange: Exchange
        self._workers: list[int] = []

    in_processes = True
    #: Whether tasks are told the place of their runner (``PARSL_WORKER_RANK``) though it is bound to nothing.
    numbers_workers = False
    #: Whether a task may ask for whole nodes.
    gives_out_nodes = True

    def __repr__(self) -> str:
        return f"MPIExecutor({', '.join(f'{field}={getattr(self, field)!r}' for field in _FIELDS)})"

    @property
    def share(self) -> float:
        """The share of all ranks that it takes, 0 if its ranks are chosen in another way."""
        return float(self.ranks) if isinstance(self.ranks, int | float) else 0.0

    def start(self) -> None:
        """Join the fleet of this process; without MPI, make one of local runners."""
        from mpiflow.executors.local import local_fleet

        if self._fleet is not None:
            words = f"executor {self.label!r} is in use by another DataFlowKernel; give each its own"
            raise ConfigurationError(words)
        fleet = installed() or local_fleet()
        if by_host(self.ranks):
            fleet.meet_all()
        hosts = {worker: str(said["host"]) for worker, said in fleet.hosts.items()}
        self._workers = choose(self.ranks, fleet.comm.peers, hosts, self.settings.before)
        isolation = self.isolation or options.isolation
        if isolation == "rank" and fleet.comm.peers == [0]:
            isolation = "runner"  # a lone process has no rank beside the script's own
        runners = self.runners_per_rank or options.runners_per_rank or fleet.default_runners
        settings = fleet.surroundings()
        settings["affinity"], settings["accelerators"] = self.cpu_affinity, self.available_accelerators
        settings["max_tasks"], settings["max_rss"] = self.max_tasks, self._max_rss
        settings["numbered"], settings["as_parsl"] = self.numbers_workers, options.as_parsl
        if self.settings.usage_every >= 0:
            settings["usage_every"] = self.settings.usage_every
        if fleet.leaves_notes:
            settings["notes"] = os.path.join(os.path.abspath(self.run_dir), "requests")
        fleet.configure(1 if isolation == "rank" else runners, self._workers, settings)
        if fleet.losses is not None and isolation == "rank":
            fleet.losses.presence.exempt.update(self._workers)
        pool = fleet.pool(self._workers, self.prefetch)
        self._fleet = fleet
        launcher, kind = self.mpi_launcher if self.gives_out_nodes else None, _KINDS[isolation]
        alone = fleet.comm.peers == [0]
        orders = Orders(self.label, self._workers, alone, launcher, self.max_workers_per_block, kind)
        self._exchange = Exchange(self.label, self.settings.seed, fleet, pool, kind, orders)
        self.slots = fleet.slots(self._workers)  # once: it is asked for each task, where there are several executors
        self._drain_at = 0.0 if self.drain_period is None else time.monotonic() + self.drain_period

    @property
    def fleet(self) -> Fleet:
        """The workers it uses."""
        assert self._fleet is not None, "the executor has not been started"
        return self._fleet

    def census(self) -> dict[int, tuple[dict[str, object], int, bool]]:
        """Its workers that have reported."""
        fleet = self._fleet  # it may be let go at any moment
        return {} if fleet is None else {n: said for n, said in fleet.census().items() if n in self._workers}

    @property
    def workers(self) -> int:  # type: ignore[override]
        """Workers it may use, other executors too."""
        return len(self._workers)

    @property
    def busy(self) -> int:  # type: ignore[override]
        """Workers that have something to do."""
        return min(self._fleet.busy, len(self._workers)) if self._fleet is not None else 0

    @property
    def running(self) -> int:  # type: ignore[override]
        """Tasks that workers have."""
        return min(self._fleet.outstanding, len(self._exchange)) if self._fleet is not None else 0

    # --- tasks --------------------------------------------------------------------------------------------

    def submit_bulk(self, tasks: list[Submission]) -> None:
        """Pickle each task on its own and hand all to the farm."""
        if self._drain_at and time.monotonic() >= self._drain_at:
            self._exchange.refuse([task for task, _, _ in tasks], self._drained)
        else:
            self._exchange.submit(tasks)

    def collect(self) -> list[Completion]:
        """Take what has arrived, and make objects of it."""
        if self._drain_at and time.monotonic() >= self._drain_at:
            self._exchange.refuse_waiting(self._drained)
        return self._exchange.collect()

    def _drained(self, task: Task) -> ExecutorError:
        period = f"its drain_period of {self.drain_period:g} s is over"
        return ExecutorError(f"{task.words}: executor {self.label!r} gives out nothing more: {period}")

    def revoke(self, task: Task) -> bool:
        """Take back a task that no worker has."""
        return self._exchange.revoke(task)

    def ask_back(self, tasks: Iterable[Task]) -> None:
        """Have workers hand back what they have not begun."""
        self._exchange.ask_back(tasks)

    def kill(self, task: Task) -> bool:
        """Have the worker end a task. One that runs in the rank itself goes on there, and nobody waits for it."""
        return self._exchange.kill(task)

    def seconds_of(self, app: App) -> float | None:
        """Mean seconds of an app's tasks."""
        return self._exchange.seconds_of(app)

    def longest(self) -> float:
        """The longest of such means."""
        return self._exchange.longest()

    def wait(self, seconds: float) -> None:
        """Sleep until something may have arrived, at most so long."""
        self.fleet.wait(seconds)

    def shutdown(self) -> None:
        """Give up what has not ended; the workers stay for the next DataFlowKernel."""
        self._exchange.close()
        self._fleet = None

    def monitor_resources(self) -> bool:
        """Not from inside its tasks."""
        return False
