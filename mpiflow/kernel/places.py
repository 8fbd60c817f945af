"""The executors of one DataFlowKernel: starting them, and choosing one for a task."""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mpiflow.errors import ConfigurationError
from mpiflow.executors.base import BulkExecutor, Executor, Settings
from mpiflow.executors.threads import ThreadPoolExecutor
from mpiflow.executors.wrapped import Wrapped
from mpiflow.kernel.futures import INTERNAL

if TYPE_CHECKING:
    from mpiflow.kernel.app import App
    from mpiflow.kernel.task import Task


logger = logging.getLogger("mpiflow.kernel")


class Places:
    """Where tasks may run.

    Parameters
    ----------
    seed : int
        Of the DataFlowKernel.
    run_dir, run_id : str
        The same's; executors are told.
    threads : int
        Bodies of join_apps that run at once.
    usage_every : float
        As in `Settings`.
    """

    def __init__(self, seed: int, run_dir: str, run_id: str, threads: int, usage_every: float = -1.0) -> None:
        self._seed = seed
        self._run_dir = run_dir
        self._run_id = run_id
        self._usage_every = usage_every
        #: By label, for the kernel.
        self.bulk: dict[str, BulkExecutor] = {}
        #: By label, as the user gave them.
        self.given: dict[str, Executor | concurrent.futures.Executor] = {}
        #: Labels that an app may name, or "all" of which may run it.
        self.labels: list[str] = []
        #: Tasks that each has been handed and that have not come back.
        self.load: dict[str, int] = {}
        self._share = 0.0
        self.internal = ThreadPoolExecutor(label=INTERNAL, max_threads=threads)

    def add(self, executors: Iterable[Executor | concurrent.futures.Executor]) -> None:
        """Start executors; those started by this call are let go again when one of them fails."""
        before = list(self.bulk)
        try:
            for executor in executors:
                self._add(executor)
        except BaseException:
            for label in self.bulk.keys() - set(before):
                self.bulk.pop(label).shutdown()
                del self.given[label], self.load[label]
            self.labels = [label for label in self.labels if label in self.bulk]
            raise

    def _add(self, given: Executor | concurrent.futures.Executor) -> None:
        executor = given if isinstance(given, BulkExecutor) else Wrapped(given)
        label = executor.label
        if label in self.bulk:
            raise ConfigurationError(f"executors: two have the label {label!r}")
        kind = f"{type(given).__module__}.{type(given).__name__}"
        fields = {"mpiflow.executor.label": label, "mpiflow.executor.type": kind}
        logger.info("Adding executor %s", label, extra=fields)
        executor.settings = Settings(self._seed, self._share, self._usage_every)
        executor.run_dir, executor.run_id = self._run_dir, self._run_id
        executor.start()
        self._share += getattr(executor, "share", 0.0)
        self.bulk[label], self.given[label], self.load[label] = executor, given, 0
        if label != INTERNAL:
            self.labels.append(label)

    def check(self, label: str, whose: str) -> None:
        """ValueError for a label that no executor has."""
        if label not in self.bulk:
            words = f"{whose} requested invalid executor {label!r}"
            raise ValueError(f"{words}; this Config has {', '.join(map(repr, self.labels))}")

    def check_app(self, app: App) -> None:
        """ValueError for an app that names an executor which is not there."""
        for label in app.executors:
            self.check(label, f"Task of app {app.name!r}")

    def choose(self, task: Task) -> str:
        """Label of the executor for a task: of those it may go to, the one with the least to do for its size."""
        if task.app.join:
            return INTERNAL
        labels: Sequence[str] = self.labels if task.app.executors == "all" else task.app.executors
        if len(labels) == 1:
            return labels[0]
        return min(labels, key=lambda label: self.load[label] / self.bulk[label].slots)

    def only(self, task: Task) -> str:
        """Label of the one executor that could have had a task; empty where there are several."""
        if task.app.join:
            return INTERNAL
        labels: Sequence[str] = self.labels if task.app.executors == "all" else task.app.executors
        return labels[0] if len(labels) == 1 else ""

    def move(self, task: Task, label: str) -> None:
        """Have the next try of a task go elsewhere; ValueError for a label that no executor has."""
        self.check(label, task.words)
        if task.tries:  # else it is counted when it is sent
            self.load[task.executor] -= 1
            self.load[label] += 1
        task.executor = label

    def shutdown(self) -> None:
        """Let all of them go; what the first one to fail has raised is raised when all have been told."""
        failure: Exception | None = None
        for executor in self.bulk.values():
            try:
                executor.shutdown()
            except Exception as error:
                logger.exception("executor %s failed to shut down", executor.label)
                failure = failure or error
        if failure is not None:
            raise failure
