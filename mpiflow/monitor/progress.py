"""How far a run has come: a bar on a terminal, a line every half minute in a batch log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

#: Seconds between two lines in a log, and between two looks of the bar.
LINE_EVERY, BAR_EVERY = 30.0, 0.2


class Counts(NamedTuple):
    """Where the tasks of a run are.

    Attributes
    ----------
    called, done, failed, running, waiting : int
        Tasks; ``waiting`` are those no worker has yet.
    busy, workers : int
        Workers with something to do, and all.
    superstep : int
        Rounds so far.
    """

    called: int
    done: int
    failed: int
    running: int
    waiting: int
    busy: int
    workers: int
    superstep: int


def describe(counts: Counts, seconds: float) -> str:
    """The counts as one line.

    Examples
    --------
    >>> describe(Counts(10, 4, 0, 2, 4, 1, 2, 7), 2.0)
    '4 of 10 tasks done, 2 running, 4 waiting, 2.0 tasks/s, 3 s left, 1 of 2 workers busy, superstep 7'
    """
    ended = counts.done + counts.failed
    rate = ended / seconds if seconds > 0 else 0.0
    parts = [f"{counts.done:,} of {counts.called:,} tasks done"]
    if counts.failed:
        parts.append(f"{counts.failed:,} failed")
    parts += [f"{counts.running:,} running", f"{counts.waiting:,} waiting", f"{_rate(rate)} tasks/s"]
    if rate > 0 and counts.called > ended:
        parts.append(f"{duration((counts.called - ended) / rate)} left")
    parts += [f"{counts.busy} of {counts.workers} workers busy", f"superstep {counts.superstep:,}"]
    return ", ".join(parts)


def _rate(rate: float) -> str:
    return f"{rate:.1f}" if rate < 100 else f"{rate:,.0f}"


def duration(seconds: float) -> str:
    """Seconds for a person.

    Examples
    --------
    >>> duration(42.2), duration(3601), duration(200_000)
    ('42 s', '1 h 00 min', '2 d 7 h')
    """
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


class Progress:
    """Shows progress whenever it is time to; called by every superstep.

    Parameters
    ----------
    counts : callable
        Gives the `Counts` of the moment.
    stream : file, optional
        Where to; default: standard error.
    """

    def __init__(self, counts: Callable[[], Counts], stream: TextIO | None = None) -> None:
        self._counts = counts
        self._stream = stream or sys.stderr
        self._started = time.monotonic()
        self._bar: Any = None
        self._on_terminal = self._stream.isatty()
        self._next = self._started + (BAR_EVERY if self._on_terminal else LINE_EVERY)
        self._shown = False

    def tick(self, now: float) -> None:
        """Show how far it is, if it is time to.

        Parameters
        ----------
        now : float
            `time.monotonic`, in seconds.
        """
        if now < self._next:
            return
        counts = self._counts()
        self._shown = True
        if self._on_terminal:
            self._next = now + BAR_EVERY
            self._show_bar(counts, now - self._started)
        else:
            self._next = now + LINE_EVERY
            print(f"mpiflow: {describe(counts, now - self._started)}", file=self._stream, flush=True)

    def _show_bar(self, counts: Counts, seconds: float) -> None:
        if self._bar is None:
            self._bar = _make_bar(self._stream)
            self._bar.start()
        words = describe(counts, seconds)
        self._bar.update(self._bar.task_ids[0], completed=counts.done, total=counts.called, words=words)
        self._bar.refresh()

    def close(self) -> None:
        """Take the bar away; say how it ended, if anything was ever shown."""
        if self._bar is not None:
            self._bar.stop()
        if self._shown:
            counts, seconds = self._counts(), time.monotonic() - self._started
            words = f"{counts.done:,} tasks done, {counts.failed:,} failed in {duration(seconds)}"
            print(f"mpiflow: {words}, {counts.superstep:,} supersteps", file=self._stream, flush=True)


def _make_bar(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        BarColumn(bar_width=24),
        TextColumn("{task.fields[words]}"),
        console=Console(file=stream),
        auto_refresh=False,
        transient=True,
    )
    bar.add_task("", total=1, words="")
    return bar
