"""Who takes the supersteps.

Whoever waits drives: a caller inside `result` takes supersteps itself until its future is there. Handing each
of them to a thread instead would cost a task that is alone in flight 68 µs where this costs 3 (two switches
of the interpreter lock), and gain nothing in throughput.

Somebody must drive when nobody waits in our functions: a helper thread. It is woken at once when a script
waits in somebody else's (`concurrent.futures.wait`, an event loop, a callback), and looks in after about a
millisecond otherwise, so that workers stay fed while the script computes. It leaves the lock to any caller
that comes to wait. While it drives, the interpreter switches threads after 0.5 ms instead of 5: with the
default, a script that computes would get a superstep in only every fifth millisecond.

One lock is held while a superstep is taken. Futures are fulfilled and callbacks run after it is released, by
the thread that took it; so a callback may call apps and may wait (it drives, then). Callbacks that are still
to be run lie in one queue, which such a nested wait empties too.

A superstep that fails is the last one: what it had in hand is lost, and nobody can tell what else. From then on each
wait raises its error, and so does the future of whatever has not ended, whenever it was called: those who wait in
somebody else's functions have only their futures to tell them.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from threading import get_ident
from typing import TYPE_CHECKING, Any

from mpiflow.errors import MpiflowError
from mpiflow.kernel import interrupts

if TYPE_CHECKING:
    from collections.abc import Callable

#: How long to look for messages without sleeping, in waits of so many seconds: a message is noticed within a
#: microsecond by such a wait, and only after the three of an empty superstep without it.
SPIN, MOMENT = 150e-6, 10e-6
#: Shortest and longest sleep after that, in seconds.
SHORTEST, LONGEST = 15e-6, 0.001
#: Longest sleep when nothing has happened for `QUIET_AFTER` seconds: long tasks are running everywhere.
QUIET_AFTER, LONGEST_QUIET = 0.5, 0.005
#: After so long without a superstep the helper thread takes one, in seconds.
HELP_AFTER = 0.001
#: Without anything to do for so long it rests until it is woken, in seconds.
REST_AFTER = 0.050
#: Seconds between two looks at what else there may be, while it rests.
LOOK_IN_EVERY = 1.0
#: Seconds that a superstep under way may take to end when all is to end. It may wait for a lock of the script's.
CLOSE_WITHIN = 5.0
#: Callbacks that wait inside one another, at most.
DEEPEST = 10
#: The interpreter's switch interval while the helper thread drives, in seconds.
SWITCH = 0.0005


class _Request:
    """A change that somebody wants made between two supersteps."""

    __slots__ = ("change", "changed", "done", "failure")

    def __init__(self, change: Callable[[], bool]) -> None:
        self.change = change
        self.changed = False
        self.failure: Exception | None = None
        self.done = threading.Event()


class Driver:
    """Drives one DataFlowKernel.

    Parameters
    ----------
    superstep : callable
        Takes one superstep; whether anything happened.
    announce : callable
        Fulfils the futures of what has ended, and defers those with callbacks.
    sleep : callable
        Waits at most so many seconds, less when a message may have come; without sleeping if they are but `MOMENT`.
    unfinished : callable
        Whether any task has not ended.
    fail_rest : callable
        Has what has not ended fail with an error, and defers the futures with callbacks. Called under the lock.
    look_in : callable, optional
        Called about once a second while there is nothing to do and nobody drives.
    """

    def __init__(
        self,
        superstep: Callable[[], bool],
        announce: Callable[[], object],
        sleep: Callable[[float], None],
        unfinished: Callable[[], bool],
        fail_rest: Callable[[BaseException], object],
        look_in: Callable[[], object] | None = None,
    ) -> None:
        self._superstep = superstep
        self._announce = announce
        self._sleep = sleep
        self._unfinished = unfinished
        self._fail_rest = fail_rest
        self._look_in = look_in
        self._lock = threading.Lock()
        #: The thread of each caller inside `wait_until`; the helper thread makes room for them. A list, since
        #: appending and removing are atomic and counting is not.
        self.waiters: list[int] = []
        self._helping = False
        self._callbacks: deque[Any] = deque()
        self._requests: deque[_Request] = deque()
        self._depths: dict[int, int] = {}  # callbacks under way, one inside the other, by thread
        self._last = 0.0  # when the last superstep was taken
        self._wake = threading.Event()
        self._closed = False
        self._stopped = False  # no superstep is taken any more: it is closed, or one has failed
        self._inside = 0  # the thread that takes a superstep at this moment
        self._resting = False
        self._urgent = False  # somebody waits where we cannot see it
        self._nudged = False  # a caller would take a superstep itself, if the helper thread let it
        self._helper: threading.Thread | None = None
        self.failure: BaseException | None = None

    # --- waiting ------------------------------------------------------------------------------------------

    @property
    def inside(self) -> bool:
        """Whether the caller is called by a superstep, as a retry handler is."""
        return self._inside == get_ident()

    def wait_until(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Drive until `done()`, at most so many seconds; whether it is."""
        end = None if timeout is None else time.monotonic() + timeout
        thread = get_ident()
        if self._inside == thread and not done():
            raise MpiflowError("a retry handler waits for a task: it is called inside a superstep, which would not end")
        holding = interrupts.hold()
        self.waiters.append(thread)
        try:
            while not done():
                interrupts.check_wait()
                if self.failure is not None:
                    raise self.failure
                if end is not None and time.monotonic() >= end:
                    return False
                if self._callbacks and self._may_call_back():
                    self.run_callbacks()  # what we wait for may wait behind them, when this is one of them
                elif self._closed:
                    time.sleep(HELP_AFTER)  # the cleanup is about to fulfil what is left
                elif self._lock.acquire(False):
                    self._drive(done, end)
                elif self._helping:
                    if self._lock.acquire(timeout=LONGEST_QUIET):
                        self._drive(done, end)
                else:
                    time.sleep(HELP_AFTER / 2)  # another caller drives, and fulfils our future too
        finally:
            self.waiters.remove(thread)
            if holding:
                interrupts.release()
        return True

    def _drive(self, done: Callable[[], bool], end: float | None, gives_way: bool = False) -> None:
        """Take supersteps, the lock being held on entry; it is free again on return, whatever is raised.

        The helper thread gives way to callers who wait, or would take a superstep.
        """
        held = True
        quiet_since = time.perf_counter()
        try:
            while not self._stopped:
                if self._requests:
                    self._serve()
                    continue  # a superstep of theirs may have failed
                happened = self._step()
                if self._callbacks and self._may_call_back():
                    self._lock.release()
                    held = False
                    self.run_callbacks()
                    held = self._lock.acquire(False)
                    if not held:
                        return
                if done() or (gives_way and (self.waiters or self._nudged)):
                    return
                interrupts.check()
                if happened:
                    quiet_since = self._last
                elif end is not None and time.monotonic() >= end:
                    return
                else:
                    self._pause(self._last - quiet_since)
        finally:
            if held:
                self._lock.release()

    def _step(self) -> bool:
        """One superstep and its announcement, the lock being held; whether anything happened."""
        self._inside = get_ident()
        try:
            happened = self._superstep()
            self._last = time.perf_counter()
            if happened:
                self._announce()
        except BaseException as failure:
            # An executor that fails: what was in hand is lost, and waiting for it would never end. So every
            # wait from now on raises this.
            self._note(failure)
            self._stopped |= isinstance(failure, Exception)  # after an interrupt, what can go on goes on
            raise
        finally:
            self._inside = 0
        return happened

    def _note(self, failure: BaseException) -> None:
        """Keep the first failure: what comes after it is its consequence."""
        if self.failure is None:
            self.failure = failure

    def _pause(self, quiet: float) -> None:
        if quiet < SPIN:
            self._sleep(MOMENT)
            return
        longest = LONGEST if quiet < QUIET_AFTER else LONGEST_QUIET
        self._sleep(min(max(quiet / 10, SHORTEST), longest))

    # --- callbacks ----------------------------------------------------------------------------------------

    def defer(self, future: Any) -> None:
        """Have a future's callbacks run when the lock is free."""
        self._callbacks.append(future)

    def run_callbacks(self) -> None:
        """Call what futures were given to call; outside the lock."""
        thread = get_ident()
        self._depths[thread] = self._depths.get(thread, 0) + 1
        try:
            while self._callbacks:
                try:
                    future = self._callbacks.popleft()
                except IndexError:
                    return  # another thread took the last one
                before = interrupts.let_through(False)
                try:
                    future.run_callbacks()
                finally:
                    interrupts.let_through(before)
        finally:
            self._depths[thread] -= 1
            if not self._depths[thread]:
                del self._depths[thread]

    def _may_call_back(self) -> bool:
        """Whether this thread may run callbacks: each that waits runs those behind it, one on top of the other."""
        return self._depths.get(get_ident(), 0) < DEEPEST

    # --- from inside a call -------------------------------------------------------------------------------

    def nudge(self) -> None:
        """Take one superstep if nobody else is at it, from a caller that does not wait.

        No callbacks are run: the caller may hold a lock of its own that a callback wants.
        """
        self._nudged = True
        holding = interrupts.hold()
        try:
            if self._lock.acquire(False):
                self._nudged = False
                try:
                    if not self._stopped:
                        self._step()
                    if self._callbacks:
                        self.wake()
                finally:
                    self._lock.release()
        finally:
            if holding:
                interrupts.release()

    def exclusively(self, change: Callable[[], bool]) -> bool:
        """Change something between two supersteps; whether it was changed, and then a superstep has been taken.

        Whoever drives makes the change, since it keeps the lock for as long as it waits; with nobody driving it
        is the caller. Not from inside a superstep (a retry handler, say), where the change is made at once.
        """
        if self.inside:
            return change()
        request = _Request(change)
        holding = interrupts.hold()
        self._requests.append(request)
        self._nudged = True  # the helper thread gives way
        try:
            while not request.done.is_set():
                if self._lock.acquire(False):
                    try:
                        self._nudged = False
                        self._serve()
                    finally:
                        self._lock.release()
                else:
                    request.done.wait(HELP_AFTER)
        finally:
            if holding:
                interrupts.release()
        if self._callbacks:
            self.wake()
        if request.failure is not None:
            raise request.failure
        return request.changed

    def _serve(self) -> None:
        """Make the changes that others have asked for, the lock being held."""
        while self._requests:
            try:
                request = self._requests.popleft()
                request.changed = request.change()
                if request.changed and not self._stopped:
                    self._step()
            except Exception as failure:  # it belongs to whoever has asked
                request.failure = failure
            finally:
                request.done.set()

    # --- the helper thread --------------------------------------------------------------------------------

    def wake(self) -> None:
        """Somebody waits where we cannot see it: have the helper thread drive now."""
        self._urgent = True
        self._wake.set()

    def notice(self) -> None:
        """A task has been called: the helper thread, if it rests, is to look in after its usual time."""
        if self._resting:
            self._resting = False
            self._last = time.perf_counter()
            self._wake.set()

    def start(self) -> None:
        """Start the helper thread."""
        interrupts.adopt_default()
        self._helper = threading.Thread(target=self._help, name="mpiflow-helper", daemon=True)
        self._helper.start()

    def _help(self) -> None:
        while not self._closed:
            self._wake.wait(self._patience())
            self._wake.clear()
            if self._closed:
                return
            if self.waiters and not self._stopped:
                continue
            if not (self._unfinished() or self._callbacks):
                self._look_round()
                continue
            due = self._urgent or time.perf_counter() - self._last >= HELP_AFTER
            if due and self._lock.acquire(False):
                self._urgent = self._nudged = False
                self._drive_as_helper()

    def _patience(self) -> float | None:
        """How long the helper thread sleeps: a long time, or until it is woken, when nothing has gone on for a while.

        It does not rest at once: being woken for each of a stream of single tasks would cost each of them
        more than all the rest.
        """
        if self._unfinished() or time.perf_counter() - self._last < REST_AFTER:
            return 2 * HELP_AFTER
        self._resting = True
        if self._unfinished():  # a call may have come between the two lines
            self._resting = False
            return 2 * HELP_AFTER
        return None if self._look_in is None else LOOK_IN_EVERY

    def _look_round(self) -> None:
        """Look at what else there may be, such as requests from outside: nobody takes supersteps now."""
        if self._look_in is not None and self._lock.acquire(False):
            try:
                self._look_in()
            except Exception as failure:
                self._note(failure)  # those who wait are told; nobody hears what a thread raises
                self._stopped = True
            finally:
                self._lock.release()

    def _drive_as_helper(self) -> None:
        self._helping = True
        _switch_often(1)
        try:
            if self._stopped:
                self._end_the_rest()
            else:
                self._drive(lambda: not self._unfinished(), None, gives_way=True)
            self.run_callbacks()
        except BaseException as failure:  # a retry handler's sys.exit() too: without this thread others would wait on
            # On the console as well: the futures that are about to fail may be looked at late, or never.
            if self.failure is None or self.failure is failure:
                words = f"a superstep has failed: {type(failure).__name__}: {failure}"
                print(f"mpiflow: {words}", file=sys.stderr, flush=True)
            self._note(failure)
            self._stopped = True
        finally:
            _switch_often(-1)
            self._helping = False

    def _end_the_rest(self) -> None:
        """Have what has not ended fail, if a superstep has; the lock is held on entry and free on return."""
        try:
            if self.failure is not None and not self._closed:
                self._fail_rest(self.failure)
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the helper thread."""
        self._closed = self._stopped = True
        self._wake.set()
        if self._helper is not None and self._helper is not threading.current_thread():
            self._helper.join(CLOSE_WITHIN)
        if self._lock.acquire(timeout=CLOSE_WITHIN):  # whoever was in the midst of a superstep has ended it
            self._lock.release()
        else:
            words = f"a superstep has not ended within {CLOSE_WITHIN:g} s; the end does without it"
            print(f"mpiflow: {words}", file=sys.stderr, flush=True)


_helping = 0  # helper threads that drive at this moment, of all kernels
_interval = sys.getswitchinterval()  # the interpreter's own, before the first of them
_helping_lock = threading.Lock()


def _switch_often(change: int) -> None:
    """Lower the switch interval while any helper thread drives; one more of them does, or one less."""
    global _helping, _interval
    with _helping_lock:
        if _helping == 0:
            _interval = sys.getswitchinterval()
            sys.setswitchinterval(SWITCH)
        _helping += change
        if _helping == 0:
            sys.setswitchinterval(_interval)
