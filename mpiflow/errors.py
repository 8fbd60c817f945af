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


class OptionalModuleMissing(MpiflowError):
    """A part of mpiflow needs a package that is not installed.

    Attributes
    ----------
    module_names : list of str
        What is missing.
    reason : str
        What it is needed for, and how to get it.
    """

    def __init__(self, module_names: list[str], reason: str) -> None:
        super().__init__(module_names, reason)
        self.module_names = module_names
        self.reason = reason

    def __str__(self) -> str:
        return f"{', '.join(self.module_names)} cannot be imported: {self.reason}"


class RequestError(MpiflowError):
    """A run cannot be asked for something: there is none, it has ended, or it does not answer."""


class BatchSystemError(MpiflowError):
    """A command of the batch system is missing, does not answer, or refuses; the text has its own words."""


class SubmitException(BatchSystemError):
    """A job could not be submitted.

    Attributes
    ----------
    job_name : str
        Name of the job.
    message : str
        Why not.
    stdout, stderr : str
        What the batch system printed.
    retcode : int or None
        The exit code of its command, if it has ended.
    """

    def __init__(
        self, job_name: str, message: str, stdout: str = "", stderr: str = "", retcode: int | None = None
    ) -> None:
        super().__init__(job_name, message, stdout, stderr, retcode)
        self.job_name = job_name
        self.message = message
        self.stdout = stdout
        self.stderr = stderr
        self.retcode = retcode

    def __str__(self) -> str:
        return f"job {self.job_name} is not submitted: {self.message}"


class InternalConsistencyError(MpiflowError):
    """mpiflow's own books disagree: an error in mpiflow, worth a report."""


# --- a task's own failure ---------------------------------------------------------------------------------


class AppException(MpiflowError):
    """Base of what goes wrong in an app, other than its own exceptions."""


class AppTimeout(AppException):
    """A task ran longer than its walltime and was ended."""


class MemoryLimitExceeded(AppException):
    """A task, with all it had started, used more memory than its ``memory`` allows, and was ended.

    Attributes
    ----------
    limit, peak : int
        Bytes that it was allowed, and the most it was seen to use.
    """

    def __init__(self, words: str, limit: int = 0, peak: int = 0) -> None:
        super().__init__(words)
        self.args = (words, limit, peak)
        self.limit = limit
        self.peak = peak

    def __str__(self) -> str:
        return str(self.args[0])


class AppBadFormatting(MpiflowError):
    """The body of a bash_app failed while it made its command line."""


class BashAppNoReturn(AppException):
    """The body of a bash_app gave no command line.

    Attributes
    ----------
    reason : str
        The same in words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


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


class MissingOutputs(MpiflowError):
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


class BadStdStreamFile(MpiflowError):
    """A file given as ``stdout`` or ``stderr`` cannot be opened.

    Attributes
    ----------
    reason : str
        Which file, and why not.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TaskExited(AppException):
    """A task called ``sys.exit``: in a farm that ends the task, not the worker."""


class TaskKilled(AppException):
    """A task was ended by its future's ``kill()`` while it ran."""


class SerializationError(MpiflowError):
    """A function, an argument or a result cannot be turned into bytes."""


class DeserializationError(MpiflowError):
    """Bytes that arrived cannot be turned back into the object they were.

    Attributes
    ----------
    reason : str
        Whose bytes, and why not.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


# --- what a task depends on -------------------------------------------------------------------------------


class DataFlowException(MpiflowError):
    """Base of what goes wrong between tasks."""


class BadCheckpoint(DataFlowException):
    """A checkpoint or journal of an earlier run is missing, damaged or not to be trusted; the text names the place."""


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
    """An executor cannot do what was asked of it.

    Attributes
    ----------
    executor : object
        The executor; words alone where no single one is meant.
    reason : str
        Why not.
    """

    def __init__(self, executor: object, reason: str = "") -> None:
        super().__init__(executor, reason)
        self.executor = executor
        self.reason = reason or str(executor)

    def __str__(self) -> str:
        if not self.args[1]:
            return self.reason
        return f"Executor {getattr(self.executor, 'label', self.executor)} failed due to: {self.reason}"


class BadStateException(ExecutorError):
    """An executor has failed as a whole; what it was given fails with this.

    Attributes
    ----------
    reason : str
        The failure of the executor, in words.
    """

    def __init__(self, executor: object, exception: BaseException | str) -> None:
        super().__init__(executor, str(exception))


class ScalingFailed(ExecutorError):
    """An executor could not get more workers. Never raised by the farm, whose workers are the job's ranks."""

    def __str__(self) -> str:
        return f"Executor {getattr(self.executor, 'label', self.executor)} failed to scale due to: {self.reason}"


class UnsupportedFeatureError(ExecutorError):
    """An executor was asked for something that it does not offer.

    Attributes
    ----------
    feature : str
        What was asked for; a whole sentence when the executor is not named.
    current_executor, target_executor : str
        The executor that was asked, and one that offers it; empty where there is none.
    """

    def __init__(self, feature: str, current_executor: str = "", target_executor: str = "") -> None:
        super().__init__(feature)
        self.args = (feature, current_executor, target_executor)
        self.feature = feature
        self.current_executor = current_executor
        self.target_executor = target_executor

    def __str__(self) -> str:
        if not self.current_executor:
            return self.feature
        words = f"The {self.feature} feature is unsupported in {self.current_executor}"
        return f"{words}; use {self.target_executor}" if self.target_executor else words


class InvalidResourceSpecification(ExecutorError):
    """A ``parsl_resource_specification`` asks for what the executor does not have.

    Attributes
    ----------
    invalid_keys : set of str
        Keys that mean nothing to the executor, or lack a legal value.
    message : str
        What is legal.
    """

    def __init__(self, invalid_keys: set[str], message: str = "") -> None:
        super().__init__(invalid_keys, message)
        self.invalid_keys = invalid_keys
        self.message = message

    def __str__(self) -> str:
        return f"Invalid Resource Specification Supplied: {self.invalid_keys}. {self.message}"


class NotEnoughRanks(ExecutorError):
    """A task needs more ranks or nodes than its executor has, or than are left."""


class TooManyJobFailuresError(MpiflowError):
    """An executor gave up because its workers kept failing."""


class BadMessage(MpiflowError):
    """A message that is none of ours, or of another version.

    Attributes
    ----------
    reason : str
        What is wrong with it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"Received an unsupported message. Reason: {self.reason}"


class WorkerLost(ExecutorError):
    """The process that ran a task died with it.

    The text names the task, the signal or exit code, the host and rank, and the peak memory of the process.

    Attributes
    ----------
    worker_id : int or None
        The rank it was a process of.
    hostname : str
        Where it ran; empty if that is not known.
    """

    def __init__(self, words: str, worker_id: int | None = None, hostname: str = "") -> None:
        super().__init__(words)
        self.args = (words, worker_id, hostname)
        self.worker_id = worker_id
        self.hostname = hostname

    def __str__(self) -> str:
        return self.reason


class ManagerLost(WorkerLost):
    """A whole rank was lost, and with it the process that ran a task."""


class FarmLost(ExecutorError):
    """No worker is left that could run what is waiting."""


class JobDrained(SystemExit):
    """The job is being drained, and nothing is left that could run in time: the script is asked to leave.

    Raised in the script's main thread, where it waits, computes or sleeps. It is not an `Exception`, so that none of a
    script's handlers takes it for a failed task; ``finally`` and ``with`` tidy up as usual.
    """


class TasksAbandoned(MpiflowError):
    """The DataFlowKernel was cleaned up before this task had ended."""
