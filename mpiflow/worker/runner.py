"""The process in which tasks run: one after another, until its socket ends.

It may die at any moment without harm. Each result is sent as soon as it is there, so the worker knows exactly
which task was running: the first one it has no result of.

Tasks print to two pipes that the worker reads. After a task, one system call a pipe (how many bytes lie in
it?) tells two things: whether the task closed or replaced its output, which is then put right; and whether it
printed, in which case the runner waits until the worker has taken it, so that no line is ascribed to another
task. A task that prints nothing pays 0.7 µs for that.

A worker that shuts its end of the socket wants back what it has given ahead. That is looked for after a task
that took longer than such work is meant to last, and then this process leaves.

One more system call, of a microsecond, tells whether the task has left a process running: `worker.remains`.

A signal has the runner write its Python stacks into a memory file of the worker's. faulthandler does that in a
signal handler, so it works while the task is in C code that never returns. The signal is SIGURG, which a process
that knows nothing of it ignores: a task may have replaced the runner by another program.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time

from mpiflow import linux
from mpiflow.comm.segments import receive_segment, send_segment, shared_copy
from mpiflow.comm.wire import FORGET, FUNCTION, HEADER, HEADER_SIZE, LEAVING, STARTED
from mpiflow.linux import FIONREAD, has_children, signal
from mpiflow.worker import environment
from mpiflow.worker.tasks import Functions, run_task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined]

    from mpiflow.comm.sockets import socket
    from mpiflow.worker.usage import Meter

#: Bytes asked of one recv. Twice as many would be mapped and unmapped by malloc each time.
CHUNK = 64 * 1024
#: How long a runner lets the worker take what a task has printed, in seconds; then it goes on.
OUTPUT_TAKEN_WITHIN = 1.0
#: Nothing starts a process in less, in seconds: after quicker tasks there is none to look for.
QUICKEST_FORK = 20e-6
#: After a task of so many seconds a runner looks whether it is to leave what it was given ahead.
LONG = 0.005
#: Has a runner write its stacks.
STACKS_SIGNAL = signal.SIGURG


class _Output:
    """A runner's standard output and error: pipes to the worker."""

    def __init__(self) -> None:
        self._streams = environment.StandardStreams()
        self._count = bytearray(4)
        import fcntl  # here: one file less for every rank, and its zygote, to open

        self._ioctl = fcntl.ioctl

    def settle(self) -> None:
        """After a task: nothing buffered, nothing unread, and both streams as they were."""
        self._streams.settle()
        for fd in (1, 2):
            try:
                self._ioctl(fd, FIONREAD, self._count)
            except OSError:  # the task has closed it, or put something else there
                self._streams.repair()
            else:
                if any(self._count):
                    self._let_it_be_taken(fd)

    def _let_it_be_taken(self, fd: int) -> None:
        end = time.monotonic() + OUTPUT_TAKEN_WITHIN
        while any(self._count) and time.monotonic() < end:
            time.sleep(0.00005)
            self._ioctl(fd, FIONREAD, self._count)


def run(records: socket, segments: socket, measured: bool = False) -> None:
    """Run tasks until the worker closes the socket; does not return.

    Parameters
    ----------
    records, segments : socket
        The two ways to the worker.
    measured : bool
        Whether to say what each task has used.
    """
    meter = _meter() if measured else None
    functions = Functions()
    output = _Output()
    surroundings = environment.Surroundings()
    header, unpack = HEADER_SIZE, HEADER.unpack_from
    partial = b""
    while True:
        data = _received(records, partial)
        view = memoryview(data)
        position, end = 0, len(data)
        while position + header <= end:
            aid, tid, fid, size, walltime, kind, more = unpack(data, position)
            following = position + header + size
            if following > end:
                break
            payload = view[position + header : following]
            position = following
            if kind == FUNCTION:
                functions.learn(fid, bytes(payload))
                continue
            if kind == FORGET:
                functions.forget(fid)
                continue
            attachments: list[Buffer] = []
            for _ in range(more):
                segment = receive_segment(segments)
                segment.close()
                attachments.append(segment.view)
            if walltime:
                records.sendall(HEADER.pack(aid, tid, fid, 0, 0.0, STARTED, 0))
            if meter is not None:
                meter.begin()
            outcome = run_task(functions, tid, fid, payload, attachments)
            used = meter.end(aid, tid, fid) if meter is not None else b""
            leaving = outcome.seconds > QUICKEST_FORK and has_children() and _end_remains()
            if outcome.seconds > LONG and linux.says_no_more(records.fileno()):
                leaving = True
            output.settle()
            surroundings.restore()
            for buffer in outcome.attachments:
                segment = shared_copy(buffer)
                send_segment(segments, segment)
                segment.close()
            answer = HEADER.pack(
                aid, tid, fid, len(outcome.payload), outcome.seconds, outcome.kind, len(outcome.attachments)
            )
            records.sendall(used + answer + outcome.payload)
            if leaving:
                records.sendall(HEADER.pack(0, 0, 0, 0, 0.0, LEAVING, 0))
                os._exit(0)
            del attachments, payload, outcome  # a runner that waits holds nothing of its last task
        partial = bytes(data[position:])


def _meter() -> Meter:
    from mpiflow.worker.usage import Meter

    return Meter()


def _end_remains() -> bool:
    """End what a task has left running; whether this process had better not run another one."""
    from mpiflow.worker.remains import end_remains, threads_are_left

    return end_remains() and threads_are_left()


def _received(records: socket, partial: bytes) -> bytes:
    """What has arrived, with what was left over before, and at least one whole record in it if it was begun.

    Ends the process when the worker has closed the socket.
    """
    data = records.recv(CHUNK)
    if not data:
        os._exit(0)
    if not partial:
        return data
    data = partial + data
    if len(data) >= HEADER_SIZE:
        missing = HEADER_SIZE + HEADER.unpack_from(data)[3] - len(data)
        if missing > CHUNK:  # a function with much data in it: read in one go, not joined chunk by chunk
            rest = bytearray(missing)
            view = memoryview(rest)
            while view:
                size = records.recv_into(view)
                if not size:
                    os._exit(0)
                view = view[size:]
            data += rest
    return data


def start(
    records: socket, segments: socket, output: int, errors: int, stacks: int, settings: dict[str, object]
) -> None:
    """First steps of a runner after its fork; does not return.

    Parameters
    ----------
    records, segments : socket
        The two ways to the worker.
    output, errors : int
        Pipes for what tasks print.
    stacks : int
        File for its stacks, when they are asked for.
    settings : dict
        ``environment`` (variables to set), ``path`` (directories for ``sys.path``), ``directory``.
    """
    os.setpgid(0, 0)  # its own group: a time-out takes what the task started along
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    environment.ignore_batch_signals()
    linux.adopt_orphans()
    faulthandler.register(STACKS_SIGNAL, stacks)
    for source, fd in ((output, 1), (errors, 2)):
        os.dup2(source, fd)
        os.close(source)
    variables, path = settings["environment"], settings["path"]
    assert isinstance(variables, dict)
    assert isinstance(path, list)
    environment.set_variables(variables)
    sys.path[:1] = path  # the first was where the command was given, as always with `python -m`
    environment.enter(str(settings["directory"]))
    cpus = settings.get("cpus")
    if isinstance(cpus, list):
        linux.bind(cpus)
    if settings.get("as_parsl"):
        import mpiflow.parsl

        mpiflow.parsl.install()
    environment.reseed()
    run(records, segments, measured="usage_every" in settings)
