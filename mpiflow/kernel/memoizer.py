"""Memoizers: what has been computed already, in this run or an earlier one.

The kernel asks with each ready task of an app with ``cache=True``, and tells with each end of one. The first task of
a call is entered before it runs, so that a second finds its future, unfinished as it may be: a call is computed once,
however often it is made at a time. A failure stays in the table as well, but is never written.

Where results are written to, and when, is ``checkpoint_mode``:

=============  ==========================================================================================
None           nowhere
``task_exit``  Parsl's ``checkpoint/tasks.pkl``, at the end of each task
``periodic``   the same file, every ``checkpoint_period``
``dfk_exit``   the same file, when the DataFlowKernel is cleaned up
``manual``     the same file, at each `BasicMemoizer.checkpoint`
``superstep``  the ``journal/``, once a superstep, before a future shows any result that it holds
=============  ==========================================================================================

Every mode writes what is left at the end. A disk that is full ends the writing, in words, and not the run: the
results are still right, they are only not kept.
"""

from __future__ import annotations

import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, NamedTuple

from mpiflow.errors import BadCheckpoint, ConfigurationError, TaskKilled
from mpiflow.executors.options import options
from mpiflow.kernel.checkpoint import append_records, dumps_record
from mpiflow.kernel.earlier_runs import CHECKPOINT, JOURNAL, EarlierResults, all_for_a_run
from mpiflow.kernel.journal import LARGE, Beside, JournalWriter, by_name, pickled
from mpiflow.kernel.memo_key import code_key, parsl_key
from mpiflow.kernel.task import States, Task, TaskRecord
from mpiflow.representation import RepresentationMixin

logger = logging.getLogger("mpiflow")

MODES = (None, "task_exit", "periodic", "dfk_exit", "manual", "superstep")
KEYS = {"code": code_key, "name": parsl_key}

#: Outside their class: to look a state up in it takes a tenth of a microsecond, and there is one a task.
_exec_done, _dep_fail = States.exec_done, States.dep_fail


class _Earlier(NamedTuple):
    """A result of an earlier run."""

    result: Any


class Memoizer(ABC):
    """What the kernel asks whether a call has been computed. Subclass it for a memory of your own."""

    @abstractmethod
    def start(self, *, run_dir: str, config_run_dir: str) -> None:
        """The DataFlowKernel starts.

        Parameters
        ----------
        run_dir : str
            Directory of this run.
        config_run_dir : str
            Directory of all runs.
        """

    @abstractmethod
    def check_memo(self, task: TaskRecord) -> Future[Any] | None:
        """Look for the outcome of a task that is ready.

        Parameters
        ----------
        task : dict
            Its record; ``hashsum`` may be set in it.

        Returns
        -------
        Future or None
            Its outcome then is the task's, once it has one; None: the task has to run.
        """

    @abstractmethod
    def update_memo_result(self, task: TaskRecord, r: Any) -> None:
        """A task has ended with a result; called before its future shows it."""

    @abstractmethod
    def update_memo_exception(self, task: TaskRecord, e: BaseException) -> None:
        """A task has failed; called before its future shows it."""

    @abstractmethod
    def close(self) -> None:
        """The DataFlowKernel ends."""

    def commit(self) -> None:  # noqa: B027 - for most there is nothing to do
        """A superstep is about to show the results that were entered since the last call."""

    def forget(self, hashsum: str) -> None:  # noqa: B027 - as above
        """The task that was to compute a call never will: the next such call has to."""


