"""Config: what a DataFlowKernel runs by.

One class with a field for everything that a script may want to say, checked when it is made and again when it is
loaded, for it may be changed in between. What runs is a copy: one Config can be loaded twice, and a DataFlowKernel
never writes into somebody's Config. Fields that mean something to Parsl alone are accepted, and said to be ignored.
"""

from __future__ import annotations

import concurrent.futures
import copy
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mpiflow.errors import ConfigurationError
from mpiflow.executors.base import Executor
from mpiflow.executors.options import options
from mpiflow.monitor.logs import LogConfig
from mpiflow.parsl.ignored import ignored
from mpiflow.representation import RepresentationMixin

if TYPE_CHECKING:
    from mpiflow.kernel.dependency_resolvers import DependencyResolver
    from mpiflow.kernel.memoizer import Memoizer
    from mpiflow.monitor.hub import MonitoringHub

_EXIT_MODES = ("cleanup", "skip", "wait")
_STRATEGIES = (None, "none", "simple", "htex_auto_scale")
#: Fields that make a BasicMemoizer, by the names that Parsl's Config had for them, with their defaults.
_OF_THE_MEMOIZER: dict[str, Any] = {
    "app_cache": True, "checkpoint_mode": None, "checkpoint_files": None, "checkpoint_period": None,
}  # fmt: skip
#: Fields that do nothing here, with Parsl's defaults.
_IGNORED: dict[str, Any] = {
    "strategy": "simple", "strategy_period": 5, "max_idletime": 120.0, "usage_tracking": 0,
    "project_name": None,
}  # fmt: skip
_MEMOIZER = ("start", "check_memo", "update_memo_result", "update_memo_exception", "close")
_RESOLVER = ("traverse_to_gather", "traverse_to_unwrap")


