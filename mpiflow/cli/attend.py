"""Attend to a launcher from its start to its end: pass on signals and standard input, and judge its exit code.

The launcher runs in a session of its own, so whatever a terminal or a batch system sends to a group reaches
this process and not the launcher, and is passed on once, in the form that this launcher hands to the ranks.

Where rank 0 runs on this machine, the two meet (`mpiflow.comm.launcher.meet_front`): rank 0 opens a pipe of
this process for its standard input, and writes a zero byte into the one that signals arrive by. Until then
there is nothing to save, and whoever wants the end gets it at once.

One `select` waits for everything there is: signals (as bytes in a pipe), input, room for it, and a deadline.

Some launchers never end: hydra waits for ever for a node that lost power, and any of them when it is stopped. So
rank 0 says in a file when it has come to its end (`mpiflow.cli.verdict`), and a launcher that goes on long after that
is ended by force. Nothing is lost by it: what rank 0 had to save, it has saved.
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
from typing import TYPE_CHECKING, NamedTuple

from mpiflow.cli import verdict
from mpiflow.linux import die_with_parent, memory_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

#: What asks for the end. HUP is a closed terminal. USR2 is Grid Engine's word before it kills, and hydra would
#: die of it.
REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2)
_WAKING = (signal.SIGCHLD, signal.SIGCONT)
_MET = 0  # no signal has this number: rank 0 has come to the meeting

_GRACE_SECONDS = 5.0

#: Seconds that a launcher may take to end after rank 0 has; ranks of a large job leave one after another.
OUTLIVES_BY = 15.0
_LOOK_EVERY = 1.0

# timeout(1) and some batch systems signal the process and then its group: that is one request, not two.
_SAME_REQUEST_SECONDS = 0.3

# Codes that launchers make up when ranks die of a signal: 1 is prterun's, 255 hydra's when it aborts; hydra
# gives the bare number of the signal, srun adds 128.
_MADE_UP = frozenset({1, 255, *(base + n for base in (0, 128) for n in (2, 9, 12, 15))})


class Outcome(NamedTuple):
    """How a launcher ended.

    Attributes
    ----------
    returncode : int
        Its own, as `subprocess` gives it: negative is the number of a signal.
    request : int or None
        The signal that asked for the end, if one did.
    forced : bool
        Whether the launcher itself was told to end for that request.
    warned : bool
        Whether SIGUSR1 came: the job's time is nearly over.
    said : Said
        What rank 0 said.
    outlived : bool
        Whether the launcher had to be ended, because it outlived rank 0.
    """

    returncode: int
    request: int | None
    forced: bool
    warned: bool
    said: verdict.Said
    outlived: bool


def attend(line: list[str], interrupt: signal.Signals, *, nearby: bool) -> int:
    """Run a launcher to its end and return the exit code that the shell should see.

    Parameters
    ----------
    line : list of str
        Its command line.
    interrupt : signal.Signals
        What to send it for Ctrl-C and SIGTERM; rank 0 is told by ``MPIFLOW_INTERRUPT``.
    nearby : bool
        Whether rank 0 runs on this machine, and will meet this process.
    """
    with signals_to_pipe() as pipe, _place_for_verdict(nearby) as path:
        ended = follow(line, interrupt, pipe, nearby=nearby, verdict_path=path)
    code = ended.said.ended
    # hydra fails over a SIGUSR1 that it cannot hand on any more, because the ranks have just ended
    made_up = ended.outlived or ended.warned
    own = code if made_up and code is not None else ended.returncode
    return exit_code(own, ended.request, forced=ended.forced)


def follow(
    line: list[str], interrupt: signal.Signals, pipe: tuple[int, int], *, nearby: bool, verdict_path: str
) -> Outcome:
    """Run a launcher to its end.

    Parameters
    ----------
    line, interrupt, nearby
        As for `attend`.
    pipe : tuple of int
        Where signals arrive, from `signals_to_pipe`.
    verdict_path : str
        Where rank 0 says how it goes; "" if it is not asked.

    Raises
    ------
    OSError
        If the launcher cannot be started.
    """
    wakeup, door = pipe
    with _Input(nearby) as typed:
        meeting = f"{os.uname().nodename}:{os.getpid()}:{typed.reading}:{door}" if nearby else ""
        child = _start(line, interrupt, meeting, verdict_path, typed.for_launcher)
        requests = _Requests(child, interrupt, met=not nearby)
        if not nearby:
            typed.meet()
        look = time.monotonic() + _LOOK_EVERY if verdict_path else math.inf
        while child.poll() is None:
            if wakeup in typed.wait(wakeup, min(requests.deadline, look)):
                for number in os.read(wakeup, 512):
                    if number == _MET:
                        typed.meet()
                    elif verdict_path and verdict.read(verdict_path).began:
                        requests.rank0_began(os.stat(verdict_path).st_mtime)
                    requests.take(number, time.monotonic())
            now = time.monotonic()
            if now >= look:
                look = now + _LOOK_EVERY
                told = verdict.read(verdict_path)
                if told.began:
                    requests.rank0_began(os.stat(verdict_path).st_mtime)
                if told.ended is not None:
                    requests.rank0_ended(now)
                    look = math.inf
            requests.keep_deadline(now)
    said = verdict.read(verdict_path)
    return Outcome(child.returncode, requests.first, requests.forced, requests.warned, said, requests.outlived)


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

    def __init__(self, child: subprocess.Popen[bytes], interrupt: signal.Signals, *, met: bool) -> None:
        self.child = child
        self.interrupt = interrupt
        self.met = met  #: whether rank 0 takes signals
        self.first: int | None = None  #: the signal that asked for the end, if any did
        self.forced = False  #: whether the launcher itself was told to end
        self.warned = False  #: whether rank 0 was to be told that time is nearly over
        self.outlived = False  #: whether the launcher had to be ended because rank 0 had long done so
        self._killed_at = math.inf  #: when its group is killed
        self._ended_at = math.inf  #: when it is told to end because rank 0 has
        self._to_warn = False
        #: What was sent to ranks that may not have taken signals yet, and when, in seconds since the epoch.
        self._unheard: list[tuple[signal.Signals, float]] = []
        self._began = not met  #: whether rank 0 has; one that meets this process does so before it is met
        self._latest = -math.inf

    @property
    def deadline(self) -> float:
        """When there is something to do that nobody asks for."""
        return min(self._killed_at, self._ended_at)

    def take(self, number: int, now: float) -> None:
        """Act on a signal that this process got, or on the arrival of rank 0."""
        if number == _MET:
            self.met = True
        elif number == signal.SIGUSR1:  # walltime is near: rank 0's own business
            self.warned = self._to_warn = True
        elif number in REQUESTS:
            repeated = now - self._latest < _SAME_REQUEST_SECONDS
            self._latest = now
            if not repeated:
                self._end(number, now)
        if self._to_warn and self.met:
            self._to_warn = False
            self._send(signal.SIGUSR1)

    def rank0_began(self, moment: float) -> None:
        """Say again what was sent before: while ranks are starting, and MPI is not there, they take no signal.

        Parameters
        ----------
        moment : float
            When rank 0 took signals, at the latest, in seconds since the epoch. What was sent after it has been
            heard, and a second interrupt could end what the script does about the first.
        """
        unheard, self._unheard, self._began = self._unheard, [], True
        for number, sent in unheard:
            if sent < moment:
                self.child.send_signal(number)

    def _send(self, number: signal.Signals) -> None:
        self.child.send_signal(number)
        if not self._began:
            self._unheard.append((number, time.time()))

    def rank0_ended(self, now: float) -> None:
        """Give the launcher some time to end too."""
        self._ended_at = now + OUTLIVES_BY

    def keep_deadline(self, now: float) -> None:
        """Do what is due: a launcher that outlives rank 0 is woken, then told to end, then killed."""
        if now >= self._ended_at and not self.outlived:
            self.outlived = True
            self._ended_at = now + _GRACE_SECONDS
            self.child.send_signal(signal.SIGCONT)  # somebody may have stopped it
        elif now >= self._ended_at:
            self._ended_at = math.inf
            self._killed_at = min(self._killed_at, now + _GRACE_SECONDS)
            self.child.terminate()
        if now >= self._killed_at:
            self.kill()

    def kill(self) -> None:
        """Kill the launcher's group."""
        self._killed_at = math.inf
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            os.killpg(self.child.pid, signal.SIGKILL)

    def _end(self, number: int, now: float) -> None:
        """First ask the ranks; at a second Ctrl-C tell the launcher; at a third kill it.

        A batch system may repeat its TERM while rank 0 is still saving results: that adds nothing.
        """
        if not self.met:
            self._end_start(now)
        elif self.forced and number == signal.SIGINT:
            self.kill()
        elif number == signal.SIGQUIT or (number == signal.SIGINT and self.first is not None):
            self._end_launcher(now)
        elif self.first is None:
            self._send(self.interrupt)
        self.first = self.first or number

    def _end_start(self, now: float) -> None:
        """End a launcher whose rank 0 has not come yet, without a word from it.

        hydra, which hands TERM to the ranks, talks about each that dies of it; killed, it takes them with it
        in silence. prterun must not be killed, for that leaves the ranks; on TERM it kills them in silence.
        """
        if self.interrupt == signal.SIGTERM:
            self.forced = True
            self.kill()
        else:
            self._end_launcher(now)

    def _end_launcher(self, now: float) -> None:
        self.forced = True
        self._killed_at = now + _GRACE_SECONDS
        self.child.terminate()


