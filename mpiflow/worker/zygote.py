"""The small process that runners are forked from.

It exists because a process that has started MPI, or threads, cannot be forked safely, and starting a Python
takes thirty times as long as forking one. So the first thing a rank does, before it imports mpi4py.MPI, is to
fork this; whatever runs tasks later is forked from here, in about a millisecond, clean of MPI, of the
launcher's variables and of its descriptors.

`multiprocessing`'s forkserver was tried in its place: two more interpreters a rank, killed by a signal to the
rank's group, leaves orphans when the rank is killed, tells no resource use, and listens on a path.

It has a session of its own (launchers and batch systems signal groups and sessions), is the reaper of every
orphan below it, and when its socket ends, because the rank let it go or died, it kills all descendants.

One packet socket joins it to the rank::

    rank → zygote   marshalled settings, with four descriptors      fork a runner
    zygote → rank   b"S" request, pid                               it is there
    zygote → rank   b"E" pid, wait status, CPU seconds, peak KiB    it has ended
"""

from __future__ import annotations

import gc
import marshal
import os
import select
import signal
import struct
import sys
import time

from mpiflow import linux
from mpiflow.comm.sockets import MSG_DONTWAIT, packet_pair, receive_fds, send_fds, socket
from mpiflow.worker import environment
from mpiflow.worker.runner import start  # here, so that a runner finds it loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STARTED = struct.Struct("<cQQ")
_ENDED = struct.Struct("<cQidQ")
#: How long a zygote goes on killing what will not die, in seconds.
REAP_WITHIN = 5.0


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
            os.waitpid(self.pid, 0)
        except ChildProcessError:
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


def exec_zygote() -> Zygote:
    """Start a zygote from a process that may have threads or MPI already: a fresh interpreter."""
    import subprocess

    ours, theirs = packet_pair()
    command = [sys.executable, "-m", "mpiflow.worker.zygote", str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)
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
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    gc.freeze()  # collections in a runner leave the pages it shares with us alone
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    spawned = 0
    while True:
        for fd, _ in poll.poll():
            if fd == wake_read:
                os.read(wake_read, 4096)
            else:
                packet, fds = _request(control)
                if not packet:
                    _end_everything()
                if spawned == 1:
                    # From the second runner on, what all of them need is loaded once, here. The first one
                    # does without: a rank with one runner that never dies would pay for nothing.
                    import cloudpickle  # noqa: F401
                spawned += 1
                _fork_runner(control, packet, fds, (wake_read, wake_write))
        _report_ends(control)


def _request(control: socket) -> tuple[bytes, list[int]]:
    """The rank's next word; empty when the rank has let go, or died."""
    try:
        return receive_fds(control, 1 << 16, 4)
    except ConnectionResetError:  # it left without reading our last word
        return b"", []


def _fork_runner(control: socket, packet: bytes, fds: list[int], wake: tuple[int, int]) -> None:
    request, settings = marshal.loads(packet)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            linux.die_with_parent(signal.SIGKILL, parent)
            linux.offer_to_out_of_memory_killer()
            signal.set_wakeup_fd(-1)
            for fd in wake:
                os.close(fd)
            control.close()
            records, segments, output, errors = fds
            start(socket(fileno=records), socket(fileno=segments), output, errors, settings)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(1)
    for fd in fds:
        os.close(fd)
    _tell(control, _STARTED.pack(b"S", request, pid))


def _tell(control: socket, packet: bytes) -> None:
    """Say something to the rank; when it has gone, end as its going says."""
    try:
        control.send(packet)
    except (BrokenPipeError, ConnectionResetError):
        _end_everything()


def _report_ends(control: socket) -> None:
    while True:
        try:
            if not linux.child_has_ended():
                return  # wait4 would say so too, but imports a module of its own for it
            pid, status, use = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _tell(control, _ENDED.pack(b"E", pid, status, use.ru_utime + use.ru_stime, use.ru_maxrss))


def _end_everything() -> None:
    """Kill every descendant, those that put themselves into other sessions too, and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    end = time.monotonic() + REAP_WITHIN
    while time.monotonic() < end:
        pids = linux.children()
        for pid in pids:
            for kill in (os.killpg, os.kill):
                try:
                    kill(pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    continue  # leads no group, or has ended
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            break
        time.sleep(0.002)
    os._exit(0)


if __name__ == "__main__":
    serve(socket(fileno=int(sys.argv[1])))
