"""The small process that runners are forked from.

It exists because a process that has started MPI, or threads, cannot be forked safely, and starting a Python
takes thirty times as long as forking one. So the first thing a rank does, before it imports mpi4py.MPI, is to
fork this; whatever runs tasks later is forked from here, in about a millisecond, clean of MPI, of the
launcher's variables and of its descriptors.

`multiprocessing`'s forkserver was tried in its place: two more interpreters a rank, killed by a signal to the
rank's group, leaves orphans when the rank is killed, tells no resource use, and listens on a path.

It has a session of its own (launchers and batch systems signal groups and sessions), is the reaper of every
orphan below it, and when its socket ends, because the rank let it go or died, it kills all descendants. An orphan
comes to it when a runner has died, and is killed before the rank hears of that: nothing of a task outlives it.

A rank that has been stopped by a signal hears nothing and says nothing, and its zygote is the only one to see why.
It looks every few seconds, when it has been told to, and kills a rank that stays so; what is lost then runs
elsewhere. A batch system that suspends a job stops the process above the rank as well, or all ranks below it: then
nobody is killed.

One packet socket joins it to the rank::

    rank → zygote   marshalled settings, with five descriptors      fork a runner
    rank → zygote   marshalled seconds                              how long the rank may be stopped
    zygote → rank   b"S" request, pid                               it is there
    zygote → rank   b"E" pid, wait status, CPU seconds, peak KiB    it has ended
"""

from __future__ import annotations

import gc
import marshal
import os
import select
import struct
import sys
import time

from mpiflow import linux
from mpiflow.comm.sockets import MSG_DONTWAIT, packet_pair, receive_fds, send_fds, socket
from mpiflow.linux import signal
from mpiflow.worker import environment
from mpiflow.worker.runner import start  # here, so that a runner finds it loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STARTED = struct.Struct("<cQQ")
_ENDED = struct.Struct("<cQidQ")
#: How long a zygote goes on killing what will not die, in seconds.
REAP_WITHIN = 5.0
#: Of those, how long a resource tracker may take to tidy up after a runner that has died.
TIDY_WITHIN = 2.0
#: How often it looks at orphans that are not gone yet, in seconds.
SWEEP_EVERY = 0.25
#: How long a rank may be stopped, and how many times in that the zygote looks.
RANK_STOPPED_AT_MOST, LOOKS = 20.0, 8


class Ended:
    """How a runner ended.

    Attributes
    ----------
    pid : int
        Its process id.
    code : int
        Exit code, or minus the number of the signal that killed it.
    cpu : float
        Seconds of processor time, its own and of what it waited for.
    peak : int
        Largest resident memory, in KiB.
    """

    __slots__ = ("code", "cpu", "peak", "pid")

    def __init__(self, pid: int, status: int, cpu: float, peak: int) -> None:
        self.pid = pid
        self.code = os.waitstatus_to_exitcode(status)
        self.cpu = cpu
        self.peak = peak


class Zygote:
    """The rank's end: asks for runners and hears of them."""

    def __init__(self, control: socket, pid: int) -> None:
        self._control = control
        self.pid = pid
        self.requests = 0

    @property
    def fd(self) -> int:
        """Readable when there is something to `hear`."""
        return self._control.fileno()

    def spawn(self, settings: dict[str, Any], fds: list[int]) -> int:
        """Ask for a runner; returns the number of the request at once, the process id comes later."""
        self.requests += 1
        send_fds(self._control, marshal.dumps((self.requests, settings)), fds)
        return self.requests

    def watch_rank(self, seconds: float = RANK_STOPPED_AT_MOST) -> None:
        """Have it kill this process when that has been stopped by a signal for so long.

        For a rank without which the others go on; never for one that a person may stop at a terminal.
        """
        self._control.send(marshal.dumps(float(seconds)))

    def hear(self) -> list[tuple[int, int] | Ended]:
        """What the zygote has said: (request, pid) for each start, `Ended` for each end."""
        heard: list[tuple[int, int] | Ended] = []
        while True:
            try:
                packet = self._control.recv(64, MSG_DONTWAIT)
            except BlockingIOError:
                return heard
            except ConnectionResetError:
                packet = b""
            if not packet:
                raise EOFError("the zygote has ended")
            if packet[:1] == b"S":
                _, request, pid = _STARTED.unpack(packet)
                heard.append((request, pid))
            else:
                _, pid, status, cpu, peak = _ENDED.unpack(packet)
                heard.append(Ended(pid, status, cpu, peak))

    def close(self) -> None:
        """Let it go: it kills what is below it and ends."""
        self._control.close()
        try:
            os.kill(self.pid, signal.SIGCONT)  # somebody may have stopped it, and would stop its rank's end
            os.waitpid(self.pid, 0)
        except (ChildProcessError, ProcessLookupError):
            return  # started by exec and waited for there


