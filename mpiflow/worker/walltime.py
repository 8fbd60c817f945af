"""A time limit for a task that runs in the rank itself, where killing the process is no way out."""

from __future__ import annotations

import signal
from contextlib import contextmanager

from mpiflow import context
from mpiflow.errors import AppTimeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise AppTimeout in the code below when it has run so long.

    The alarm reaches Python code and calls that the kernel interrupts (sleep, read); a C function that
    computes goes on until it returns. Runners have no such gap: they are killed.

    Parameters
    ----------
    seconds : float
        0 for no limit.
    """
    if not seconds:
        yield
        return

    def overtime(number: int, frame: FrameType | None) -> None:
        raise AppTimeout(f"App {context.name} exceeded walltime: {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, overtime)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