class _Input:
    """Standard input on its way to rank 0: by a pipe to rank 0 itself, by one to the launcher, or not by here.

    A terminal cannot be read from the launcher's session, so what is typed is always copied. Anything else is
    inherited by the launcher, unless rank 0 comes to fetch it.
    """

    def __init__(self, nearby: bool) -> None:
        self.terminal = os.isatty(0)
        self.reading: int | None = None
        self.writing: int | None = None
        self.pending = b""
        self.met = False
        if nearby or self.terminal or sys.stdin is None:
            self.reading, self.writing = os.pipe()
            os.set_blocking(self.writing, False)
        if sys.stdin is None:  # closed; whatever has descriptor 0 now is no input for rank 0
            self._close_writing()
        #: what the launcher gets for its standard input; None to inherit
        self.for_launcher = subprocess.DEVNULL if nearby else self.reading

    def __enter__(self) -> _Input:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close_reading()
        self._close_writing()

    def meet(self) -> None:
        """Start to copy: somebody has opened the other end, and the end of reading is now theirs alone."""
        self.met = True
        self._close_reading()

    def wait(self, wakeup: int, deadline: float) -> list[int]:
        """Wait for a signal or for the deadline, and copy meanwhile; returns what else can be read."""
        seconds = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
        sinks = [self.writing] if self.met and self.writing is not None else []
        reads = bool(sinks) and not self.pending and (not self.terminal or _in_foreground())
        readable, writable, _ = select.select(
            [wakeup, 0] if reads else [wakeup], sinks if self.pending else [], [], seconds
        )
        if reads and 0 in readable:
            self._read()
        if writable:
            self._write()
        return readable

    def _read(self) -> None:
        try:
            self.pending = os.read(0, 1 << 16)
        except OSError:
            self.pending = b""  # the terminal is gone
        if not self.pending:
            self._close_writing()

    def _write(self) -> None:
        assert self.writing is not None
        try:
            self.pending = self.pending[os.write(self.writing, self.pending) :]
        except BrokenPipeError:  # nobody reads any longer
            self._close_writing()

    def _close_reading(self) -> None:
        if self.reading is not None:
            os.close(self.reading)
            self.reading = None

    def _close_writing(self) -> None:
        self.pending = b""
        if self.writing is not None:
            os.close(self.writing)
            self.writing = None


