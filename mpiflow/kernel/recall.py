"""Cached apps: asking the memoizer before a task is sent, and telling it when one has ended."""

from __future__ import annotations

import sys
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from mpiflow.errors import TaskKilled
from mpiflow.executors.options import options
from mpiflow.kernel.memo_key import code_hash, code_key, numbered
from mpiflow.kernel.memoizer import BasicMemoizer
from mpiflow.kernel.task import States

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from mpiflow.kernel.memoizer import Memoizer
    from mpiflow.kernel.resolve import Resolver
    from mpiflow.kernel.task import Task


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
        #: The memoizer if it can do without records: ours, no method of which somebody has replaced.
        plain = type(memoizer) is BasicMemoizer and memoizer.key == "code"
        self._direct: BasicMemoizer | None = memoizer if plain else None  # type: ignore[assignment]
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
        future = self._looked_up(task, args, kwargs) if self._direct is None else self._found(task, args, kwargs)
        if future is None:
            task.from_memo = False
            return False
        log = task.dfk.task_log
        if log.tells:  # a line for each of a million results would take longer than all else here
            log.remembered(task)
        own = future is task.future  # its value is set
        if not own and not future.done():
            self._resolver.follow(task, future)
            return True
        task.from_memo = True
        error = None if own else future.exception()
        if error is not None:
            task.error = error
            task.state = States.failed
        else:
            if not own:
                task.value = future.result()
            task.state = States.memo_done
        self._resolver.ended(task)
        return True

    def _found(self, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any] | None:
        """The outcome of an equal call, from a memoizer that needs no record; the task's own if its value is set."""
        memoizer, app = self._direct, task.app
        assert memoizer is not None
        if not memoizer.memoize:
            return None
        auto = getattr(task, "auto", ())
        try:
            call = code_hash(app, args, kwargs, (*app.ignore_for_cache, *auto) if auto else app.ignore_for_cache)
        except (ValueError, KeyError):
            if app.cache:
                raise
            return None  # nobody has asked for this one to be remembered, so it need not be possible
        key = call.hexdigest()
        task.hashsum = key = key if app.cache else numbered(call, self._next_of(key))
        return memoizer.find(task, key)

    def _looked_up(self, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any] | None:
        """The outcome of an equal call, from a memoizer that is given records."""
        record = task.as_record(args, kwargs) | {"packed": None, "occurrence": None}
        if self.everything and not task.app.cache:
            try:
                record["occurrence"] = self._next_of(code_key(record))
            except (ValueError, KeyError):
                return None  # as above
            record["memoize"] = True
        future = self.memoizer.check_memo(record)
        task.hashsum = record["hashsum"]
        return future

    def _next_of(self, key: str) -> int:
        """The how-many-th of its likes a call is that is remembered without being asked for."""
        occurrence = self._occurrences.get(key, 0)
        self._occurrences[key] = occurrence + 1
        return occurrence

    def enter(self, ended: list[Task]) -> None:
        """Enter what has ended, before any future shows it."""
        if self._direct is not None:
            self._direct.enter(ended)
            self.say()  # at once: who hears that nothing is kept any more can still do something about it
            return
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
            self.say()
