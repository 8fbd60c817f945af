"""The `timeout` decorator: a function that is given up after some seconds, in the thread that calls it.

Python can raise something inside a running function in two ways. A signal's handler may raise, in the main thread
alone; it also ends a sleep, a wait for a lock, a child or a socket, and C code that looks for signals now and then.
Any other thread can be handed an exception, which it meets at its next bytecode: not while it sleeps. So the main
thread uses SIGALRM and other threads are handed the exception. What neither of them stops is C code that never
looks up: for that a process must be killed, and that is what an app's ``walltime`` does.
"""

from __future__ import annotations

import ctypes
import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from mpiflow.errors import AppTimeout

_Function = TypeVar("_Function", bound=Callable[..., Any])


def timeout(f: _Function, seconds: float) -> _Function:
    """Make a function that ends with AppTimeout when it takes too long.

    Parameters
    ----------
    f : callable
        The function.
    seconds : float
        Its limit, above 0.

    Returns
    -------
    callable
        The function with the limit.

    Raises
    ------
    TypeError
        When these are no function and no number of seconds.

    Examples
    --------
    >>> timeout(time.sleep, 0.01)(10)
    Traceback (most recent call last):
    mpiflow.errors.AppTimeout: App sleep exceeded walltime: 0.01 seconds
    """
    if not callable(f):
        raise TypeError(f"timeout takes a function, not {type(f).__name__}: {f!r}")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise TypeError(f"timeout: seconds is {seconds!r}; legal is a number above 0")

    @functools.wraps(f)
    def limited(*args: Any, **kwargs: Any) -> Any:
        in_main = threading.current_thread() is threading.main_thread()
        limit = _by_signal if in_main else _by_injection
        with limit(f"App {getattr(f, '__name__', f)} exceeded walltime: {seconds:g} seconds", seconds):
            return f(*args, **kwargs)

    return limited  # type: ignore[return-value]


@contextmanager
def _by_signal(words: str, seconds: float) -> Iterator[None]:
    """AppTimeout by SIGALRM; a timer that somebody else has set is put back, with what is left of it."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise AppTimeout(words)

    before = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    began = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(1e-6, left - (time.monotonic() - began)), interval)


@contextmanager
def _by_injection(words: str, seconds: float) -> Iterator[None]:
    """AppTimeout from a timer's thread into this one, which meets it at its next bytecode."""
    thread = ctypes.c_ulong(threading.get_ident())
    deciding, over, injected = threading.Lock(), False, False
    hand = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def inject() -> None:
        nonlocal injected
        with deciding:
            if not over:
                injected = True
                hand(thread, ctypes.py_object(AppTimeout))

    timer = threading.Timer(seconds, inject)
    timer.daemon = True
    timer.start()
    try:
        yield
    except AppTimeout as error:
        if error.args:
            raise  # another one, with words of its own
        raise AppTimeout(words) from None
    finally:
        try:
            with deciding:
                over = True
            # Injected, but not met: it strikes here, and not whoever comes next. It is not taken back instead:
            # CPython 3.11 would then look for it for ever, and hang as soon as anybody traces.
            for _ in range(100 if injected else 0):
                pass
        except AppTimeout:
            pass
        timer.cancel()