class Config(RepresentationMixin):
    """How to run; may be changed until it is loaded, and a copy is what runs.

    Parameters
    ----------
    executors : iterable of Executor, optional
        Where tasks run; labels must differ. Any `concurrent.futures.Executor` will do. Default: one `MPIExecutor` over
        all ranks.
    memoizer : Memoizer, optional
        What remembers the results of apps with ``cache=True``; default: a `BasicMemoizer`.
    dependency_resolver : DependencyResolver, optional
        Where futures are looked for among arguments; default: `SHALLOW_DEPENDENCY_RESOLVER`.
    exit_mode : {"cleanup", "skip", "wait"}
        What leaving ``with load(...)`` does: give up what has not ended; nothing; wait first.
    garbage_collect : bool
        Whether a task is forgotten when it has ended; else ``DataFlowKernel.tasks`` keeps it.
    internal_tasks_max_threads : int
        Bodies of join_apps that run at once on rank 0.
    retries : int
        Budget of each task: it is tried again while its failures have cost no more than this.
    retry_handler : callable, optional
        ``handler(exception, task_record) -> float``: what a failure costs; 1 when there is no handler.
    run_dir : str
        Directory under which each run makes its own, numbered.
    std_autopath : callable, optional
        ``autopath(task_record, "stdout" or "stderr")``: what `AUTO_LOGNAME` stands for.
    monitoring : MonitoringHub, optional
        Keeps a database of the run; default: none is kept.
    strategy, strategy_period, max_idletime, usage_tracking, project_name
        Of Parsl, and without effect: there are no blocks to scale, and nobody is told of the run.
    initialize_logging : bool or LogConfig
        Whether the run writes ``mpiflow.log`` into its run directory, or how it logs otherwise.
    seed : int, optional
        For `mpiflow.rng`: the same seed gives every task the same random stream again.
    max_pending : int, optional
        A call waits while so many tasks have not ended; default: it never waits.
    task_dir : {"shared", "task"} or callable
        Where tasks run: in the directory of the script; each in one of its own; in the one that
        ``task_dir(task_record)`` names.
    app_cache, checkpoint_mode, checkpoint_files, checkpoint_period
        Older spellings of ``memoizer=BasicMemoizer(memoize=..., checkpoint_mode=..., ...)``.
    stall_warning : float, optional
        Seconds in which no task ends and no worker reports, after which rank 0 says what is waited for; 0: never.
        Default: those of ``--stall-warning``, 300.

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
        executors: Iterable[Executor | concurrent.futures.Executor] | None = None,
        memoizer: Memoizer | None = None,
        dependency_resolver: DependencyResolver | None = None,
        exit_mode: str = "cleanup",
        garbage_collect: bool = True,
        internal_tasks_max_threads: int = 10,
        retries: int = 0,
        retry_handler: Callable[[Exception, Any], float] | None = None,
        run_dir: str | os.PathLike[str] = "runinfo",
        std_autopath: Callable[[Any, str], Any] | None = None,
        strategy: str | None = "simple",
        strategy_period: float = 5,
        max_idletime: float = 120.0,
        monitoring: MonitoringHub | None = None,
        usage_tracking: int = 0,
        project_name: str | None = None,
        initialize_logging: bool | LogConfig = True,
        seed: int | None = None,
        max_pending: int | None = None,
        task_dir: str | Callable[[Any], str | os.PathLike[str]] = "shared",
        app_cache: bool = True,
        checkpoint_mode: str | None = None,
        checkpoint_files: Sequence[str | os.PathLike[str]] | None = None,
        checkpoint_period: str | None = None,
        stall_warning: float | None = None,
    ) -> None:
        self.executors = executors
        self.memoizer = memoizer
        self.dependency_resolver = dependency_resolver
        self.exit_mode = exit_mode
        self.garbage_collect = garbage_collect
        self.internal_tasks_max_threads = internal_tasks_max_threads
        self.retries = retries
        self.retry_handler = retry_handler
        self.run_dir = run_dir
        self.std_autopath = std_autopath
        self.strategy = strategy
        self.strategy_period = strategy_period
        self.max_idletime = max_idletime
        self.monitoring = monitoring
        self.usage_tracking = usage_tracking
        self.project_name = project_name
        self.initialize_logging = initialize_logging
        self.seed = seed
        self.max_pending = max_pending
        self.task_dir = task_dir
        self.app_cache = app_cache
        self.checkpoint_mode = checkpoint_mode
        self.checkpoint_files = checkpoint_files
        self.checkpoint_period = checkpoint_period
        self.stall_warning = stall_warning
        self._check()

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Config:
        """Make one of a TOML file, whose tables and keys are described in ``docs/configuration.md``.

        Parameters
        ----------
        path : str
            The file.

        Raises
        ------
        ConfigurationError
            Naming the file, the line and the key, and what is legal.
        """
        from mpiflow.configfile import read_config

        return read_config(path)

    @classmethod
    def default(cls) -> Config:
        """What `load` takes when it is given none: the file that ``--config`` names, else all defaults."""
        named = options.config_file
        return cls.from_file(named) if named is not None else cls()

    # --- checks -------------------------------------------------------------------------------------------

    def _check(self) -> None:
        self._check_tasks()
        self._check_memoizer()
        self._check_run()
        self._check_ignored()
        self._check_executors()

    def _check_tasks(self) -> None:
        """Fields about the life of a task."""
        resolver = self.dependency_resolver
        words = "None or a DependencyResolver"
        _legal("dependency_resolver", resolver, resolver is None or _offers(resolver, _RESOLVER), words)
        _legal("exit_mode", self.exit_mode, self.exit_mode in _EXIT_MODES, "'cleanup', 'skip' or 'wait'")
        _legal("garbage_collect", self.garbage_collect, isinstance(self.garbage_collect, bool), "True or False")
        threads = self.internal_tasks_max_threads
        _legal("internal_tasks_max_threads", threads, _whole(threads, 1), "a whole number from 1 up")
        _legal("retries", self.retries, _whole(self.retries, 0), "a whole number from 0 up")
        handler, words = self.retry_handler, "None or a function of (exception, task_record)"
        _legal("retry_handler", handler, handler is None or callable(handler), words)
        pending, words = self.max_pending, "None or a whole number from 1 up"
        _legal("max_pending", pending, pending is None or _whole(pending, 1), words)

    def _check_memoizer(self) -> None:
        words = f"None or a Memoizer (with {', '.join(_MEMOIZER)})"
        _legal("memoizer", self.memoizer, self.memoizer is None or _offers(self.memoizer, _MEMOIZER), words)
        _legal("app_cache", self.app_cache, isinstance(self.app_cache, bool), "True or False")
        files, words = self.checkpoint_files, "None or a list of directories"
        if files is not None and not isinstance(files, str | bytes) and isinstance(files, Iterable):
            files = self.checkpoint_files = list(files)
        _legal("checkpoint_files", files, files is None or _paths(files), words)
        given = [name for name, default in _OF_THE_MEMOIZER.items() if getattr(self, name) != default]
        if given and self.memoizer is not None:
            raise ConfigurationError(
                f"Config: {given[0]} is {getattr(self, given[0])!r}, and there is a memoizer; legal is one of them: "
                "say it to the memoizer"
            )
        if given:
            try:
                self._memoizer_of_fields()
            except ConfigurationError as error:
                raise ConfigurationError(f"Config: {error}") from error

    def _check_run(self) -> None:
        """Fields about the run as a whole."""
        _legal("run_dir", self.run_dir, isinstance(self.run_dir, str | os.PathLike), "a path")
        autopath, words = self.std_autopath, "None or a function of (task_record, 'stdout' or 'stderr')"
        _legal("std_autopath", autopath, autopath is None or callable(autopath), words)
        if self.monitoring is not None:
            self._check_monitoring()
        logging = self.initialize_logging
        _legal("initialize_logging", logging, isinstance(logging, bool | LogConfig), "True, False or a LogConfig")
        stall, words = self.stall_warning, "None or a number of seconds from 0 up"
        _legal("stall_warning", stall, stall is None or _seconds(stall), words)
        _legal("seed", self.seed, self.seed is None or _whole(self.seed, 0), "None or a whole number from 0 up")
        place = self.task_dir
        legal = callable(place) or (isinstance(place, str) and place in ("shared", "task"))
        _legal("task_dir", place, legal, "'shared', 'task' or a function of (task_record)")

    def _check_monitoring(self) -> None:
        from mpiflow.monitor.hub import MonitoringHub

        hub = self.monitoring
        _legal("monitoring", hub, isinstance(hub, MonitoringHub), "None or a MonitoringHub")
        assert hub is not None
        hub.check()

    def _check_ignored(self) -> None:
        """Fields without effect: a Config that is legal here is legal with Parsl."""
        strategy = self.strategy
        legal = strategy is None or isinstance(strategy, str)
        words = "None, 'none', 'simple' or 'htex_auto_scale'"
        _legal("strategy", strategy, legal and strategy in _STRATEGIES, words)
        for field in ("strategy_period", "max_idletime"):
            _legal(field, getattr(self, field), _seconds(getattr(self, field)), "a number of seconds from 0 up")
        level = self.usage_tracking
        _legal("usage_tracking", level, isinstance(level, int) and 0 <= level <= 3, "0, 1, 2 or 3")
        name = self.project_name
        _legal("project_name", name, name is None or isinstance(name, str), "None or a text")

    def _check_executors(self) -> None:
        if self.executors is None:
            return
        legal = "an iterable of Executor"
        _legal("executors", self.executors, isinstance(self.executors, Iterable), legal)
        executors = self.executors = list(self.executors)
        _legal("executors", executors, len(executors) > 0, "at least one Executor")
        labels: set[str] = set()
        for executor in executors:
            _legal("executors", executor, isinstance(executor, Executor | concurrent.futures.Executor), legal)
            label = getattr(executor, "label", "") or type(executor).__name__
            if label in labels:
                raise ConfigurationError(f"Config: executors: two have the label {label!r}")
            labels.add(label)

    # --- what runs ----------------------------------------------------------------------------------------

    def frozen(self) -> Config:
        """A checked copy with the defaults filled in, which is what a DataFlowKernel keeps."""
        self._check()
        ignored("Config", {n: v for n, default in _IGNORED.items() if (v := getattr(self, n)) != default})
        own = copy.copy(self)
        own.executors = self.places()
        if own.seed is None:
            own.seed = options.seed or 0
        if own.stall_warning is None:
            own.stall_warning = options.stall_warning
        if any(getattr(self, name) != default for name, default in _OF_THE_MEMOIZER.items()):
            own.memoizer = self._memoizer_of_fields()
            vars(own).update(_OF_THE_MEMOIZER)
        return own

    def _memoizer_of_fields(self) -> Memoizer:
        """The memoizer that the older spellings ask for."""
        from mpiflow.kernel.memoizer import BasicMemoizer

        return BasicMemoizer(
            memoize=self.app_cache,
            checkpoint_mode=self.checkpoint_mode,
            checkpoint_files=self.checkpoint_files,
            checkpoint_period=self.checkpoint_period,
        )

    def places(self) -> list[Executor | concurrent.futures.Executor]:
        """The executors; the default one where none was named."""
        from mpiflow.executors.mpi import MPIExecutor

        return list(self.executors) if self.executors is not None else [MPIExecutor()]


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and not math.isnan(value)


def _paths(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(path, str | os.PathLike) for path in value)


def _offers(value: object, methods: Iterable[str]) -> bool:
    """Whether something can do what is asked of it, a class of somebody's own included."""
    return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in methods)


def _legal(field: str, value: object, legal: bool, what: str) -> None:
    if not legal:
        raise ConfigurationError(f"Config: {field} is {value!r}; legal is {what}")
