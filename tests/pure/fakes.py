"""An executor that ends tasks on command, and kernels over it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any
from unittest import mock

from mpiflow.config import Config
from mpiflow.executors.base import BulkExecutor, Completion, Submission
from mpiflow.kernel.app import App
from mpiflow.kernel.dataflow import DataFlowKernel
from mpiflow.kernel.driver import Driver
from mpiflow.kernel.futures import AppFuture
from mpiflow.kernel.task import Task

#: Nothing here takes long: what has not come after so many seconds never will.
LONG = 10.0


class Hand(BulkExecutor):
    """Runs nothing by itself: a test ends each task with `finish`, or all at once with `run`.

    Parameters
    ----------
    label : str
        Its name.
    by_itself : bool
        Whether it runs each task as soon as it is given it.
    """

    slots = 4

    def __init__(self, label: str = "hand", by_itself: bool = False) -> None:
        self.label = label
        self.by_itself = by_itself
        super().__init__()
        self.started = 0
        self.bulks: list[list[int]] = []
        self.given: dict[int, tuple[Task, tuple[Any, ...], dict[str, Any]]] = {}
        self.inbox: deque[Completion] = deque()
        self.shut_down = 0

    def start(self) -> None:
        self.started += 1
        assert self.started == 1, "started twice"

    def submit_bulk(self, tasks: Sequence[Submission]) -> None:
        self.bulks.append([task.id for task, _, _ in tasks])
        for task, args, kwargs in tasks:
            assert task.id not in self.given, "given a second time while the first try runs"
            self.given[task.id] = (task, args, kwargs)
            if self.by_itself:
                self.run(task.id)

    def collect(self) -> list[Completion]:
        collected = []
        while self.inbox:
            collected.append(self.inbox.popleft())
        return collected

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def shutdown(self) -> None:
        self.shut_down += 1

    def arguments(self, future: AppFuture) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the task of a future was given with."""
        _, args, kwargs = self.given[future.tid]
        return args, kwargs

    def finish(self, future: AppFuture, value: object = None, error: BaseException | None = None) -> None:
        """End the running try of a task."""
        task, _, _ = self.given.pop(future.tid)
        self.inbox.append((task, value, error))

    def finish_together(self, *futures: AppFuture) -> None:
        """End the running tries of several tasks well, in one superstep."""
        # extending a deque by a list is one step, which no other thread sees half of
        self.inbox.extend([(self.given.pop(future.tid)[0], None, None) for future in futures])

    def run(self, tid: int) -> None:
        """Run what a task was given with, here and now."""
        task, args, kwargs = self.given.pop(tid)
        try:
            value = task.app.remote(*args, **kwargs)
        except Exception as error:
            self.inbox.append((task, None, error.with_traceback(None)))  # as one that came from afar
        else:
            self.inbox.append((task, value, None))


def make_kernel(*executors: BulkExecutor, helped: bool = True, **fields: Any) -> DataFlowKernel:
    """A kernel that writes no files; by default over one executor that runs everything by itself.

    Without its helper thread a superstep is taken only where a test waits, or says ``driver.nudge()``.
    """
    places = list(executors) or [Hand(by_itself=True)]
    config = Config(executors=places, initialize_logging=False, **fields)
    with nullcontext() if helped else mock.patch.object(Driver, "start"):
        return DataFlowKernel(config)


def call(kernel: DataFlowKernel, func: Callable[..., Any], *args: Any, **kwargs: Any) -> AppFuture:
    """Call a function as a task."""
    return kernel.call(App(func), args, kwargs)


def eventually(condition: Callable[[], object], seconds: float = LONG) -> bool:
    """Whether something comes true, sooner or later."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.0002)
    return True


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """Start a thread that a hanging test does not wait for."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
