"""The watchdog: says what is waited for when nothing has happened for a long time.

A farm that hangs tells nobody why, and a person who looks at a job of a thousand ranks after a night has nothing to
go by. So after some minutes without progress rank 0 says what it waits for, once, and again after twice the time,
and so on: a job of day-long tasks is told a handful of times, and loses nothing by it.

It is a thread of its own that sleeps nearly always, and not a look that whoever drives takes now and then: the waits
worth naming are those in which nobody drives. The script may sit in a call that never returns (a collective over
ranks that run no script), the helper thread may be at rest, or whoever drives may be inside MPI with a lock in hand.
The thread needs the interpreter only, and every call that waits long lets go of that. It compares a mark, a few
numbers that change with each progress, so that it costs a task nothing.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Hashable

from mpiflow.monitor.progress import duration
from mpiflow.representation import in_words

#: Looks in the time after which something is said, and the bounds on the pause between two, in seconds.
LOOKS, SHORTEST, LONGEST = 10, 0.02, 10.0


class Watchdog:
    """Watches one thing that may stall.

    Parameters
    ----------
    after : float
        Seconds without progress after which it says so.
    mark : callable
        Gives what changes with every progress; None while nothing is waited for.
    words : callable
        Gives what is waited for, a line each; none when that is nothing to speak of.
    log : callable
        Takes each line for the log as well.

    Examples
    --------
    >>> import sys
    >>> sys.stderr, before = sys.stdout, sys.stderr
    >>> dog = Watchdog(60.0, lambda: 1, lambda: ["task 7 (simulate): rank 3 on n5 has it"], lambda line: None)
    >>> dog.look(0.0)
    >>> dog.look(60.0)
    mpiflow: no progress for 60 s:
      task 7 (simulate): rank 3 on n5 has it
    >>> sys.stderr = before
    """

    def __init__(
        self,
        after: float,
        mark: Callable[[], Hashable | None],
        words: Callable[[], list[str]],
        log: Callable[[str], object],
    ) -> None:
        self._after = after
        self._mark = mark
        self._words = words
        self._log = log
        self._last: Hashable | None = None
        self._since = self._next = 0.0
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start to watch."""
        self._thread = threading.Thread(target=self._run, name="mpiflow-watchdog", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        pause = min(max(self._after / LOOKS, SHORTEST), LONGEST)
        while not self._closing.wait(pause):
            try:
                self.look(time.monotonic())
            except Exception as error:  # nobody hears what a thread raises, and a later look may do better
                self._say([f"the watchdog cannot tell what is waited for: {in_words(error)}"])

    def look(self, now: float) -> None:
        """Say what is waited for, if it is time to.

        Parameters
        ----------
        now : float
            `time.monotonic`, in seconds.
        """
        mark = self._mark()
        if mark is None or mark != self._last:
            self._last = mark
            self._since = now
            self._next = now + self._after
        elif now >= self._next:
            self._next = now + (now - self._since)
            if words := self._words():
                self._say([f"no progress for {duration(now - self._since)}:", *(f"  {line}" for line in words)])

    def _say(self, lines: list[str]) -> None:
        for line in lines:
            self._log(line)
        print("mpiflow: " + "\n".join(lines), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Watch no more."""
        self._closing.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
