"""One call of an app."""

from __future__ import annotations

from concurrent.futures import Future
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpiflow.data.futures import DataFuture
    from mpiflow.kernel.app import App
    from mpiflow.kernel.dataflow import DataFlowKernel
    from mpiflow.kernel.futures import AppFuture


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


FINAL_STATES = frozenset({States.exec_done, States.memo_done, States.failed, States.dep_fail})


def in_words(value: object) -> str:
    """A value's repr; its type's name when even that fails, as in classes of users it may."""
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"


class Task:
    """One call of an app, from the call to its last try.

    The kernel alone writes to it, under its lock; executors read it.
    """

    __slots__ = (
        "app", "args", "depends", "dfk", "error", "fail_cost", "fail_history", "future", "id", "kwargs",
        "outputs", "state", "tries", "value", "walltime",
    )  # fmt: skip

    def __init__(self, number: int, app: App, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.id = number
        self.app = app
        self.args = args
        self.kwargs = kwargs
        self.state = States.pending
        #: Seconds the task may take, 0 for no limit.
        self.walltime = 0.0
        #: Tries begun so far.
        self.tries = 0
        #: Futures among the arguments; empty for most.
        self.depends: tuple[Future[Any], ...] = ()

    # Set only when needed, to keep a pending task small: dfk, future (always), value or error (when it has
    # ended), outputs, fail_cost and fail_history (after the first failure).
    dfk: DataFlowKernel
    future: AppFuture
    value: Any
    error: BaseException
    outputs: list[DataFuture]
    fail_cost: float
    fail_history: list[str]

    def __repr__(self) -> str:
        return f"task {self.id} ({self.app.name}) {self.state.name}"

    @property
    def words(self) -> str:
        """The task in an error's words."""
        return f"task {self.id} ({self.app.name})"

    def as_record(self) -> dict[str, Any]:
        """The task under Parsl's keys, as ``AppFuture.task_record``."""
        return {
            "id": self.id,
            "try_id": max(0, self.tries - 1),
            "func_name": self.app.name,
            "func": self.app.func,
            "args": self.args,
            "kwargs": self.kwargs,
            "status": self.state,
            "depends": list(self.depends),
            "fail_cost": getattr(self, "fail_cost", 0.0),
            "fail_count": len(getattr(self, "fail_history", ())),
            "fail_history": list(getattr(self, "fail_history", ())),
            "join": self.app.join,
            "app_fu": getattr(self, "future", None),
            "dfk": self.dfk,
        }
