"""What the kernel asks of an executor, and what a user's own has to offer.

There are two ways to be one. `Executor` is Parsl's interface: it takes one call at a time and returns a future,
and anybody may write one. `BulkExecutor` is what the kernel works with: it takes all that a superstep has made
ready at once and is asked for what has ended, without a future, a lock or a thread for each task. An `Executor`
of a user's is put behind that face by `executors.wrapped`.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mpiflow.errors import ConfigurationError, UnsupportedFeatureError

if TYPE_CHECKING:
    from types import TracebackType

    from mpiflow.kernel.app import App
    from mpiflow.kernel.task import Task


#: A try of a task has ended: the task, what it returned, what it failed with. A plain tuple: there is one for
#: each task, and a named one takes seven times as long to make.
Completion = tuple["Task", Any, "BaseException | None"]
#: A task that is to run, with its arguments, all dependencies met.
Submission = tuple["Task", tuple[Any, ...], dict[str, Any]]


#: A sleep of less takes longer than it should, five times in the case of a few microseconds.
SHORTEST_SLEEP = 20e-6


class AttemptLost(Exception):
    """The worker that had a task is gone: the task has not failed, and is to be handed out again, uncharged."""


class Settings(NamedTuple):
    """What a DataFlowKernel tells an executor before it starts it.

    Attributes
    ----------
    seed : int
        Of the DataFlowKernel, for `mpiflow.rng`.
    before : float
        The share of all ranks that executors before it in the Config have taken.
    usage_every : float
        Seconds between two looks at what a running task uses; 0: at its begin and end only; below 0: never.
    """

    seed: int
    before: float = 0.0
    usage_every: float = -1.0


def check_count(of: str, field: str, value: object, least: int = 1) -> None:
    """ConfigurationError, in the words of a Config's own, unless the value is a whole number from `least` up."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{of}: {field} is {value!r}; legal is a whole number from {least} up")


class Executor(ABC):
    """A place where tasks run. Write a subclass to bring your own; Parsl's run unchanged.

    Attributes
    ----------
    label : str
        Its name in a Config, and in ``executors=[...]`` of an app.
    storage_access : list of Staging or None
        How it reaches files that are not local; None for `mpiflow.default_staging`.
    working_dir : str or None
        Where staged files go; None for the current directory.
    run_dir, run_id : str
        Of the DataFlowKernel, which sets them before it calls `start`.
    remote_monitoring_radio, monitoring_messages, monitoring_receiver
        Parsl's, and never set: what workers say of tasks comes over MPI, with their results.

    Examples
    --------
    >>> class Immediate(Executor):
    ...     label = "immediate"
    ...     def submit(self, func, resource_specification, *args, **kwargs):
    ...         future = Future()
    ...         future.set_result(func(*args, **kwargs))
    ...         return future
    ...     def shutdown(self):
    ...         pass
    >>> Immediate().submit(abs, {}, -3).result()
    3
    """

    label: str = "undefined"
    storage_access: list[Any] | None = None
    working_dir: str | None = None
    run_id: str | None = None
    remote_monitoring_radio: object = None
    monitoring_messages: Any = None
    monitoring_receiver: object = None
    _run_dir = "."

    def __init__(self, *, run_dir: str = ".", run_id: str | None = None, **_: Any) -> None:
        self.run_dir = os.path.abspath(run_dir)
        self.run_id = run_id

    def start(self) -> None:
        """Make ready; called once, by the DataFlowKernel."""
        return

    @abstractmethod
    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Run one call; returns at once."""

    @abstractmethod
    def shutdown(self) -> None:
        """Let go; what has not ended is given up."""

    def monitor_resources(self) -> bool:
        """Whether the use of resources of its tasks may be watched from inside them."""
        return True

    @property
    def run_dir(self) -> str:
        """Directory of the run."""
        return self._run_dir

    @run_dir.setter
    def run_dir(self, path: str) -> None:
        self._run_dir = path

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        self.shutdown()
        return False


#: Parsl's name for it.
ParslExecutor = Executor


class BulkExecutor(Executor):
    """Runs tasks, many at a time, and reports them when asked.

    Attributes
    ----------
    settings : Settings
        Set by the DataFlowKernel before `start`.
    """

    settings = Settings(seed=0)

    #: Whether each task has a process to itself while it runs, whose directory it may change.
    in_processes = False
    #: Tasks it runs at once, workers it has, workers that are busy, tasks that workers have; for progress,
    #: for choosing among several, and for how far a bulk call reads ahead.
    slots = 1
    workers = 1
    busy = 0
    running = 0

    @abstractmethod
    def submit_bulk(self, tasks: list[Submission]) -> None:
        """Take tasks with their arguments, all dependencies met. Must not block, and must not raise for one
        task: a task that cannot be taken is a completion with an error."""

    @abstractmethod
    def collect(self) -> list[Completion]:
        """What has ended since the last call; never waits."""

    def revoke(self, task: Task) -> bool:
        """Take a task back that has not begun; whether it was still to be had. Nothing more is heard of it."""
        return False

    def ask_back(self, tasks: Iterable[Task]) -> None:
        """Give tasks back that could not be revoked and have not begun all the same, as far as that can be done.

        Those come with an `AttemptLost` among the completions, now or later; the others go on.
        """
        return

    def kill(self, task: Task) -> bool:
        """End a task that runs, by force; whether that can be done. Nothing more is heard of it."""
        return False

    def only_waits(self, waiters: Collection[int]) -> bool:
        """Whether all tasks that have begun do no more than wait for other tasks, in these threads of rank 0."""
        return False

    def seconds_of(self, app: App) -> float | None:
        """Seconds that tasks of an app have taken, in the mean; None where that is not known."""
        return None

    def longest(self) -> float:
        """The longest of such means; 0 where none is known."""
        return 0.0

    def census(self) -> dict[int, tuple[dict[str, object], int, bool]]:
        """By number its workers that have reported: what each said of itself, tasks at once, whether it serves."""
        return {}

    def wait(self, seconds: float) -> None:
        """Sleep, less when there may be something to collect; for a moment, only give way to others."""
        if seconds > SHORTEST_SLEEP:
            time.sleep(seconds)
        else:
            os.sched_yield()

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Not offered one by one: load a Config with this executor and call an app."""
        words = f"{type(self).__name__} takes tasks from a DataFlowKernel only; use DataFlowKernel.submit"
        raise UnsupportedFeatureError(words)


def no_memory_limit(task: Task, executor: str, where: str) -> UnsupportedFeatureError:
    """What a task fails with that has a memory limit where none can be held."""
    words = f"{task.words}: executor {executor!r} cannot hold memory={task.memory} bytes: its tasks run {where}"
    return UnsupportedFeatureError(f"{words}; use an MPIExecutor with isolation 'runner' or 'task'")


def check_resources(task: Task, executor: str, legal: Sequence[str]) -> None:
    """InvalidResourceSpecification for what a call asks for and an executor does not have."""
    from mpiflow.errors import InvalidResourceSpecification

    unknown = set(task.resources) - set(legal)
    if unknown:
        words = f"{task.words}: executor {executor!r} takes " + (
            f"only {', '.join(legal)} in a resource specification" if legal else "no resource specification"
        )
        raise InvalidResourceSpecification(unknown, words)