def fork_zygote() -> Zygote:
    """Fork the zygote of this rank. Before MPI and before any thread, from the main thread."""
    assert "mpi4py.MPI" not in sys.modules, "fork the zygote before MPI is there"
    import ctypes  # noqa: F401, here, so that the zygote finds it loaded

    ours, theirs = packet_pair()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            os.setsid()
            serve(theirs)
        finally:
            os._exit(1)
    theirs.close()
    return Zygote(ours, pid)


def exec_zygote(in_rank: bool = False) -> Zygote:
    """Start a zygote from a process that may have threads or MPI already: a fresh interpreter.

    Parameters
    ----------
    in_rank : bool
        Whether this process is a worker rank, with no Python threads beside this one. Then a zygote that is stopped
        as it starts, before it can say so itself, goes on as well when its rank dies.
    """
    import subprocess
    from functools import partial

    wakes = partial(linux.die_with_parent, signal.SIGCONT, os.getpid()) if in_rank else None

    ours, theirs = packet_pair()
    command = [sys.executable, "-m", "mpiflow.worker.zygote", str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True, preexec_fn=wakes)
    theirs.close()
    process.returncode = 0  # waited for by `Zygote.close`, so that subprocess need not
    return Zygote(ours, process.pid)


def serve(control: socket) -> None:
    """The zygote's life; does not return."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    environment.forget_launcher()
    environment.close_inherited({control.fileno()})
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    linux.adopt_orphans()
    # One that somebody has stopped goes on when its rank dies, and tidies up; for any other this changes nothing.
    linux.die_with_parent(signal.SIGCONT, os.getppid())
    gc.freeze()  # collections in a runner leave the pages it shares with us alone
    _Service(control).run()


class _Service:
    """What the zygote knows, and does."""

    def __init__(self, control: socket) -> None:
        self._control = control
        self._rank = os.getppid()
        self._watched: _Watched | None = None
        self._runners: set[int] = set()
        self._spawned = 0
        #: When there was an orphan for the first time, 0 for none.
        self._orphaned = 0.0
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve until the rank lets go; does not return."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            for fd, _ in poll.poll(self._pause()):
                if fd == self._wake_read:
                    os.read(self._wake_read, 4096)
                else:
                    self._answer()
            self._report_ends()
            if self._orphaned:
                self._sweep()
            if self._watched is not None:
                self._watched.look(time.monotonic())

    def _pause(self) -> float | None:
        """Milliseconds until something is to be looked at; None: until somebody says something."""
        if self._orphaned:
            return SWEEP_EVERY * 1000
        return None if self._watched is None else self._watched.every * 1000

    def _answer(self) -> None:
        """Take the rank's next word."""
        try:
            packet, fds = receive_fds(self._control, 1 << 16, 5)
        except ConnectionResetError:  # it left without reading our last word
            packet, fds = b"", []
        if not packet:
            _end_everything()
        if not fds:
            self._watched = _Watched(self._rank, marshal.loads(packet))
            return
        if self._spawned == 1:
            # From the second runner on, what all of them need is loaded once, here. The first one
            # does without: a rank with one runner that never dies would pay for nothing.
            import cloudpickle  # noqa: F401
        self._spawned += 1
        self._fork_runner(packet, fds)

    def _fork_runner(self, packet: bytes, fds: list[int]) -> None:
        request, settings = marshal.loads(packet)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                linux.die_with_parent(signal.SIGKILL, parent)
                linux.offer_to_out_of_memory_killer()
                signal.set_wakeup_fd(-1)
                os.close(self._wake_read)
                os.close(self._wake_write)
                self._control.close()
                records, segments, output, errors, stacks = fds
                start(socket(fileno=records), socket(fileno=segments), output, errors, stacks, settings)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(1)
        self._runners.add(pid)
        for fd in fds:
            os.close(fd)
        self._tell(_STARTED.pack(b"S", request, pid))

    def _tell(self, packet: bytes) -> None:
        """Say something to the rank; when it has gone, end as its going says."""
        try:
            self._control.send(packet)
        except (BrokenPipeError, ConnectionResetError):
            _end_everything()

    def _report_ends(self) -> None:
        ends: list[bytes] = []
        try:
            while linux.child_has_ended():  # wait4 would say so too, but imports a module of its own for it
                pid, status, use = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid in self._runners:
                    self._runners.discard(pid)
                    ends.append(_ENDED.pack(b"E", pid, status, use.ru_utime + use.ru_stime, use.ru_maxrss))
        except ChildProcessError:
            self._orphaned = 0.0  # no child is left, so no orphan
        else:
            if ends:
                self._orphaned = self._orphaned or time.monotonic()
                self._sweep()
        for end in ends:
            self._tell(end)

    def _sweep(self) -> None:
        """Kill what dead runners have left."""
        from mpiflow.worker.remains import end_orphans

        if end_orphans(self._runners, self._orphaned + TIDY_WITHIN):
            self._orphaned = 0.0


