"""A rank's part of a gang: the function runs in the rank itself, with a communicator of the gang's ranks.

In the rank and not in a runner, since runners have no MPI. While the function runs, the rank's own loop stands
still, so a second thread listens for it: it sends signs of life, answers who asks for stacks, keeps other messages
for later, and hears when the gang is called off, because another member has failed or died or the task was killed.

**Called off.** The function is made to come back in three ways, from the gentle to the last:

1. an exception is raised in it, from a signal handler: this reaches Python code and waits that the kernel
   interrupts, but not a call of MPI;
2. under ULFM the communicator is revoked, until a rank of the job has died: every call of MPI in it comes back with an
   error;
3. after `GRACE` seconds this process ends itself by SIGKILL, where the job outlives that. With MPICH nothing else
   ends a collective that lacks a member. The rank is lost, and is said to be; the job goes on without it.

With Open MPI a death also leaves ranks for ever in the making of their communicator, be it a member's or another's:
no revoke and no timeout reaches them there (seen with 5.0: what it waits for inside is never looked at again). So under
ULFM gangs make theirs one after the other, for which each member says that it has its own, and one death costs at
most the ranks of one gang. Such a rank does not end itself, for its death would be the next one: rank 0 gives it up,
and it lives until rank 0 goes.

Where a second thread may not call MPI, nobody listens, and rank 0 gives the rank up in the end.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import allocate_lock, get_ident, start_new_thread
from pickle import dumps

from mpiflow import context
from mpiflow.comm import wire
from mpiflow.comm.gangs import communicator, is_of_others, revoke, threads_may_call
from mpiflow.comm.wire import DIED, GANG, HEADER, RAISED, records
from mpiflow.errors import AppTimeout
from mpiflow.linux import signal
from mpiflow.worker.tasks import run_task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined]
    from types import FrameType
    from typing import Literal

    from mpiflow.comm.gangs import Communicator
    from mpiflow.comm.mpi import MPIComm
    from mpiflow.comm.segments import Segment
    from mpiflow.worker.channel import Task
    from mpiflow.worker.tasks import Functions
    from mpiflow.worker.worker import Worker

#: Seconds that a function has to come back when its gang is called off.
GRACE = 5.0
#: Seconds in which the members make their communicator; all of them were idle a moment ago.
MEET_WITHIN = 20.0
#: Seconds between two looks at the messages while a function runs.
LISTEN_EVERY = 0.02
#: Seconds after which a function that goes on is interrupted again: it may have caught the first exception.
AGAIN_EVERY = 0.5
#: Seconds that the last words of a rank may take.
LAST_WORDS = 0.5
#: What interrupts a function when its gang is called off; at its walltime it is SIGALRM. A batch system may send this
#: one to every process: without a reason it does nothing.
_CALL_OFF = signal.SIGUSR2


class CalledOff(BaseException):
    """Raised in a gang's function when other members have failed; no Exception, so that few handlers take it."""


