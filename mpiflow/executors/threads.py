"""Tasks in threads of rank 0: join_app bodies, and what a user puts there."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from queue import SimpleQueue

from mpiflow.executors.base import Completion, Executor, Settings, Submission, check_count


class ThreadPoolExecutor(Executor):
    """Runs tasks in this process; nothing is pickled.

    The threads are daemons: one that runs a task for an hour does not keep the job from ending. That is why
    they are not those of `concurrent.futures`, which Python waits for when it exits.

    Parameters
    ----------
    label : str
        Name of the executor.
    max_threads : int
        Tasks that run at once.
    thread_name_prefix : str, optional
        For names of threads in logs.
    """

    def __init__(self, label: str = "threads", max_threads: int = 2, thread_name_prefix: str | None = None) -> None:
        check_count("ThreadPoolExecutor", "max_threads", max_threads)
        self.label = label
        self.max_threads = self.slots = self.workers = max_threads
        self.thread_name_prefix = thread_name_prefix
        self._inbox: deque[Completion] = deque()
        self._queue: SimpleQueue[Submission | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def start(self, settings: Settings) -> None:
        """Make ready; threads start with the first tasks."""
        self._inbox = deque()
        self._queue = SimpleQueue()
        self._threads = []

    def submit(self, tasks: Sequence[Submission]) -> None:
        """Queue tasks for the threads."""
        for task in tasks:
            self.running += 1
            self._queue.put(task)
        while len(self._threads) < min(self.max_threads, self.running):
            name = f"{self.thread_name_prefix or self.label}_{len(self._threads)}"
            thread = threading.Thread(target=self._work, args=(self._queue, self._inbox), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self, queue: SimpleQueue[Submission | None], inbox: deque[Completion]) -> None:
        """One thread's life."""
        while (submission := queue.get()) is not None:
            task, args, kwargs = submission
            try:
                inbox.append((task, task.app.remote(*args, **kwargs), None))
            except BaseException as error:  # SystemExit too: it ends the task, as in a runner
                inbox.append((task, None, error))
            task.dfk.driver.wake()
            del submission, task, args, kwargs  # a thread that waits holds nothing of its last task

    def collect(self) -> list[Completion]:
        """What the threads have finished."""
        ended: list[Completion] = []
        while self._inbox:
            ended.append(self._inbox.popleft())
        self.running -= len(ended)
        return ended

    def shutdown(self) -> None:
        """Let the threads end after what they run now; what waits is dropped."""
        old, self._queue = self._queue, SimpleQueue()
        while not old.empty():
            old.get_nowait()
        for _ in self._threads:
            old.put(None)