class _Watched:
    """Whether the rank has been stopped for too long.

    Time in which this process did not run itself, because its whole job or its machine was suspended, must not
    count: each look adds the time between two looks, whatever the clock says.
    """

    def __init__(self, pid: int, limit: float) -> None:
        self._pid = pid
        self._limit = limit
        self.every = limit / LOOKS
        self._stopped = 0.0
        self._next = time.monotonic() + self.every

    def look(self, now: float) -> None:
        """See whether it is stopped, when it is time to, and kill it when it has been for too long."""
        if now < self._next:
            return
        self._next = now + self.every
        letter, parent = linux.state(self._pid)
        if letter != "T" or os.getppid() != self._pid or self._is_suspended(parent):
            self._stopped = 0.0
            return
        self._stopped += self.every
        if self._stopped >= self._limit:
            words = f"mpiflow: a rank (pid {self._pid}) on {os.uname().nodename} has been stopped by a signal"
            print(f"{words} for {self._stopped:g} s; it is ended", file=sys.stderr, flush=True)
            os.kill(self._pid, signal.SIGKILL)

    def _is_suspended(self, parent: int) -> bool:
        """Whether the whole job is stopped, as far as can be seen from here."""
        siblings = [pid for pid in linux.children(parent) if pid != self._pid]
        return linux.is_stopped(parent) or (bool(siblings) and all(map(linux.is_stopped, siblings)))


def _end_everything() -> None:
    """Kill every descendant, those that put themselves into other sessions too, and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    tidy = time.monotonic() + TIDY_WITHIN
    end = time.monotonic() + REAP_WITHIN
    while time.monotonic() < end:
        # Written out, though `remains` has much the same: at this point nothing may depend on a file system.
        for pid in linux.children():
            if time.monotonic() < tidy and linux.command_has(pid, b"resource_tracker"):
                continue
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue  # has ended; or is another user's by set-uid
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            break
        time.sleep(0.002)
    os._exit(0)


if __name__ == "__main__":
    serve(socket(fileno=int(sys.argv[1])))
