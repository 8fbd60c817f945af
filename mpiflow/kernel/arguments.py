"""What is made of a task's arguments: when it is called, and when it is sent.

At the call its reserved arguments are acted on, its files staged, and the futures among the rest found. When all of
those have ended, they are replaced by their values, a cached call is looked up, and a task with a directory of its
own gets that.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from mpiflow.errors import DependencyError
from mpiflow.kernel.dependencies import UnwrappingFailed, futures_in, gathered, is_plain, unwrapped, with_values
from mpiflow.kernel.futures import INTERNAL
from mpiflow.kernel.reserved import RESERVED, take_note
from mpiflow.kernel.staging import needs_staging
from mpiflow.kernel.task import States, Task, TaskRecord
from mpiflow.kernel.task_directory import TaskDirectories

if TYPE_CHECKING:
    from mpiflow.executors.base import Completion
    from mpiflow.kernel.dataflow import DataFlowKernel
    from mpiflow.kernel.recall import Recall
    from mpiflow.kernel.resolve import Resolver

Values = tuple[tuple[Any, ...], dict[str, Any]]


class Arguments:
    """The arguments of one DataFlowKernel's tasks.

    Parameters
    ----------
    dfk : DataFlowKernel
        Whose tasks they are.
    resolver : Resolver
        Is told of tasks that end here.
    recall : Recall
        Knows the results of cached calls.
    """

    def __init__(self, dfk: DataFlowKernel, resolver: Resolver, recall: Recall) -> None:
        self._dfk = dfk
        self._resolver = resolver
        self._recall = recall
        task_dir = dfk.config.task_dir
        self._directories = None if task_dir == "shared" else TaskDirectories(task_dir, dfk.run_dir)
        self._always = recall.everything or not recall.own or self._directories is not None
        #: Tries that have failed before any executor had them; `take_failed` takes them.
        self.failed: list[Completion] = []

    @property
    def special(self) -> bool:
        """Whether every task has to be prepared, and not only those with dependencies and of cached apps."""
        return self._always or not is_plain(self._dfk.dependency_resolver)

    # --- at the call --------------------------------------------------------------------------------------

    def examine(self, task: Task) -> tuple[Future[Any], ...]:
        """Act on the arguments of a call that mean something; the futures among them."""
        dfk = self._dfk
        if not RESERVED.isdisjoint(task.kwargs):
            take_note(task, self._auto_name)
        try:
            if needs_staging(task.args, task.kwargs):
                label = dfk.places.choose(task)
                # Providers start tasks that wait for this one: they have to find it in the books.
                dfk.unended[task.id] = task
                dfk.data_manager.stage(task, label, dfk.places.bulk[label])
            if is_plain(dfk.dependency_resolver):
                return futures_in(task.args, task.kwargs)
            return gathered(task.args, task.kwargs, dfk.dependency_resolver.traverse_to_gather)
        except BaseException as error:
            dfk.refuse(task, error)
            raise

    def _auto_name(self, record: TaskRecord, stream: str) -> Any:
        chosen = self._dfk.config.std_autopath or self._dfk.default_std_autopath
        return chosen(record, stream)

    # --- when it is sent ----------------------------------------------------------------------------------

    def _values(self, task: Task) -> Values:
        """The arguments of a task with values in the place of futures, which have all ended well."""
        if task.tries:
            return task.args, task.kwargs
        resolver = self._dfk.dependency_resolver
        if is_plain(resolver):
            return with_values(task.args, task.kwargs, self._dfk) if task.depends else (task.args, task.kwargs)
        return unwrapped(task.args, task.kwargs, resolver.traverse_to_unwrap)

    def prepare(self, task: Task) -> Values | None:
        """What a task is to be sent with; None where it has ended instead, or waits, or its try has failed."""
        try:
            arguments = self._values(task)
            # From here on the task holds values: a further try needs no more, and its record shows them.
            task.args, task.kwargs = arguments
        except UnwrappingFailed as failed:
            task.error = DependencyError([(failed.error, failed.argument)], task.id)
            task.state = States.dep_fail
            self._resolver.ended(task)
            return None
        try:
            asked = task.app.cache or self._recall.everything or not self._recall.own
            if asked and task.app.executors != [INTERNAL] and self._recall.answers(task, *arguments):
                return None
            return arguments if self._directories is None else self._in_directory(task, *arguments)
        except Exception as error:  # an argument that no memoizer can know again: a failed try, as in Parsl
            self.failed.append((task, None, error))
            return None

    def take_failed(self) -> list[Completion]:
        """Tries that have failed here since the last call."""
        failed, self.failed = self.failed, []
        return failed

    def _in_directory(self, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Values:
        """The arguments of a task that is to run in a directory of its own."""
        assert self._directories is not None
        places = self._dfk.places
        task.executor = task.executor or places.choose(task)
        if places.bulk[task.executor].in_processes:
            args = self._directories.prepare(task, args)
        return args, kwargs
