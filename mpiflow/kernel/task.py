"""One call of an app."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import datetime
from enum import IntEnum
from threading import Condition, Lock
from time import time
from typing import TYPE_CHECKING, Any

from mpiflow.errors import DependencyError, JoinError
from mpiflow.representation import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mpiflow.data.futures import DataFuture
    from mpiflow.kernel.app import App
    from mpiflow.kernel.dataflow import DataFlowKernel
    from mpiflow.kernel.futures import AppFuture

#: A task as a dict under Parsl's keys, for retry handlers, memoizers and whoever looks at ``task_record``.
TaskRecord = dict[str, Any]


class States(IntEnum):
    """Where a task is; names and numbers are Parsl's."""

    pending = 0
    running = 2
    exec_done = 3
    failed = 4
    dep_fail = 5
    launched = 7
    fail_retryable = 8
    memo_done = 9
    joining = 10
    running_ended = 11

    def __str__(self) -> str:
        return f"States.{self.name}"


FINAL_STATES = frozenset({States.exec_done, States.memo_done, States.failed, States.dep_fail})
#: Of a task that has ended well.
WELL = (States.exec_done, States.memo_done)

#: Held when a task's outcome is shown, and when somebody begins to wait for it. One for all tasks: a lock for each
#: would be as large as the task.
_MOMENT = Lock()