class BasicMemoizer(RepresentationMixin, Memoizer):
    """Remembers results, and keeps them for later runs if asked to.

    Parameters
    ----------
    checkpoint_files : list of str or path, optional
        Checkpoint directories, journal directories, or directories of runs to take results from. Default: all earlier
        runs if there is a mode, else none. See `get_all_checkpoints` and `get_last_checkpoint`.
    checkpoint_period : str, optional
        "HH:MM:SS" between two writes of the mode "periodic".
    checkpoint_mode : str, optional
        None, "task_exit", "periodic", "dfk_exit", "manual" or "superstep".
    memoize : bool
        Whether anything is remembered at all.
    key : "code" or "name"
        What tells functions from each other: their code, so that an edited one is computed anew, or as in Parsl
        their name and module alone.
    trust : bool
        Take results from files that somebody else could have written.

    Attributes
    ----------
    checkpointed_tasks : int
        Results written by this run so far.
    restored_tasks : int
        Results of earlier runs that were used so far.
    reports : list of str
        What a person should know: what was left out of earlier runs, and why writing has ended.

    Raises
    ------
    ConfigurationError
        A parameter is not what it may be.

    Examples
    --------
    >>> memoizer = BasicMemoizer(checkpoint_mode="task_exit")
    >>> mpiflow.load(Config(memoizer=memoizer))                  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        checkpoint_files: Sequence[str | os.PathLike[str]] | None = None,
        checkpoint_period: str | None = None,
        checkpoint_mode: str | None = None,
        memoize: bool = True,
        key: str = "code",
        trust: bool = False,
    ) -> None:
        self.checkpoint_files = checkpoint_files
        self.checkpoint_period = checkpoint_period
        self.checkpoint_mode = checkpoint_mode
        self.memoize = memoize
        self.key = key
        self.trust = trust
        self._check()
        self._lock = threading.Lock()
        self._timer: threading.Thread | None = None
        self._run_dir: str | None = None
        self._reset()

    def _check(self) -> None:
        """ConfigurationError if a parameter is not legal."""
        if self.checkpoint_mode not in MODES:
            raise ConfigurationError(f"checkpoint_mode is {self.checkpoint_mode!r}; legal is {_one_of(MODES)}")
        if self.key not in KEYS:
            raise ConfigurationError(f"key is {self.key!r}; legal is {_one_of(KEYS)}")
        for name in ("memoize", "trust"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name} is {getattr(self, name)!r}; legal is True or False")
        files = self.checkpoint_files
        if files is not None and (
            not isinstance(files, list | tuple) or not all(isinstance(f, str | os.PathLike) for f in files)
        ):
            raise ConfigurationError(f"checkpoint_files is {files!r}; legal is None or a list of directories")
        if self.checkpoint_mode == "periodic" and self.checkpoint_period is None:
            raise ConfigurationError("Checkpoint period must be specified with periodic checkpoint mode")
        if self.checkpoint_period is not None:
            _seconds(self.checkpoint_period)

    def _reset(self) -> None:
        self.checkpointed_tasks = 0
        self.restored_tasks = 0
        self.reports: list[str] = []
        #: By key: the future of who computes it or did, or the result of an earlier run. That has no future here: one
        #: takes longer to make than to read the result, and that of whoever asked would keep its arguments for good.
        self._table: dict[str, Future[Any] | _Earlier] = {}
        self._earlier = EarlierResults([], False, self._report)
        #: Keys that this run has written, or cannot write.
        self._written: set[str] = set()
        #: Records for ``tasks.pkl`` that wait for their time.
        self._queue: list[bytes] = []
        self._journal: JournalWriter | None = None
        self._broken = False
        self._stop_timer = threading.Event()

    # --- what the kernel calls -----------------------------------------------------------------------------

    def start(self, *, run_dir: str, config_run_dir: str) -> None:
        """Read what earlier runs left.

        Raises
        ------
        BadCheckpoint
            Some of it is missing, damaged or not to be trusted.
        """
        self._check()
        self._end_timer()  # of a kernel that was forgotten, not cleaned up
        self._reset()
        self._run_dir = run_dir
        self._trusting = self.trust or options.trust
        earlier = self._read_earlier(run_dir, config_run_dir)
        if self.memoize:
            logger.info("App caching initialized")
            self._earlier = earlier
        else:
            logger.info("App caching disabled for all apps")
        if self.checkpoint_mode == "superstep":
            self._journal = JournalWriter(os.path.join(run_dir, JOURNAL))
        elif self.checkpoint_mode == "periodic":
            assert self.checkpoint_period is not None
            period = _seconds(self.checkpoint_period)
            self._timer = threading.Thread(target=self._tick, args=(period,), name="mpiflow-checkpoint", daemon=True)
            self._timer.start()

    def _read_earlier(self, run_dir: str, config_run_dir: str) -> EarlierResults:
        """What was named, or with a mode everything there is."""
        if self.checkpoint_files is not None or self.checkpoint_mode is None:
            return EarlierResults(self.checkpoint_files or (), self._trusting, self._report)
        try:
            return EarlierResults(all_for_a_run(run_dir, config_run_dir), self._trusting, self._report)
        except BadCheckpoint as error:
            words = "It is of an earlier run, found without being named; --fresh, or checkpoint_files=[], does without"
            raise BadCheckpoint(f"{error}. {words}") from error

    def check_memo(self, task: TaskRecord) -> Future[Any] | None:
        """The outcome of an equal call, or None for the first, which is entered.

        Raises
        ------
        KeyError
            ``ignore_for_cache`` names an argument that is not there.
        ValueError
            An argument is of a type that `id_for_memo` does not know.
        """
        if not self.memoize or not task["memoize"]:
            task["hashsum"] = None
            return None
        key = task["hashsum"] = KEYS[self.key](task)
        with self._lock:
            found = self._look_up(task, key, task["app_fu"])
        if found is None:
            return None
        if isinstance(found, _Earlier):
            future: Future[Any] = Future()
            future.set_result(found.result)
            return future
        return found

    def update_memo_result(self, task: TaskRecord, r: Any) -> None:
        """Enter a result, and write it if this is the time."""
        key = task.get("hashsum")
        if not self.memoize or not task["memoize"] or not isinstance(key, str):
            return
        with self._lock:
            if not task.get("from_memo"):
                self._table[key] = task["app_fu"]
            self._keep(task, key, r, task.get("packed"))

    def update_memo_exception(self, task: TaskRecord, e: BaseException) -> None:
        """Enter a failure: an equal call fails alike, in this run."""
        key = task.get("hashsum")
        if self.memoize and task["memoize"] and isinstance(key, str) and not task.get("from_memo"):
            with self._lock:
                self._table[key] = task["app_fu"]

    def find(self, task: Task, key: str) -> Future[Any] | None:
        """`check_memo` without a record, which takes longer to make than all else here.

        Parameters
        ----------
        task : Task
            It is ready, and to be remembered.
        key : str
            Under what.

        Returns
        -------
        Future or None
            As of `check_memo`. The task's own, if its result is of an earlier run: it is the task's `value` now.
        """
        own = task.future
        with self._lock:
            found = self._look_up(task, key, own)
        if found is None:
            return None
        if isinstance(found, _Earlier):
            task.value = found.result
            return own
        return found

    def enter(self, ended: Iterable[Task]) -> None:
        """What the ends of tasks mean for those that have a key, and `commit`: once a superstep, without records.

        Parameters
        ----------
        ended : iterable of Task
            They have ended, and no future shows it yet.
        """
        with self._lock:
            keys: list[str] = []
            pickles: list[bytes] = []
            journal, written = self._journal, self._written
            for task in ended:
                key = task.hashsum
                if key is None or getattr(task, "from_memo", False) or task.state is _dep_fail:
                    continue
                if task.state is not _exec_done and isinstance(task.error, CancelledError | TaskKilled):
                    self._table.pop(key, None)
                    continue
                self._table[key] = task.future
                if task.state is not _exec_done:
                    continue
                packed = getattr(task, "packed", None)
                task.packed = None
                # Nearly every result for a journal is at hand as it is to be written; `_keep` can do all others.
                if journal is None or not packed or len(packed) > LARGE or not by_name(packed):
                    self._keep(task, key, task.value, packed)
                elif key not in written:
                    written.add(key)
                    keys.append(key)
                    pickles.append(packed)
            self._enter_in_journal(keys, pickles)
        self.commit()

    def commit(self) -> None:
        """Write what was entered since the last call, in one write; nothing to do but in the mode "superstep"."""
        if self._journal is None:
            return
        with self._lock:
            try:
                if self._journal is not None:
                    self._journal.commit()
            except OSError as error:
                self._give_up(error)

    def forget(self, hashsum: str) -> None:
        """Take an entry out again.

        Parameters
        ----------
        hashsum : str
            The key of a task that was cancelled, for one.
        """
        with self._lock:
            self._table.pop(hashsum, None)

    def close(self) -> None:
        """Write what is left."""
        if self._run_dir is None:
            return
        self._end_timer()
        if self.checkpoint_mode is not None:
            logger.info("Making final checkpoint")
            self.checkpoint()
        with self._lock:
            try:
                if self._journal is not None:
                    self._journal.close()
            except OSError as error:
                self._give_up(error)
            self._journal = None
            self._earlier.close()
        self._run_dir = None

    # --- what a script calls -------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Write all results that have not been written yet.

        Raises
        ------
        ConfigurationError
            No DataFlowKernel has been loaded with this memoizer.

        Examples
        --------
        >>> memoizer = BasicMemoizer(checkpoint_mode="manual")
        >>> mpiflow.load(Config(memoizer=memoizer))              # doctest: +SKIP
        >>> memoizer.checkpoint()                                # doctest: +SKIP
        """
        if self._run_dir is None:
            raise ConfigurationError("checkpoint() of a BasicMemoizer that no loaded Config holds")
        if self.checkpoint_mode == "superstep":
            self.commit()
            return
        if self.checkpoint_mode is None:
            _say_how_many(0, 0)
            return
        with self._lock:
            self._write_queue()

    # --- inside, under the lock ----------------------------------------------------------------------------

    def _look_up(self, task: Task | TaskRecord, key: str, own: Future[Any]) -> Future[Any] | _Earlier | None:
        """What there is under a key; None, and its own future is entered, for a task that has to compute it."""
        found = self._table.get(key)
        if found is None:
            if self._earlier and key in self._earlier:
                found = self._restored(task, key)
            self._table[key] = own if found is None else found
        return None if found is own else found  # its own if it is tried again

    def _restored(self, task: Task | TaskRecord, key: str) -> _Earlier | None:
        """A result of an earlier run, or None if it cannot be had any more: then it is computed again."""
        try:
            result, kept = self._earlier.take(key)
        except Exception as error:  # the file is gone or damaged, or the classes in it are others now
            words = f"task {task['id']} ({task['func_name']}) is computed again"
            self._report(f"{words}; its result of an earlier run is of no use: {type(error).__name__}: {error}")
            return None
        self.restored_tasks += 1
        # A run that reads all earlier ones need not hold their results as well; one that was given some of them does.
        if self.checkpoint_mode != "superstep" or self.checkpoint_files is not None:
            self._keep(task, key, result, kept)
        else:
            self._written.add(key)
        return _Earlier(result)

    def _keep(self, task: Task | TaskRecord, key: str, result: Any, kept: Beside | bytes | None) -> None:
        """Write a result, or lay it up for the time when it is written."""
        if self.checkpoint_mode is None or self._broken or key in self._written:
            return
        self._written.add(key)
        try:
            if isinstance(kept, Beside):
                record = b""
            else:
                record = pickled(result, kept) if self._journal is not None else dumps_record(key, result)
        except Exception as error:  # whatever the result has against being pickled
            words = f"the result of task {task['id']} ({task['func_name']}), of type {type(result).__name__}"
            self._report(f"{words}, is not checkpointed: it cannot be pickled ({type(error).__name__}: {error})")
            return
        try:
            if self._journal is None:
                self._queue.append(record)
                if self.checkpoint_mode == "task_exit":
                    self._write_queue()
                return
            if isinstance(kept, Beside):
                self._journal.add_beside(key, kept, link=not self._trusting)
            else:
                self._journal.add(key, record)
            self.checkpointed_tasks += 1
        except OSError as error:
            self._give_up(error)

    def _enter_in_journal(self, keys: list[str], pickles: list[bytes]) -> None:
        """Have the journal hold small results from the next commit on."""
        if self._journal is None or not keys:
            return
        try:
            self._journal.add_small(keys, pickles)
            self.checkpointed_tasks += len(keys)
        except OSError as error:
            self._give_up(error)

    def _write_queue(self) -> None:
        """Append what waits to ``tasks.pkl``."""
        if self._broken:
            return
        assert self._run_dir is not None
        records, self._queue = self._queue, []
        try:
            append_records(os.path.join(self._run_dir, CHECKPOINT), records)
        except OSError as error:
            self._give_up(error)
            return
        self.checkpointed_tasks += len(records)
        _say_how_many(len(records), self.checkpointed_tasks)

    def _give_up(self, error: OSError) -> None:
        """Write no more, and say so: behind half a record nothing would be found."""
        self._broken = True
        self._queue.clear()
        self._journal = None
        words = f"{self._run_dir}: results cannot be written: {error.strerror or error}"
        self._report(f"{words}; the run goes on, and what it computes from now on is not kept")

    def _report(self, words: str) -> None:
        logger.warning("%s", words)
        self.reports.append(words)

    def _end_timer(self) -> None:
        if self._timer is not None:
            logger.info("Stopping checkpoint timer")
            self._stop_timer.set()
            self._timer.join()
            self._timer = None

    def _tick(self, period: float) -> None:
        """The thread of the mode "periodic"."""
        while not self._stop_timer.wait(period):
            self.checkpoint()


def _seconds(period: str) -> int:
    """Seconds of "HH:MM:SS"; ConfigurationError if it is not one."""
    parts = period.split(":") if isinstance(period, str) else []
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise ConfigurationError(f"invalid checkpoint_period provided: {period!r} expected HH:MM:SS")
    hours, minutes, seconds = map(int, parts)
    total = hours * 3600 + minutes * 60 + seconds
    if not total:
        raise ConfigurationError(f"checkpoint_period is {period!r}; legal is HH:MM:SS of at least a second")
    return total


def _one_of(legal: Sequence[object] | dict[str, Any]) -> str:
    *most, last = map(repr, legal)
    return f"{', '.join(most)} or {last}"


def _say_how_many(now: int, so_far: int) -> None:
    """Parsl's lines."""
    if now:
        logger.info("Done checkpointing %d tasks", now)
    elif so_far:
        logger.debug("No tasks checkpointed in this pass.")
    else:
        logger.warning("No tasks checkpointed so far in this run. Please ensure caching is enabled")
