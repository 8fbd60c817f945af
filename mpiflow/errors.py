"""Every exception a user can meet.

Names and texts follow Parsl where Parsl has the exception. This module imports nothing: every process of a
job loads it.
"""

from __future__ import annotations


class MpiflowError(Exception):
    """Base of every exception that mpiflow itself raises."""


ParslError = MpiflowError


# --- before anything runs ---------------------------------------------------------------------------------


class ConfigurationError(MpiflowError):
    """A Config, an option or the way of starting is not one that can run."""


class NoDataFlowKernelError(MpiflowError):
    """An app was called with no DataFlowKernel loaded, or with one that has been cleaned up."""


# --- a task's own failure ---------------------------------------------------------------------------------


class AppException(MpiflowError):
    """Base of what goes wrong in an app, other than its own exceptions."""


class AppTimeout(AppException):
    """A task ran longer than its walltime and was ended."""


class AppBadFormatting(AppException):
    """The body of a bash_app failed while it made its command line."""


class BashAppNoReturn(AppException):
    """The body of a bash_app gave no command line."""


class BashExitFailure(AppException):
    """The command of a bash_app ended with a non-zero exit code.

    Attributes
    ----------
    app_name : str
        Name of the app.
    exitcode : int
        What the command ended with, 1 to 255; negative is the number of a signal.
    """

    def __init__(self, app_name: str, exitcode: int) -> None:
        super().__init__(app_name, exitcode)
        self.app_name = app_name
        self.exitcode = exitcode

    def __str__(self) -> str:
        return f"bash_app {self.app_name} failed with unix exit code {self.exitcode}"


class MissingOutputs(AppException):
    """A bash_app ended well, but files named in its ``outputs`` are not there.

    Attributes
    ----------
    reason : str
        What was missing, in words.
    outputs : list of File
        The files that are not there.
    """

    def __init__(self, reason: str, outputs: list[object]) -> None:
        super().__init__(reason, outputs)
        self.reason = reason
        self.outputs = outputs

    def __str__(self) -> str:
        return f"{self.reason}: {', '.join(str(file) for file in self.outputs)}"


class BadStdStreamFile(AppException):
    """A file given as ``stdout`` or ``stderr`` cannot be opened."""


class TaskExited(AppException):
    """A task called ``sys.exit``: in a farm that ends the task, not the worker."""


class SerializationError(MpiflowError):
    """A function, an argument or a result cannot be turned into bytes."""


class DeserializationError(MpiflowError):
    """Bytes that arrived cannot be turned back into the object they were."""


# --- what a task depends on -------------------------------------------------------------------------------


class DataFlowException(MpiflowError):
    """Base of what goes wrong between tasks."""


class PropagatedException(DataFlowException):
    """A failure passed on from other tasks.

    Attributes
    ----------
    dependent_exceptions_tids : list of (BaseException, str)
        Each failure with the words for where it came from.
    task_id : int
        The task that cannot go on.
    """

    _what = "Dependency"

    def __init__(self, dependent_exceptions_tids: list[tuple[BaseException, str]], task_id: int) -> None:
        super().__init__(dependent_exceptions_tids, task_id)
        self.dependent_exceptions_tids = dependent_exceptions_tids
        self.task_id = task_id
        first = dependent_exceptions_tids[0][0]
        # its own cause is the root already: walking down from here would cost a chain of failures its square
        self.__cause__ = first.__cause__ if isinstance(first, PropagatedException) else first

    def __repr__(self) -> str:
        # not the whole tree below it, as Exception's own would give
        return f"{type(self).__name__}(task {self.task_id}, by way of {self.dependent_exceptions_tids[0][1]})"

    def __str__(self) -> str:
        _, sources = self._find_any_root_cause()
        path = " <- ".join(sources)
        return f"{self._what} failure for task {self.task_id}. The representative cause is via {path}"

    def _find_any_root_cause(self) -> tuple[BaseException, list[str]]:
        """Walk first entries to a cause that is no propagated failure; return it and the way there."""
        error: BaseException = self
        sources: list[str] = []
        while isinstance(error, PropagatedException) and error.dependent_exceptions_tids:
            others = len(error.dependent_exceptions_tids) > 1
            error_below, source = error.dependent_exceptions_tids[0]
            sources.append(f"{source} (+ others)" if others else source)
            error = error_below
        return error, sources


class DependencyError(PropagatedException):
    """A task cannot run because something it depends on failed."""


class JoinError(PropagatedException):
    """A future that a join_app returned failed."""

    _what = "Join"


# --- the farm's failures ----------------------------------------------------------------------------------


class ExecutorError(MpiflowError):
    """An executor cannot do what was asked of it."""


class WorkerLost(ExecutorError):
    """The process that ran a task died with it.

    The text names the task, the signal or exit code, the host and rank, and the peak memory of the process.
    """


class FarmLost(ExecutorError):
    """No worker is left that could run what is waiting."""


class TasksAbandoned(MpiflowError):
    """The DataFlowKernel was cleaned up before this task had ended."""