def _start(
    line: list[str], interrupt: signal.Signals, meeting: str, verdict_path: str, stdin: int | None
) -> subprocess.Popen[bytes]:
    """Start the launcher in a session of its own, told to end with this process.

    This process has one thread, which is what makes preexec_fn safe.
    """
    told = {"MPIFLOW_INTERRUPT": interrupt.name.removeprefix("SIG"), "MPIFLOW_FRONT": meeting}
    told[verdict.VARIABLE] = verdict_path
    return subprocess.Popen(
        line,
        stdin=stdin,
        env={**os.environ, **told},
        start_new_session=True,
        preexec_fn=functools.partial(die_with_parent, signal.SIGTERM, os.getpid()),
    )


@contextlib.contextmanager
def signals_to_pipe() -> Iterator[tuple[int, int]]:
    """Have signals arrive as bytes in a pipe, whose two ends this gives.

    What was ignored stays ignored: nohup, and shells that start background jobs, mean it.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    caught = [n for n in (*REQUESTS, signal.SIGUSR1) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, _noted) for number in (*caught, *_WAKING)}
    wakeup_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading, writing
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


@contextlib.contextmanager
def _place_for_verdict(nearby: bool) -> Iterator[str]:
    """Where rank 0 says that it has ended: where it was told already, or a file without a name for the two of us.

    Where rank 0 may run on another machine there is none: a directory that both see is not ours to choose.
    """
    told = os.environ.get(verdict.VARIABLE, "")
    if told or not nearby:
        yield told
        return
    file = memory_file(0)
    try:
        yield f"/proc/{os.getpid()}/fd/{file}"
    finally:
        os.close(file)


def _noted(number: int, frame: FrameType | None) -> None:
    """Do nothing: a handler has to be there for a signal to reach the pipe, where it is acted on."""


def _in_foreground() -> bool:
    """Whether the terminal is this job's now; a background job that reads from it is stopped."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False  # the terminal is gone