class Part:
    """One rank's part in a gang; as a context it gives the communicator.

    Parameters
    ----------
    comm : MPIComm
        This rank's way to rank 0.
    worker : Worker
        Whose loop stands still meanwhile.
    task : Task
        What rank 0 has sent.
    """

    def __init__(self, comm: MPIComm, worker: Worker, task: Task) -> None:
        self._comm = comm
        self._worker = worker
        self._task = task
        self._number, self._parent, count = GANG.unpack_from(task.record)
        self._revocable = worker.revocable and not self._parent
        start = GANG.size
        self.arguments = task.record[start + 4 * count :]
        self.ranks = list(task.record[start : start + 4 * count].cast("I"))
        self._made: Communicator | None = None
        self._failed: Exception | None = None
        self._main = get_ident()
        #: Whether the function runs, and may be interrupted.
        self._inside = False
        #: Whether the gang has been called off; it may have been before it begins.
        self.called_off = worker.called_off
        #: Whether MPI has said that other ranks do not go on; None: perhaps.
        self.broken: bool | None = False
        self._began = self._called_off_at = self._beaten = time.monotonic()
        #: Whether it is making the communicator.
        self._meeting = False
        self._ended = allocate_lock()
        self._listener_gone = allocate_lock()
        #: Held by the thread that sends or receives.
        self._talking = allocate_lock()
        #: Messages that the rank takes when the function has returned.
        self.later: list[tuple[bytearray, list[Segment]]] = []

    # --- the function's thread ----------------------------------------------------------------------------

    def __enter__(self) -> Communicator:
        if self._failed is not None:
            raise self._failed
        assert self._made is not None
        self._inside = True
        if self.called_off:
            self._inside = False
            raise CalledOff
        signal.setitimer(signal.ITIMER_REAL, self._task.walltime)
        return self._made

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> Literal[False]:
        self._inside = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.broken = is_of_others(error)
        return False

    def _meet(self) -> None:
        """Make the communicator.

        Every member does this first of all, called off or not: one that did not would leave the others in it.
        """
        self._meeting = True
        try:
            self._made = communicator(self._comm, self.ranks, self._number, self._parent)
            if self._worker.revocable:
                with self._talking:
                    self._comm.send(0, wire.record(wire.MET))
        except Exception as error:
            self._failed = error
            self.broken = is_of_others(error)
        self._meeting = False

    def run(self, functions: Functions) -> tuple[bytes, list[Buffer]]:
        """Call the function; the record that answers for it."""
        task = self._task
        handlers = [(number, signal.signal(number, self._interrupt)) for number in (_CALL_OFF, signal.SIGALRM)]
        self._listen()
        context.gang = self
        try:
            self._meet()
            beside = [segment.view for segment in task.attachments]
            outcome = run_task(functions, task.tid, task.fid, self.arguments, beside)
        finally:
            context.gang = None
            self._stop_listening()
            for number, before in handlers:
                signal.signal(number, before)
        kind, payload = outcome.kind, outcome.payload
        if kind == RAISED:
            kind, payload = self._failure(payload)
        elif self._made is not None:
            self._made.Free()
        head = HEADER.pack(task.aid, task.tid, task.fid, len(payload), outcome.seconds, kind, len(outcome.attachments))
        return head + payload, outcome.attachments

    def _failure(self, payload: bytes) -> tuple[int, bytes]:
        """A failure as rank 0 is to take it: of this member's own doing, or the consequence of another's."""
        if self.called_off or self.broken:
            return DIED, b""
        from mpiflow.comm.pickling import placed_failure

        place = self.ranks.index(self._comm.rank)
        where = f"rank {self._comm.rank} on {os.uname().nodename}"
        words = f"rank {place} of the {len(self.ranks)} in its communicator ({where})"
        return RAISED if self.broken is False else DIED, placed_failure(payload, words)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        # Never in `__exit__`, so that nothing is interrupted after it.
        if not self._inside or (frame is not None and frame.f_code.co_filename == __file__):
            return
        if self.called_off:
            raise CalledOff
        if number == signal.SIGALRM:
            raise AppTimeout(f"App {context.name} exceeded walltime: {self._task.walltime:g} seconds")

    # --- the listening thread -----------------------------------------------------------------------------

    def _listen(self) -> None:
        self._ended.acquire()
        self._listener_gone.acquire()
        if threads_may_call():
            start_new_thread(self._listening, ())
        else:
            self._listener_gone.release()

    def _stop_listening(self) -> None:
        self._ended.release()
        self._listener_gone.acquire()

    def _listening(self) -> None:
        comm, worker = self._comm, self._worker
        interrupted = time.monotonic()
        try:
            while not self._ended.acquire(timeout=LISTEN_EVERY):
                with self._talking:
                    overdue = self._talk()
                now = time.monotonic()
                if comm.lost:
                    self._call_off(now)
                if self.called_off and self._inside and now - interrupted >= AGAIN_EVERY:
                    interrupted = now
                    signal.pthread_kill(self._main, _CALL_OFF)
                if overdue and (comm.lost or (worker.expendable and not (worker.revocable and self._meeting))):
                    self._end_rank()
        finally:
            self._listener_gone.release()

    def _talk(self) -> bool:
        """Hear and answer rank 0; whether this rank has had the time to come back, and has not."""
        now = time.monotonic()
        if self._meeting and self._parent == self._number and not self._is_stuck(now):
            return False  # without a parent nobody else may be in MPI (`comm.gangs`)
        for _, head, attachments in self._comm.poll():
            self._hear(head, attachments)
        overdue = self.called_off and now - self._called_off_at >= GRACE
        if not overdue and self._is_stuck(now):
            overdue = self.called_off = True
            self._called_off_at = now - GRACE
            words = f"it cannot make a communicator for task {self._task.tid}: another rank has died meanwhile"
            self._comm.send(0, wire.record(wire.STUCK, dumps(words, 5)))
        # One that is overdue says nothing: rank 0 gives it up, and would take it back for any word of it.
        if now - self._beaten >= self._worker.heartbeat and not overdue:
            self._beaten = now
            self._comm.beat()
        return overdue

    def _is_stuck(self, now: float) -> bool:
        """Whether the others do not come to make the communicator; only Open MPI leaves a rank there."""
        return self._meeting and self._worker.revocable and now - self._began >= MEET_WITHIN

    def _hear(self, head: bytearray, attachments: list[Segment]) -> None:
        """Act on what cannot wait, and keep the rest."""
        kinds = set()
        view = memoryview(head)
        for _, _, _, _, kind, _, start, end in records(head):
            kinds.add(kind)
            if kind == wire.DROP and self._task.aid in view[start:end].cast("Q"):
                self._call_off(time.monotonic())
        if kinds <= {wire.STACKS, wire.PING}:
            self._worker.receive(head, attachments)
            answer, beside = self._worker.take(acknowledge=True)
            self._comm.send(0, answer, beside)
        else:
            self.later.append((head, attachments))

    def _call_off(self, now: float) -> None:
        if self.called_off:
            return
        self.called_off = True
        self._called_off_at = now
        if self._made is not None and self._revocable:
            revoke(self._made)
        if self._inside:
            signal.pthread_kill(self._main, _CALL_OFF)

    def _end_rank(self) -> None:
        """End this process: its function does not come back."""
        print(
            f"mpiflow: rank {self._comm.rank} on {os.uname().nodename} ends: task {self._task.tid} ({context.name}) "
            f"was called off, and has not come back from MPI, or from what it computes, within {GRACE:g} s",
            file=sys.__stderr__,
            flush=True,
        )
        self._comm.flush(LAST_WORDS)
        os.kill(os.getpid(), signal.SIGKILL)


def run_gang(comm: MPIComm, worker: Worker) -> None:
    """Run this rank's part of the gang that a worker has been given; its answer waits in the worker."""
    task = worker.gang
    assert task is not None
    answer, beside = worker.take(acknowledge=True)  # now: the function may take hours
    comm.send(0, answer, beside)
    part = Part(comm, worker, task)
    worker.run_here(part.run)
    worker.gang, worker.called_off = None, False
    for segment in task.attachments:
        segment.close()
    for head, attachments in part.later:
        worker.receive(head, attachments)
    answer, beside = worker.take(acknowledge=True)
    comm.send(0, answer, beside)
