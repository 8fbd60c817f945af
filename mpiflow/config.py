"""Config: what a DataFlowKernel runs by."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable
from typing import Any

from mpiflow.errors import ConfigurationError
from mpiflow.executors.base import Executor
from mpiflow.executors.options import options

_EXIT_MODES = ("cleanup", "skip", "wait")


class Config:
    """How to run; may be changed until it is loaded, and a copy is what runs.

    Parameters
    ----------
    executors : iterable of Executor, optional
        Where tasks run; labels must differ. Default: one `MPIExecutor` over all ranks.
    retries : int
        Budget of each task: it is tried again while its failures have cost no more than this.
    retry_handler : callable, optional
        ``handler(exception, task_record) -> float``: what a failure costs; 1 when there is no handler.
    run_dir : str
        Directory under which each run makes its own, numbered.
    exit_mode : {"cleanup", "skip", "wait"}
        What leaving ``with load(...)`` does: give up what has not ended; nothing; wait first.
    internal_tasks_max_threads : int
        Bodies of join_apps that run at once on rank 0.
    initialize_logging : bool
        Whether the run writes a run directory with ``mpiflow.log``.
    seed : int
        For `mpiflow.rng`: the same seed gives every task the same random stream again.

    Raises
    ------
    ConfigurationError
        Naming the field, its value and what is legal; by `frozen`, that is when it is loaded, for a field
        that was changed afterwards.

    Examples
    --------
    >>> Config(retries=2).retries
    2
    """

    def __init__(
        self,
        executors: Iterable[Executor] | None = None,
        retries: int = 0,
        retry_handler: Callable[[BaseException, dict[str, Any]], float] | None = None,
        run_dir: str = "runinfo",
        exit_mode: str = "cleanup",
        internal_tasks_max_threads: int = 10,
        initialize_logging: bool = True,
        seed: int | None = None,
    ) -> None:
        self.executors = executors
        self.retries = retries
        self.retry_handler = retry_handler
        self.run_dir = run_dir
        self.exit_mode = exit_mode
        self.internal_tasks_max_threads = internal_tasks_max_threads
        self.initialize_logging = initialize_logging
        self.seed = seed
        self._check()

    def _check(self) -> None:
        _legal("retries", self.retries, _whole(self.retries, 0), "a whole number from 0 up")
        _legal(
            "retry_handler", self.retry_handler, self.retry_handler is None or callable(self.retry_handler),
            "None or a function of (exception, task_record)",
        )  # fmt: skip
        _legal("run_dir", self.run_dir, isinstance(self.run_dir, str | os.PathLike), "a path")
        _legal("exit_mode", self.exit_mode, self.exit_mode in _EXIT_MODES, "'cleanup', 'skip' or 'wait'")
        threads = self.internal_tasks_max_threads
        _legal("internal_tasks_max_threads", threads, _whole(threads, 1), "a whole number from 1 up")
        logging = self.initialize_logging
        _legal("initialize_logging", logging, isinstance(logging, bool), "True or False")
        _legal("seed", self.seed, self.seed is None or _whole(self.seed, 0), "None or a whole number from 0 up")
        self._check_executors()

    def _check_executors(self) -> None:
        labels: set[str] = set()
        if self.executors is None:
            return
        legal = "an iterable of Executor"
        _legal("executors", self.executors, isinstance(self.executors, Iterable), legal)
        executors = self.executors = list(self.executors)
        _legal("executors", executors, len(executors) > 0, "at least one Executor")
        for executor in executors:
            _legal("executors", executor, isinstance(executor, Executor), legal)
            if executor.label in labels:
                raise ConfigurationError(f"Config: executors: two have the label {executor.label!r}")
            labels.add(executor.label)

    def frozen(self) -> Config:
        """A checked copy with the defaults filled in, which is what a DataFlowKernel keeps."""
        self._check()
        own = copy.copy(self)
        own.executors = self.places()
        if own.seed is None:
            own.seed = options.seed or 0
        return own

    def places(self) -> list[Executor]:
        """The executors; the default one where none was named."""
        from mpiflow.executors.mpi import MPIExecutor

        return list(self.executors) if self.executors is not None else [MPIExecutor()]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"Config({fields})"


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _legal(field: str, value: object, legal: bool, what: str) -> None:
    if not legal:
        raise ConfigurationError(f"Config: {field} is {value!r}; legal is {what}")
