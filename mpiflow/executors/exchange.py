"""What one MPIExecutor has under way: calls go out as bytes, and what came of them comes back as objects.

Each task's arguments are pickled on their own and given to the fleet as a `Delivery`; the fleet puts answers into
`inbox`, and `collect` makes completions of them. All of it is on the way of every task, and can be compiled
(`docs/compiled.md`), which an executor itself cannot: its base is an abstract class.
"""

from __future__ import annotations

import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import ref

from mpiflow.comm import wire
from mpiflow.comm.pickling import pack, pack_function, unpack, unpack_failure
from mpiflow.comm.wire import DONE, EXCESS, HEADER, TASK_RANK
from mpiflow.errors import (
    AppTimeout,
    DeserializationError,
    ExecutorError,
    FarmLost,
    MemoryLimitExceeded,
    NotEnoughRanks,
    SerializationError,
    WorkerLost,
)
from mpiflow.executors.base import AttemptLost, Completion, Submission, no_memory_limit
from mpiflow.executors.fleet import LOST, REFUSED, Answer, Delivery, Fleet
from mpiflow.executors.sizes import in_words

if TYPE_CHECKING:
    from mpiflow.executors.gangs import GangTask
    from mpiflow.executors.orders import Orders
    from mpiflow.kernel.app import App
    from mpiflow.kernel.task import Task

#: A function is kept by every worker and runner as long as its app is there; data belongs into arguments.
MOST_FUNCTION_BYTES = 1 << 30
#: Workers that may be lost while they run one and the same task, before the task is held to be the reason.
MOST_LOSSES = 5


