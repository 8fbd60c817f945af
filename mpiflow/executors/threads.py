"""Tasks in threads of rank 0: join_app bodies, and what a user puts there."""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mpiflow.executors.base import Completion, Executor, Settings, Submission

if TYPE_CHECKING:
    from mpiflow.kernel.task import Task


class ThreadPoolExecutor(Executor):
    """Runs tasks in this process; nothing is pickled.

    Parameters
    ----------
    label : str
        Name of the executor.
    max_threads : int
        Tasks that run at once.
    thread_name_prefix : str, optional
        For names of threads in logs.
    """

    def __init__(
        self, label: str = "threads", max_threads: int = 2, thread_name_prefix: str | None = None
    ) -> None:
        self.label = label
        self.max_threads = self.slots = self.workers = max_threads
        self.thread_name_prefix = thread_name_prefix
        self._inbox: deque[Completion] = deque()
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None

    def start(self, settings: Settings) -> None:
        """Make the pool; its threads start with the first tasks."""
        self._threads = concurrent.futures.ThreadPoolExecutor(
            self.max_threads, thread_name_prefix=self.thread_name_prefix or self.label
        )

    def submit(self, tasks: Sequence[Submission]) -> None:
        """Queue tasks for the threads."""
        assert self._threads is not None, "the executor has not been started"
        for task, args, kwargs in tasks:
            self._threads.submit(self._run, task, args, kwargs)

    def _run(self, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            value = task.app.remote(*args, **kwargs)
        except BaseException as error:  # SystemExit too: it ends the task, as in a runner
            self._inbox.append((task, None, error))
        else:
            self._inbox.append((task, value, None))
        task.dfk.driver.wake()

    def collect(self) -> list[Completion]:
        """What the threads have finished."""
        ended: list[Completion] = []
        while self._inbox:
            ended.append(self._inbox.popleft())
        return ended

    def shutdown(self) -> None:
        """Drop what waits; a thread that runs a task is left to end by itself."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
