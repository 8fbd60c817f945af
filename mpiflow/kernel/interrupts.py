"""Ctrl-C and requests to leave, raised only where nothing is lost by it.

Python runs a signal's handler between any two instructions of the main thread: in the midst of a superstep,
with results in hand, or after a lock has been taken and before the ``try`` that gives it back. A script may
catch a KeyboardInterrupt and wait again, and would then wait for ever. So whoever waits or drives holds
interrupts from before its first lock until after its last, looks at what has come between two supersteps
(`check`), and lets go of them while the user's own callbacks run. That makes one at most a sleep late, 5 ms.

Handlers run in the main thread alone, so other threads have nothing to hold.
"""

from __future__ import annotations

import signal
import threading

_main = threading.main_thread().ident
_held = False
_pending: BaseException | None = None


def on_interrupt(number: int, frame: object) -> None:
    """Handle SIGINT as Python does, but not while interrupts are held."""
    _take(KeyboardInterrupt())


def on_request_to_leave(number: int, frame: object) -> None:
    """Handle SIGTERM: the script is left as by ``sys.exit(128 + number)``."""
    _take(SystemExit(128 + number))


def _take(interrupt: BaseException) -> None:
    global _pending
    if not _held:
        raise interrupt
    _pending = interrupt


def adopt_default() -> None:
    """Put `on_interrupt` in the place of Python's own handler, if that is what is there."""
    if threading.get_ident() == _main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, on_interrupt)


def hold() -> bool:
    """Hold interrupts; whether they were not held before, so that the caller has to `release` them."""
    global _held
    if _held or threading.get_ident() != _main:
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
    if _pending is not None and threading.get_ident() == _main:
        interrupt, _pending = _pending, None
        raise interrupt


def let_through(held: bool) -> bool:
    """Have interrupts raised at once, or held again, round code of the user's; whether they were held."""
    global _held
    if threading.get_ident() != _main:
        return False
    before, _held = _held, held
    return before
