"""Ctrl-C and requests to leave, raised only where nothing is lost by it.

Python runs a signal's handler between any two instructions of the main thread: in the midst of a superstep,
with results in hand, or after a lock has been taken and before the ``try`` that gives it back. A script may
catch a KeyboardInterrupt and wait again, and would then wait for ever. So whoever waits or drives holds
interrupts from before its first lock until after its last, looks at what has come between two supersteps
(`check`), and lets go of them while the user's own callbacks run. That makes one at most a sleep late, 5 ms.

Handlers run in the main thread alone, so other threads have nothing to hold. One that wants the main thread to leave
(`post`) knocks by a signal, for nothing else ends a sleep or a wait for a lock in it: SIGUSR1, by which batch systems
warn as well. Where a script has put a handler of its own in that place, it is told at its next wait.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from threading import get_ident

_main = threading.main_thread().ident
_held = False
_pending: BaseException | None = None
#: Knocks that the main thread has not heard.
_knocks = 0
#: What every wait of the main thread raises from now on.
_last_word: Callable[[], BaseException] | None = None
#: Called, in the main thread, at a warning of the batch system.
_warned: Callable[[], object] | None = None


def on_interrupt(number: int, frame: object) -> None:
    """Handle SIGINT as Python does, but not while interrupts are held."""
    _take(KeyboardInterrupt())


def on_request_to_leave(number: int, frame: object) -> None:
    """Handle SIGTERM: the script is left as by ``sys.exit(128 + number)``."""
    _take(SystemExit(128 + number))


def on_warning(number: int, frame: object) -> None:
    """Handle SIGUSR1: another thread has knocked, or the batch system warns."""
    global _knocks
    if _knocks:
        _knocks -= 1
        if not _held:
            check()
    elif _warned is not None:
        _warned()


def hear_warnings(warned: Callable[[], object]) -> None:
    """Have something called at each warning, between any two instructions of the main thread; from that thread."""
    global _warned
    _warned = warned
    signal.signal(signal.SIGUSR1, on_warning)


def post(interrupt: BaseException) -> None:
    """Raise something in the main thread, as soon as nothing is lost by it; from any thread."""
    global _pending, _knocks
    if get_ident() == _main:
        _take(interrupt)
        return
    _pending = interrupt
    if _main is not None and signal.getsignal(signal.SIGUSR1) is on_warning:
        _knocks += 1
        signal.pthread_kill(_main, signal.SIGUSR1)


def refuse_to_wait(error: Callable[[], BaseException] | None) -> None:
    """From now on let every wait of the main thread raise what this makes: what it waits for will not come."""
    global _last_word
    _last_word = error


def check_wait() -> None:
    """Raise what there is to raise in one who is about to wait; it holds no lock."""
    check()
    if _last_word is not None and get_ident() == _main:
        raise _last_word()


def _take(interrupt: BaseException) -> None:
    global _pending
    if not _held:
        raise interrupt
    _pending = interrupt


def adopt_default() -> None:
    """Put `on_interrupt` in the place of Python's own handler, if that is what is there."""
    if get_ident() == _main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, on_interrupt)


def hold() -> bool:
    """Hold interrupts; whether they were not held before, so that the caller has to `release` them."""
    global _held
    if _held or get_ident() != _main:
        return False
    _held = True
    return True


def release() -> None:
    """Hold them no longer, and raise what has come."""
    global _held
    _held = False
    check()


def check() -> None:
    """Raise what has come while interrupts were held; the caller holds no lock and has nothing in hand."""
    global _pending
    if _pending is not None and get_ident() == _main:
        interrupt, _pending = _pending, None
        raise interrupt


def let_through(held: bool) -> bool:
    """Have interrupts raised at once, or held again, round code of the user's; whether they were held."""
    global _held
    if get_ident() != _main:
        return False
    before, _held = _held, held
    return before
