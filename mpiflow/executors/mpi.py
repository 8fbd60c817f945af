"""MPIExecutor: tasks on the workers of the farm."""

from __future__ import annotations

import pickle
import signal
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mpiflow.comm import wire
from mpiflow.comm.pickling import pack, pack_function, unpack, unpack_failure
from mpiflow.comm.wire import HEADER
from mpiflow.errors import (
    AppTimeout,
    ConfigurationError,
    DeserializationError,
    SerializationError,
    WorkerLost,
)
from mpiflow.executors.base import Completion, Executor, Settings, Submission, check_count
from mpiflow.executors.fleet import Answer, Delivery, Fleet, installed
from mpiflow.executors.options import options

if TYPE_CHECKING:
    from mpiflow.kernel.app import App
    from mpiflow.kernel.task import Task

#: A function is kept by every worker and runner for good; data belongs into arguments.
MOST_FUNCTION_BYTES = 1 << 30
_KINDS = {"runner": wire.TASK, "rank": wire.TASK_RANK, "task": wire.TASK_FORK}


class MPIExecutor(Executor):
    """Runs tasks on the ranks of this MPI job, or on local runners where there is one rank only.

    Parameters
    ----------
    label : str
        Name of the executor.
    isolation : {"runner", "rank", "task"}, optional
        Where a task runs: in a process below the rank that is used again (default); in the rank itself, for
        micro-tasks and for libraries that need MPI there; in a new process for each task.
    runners_per_rank : int, optional
        Tasks a rank runs at once, at least 1 (default 1, or what ``--runners-per-rank`` says; without MPI,
        one for each usable CPU).
    """

    def __init__(
        self, label: str = "mpi", isolation: str | None = None, runners_per_rank: int | None = None
    ) -> None:
        if isolation is not None and isolation not in _KINDS:
            raise ConfigurationError(
                f"MPIExecutor: isolation is {isolation!r}; legal are 'runner', 'rank' and 'task'"
            )
        if runners_per_rank is not None:
            check_count("MPIExecutor", "runners_per_rank", runners_per_rank)
        self.label = label
        self.isolation = isolation
        self.runners_per_rank = runners_per_rank
        self._inbox: deque[Answer] = deque()
        self._failed: deque[Completion] = deque()
        self._fids: dict[App, int] = {}
        self._held: set[int] = set()
        self._seed = 0
        self._kind = wire.TASK
        self._fleet: Fleet | None = None

    def start(self, settings: Settings) -> None:
        """Join the fleet of this process; without MPI, make one of local runners."""
        from mpiflow.executors.local import local_fleet

        if self._fleet is not None:
            words = f"executor {self.label!r} is in use by another DataFlowKernel; give each its own"
            raise ConfigurationError(words)
        self._seed = settings.seed
        fleet = self._fleet = installed() or local_fleet()
        isolation = self.isolation or options.isolation
        if isolation == "rank" and fleet.comm.peers == [0]:
            isolation = "runner"  # a lone process has no rank beside the script's own
        self._kind = _KINDS[isolation]
        runners = self.runners_per_rank or options.runners_per_rank or fleet.default_runners
        fleet.configure(1 if isolation == "rank" else runners)

    @property
    def fleet(self) -> Fleet:
        """The workers it uses."""
        assert self._fleet is not None, "the executor has not been started"
        return self._fleet

    @property
    def slots(self) -> int:  # type: ignore[override]
        """Tasks that all workers run at once."""
        return self._fleet.slots if self._fleet is not None else 1

    @property
    def workers(self) -> int:  # type: ignore[override]
        """Workers, those of other executors too: all share them."""
        return len(self._fleet.comm.peers) if self._fleet is not None else 0

    @property
    def busy(self) -> int:  # type: ignore[override]
        """Workers that have something to do."""
        return self._fleet.busy if self._fleet is not None else 0

    @property
    def running(self) -> int:  # type: ignore[override]
        """Tasks that workers have."""
        return min(self._fleet.outstanding, len(self._held)) if self._fleet is not None else 0

    # --- out ----------------------------------------------------------------------------------------------

    def submit(self, tasks: Sequence[Submission]) -> None:
        """Pickle each task on its own and hand all to the farm."""
        fleet = self.fleet
        number, inbox, kind, held = fleet.number, self._inbox, self._kind, self._held
        deliveries: list[Delivery] = []
        for task, args, kwargs in tasks:
            beside: list[Any] = []
            try:
                fid = self._fids.get(task.app) or self._register(task)
                payload = pack((args, kwargs), beside)
            except Exception as error:
                self._failed.append((task, None, self._unpicklable(task, args, kwargs, error)))
                continue
            aid = number()
            head = HEADER.pack(aid, task.id, fid, len(payload), task.walltime, kind, len(beside))
            deliveries.append(Delivery(aid, fid, task, head + payload, beside, inbox))
            held.add(aid)
        fleet.submit(deliveries)

    def _register(self, task: Task) -> int:
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
        fid = self._fids[app] = self.fleet.register(app.name, pickle.dumps((app.name, self._seed, function), 5))
        return fid

    def _unpicklable(
        self, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception
    ) -> SerializationError:
        """The error in words: which argument it is."""
        if isinstance(error, SerializationError):
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
        if not held:
            return ended  # nothing can have come; a poll costs as much as the rest of an empty superstep
        self.fleet.pump()
        while inbox:
            delivery, kind, payload, segments, worker = inbox.popleft()
            held.discard(delivery.aid)
            task = delivery.task
            if kind == wire.DONE:
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
        if kind == wire.OVERTIME:
            return AppTimeout(f"App {task.app.name} exceeded walltime: {task.walltime:g} seconds")
        code, pid, peak = pickle.loads(payload)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        where = self.fleet.where(worker)
        return WorkerLost(
            f"{task.words}: the process that ran it (pid {pid}, {where}) {how}; its peak memory was "
            f"{peak / 1024:.0f} MiB"
        )

    def wait(self, seconds: float) -> None:
        """Sleep until something may have arrived, at most so long."""
        self.fleet.wait(seconds)

    def shutdown(self) -> None:
        """Give up what has not ended; the workers stay for the next DataFlowKernel."""
        self.fleet.pump()  # what tasks printed last
        if self._held:
            self.fleet.withdraw(self._held)
        self._held = set()
        self._fids = {}
        self._inbox = deque()  # late answers go to the old one, which nobody reads
        self._failed.clear()
        self._fleet = None

