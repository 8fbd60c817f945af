"""What the log says of single tasks, in Parsl's words and fields.

Two lines and more a task are of use for the first thousands and a burden for the millions after them: a line costs
as much as a task. So a run that has not asked for it (`FileLogging` or `JSONLogging` in its Config, whatever their
level) hears of its first `TOLD_OF` tasks only, then one line that says so. Failures are always told.

The monitoring hears of every task, by the same calls.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from mpiflow.data.files import File
from mpiflow.data.futures import DataFuture
from mpiflow.errors import JoinError
from mpiflow.kernel import interrupts
from mpiflow.kernel.futures import AppFuture
from mpiflow.kernel.task import States

if TYPE_CHECKING:
    from mpiflow.kernel.monitoring import Monitoring
    from mpiflow.kernel.task import Task

logger = logging.getLogger("mpiflow.kernel")

#: Tasks that a log tells of when nobody has asked for more.
TOLD_OF = 1000


class TaskLog:
    """Tells the log of tasks.

    Parameters
    ----------
    run_id, run_dir : str
        Of the DataFlowKernel, for the fields.
    everything : bool
        Whether to tell of every task.

    Attributes
    ----------
    tells : bool
        Whether anybody wants to hear of tasks; asked before each call, since most calls are not told of.
    monitoring : Monitoring or None
        Hears of every task, if there is one.
    """

    def __init__(self, run_id: str, run_dir: str, everything: bool) -> None:
        self._fields = {"mpiflow.dfk": run_id, "run": run_dir}
        self._given: dict[str, int] = {}
        self._left = -1 if everything else TOLD_OF
        self._logs = self.tells = logger.isEnabledFor(logging.INFO)
        self.monitoring: Monitoring | None = None

    def tell_too(self, monitoring: Monitoring) -> None:
        """Have the monitoring hear of tasks."""
        self.monitoring = monitoring
        self.tells = True

    def called(self, task: Task, depends: Sequence[Future[Any]]) -> None:
        """A task has been made of a call."""
        if self.monitoring is not None:
            self.monitoring.called(task, depends)
        if not self._logs:
            return
        if self._left == 0:
            self._logs = False
            self.tells = self.monitoring is not None
            self._say("the first %d tasks were told of; FileLogging() in the Config tells of all", TOLD_OF)
            return
        self._left -= 1
        for future in depends:
            source = _source(future, task)
            field = {"dependency_object": repr(future)} if source is None else {"dependency_task": source.id}
            self._say("Task %d has dependency %s", task.id, _described(future, task), task=task.id, **field)
        waiting = "not waiting on any dependency"
        if depends:
            waiting = f"waiting on {', '.join(_described(future, task) for future in depends)}"
        name = task.app.name
        self._say("Task %d submitted for App %s, %s", task.id, name, waiting, task=task.id, app_name=name)
        self._say("Task %d has state pending", task.id, task=task.id, task_state="pending", **{"try": 0})

    def changed(self, task: Task, before: States) -> None:
        """A task has gone from one state to another, and not to its last."""
        if self.monitoring is not None:
            self.monitoring.changed(task)
        if self._logs:
            self._say_changed(task, before)

    def _say_changed(self, task: Task, before: States) -> None:
        self._say(
            "Task %d changing state from %s to %s", task.id, before.name, task.state.name,
            task=task.id, task_state=task.state.name, **{"try": max(0, task.tries - 1)},
        )  # fmt: skip

    def remembered(self, task: Task) -> None:
        """A task need not run: an equal call has, or does."""
        if self._logs:
            self._say("Task %d using result from cache", task.id, task=task.id)

    def ended(self, task: Task) -> None:
        """A task is in its final state."""
        if self.monitoring is not None:
            self.monitoring.ended(task)
        if not self._logs:
            return
        before = States.launched if task.tries else States.pending
        if task.app.join and (task.state is States.exec_done or isinstance(getattr(task, "error", None), JoinError)):
            before = States.joining
        self._say_changed(task, before)

    def launched(self, task: Task, executor: str, numbered: bool) -> None:
        """A try of a task has been handed to an executor; to one that numbers what it is given, or not."""
        if self.monitoring is not None:
            self.monitoring.launched(task, executor)
        if not self._logs:
            return
        fields: dict[str, object] = {"task": task.id, "executor": executor, "try": task.tries - 1}
        if numbered:
            fields["executor_task"] = self._given[executor] = self._given.get(executor, 0) + 1
        self._say("Task %d try %d launched on executor %s", task.id, task.tries - 1, executor, **fields)
        for name, key in (("Standard out", "stdout"), ("Standard error", "stderr")):
            if key in task.kwargs:
                self._say("%s for task %d %s", name, task.id, _stream(task.kwargs[key]), task=task.id)

    def _say(self, words: str, *values: object, **fields: object) -> None:
        named = {f"mpiflow.{name}": value for name, value in fields.items()}
        # A handler of the log has a lock, which an interrupt must not leave taken: others write there too.
        holding = interrupts.hold()
        try:
            logger.info(words, *values, extra={**self._fields, **named})
        finally:
            if holding:
                interrupts.release()


def _described(future: Future[Any], task: Task) -> str:
    if isinstance(future, DataFuture):
        return f"DataFuture from task {future.tid}"
    source = _source(future, task)
    return repr(future) if source is None else f"task {source.id}"


def _source(future: Future[Any], task: Task) -> Task | None:
    """The task of the same kernel whose future this is, if it is one."""
    source = future.task if isinstance(future, AppFuture) else None
    return source if source is not None and source.dfk is task.dfk else None


def _stream(target: object) -> str:
    if target is None:
        return "will not be redirected"
    if isinstance(target, File):
        return f"will be staged to {target.url}"
    if isinstance(target, str | os.PathLike):
        return f"will be redirected to {os.fspath(target)!s}"
    if isinstance(target, tuple) and len(target) == 2 and isinstance(target[0], str | os.PathLike):
        return f"will be redirected to {os.fspath(target[0])!s} with mode {target[1]}"
    if isinstance(target, DataFuture):
        return f"will be staged to {target.file_obj.url}"
    return f"has unknown specification: {target!r}"