class Task:
    """One call of an app, from the call to its last try.

    The kernel alone writes to it, under its lock; executors read it.
    """

    __slots__ = (
        "app", "args", "auto", "callbacks", "condition", "depends", "dfk", "error", "executor", "fail_cost",
        "fail_count", "fail_history", "from_memo", "fulfilled", "future", "hashsum", "id", "invoked", "kwargs",
        "launched", "losses", "memory", "outputs", "packed", "priority", "resources", "returned", "state", "streams",
        "tries", "value", "waiters", "walltime",
    )  # fmt: skip
    #: What mypyc has to know may be deleted.
    __deletable__ = ("future",)

    def __init__(self, number: int, app: App, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.id = number
        self.app = app
        self.args = args
        self.kwargs = kwargs
        self.state = States.pending
        #: Seconds the task may take, 0 for no limit.
        self.walltime = app.walltime
        #: Bytes of memory it may use, with all it starts; 0 for no limit.
        self.memory = app.memory
        #: Tries begun so far.
        self.tries = 0
        #: Futures among the arguments; empty for most.
        self.depends: tuple[Future[Any], ...] = ()
        #: Under which its result is remembered; None while that is not known, and for most.
        self.hashsum: str | None = None
        #: Label of the executor it goes to; empty while that is open.
        self.executor = ""
        #: When it was called, in seconds since the epoch.
        self.invoked = time()
        #: Lower goes first.
        self.priority = app.priority
        #: Whether its future shows the outcome, which may be there before that.
        self.fulfilled = False
        #: What its future is to call then, and what those wait on who wait outside our functions; None for most.
        self.callbacks: list[Callable[[Future[Any]], object]] | None = None
        self.condition: Condition | None = None

    # Set only when needed, to keep a pending task small: dfk, future (always); value or error, and when
    # (`returned`), when it has ended; waiters with the condition; outputs, resources, auto and streams when the call
    # names such; launched with the first try; fail_cost, fail_count and fail_history after the first failure; losses
    # when workers were lost with it; from_memo and packed (the result's pickle) for a cached app.
    dfk: DataFlowKernel
    future: AppFuture
    value: Any
    error: BaseException
    waiters: list[Any]
    outputs: list[DataFuture]
    #: Streams whose file was chosen for it.
    auto: list[str]
    resources: dict[str, Any]
    #: ``stdout`` and ``stderr``, where staging has given the task something else to write to.
    streams: dict[str, Any]
    launched: float
    returned: float
    fail_cost: float
    fail_count: int
    fail_history: list[str]
    losses: int
    from_memo: bool
    packed: bytes | None

    def __repr__(self) -> str:
        return f"task {self.id} ({self.app.name}) {self.state.name}"

    def __getitem__(self, key: str) -> Any:
        """One entry of `as_record`: ``dfk.tasks[0]["status"]`` as in Parsl."""
        return self.as_record()[key]

    @property
    def words(self) -> str:
        """The task in an error's words."""
        return f"task {self.id} ({self.app.name})"

    @property
    def failure(self) -> BaseException | None:
        """What a task that has ended failed with."""
        return None if self.state in WELL else self.error

    # --- its future, for what is done to every one ----------------------------------------------------------

    def fulfil(self) -> bool:
        """Have the future show the outcome, which is set; whether there are callbacks to be run."""
        with _MOMENT:
            condition = self.condition
            if condition is None:
                self.fulfilled = True
                return self.callbacks is not None
        with condition:
            self.fulfilled = True
            for waiter in self.waiters:
                if self.state in WELL:
                    waiter.add_result(self.future)
                else:
                    waiter.add_exception(self.future)
            condition.notify_all()
        return self.callbacks is not None

    def is_fulfilled(self) -> bool:
        """`fulfilled`, for who waits until something can be called that is true."""
        return self.fulfilled

    def awaited(self) -> Condition:
        """What is notified when the future is fulfilled, for who waits outside our functions."""
        with _MOMENT:
            condition = self.condition
            if condition is None:
                condition = self.condition = Condition()
                self.waiters = []
        return condition

    def calls_back(self, callback: Callable[[Future[Any]], object]) -> bool:
        """Have the future call this when it is fulfilled; False if it is already."""
        with _MOMENT:
            if self.fulfilled:
                return False
            if self.callbacks is None:
                self.callbacks = []
            self.callbacks.append(callback)
        return True

    def failures(self) -> tuple[int, float, Sequence[str]]:
        """What has failed so far, as Parsl counts: tries, what they cost, and the errors of the latest.

        The kernel counts tries that failed; Parsl also counts, once, the failure of what the task depends on or joins.
        """
        state = self.state
        if not hasattr(self, "fail_count") and state is not States.failed and state is not States.dep_fail:
            return 0, 0.0, ()  # nearly always
        count, cost = getattr(self, "fail_count", 0), getattr(self, "fail_cost", 0.0)
        history = list(getattr(self, "fail_history", ()))
        if state is States.failed or state is States.dep_fail:
            by_others = isinstance(self.error, DependencyError | JoinError)
            if by_others or not history:
                count, history = count + by_others, [*history, in_words(self.error)]
            if isinstance(self.error, DependencyError):
                cost += 1.0
        return count, cost, history

    def as_record(self, args: Sequence[Any] | None = None, kwargs: dict[str, Any] | None = None) -> TaskRecord:
        """The task under Parsl's keys, as ``AppFuture.task_record``.

        Parameters
        ----------
        args, kwargs : optional
            The arguments with values in the place of futures.
        """
        body = getattr(self, "value", None) if self.state is States.joining else None
        fail_count, fail_cost, fail_history = self.failures()
        looked_up = False if self.tries and not self.app.cache else None  # of a cached app the memoizer has said so
        return {
            "id": self.id,
            "try_id": max(0, self.tries - 1),
            "func_name": self.app.name,
            "func": self.app.func,
            "app_type": self.app.kind,
            "args": list(self.args if args is None else args),
            "kwargs": self.kwargs if kwargs is None else kwargs,
            "executor": self.executor,
            "status": self.state,
            "depends": list(self.depends),
            "fail_count": fail_count,
            "fail_cost": fail_cost,
            "fail_history": list(fail_history),
            "from_memo": getattr(self, "from_memo", looked_up),
            "hashsum": self.hashsum,
            "memoize": self.app.cache,
            "ignore_for_cache": [*self.app.ignore_for_cache, *getattr(self, "auto", ())],
            "join": self.app.join,
            "joins": body,
            "resource_specification": getattr(self, "resources", {}),
            "time_invoked": datetime.fromtimestamp(self.invoked),
            "time_returned": self._moment("returned"),
            "try_time_launched": self._moment("launched"),
            "try_time_returned": self._moment("returned"),
            "app_fu": getattr(self, "future", None),
            "exec_fu": None,
            "dfk": self.dfk,
        }

    def _moment(self, which: str) -> datetime | None:
        seconds = getattr(self, which, None)
        return None if seconds is None else datetime.fromtimestamp(seconds)
