"""Attend to a launcher from its start to its end: pass on signals and what is typed, and judge its exit code.

The launcher runs in a session of its own, so whatever a terminal or a batch system sends to a group reaches
this process and not the launcher, and is passed on once, in the form that this launcher hands to the ranks.
One `select` waits for everything there is: signals (as bytes in a pipe), typing, and a deadline.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from mpiflow.worker.linux import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import IO

# HUP is a closed terminal. USR2 is Grid Engine's word before it kills, and hydra would die of it.
_REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2)
_WAKING = (signal.SIGCHLD, signal.SIGCONT)

_GRACE_SECONDS = 5.0

# timeout(1) and some batch systems signal the process and then its group: that is one request, not two.
_SAME_REQUEST_SECONDS = 0.3

# Codes that launchers make up when ranks die of a signal: 1 is prterun's, 255 hydra's when it aborts; hydra
# gives the bare number of the signal, srun adds 128.
_MADE_UP = frozenset({1, 255, *(base + n for base in (0, 128) for n in (2, 9, 12, 15))})


def attend(line: list[str], interrupt: signal.Signals) -> int:
    """Run a launcher to its end and return the exit code that the shell should see.

    Parameters
    ----------
    line : list of str
        Its command line.
    interrupt : signal.Signals
        What to send it for Ctrl-C and SIGTERM; rank 0 is told by ``MPIFLOW_INTERRUPT``.
    """
    with _signals_to_pipe() as wakeup:
        child = _start(line, interrupt)
        requests = _Requests(child, interrupt)
        while child.poll() is None:
            readable = _wait(wakeup, child, requests.deadline)
            if wakeup in readable:
                for number in os.read(wakeup, 512):
                    requests.take(number, time.monotonic())
            if child.stdin is not None and 0 in readable:
                _copy_typed(child.stdin)
            if time.monotonic() >= requests.deadline:
                requests.kill()
    if child.stdin is not None:
        child.stdin.close()
    return exit_code(child.returncode, requests.first, forced=requests.forced)


def exit_code(returncode: int, request: int | None, *, forced: bool) -> int:
    """Judge how a launcher ended.

    Parameters
    ----------
    returncode : int
        The launcher's, as `subprocess` gives it: negative is the number of a signal.
    request : int or None
        The signal that asked for the end, if one did.
    forced : bool
        Whether the launcher itself was told to end.

    Returns
    -------
    int
        Unasked, the launcher's own. Asked, 128 plus the number of the signal in place of what launchers make
        up when ranks die of one; any other code was chosen by the script, and stays.
    """
    code = returncode if returncode >= 0 else 128 - returncode
    if request is None:
        return code
    return 128 + request if forced or code in _MADE_UP else code


class _Requests:
    """What the user and the batch system asked for so far, and the child that must obey."""

    def __init__(self, child: subprocess.Popen[bytes], interrupt: signal.Signals) -> None:
        self.child = child
        self.interrupt = interrupt
        self.first: int | None = None  #: the signal that asked for the end, if any did
        self.forced = False  #: whether the launcher itself was told to end
        self.deadline = math.inf  #: when its group is killed
        self._latest = -math.inf

    def take(self, number: int, now: float) -> None:
        """Act on a signal that this process got."""
        if number == signal.SIGUSR1:  # walltime is near: rank 0's own business
            self.child.send_signal(number)
        elif number in _REQUESTS:
            repeated = now - self._latest < _SAME_REQUEST_SECONDS
            self._latest = now
            if not repeated:
                self._end(number, now)

    def kill(self) -> None:
        """Kill the launcher's group. It comes to this only after it had been told to end by itself."""
        self.deadline = math.inf
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            os.killpg(self.child.pid, signal.SIGKILL)

    def _end(self, number: int, now: float) -> None:
        """First ask the ranks; at a second Ctrl-C tell the launcher; at a third kill it.

        A batch system may repeat its TERM while rank 0 is still saving results: that adds nothing.
        """
        if self.forced and number == signal.SIGINT:
            self.kill()
        elif number == signal.SIGQUIT or (number == signal.SIGINT and self.first is not None):
            self.forced = True
            self.deadline = now + _GRACE_SECONDS
            self.child.terminate()
        elif self.first is None:
            self.child.send_signal(self.interrupt)
        self.first = self.first or number


def _start(line: list[str], interrupt: signal.Signals) -> subprocess.Popen[bytes]:
    """Start the launcher in a session of its own, told to end with this process.

    A terminal cannot be read from another session, so what is typed is copied through a pipe; anything else
    on stdin is simply inherited. This process has one thread, which is what makes preexec_fn safe.
    """
    if sys.stdin is None:  # closed; whatever has descriptor 0 now is no input for rank 0
        source: int | None = subprocess.DEVNULL
    else:
        source = subprocess.PIPE if os.isatty(0) else None
    return subprocess.Popen(
        line,
        stdin=source,
        bufsize=0,
        env={**os.environ, "MPIFLOW_INTERRUPT": interrupt.name.removeprefix("SIG")},
        start_new_session=True,
        preexec_fn=functools.partial(die_with_parent, signal.SIGTERM, os.getpid()),
    )


@contextlib.contextmanager
def _signals_to_pipe() -> Iterator[int]:
    """Have signals arrive as bytes in a pipe, whose reading end this gives.

    What was ignored stays ignored: nohup, and shells that start background jobs, mean it.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    caught = [n for n in (*_REQUESTS, signal.SIGUSR1) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, _noted) for number in (*caught, *_WAKING)}
    wakeup_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def _noted(number: int, frame: FrameType | None) -> None:
    """Do nothing: a handler has to be there for a signal to reach the pipe, where it is acted on."""


def _wait(wakeup: int, child: subprocess.Popen[bytes], deadline: float) -> list[int]:
    """Wait for a signal, for something typed that the launcher has room for, or for the deadline."""
    seconds = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
    sources = [wakeup]
    if child.stdin is not None and not child.stdin.closed and _in_foreground():
        if select.select([], [child.stdin], [], 0)[1]:
            sources.append(0)
        else:  # a full pipe: rank 0 does not read; look again soon
            seconds = 0.1 if seconds is None else min(seconds, 0.1)
    return select.select(sources, [], [], seconds)[0]


def _in_foreground() -> bool:
    """Whether the terminal is this job's now; a background job that reads from it is stopped."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False  # the terminal is gone


def _copy_typed(pipe: IO[bytes]) -> None:
    """Pass on what was typed to the launcher, and so to rank 0; the end of input closes the pipe."""
    try:
        typed = os.read(0, select.PIPE_BUF)
    except OSError:
        typed = b""  # the terminal is gone
    try:
        if typed:
            pipe.write(typed)
        else:
            pipe.close()
    except BrokenPipeError:
        pipe.close()  # the launcher no longer listens
