"""Cached apps: asking the memoizer before a task is sent, and telling it when one has ended."""

from __future__ import annotations

import sys
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from mpiflow.errors import TaskKilled
from mpiflow.executors.options import options
from mpiflow.kernel.memo_key import code_key
from mpiflow.kernel.memoizer import BasicMemoizer
from mpiflow.kernel.task import States

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpiflow.kernel.memoizer import Memoizer
    from mpiflow.kernel.resolve import Resolver
    from mpiflow.kernel.task import Task, TaskRecord


def default_memoizer() -> Memoizer:
    """What a Config without one remembers by.

    Under ``python -m mpiflow`` cached apps are journalled, and the next run goes on from there; a plain
    ``python script.py``, and a program written for Parsl, keep nothing that nobody has asked for.
    """
    if not options.started_by_mpiflow or options.as_parsl:
        return BasicMemoizer()
    return BasicMemoizer(checkpoint_mode="superstep", checkpoint_files=[] if options.fresh else None)


def _nothing(*_: object) -> None:
    """What a memoizer does that has no such method."""


class Recall:
    """What one DataFlowKernel remembers.

    Parameters
    ----------
    memoizer : Memoizer
        Where it is remembered; started.
    resolver : Resolver
        Gets tasks that are answered from there.
    everything : bool
        Whether apps without ``cache=True`` are remembered too, each call under its number among its likes.
    """

    def __init__(self, memoizer: Memoizer, resolver: Resolver, everything: bool) -> None:
        self.memoizer = memoizer
        self.everything = everything
        #: Whether it is ours, which only wants to hear of cached apps; a user's hears of every task, as in Parsl.
        self.own = isinstance(memoizer, BasicMemoizer)
        # A user's may have been written without these two.
        self._forget: Callable[[str | None], object] = getattr(memoizer, "forget", _nothing)
        self._write: Callable[[], object] = getattr(memoizer, "commit", _nothing)
        self._resolver = resolver
        self._occurrences: dict[str, int] = {}
        self._said = 0

    def say(self) -> None:
        """Tell the user what the memoizer could not read or write; each once."""
        reports = getattr(self.memoizer, "reports", [])
        for words in reports[self._said :]:
            print(f"mpiflow: {words}", file=sys.stderr, flush=True)
        self._said = len(reports)

    def close(self) -> None:
        """Have the memoizer write what is left, and tell how much of the run was not computed again."""
        self.memoizer.close()
        self.say()
        restored = getattr(self.memoizer, "restored_tasks", 0)
        if restored:
            results = "result was" if restored == 1 else "results were"
            print(f"mpiflow: {restored:,} {results} taken from earlier runs", file=sys.stderr, flush=True)

    def answers(self, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a task need not run: its result is known, or the same call is under way.

        Raises
        ------
        Exception
            What the memoizer has against the arguments; the try has failed.
        """
        if task.tries:
            return False  # its own earlier try is what the memoizer would find
        record = task.as_record(args, kwargs) | {"packed": None, "occurrence": None}
        if self.everything and not task.app.cache:
            try:
                self._number(record)
            except (ValueError, KeyError):
                return False  # nobody has asked for this one to be remembered, so it need not be possible
        future = self.memoizer.check_memo(record)
        task.hashsum = record["hashsum"]
        if future is None:
            task.from_memo = False
            return False
        if not future.done():
            self._resolver.follow(task, future)
            return True
        task.from_memo = True
        error = future.exception()
        if error is not None:
            task.error = error
            task.state = States.failed
        else:
            task.value = future.result()
            task.state = States.memo_done
        self._resolver.ended(task)
        return True

    def enter(self, ended: list[Task]) -> None:
        """Enter what has ended, before any future shows it."""
        told = False
        for task in ended:
            if task.hashsum is None and self.own:
                continue
            told = True
            if getattr(task, "from_memo", False) or task.state is States.dep_fail:
                continue
            record = task.as_record() | {"packed": getattr(task, "packed", None)}
            record["memoize"] = record["memoize"] or self.everything
            if task.state is States.exec_done:
                self.memoizer.update_memo_result(record, task.value)
                task.packed = None
            elif isinstance(task.error, CancelledError | TaskKilled):
                self._forget(task.hashsum)
            else:
                self.memoizer.update_memo_exception(record, task.error)
        if told:
            self._write()
            self.say()  # at once: who hears that nothing is kept any more can still do something about it

    def _number(self, record: TaskRecord) -> None:
        """Have a call remembered as the how-many-th with this function and these arguments."""
        record["memoize"] = True
        key = code_key(record)
        record["occurrence"] = self._occurrences.get(key, 0)
        self._occurrences[key] = record["occurrence"] + 1