class Exchange:
    """The tasks of one executor that the fleet has.

    Parameters
    ----------
    label : str
        Of the executor, for words to the user.
    seed : int
        Of the DataFlowKernel, for `mpiflow.rng`.
    fleet : Fleet
        The workers.
    pool : int
        Which of them: a pool of the fleet's farm.
    kind : int
        Where tasks run: `wire.TASK`, `wire.TASK_RANK` or `wire.TASK_FORK`.
    orders : Orders
        What their resource specifications mean.
    """

    def __init__(self, label: str, seed: int, fleet: Fleet, pool: int, kind: int, orders: Orders) -> None:
        self._label = label
        self._seed = seed
        self._fleet = fleet
        self._pool = pool
        self._kind = kind
        self._orders = orders
        # Taken, and not yet submitted.
        self._gangs: list[GangTask] = []
        self._inbox: deque[Answer] = deque()
        self._failed: list[Completion] = []
        # By number of the app. The reference is there for its callback: see `_register`.
        self._fids: dict[int, int] = {}
        self._apps: dict[int, ref[App]] = {}
        # Deliveries that have no result yet; by task, for who wants one back.
        self._held: dict[Task, Delivery] = {}

    def __len__(self) -> int:
        """Tasks that have no result yet."""
        return len(self._held)

    # --- out ----------------------------------------------------------------------------------------------

    def submit(self, tasks: list[Submission]) -> None:
        """Pickle each task on its own and hand all to the farm; one that cannot be is a completion with an error."""
        fleet, inbox, held, fids, kind = self._fleet, self._inbox, self._held, self._fids, self._kind
        aids = fleet.aids
        deliveries: list[Delivery] = []
        urgent: dict[int, list[Delivery]] = {}
        for task, args, kwargs in tasks:
            beside: list[Any] = []
            try:
                fid = fids.get(task.app.number) or self._register(task)
                payload = pack((args, kwargs), beside)
                if kwargs and hasattr(task, "resources") and self._orders.is_for_several(task):
                    self._take_gang(Delivery(next(aids), fid, task, payload, beside, inbox))
                    continue
            except Exception as error:
                self._failed.append((task, None, self._unpicklable(task, args, kwargs, error)))
                continue
            aid = next(aids)
            head = HEADER.pack(aid, task.id, fid, len(payload), task.walltime, kind, len(beside))
            if task.memory:
                if kind == TASK_RANK:
                    self._failed.append((task, None, no_memory_limit(task, self._label, "in the rank itself")))
                    continue
                head = wire.record(wire.LIMIT, task.memory.to_bytes(8, "little"), aid) + head
            delivery = held[task] = Delivery(aid, fid, task, head + payload, beside, inbox)
            if task.priority:
                urgent.setdefault(task.priority, []).append(delivery)
            else:
                deliveries.append(delivery)
        if self._gangs:
            gangs, self._gangs = self._gangs, []
            fleet.submit_gangs(gangs)
        if not urgent:
            fleet.submit(deliveries, self._pool)
            return
        urgent[0] = deliveries
        for priority in sorted(urgent):
            fleet.submit(urgent[priority], self._pool, priority)

    def _take_gang(self, delivery: Delivery) -> None:
        """Take a task that needs several ranks; its record is its packed arguments."""
        self._gangs.append(self._orders.gang_task(delivery))
        self._held[delivery.task] = delivery

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
        fleet, fids, number = self._fleet, self._fids, app.number
        fid = fids[number] = fleet.register(app.name, pickle.dumps((app.name, self._seed, function), 5))

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
        if isinstance(error, SerializationError | ExecutorError):
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
        ended = self._failed
        if ended:
            self._failed = []
        else:
            ended = []
        if not held:
            return ended  # nothing can have come; a poll costs as much as the rest of an empty superstep
        self._fleet.pump()
        while inbox:
            delivery, kind, payload, segments, worker = inbox.popleft()
            task: Task = delivery.task
            if held.get(task) is not delivery:
                continue  # its task was killed in the meantime
            del held[task]
            if kind == DONE:
                if task.hashsum is not None:  # the journal need not pickle it again
                    task.packed = None if segments else bytes(payload)
                try:
                    value = unpack(payload, [segment.view for segment in segments] if segments else ())
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
        if kind == REFUSED:
            return NotEnoughRanks(pickle.loads(payload))
        if kind == LOST:
            why, may_be_why = pickle.loads(payload)
            return self._lost(task, worker, why, may_be_why)
        if kind == wire.OVERTIME and payload:
            limit, peak = EXCESS.unpack(payload)
            words = f"{task.words}: exceeded its memory limit of {in_words(limit)}: with all it had started it used"
            return MemoryLimitExceeded(f"{words} {in_words(peak)} at its peak", limit, peak)
        if kind == wire.OVERTIME:
            return AppTimeout(f"App {task.app.name} exceeded walltime: {task.walltime:g} seconds")
        code, pid, peak = pickle.loads(payload)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        where = self._fleet.where(worker)
        words = f"{task.words}: the process that ran it (pid {pid}, {where}) {how}; its peak memory was "
        host = str(self._fleet.hosts.get(worker, {}).get("host", ""))
        return WorkerLost(words + f"{peak / 1024:.0f} MiB", worker, host)

    def _lost(self, task: Task, worker: int, why: str, may_be_why: bool) -> BaseException:
        """What the loss of a worker means for a task: another attempt, unless it takes down one after another."""
        words = f"{task.words}: {self._fleet.where(worker)} was lost while it had the task ({why})"
        if may_be_why:
            task.losses = getattr(task, "losses", 0) + 1
            if task.losses >= MOST_LOSSES:
                host = str(self._fleet.hosts.get(worker, {}).get("host", ""))
                return WorkerLost(f"{words}; it is the {task.losses}th worker lost with it", worker, host)
        return AttemptLost(words)

    # --- back at the user's wish, or for the time -----------------------------------------------------------

    def refuse(self, tasks: list[Task], why: Callable[[Task], ExecutorError]) -> None:
        """Fail tasks that are not to be given out."""
        self._failed += [(task, None, why(task)) for task in tasks]

    def refuse_waiting(self, why: Callable[[Task], ExecutorError]) -> None:
        """Fail what no worker has been given."""
        self.refuse([task for task in list(self._held) if self.revoke(task)], why)

    def revoke(self, task: Task) -> bool:
        """Take back a task that no worker has."""
        delivery = self._held.get(task)
        if delivery is None or not self._fleet.revoke(delivery):
            return False
        del self._held[task]
        return True

    def ask_back(self, tasks: Iterable[Task]) -> None:
        """Have workers hand back what they have not begun."""
        self._fleet.ask_back({delivery.aid for task in tasks if (delivery := self._held.get(task)) is not None})

    def kill(self, task: Task) -> bool:
        """Have the worker end a task. One that runs in the rank itself goes on there, and nobody waits for it."""
        delivery = self._held.pop(task, None)
        if delivery is None:
            return False
        self._fleet.withdraw({delivery.aid})
        return True

    def seconds_of(self, app: App) -> float | None:
        """Mean seconds of an app's tasks."""
        return self._fleet.seconds.get(self._fids.get(app.number, -1))

    def longest(self) -> float:
        """The longest of such means."""
        return max([self._fleet.seconds.get(fid, 0.0) for fid in list(self._fids.values())], default=0.0)

    def close(self) -> None:
        """Give up what has not ended; late answers go to an inbox that nobody reads."""
        fleet = self._fleet
        with suppress(FarmLost):  # whoever waited has been told
            fleet.pump()  # what tasks printed last
        if self._held:
            fleet.withdraw({delivery.aid for delivery in self._held.values()})
        self._apps.clear()  # first, so that no app's end comes between any more
        while self._fids:
            fleet.forget(self._fids.popitem()[1])
        self._held = {}
        self._failed = []
