"""What the kernel asks of an executor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mpiflow.errors import ConfigurationError

if TYPE_CHECKING:
    from mpiflow.kernel.task import Task


#: A try of a task has ended: the task, what it returned, what it failed with. A plain tuple: there is one for
#: each task, and a named one takes seven times as long to make.
Completion = tuple["Task", Any, "BaseException | None"]
#: A task that is to run, with its arguments, all dependencies met.
Submission = tuple["Task", tuple[Any, ...], dict[str, Any]]


class Settings(NamedTuple):
    """What an executor is told when it starts.

    Attributes
    ----------
    seed : int
        Of the DataFlowKernel, for `mpiflow.rng`.
    """

    seed: int


def check_count(of: str, field: str, value: object) -> None:
    """ConfigurationError, in the words of a Config's own, unless the value is a whole number from 1 up."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{of}: {field} is {value!r}; legal is a whole number from 1 up")


class Executor(ABC):
    """Runs tasks, many at a time, and reports them when asked.

    Attributes
    ----------
    label : str
        Its name in a Config, and in ``executors=[...]`` of an app.
    """

    label: str

    #: Tasks it runs at once, workers it has, workers that are busy, tasks that workers have; for progress,
    #: and for how far a bulk call reads ahead.
    slots = 1
    workers = 1
    busy = 0
    running = 0

    @abstractmethod
    def start(self, settings: Settings) -> None:
        """Make ready; called once, by the DataFlowKernel."""

    @abstractmethod
    def submit(self, tasks: Sequence[Submission]) -> None:
        """Take tasks with their arguments, all dependencies met. Must not block, and must not raise for one
        task: a task that cannot be taken is a completion with an error."""

    @abstractmethod
    def collect(self) -> list[Completion]:
        """What has ended since the last call; never waits."""

    def wait(self, seconds: float) -> None:
        """Sleep, less when there may be something to collect."""
        import time

        time.sleep(seconds)

    @abstractmethod
    def shutdown(self) -> None:
        """Let go; tasks that have not ended are given up."""
