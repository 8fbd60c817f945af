"""MPIExecutor: tasks on the workers of the farm."""

from __future__ import annotations

import os
import pickle
import re
import signal
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any
from weakref import ref

from mpiflow.comm import wire
from mpiflow.comm.pickling import pack, pack_function, unpack, unpack_failure
from mpiflow.comm.wire import EXCESS, HEADER
from mpiflow.errors import (
    AppTimeout,
    ConfigurationError,
    DeserializationError,
    ExecutorError,
    FarmLost,
    InvalidResourceSpecification,
    MemoryLimitExceeded,
    SerializationError,
    WorkerLost,
)
from mpiflow.executors.base import (
    AttemptLost,
    BulkExecutor,
    Completion,
    Submission,
    check_count,
    check_resources,
    no_memory_limit,
)
from mpiflow.executors.fleet import LOST, Answer, Delivery, Fleet, installed
from mpiflow.executors.options import options
from mpiflow.executors.ranks import Ranks, by_host, check_ranks, choose
from mpiflow.executors.sizes import LEGAL, bytes_of, in_words

if TYPE_CHECKING:
    from mpiflow.kernel.app import App
    from mpiflow.kernel.task import Task

#: A function is kept by every worker and runner as long as its app is there; data belongs into arguments.
MOST_FUNCTION_BYTES = 1 << 30
#: How processors may be shared out among runners, beside lists of them; see `worker.binding`.
AFFINITIES = ("none", "block", "block-reverse", "alternating")
_LIST = re.compile(r"list(:\d+(-\d+)?(,\d+(-\d+)?)*)+")
#: Workers that may be lost while they run one and the same task, before the task is held to be the reason.
MOST_LOSSES = 5
_FIELDS = (
    "label", "ranks", "isolation", "runners_per_rank", "prefetch", "storage_access", "working_dir", "cpu_affinity",
    "available_accelerators", "drain_period", "max_tasks", "max_rss",
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
        self._drain_at = inf
        self.cpu_affinity = check_affinity(cpu_affinity)
        self.available_accelerators = accelerators(available_accelerators)
        self._inbox: deque[Answer] = deque()
        self._failed: deque[Completion] = deque()
        # By number of the app. The reference is there for its callback: see `_register`.
        self._fids: dict[int, int] = {}
        self._apps: dict[int, ref[App]] = {}
        #: Deliveries that have no result yet; by task, for who wants one back.
        self._held: dict[Task, Delivery] = {}
        self._kind = wire.TASK
        self._fleet: Fleet | None = None
        self._workers: list[int] = []
        self._pool = 0

    in_processes = True
    #: Whether tasks are told the place of their runner (``PARSL_WORKER_RANK``) though it is bound to nothing.
    numbers_workers = False

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
        self._kind = _KINDS[isolation]
        runners = self.runners_per_rank or options.runners_per_rank or fleet.default_runners
        settings = fleet.surroundings()
        settings["affinity"], settings["accelerators"] = self.cpu_affinity, self.available_accelerators
        settings["max_tasks"], settings["max_rss"] = self.max_tasks, self._max_rss
        settings["numbered"], settings["as_parsl"] = self.numbers_workers, options.as_parsl
        if fleet.leaves_notes:
            settings["notes"] = os.path.join(os.path.abspath(self.run_dir), "requests")
        fleet.configure(1 if isolation == "rank" else runners, self._workers, settings)
        if fleet.losses is not None and isolation == "rank":
            fleet.losses.presence.exempt.update(self._workers)
        self._pool = fleet.pool(self._workers, self.prefetch)
        self._fleet = fleet
        self.slots = fleet.slots(self._workers)  # once: it is asked for each task, where there are several executors
        self._drain_at = inf if self.drain_period is None else time.monotonic() + self.drain_period

    @property
    def fleet(self) -> Fleet:
        """The workers it uses."""
        assert self._fleet is not None, "the executor has not been started"
        return self._fleet

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
        return min(self._fleet.outstanding, len(self._held)) if self._fleet is not None else 0

    # --- out ----------------------------------------------------------------------------------------------

    def submit_bulk(self, tasks: Sequence[Submission]) -> None:
        """Pickle each task on its own and hand all to the farm."""
        if self._drain_at < inf and time.monotonic() >= self._drain_at:
            self._failed.extend((task, None, self._drained(task)) for task, _, _ in tasks)
            return
        fleet = self.fleet
        aids, inbox, kind, held, fids = fleet.aids, self._inbox, self._kind, self._held, self._fids
        deliveries: list[Delivery] = []
        urgent: dict[int, list[Delivery]] = {}
        for task, args, kwargs in tasks:
            beside: list[Any] = []
            try:
                fid = fids.get(task.app.number) or self._register(task)
                payload = pack((args, kwargs), beside)
                if kwargs and hasattr(task, "resources"):
                    check_resources(task, self.label, ("priority",))
            except Exception as error:
                self._failed.append((task, None, self._unpicklable(task, args, kwargs, error)))
                continue
            aid = next(aids)
            head = HEADER.pack(aid, task.id, fid, len(payload), task.walltime, kind, len(beside))
            if task.memory:
                if kind == wire.TASK_RANK:
                    self._failed.append((task, None, no_memory_limit(task, self.label, "in the rank itself")))
                    continue
                head = wire.record(wire.LIMIT, task.memory.to_bytes(8, "little"), aid) + head
            delivery = held[task] = Delivery(aid, fid, task, head + payload, beside, inbox)
            if task.priority:
                urgent.setdefault(task.priority, []).append(delivery)
            else:
                deliveries.append(delivery)
        if not urgent:
            fleet.submit(deliveries, self._pool)
            return
        urgent[0] = deliveries
        for priority in sorted(urgent):
            fleet.submit(urgent[priority], self._pool, priority)

    def _register(self, task: Task) -> int:
        """Number the app's function for the wire, and have workers drop it when nobody can call it any more."""
        app = task.app
        try:
            function = pack_function(app.remote)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise SerializationError(f"{task.words}: its function cannot be pickled: {reason}") from error
        if len(function) > MOST_FUNCTION_BYTES:
            raise SerializationError(
                f"{task.words}: its function holds {len(function) / 2**30:.1f} GiB of data (a default, a closure or a "
                "global of the script); pass it as an argument"
            )
        fleet, fids, number = self.fleet, self._fids, app.number
        fid = fids[number] = fleet.register(app.name, pickle.dumps((app.name, self.settings.seed, function), 5))

        def forget(_: object, apps: dict[int, ref[App]] = self._apps) -> None:
            apps.pop(number, None)
            if fids.pop(number, None) is not None:
                fleet.forget(fid)

        self._apps[number] = ref(app, forget)
        return fid

    def _unpicklable(
        self, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception
    ) -> Exception:
        """The error in words: which argument it is."""
        if isinstance(error, SerializationError | InvalidResourceSpecification):
            return error
        named = [(f"argument {place}", value) for place, value in enumerate(args)]
        named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
        for which, value in named:
            try:
                pack(value, [])
            except Exception as own:
                reason = f"{type(own).__name__}: {own}"
                words = f"{task.words}: {which} of type {type(value).__name__} cannot be pickled: {reason}"
                failure = SerializationError(words)
                failure.__cause__ = own
                return failure
        failure = SerializationError(f"{task.words}: its arguments cannot be pickled together: {error}")
        failure.__cause__ = error
        return failure

    # --- back ---------------------------------------------------------------------------------------------

    def collect(self) -> list[Completion]:
        """Take what has arrived, and make objects of it."""
        inbox, held = self._inbox, self._held
        ended: list[Completion] = []
        if self._failed:
            ended.extend(self._failed)
            self._failed.clear()
        if self._drain_at < inf and time.monotonic() >= self._drain_at:
            ended.extend(self._drain())
        if not held:
            return ended  # nothing can have come; a poll costs as much as the rest of an empty superstep
        self.fleet.pump()
        while inbox:
            delivery, kind, payload, segments, worker = inbox.popleft()
            task = delivery.task
            if held.get(task) is not delivery:
                continue  # its task was killed in the meantime
            del held[task]
            if kind == wire.DONE:
                if task.hashsum is not None:  # the journal need not pickle it again
                    task.packed = None if segments else bytes(payload)
                try:
                    value = unpack(payload, [segment.view for segment in segments])
                except Exception as error:
                    words = f"{task.words}: its result cannot be unpickled: {type(error).__name__}: {error}"
                    failure = DeserializationError(words)
                    failure.__cause__ = error
                    ended.append((task, None, failure))
                else:
                    ended.append((task, value, None))
            else:
                ended.append((task, None, self._failure(kind, task, payload, worker)))
        return ended

    def _failure(self, kind: int, task: Task, payload: memoryview, worker: int) -> BaseException:
        if kind == wire.RAISED:
            return unpack_failure(payload, task.words)
        if kind == LOST:
            return self._lost(task, worker, *pickle.loads(payload))
        if kind == wire.OVERTIME and payload:
            limit, peak = EXCESS.unpack(payload)
            words = f"{task.words}: exceeded its memory limit of {in_words(limit)}: with all it had started it used"
            return MemoryLimitExceeded(f"{words} {in_words(peak)} at its peak", limit, peak)
        if kind == wire.OVERTIME:
            return AppTimeout(f"App {task.app.name} exceeded walltime: {task.walltime:g} seconds")
        code, pid, peak = pickle.loads(payload)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        where = self.fleet.where(worker)
        words = f"{task.words}: the process that ran it (pid {pid}, {where}) {how}; its peak memory was "
        host = str(self.fleet.hosts.get(worker, {}).get("host", ""))
        return WorkerLost(words + f"{peak / 1024:.0f} MiB", worker, host)

    def _lost(self, task: Task, worker: int, why: str, may_be_why: bool) -> BaseException:
        """What the loss of a worker means for a task: another attempt, unless it takes down one after another."""
        words = f"{task.words}: {self.fleet.where(worker)} was lost while it had the task ({why})"
        if may_be_why:
            task.losses = getattr(task, "losses", 0) + 1
            if task.losses >= MOST_LOSSES:
                host = str(self.fleet.hosts.get(worker, {}).get("host", ""))
                return WorkerLost(f"{words}; it is the {task.losses}th worker lost with it", worker, host)
        return AttemptLost(words)

    def _drain(self) -> list[Completion]:
        """Fail what no worker has been given."""
        waiting = [task for task, delivery in self._held.items() if self.fleet.revoke(delivery)]
        for task in waiting:
            del self._held[task]
        return [(task, None, self._drained(task)) for task in waiting]

    def _drained(self, task: Task) -> ExecutorError:
        period = f"its drain_period of {self.drain_period:g} s is over"
        return ExecutorError(f"{task.words}: executor {self.label!r} gives out nothing more: {period}")

    # --- back at the user's wish --------------------------------------------------------------------------

    def revoke(self, task: Task) -> bool:
        """Take back a task that no worker has."""
        delivery = self._held.get(task)
        if delivery is None or not self.fleet.revoke(delivery):
            return False
        del self._held[task]
        return True

    def kill(self, task: Task) -> bool:
        """Have the worker end a task. One that runs in the rank itself goes on there, and nobody waits for it."""
        delivery = self._held.pop(task, None)
        if delivery is None:
            return False
        self.fleet.withdraw({delivery.aid})
        return True

    def seconds_of(self, app: App) -> float | None:
        """Mean seconds of an app's tasks."""
        return self.fleet.seconds.get(self._fids.get(app.number, -1))

    def longest(self) -> float:
        """The longest of such means."""
        return max((self.fleet.seconds.get(fid, 0.0) for fid in list(self._fids.values())), default=0.0)

    def wait(self, seconds: float) -> None:
        """Sleep until something may have arrived, at most so long."""
        self.fleet.wait(seconds)

    def shutdown(self) -> None:
        """Give up what has not ended; the workers stay for the next DataFlowKernel."""
        fleet = self.fleet
        with suppress(FarmLost):  # whoever waited has been told
            fleet.pump()  # what tasks printed last
        if self._held:
            fleet.withdraw({delivery.aid for delivery in self._held.values()})
        self._apps.clear()  # first, so that no app's end comes between any more
        while self._fids:
            fleet.forget(self._fids.popitem()[1])
        self._held = {}
        self._inbox = deque()  # late answers go to the old one, which nobody reads
        self._failed.clear()
        self._fleet = None

    def monitor_resources(self) -> bool:
        """Not from inside its tasks."""
        return False
