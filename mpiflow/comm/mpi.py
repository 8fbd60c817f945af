"""Messages over MPI.

The traffic goes over a duplicate of COMM_WORLD, made right after MPI_Init: a script's own messages can never
be taken for ours. Two tags carry heads (with and without attachments), a third the attachments, in pieces of
at most 1 GiB, since many MPI libraries count bytes in an int. MPI keeps the order of messages between two
ranks: the pieces that follow a head belong to it, and since their receives are posted the moment the head is
read, a probe for any tag sees heads only.

Nothing here blocks. A send is started and its buffers are kept until it is complete; a large receive is
started and looked at again by the next `poll`. One lock is round every MPI call: several threads of rank 0
may drive the farm, one at a time.

**A peer that dies.** Under ULFM (Open MPI with ``--with-ft ulfm``) a call that has to do with it fails: the
failure is acknowledged, the peer's number goes into `lost`, and the traffic with all others goes on. MPICH says
nothing, as a rule; whoever uses this notices the silence, and calls `drop`. Only where it copies from the memory of a
process that has just died does the receive fail. So any failure of a call that has to do with one peer is taken for
the end of that peer: what it was sending is torn, whatever the reason. To a peer that has been dropped nothing is
sent any more: with some networks such a send never comes back. The buffers of what was under way stay, since MPI
may still read or write them. After a loss MPI_Finalize can hang, so `hurt` says that it must not be called.

**Heartbeats** are empty messages, sent synchronously: the next one leaves when the last one has been received. A
rank 0 that is busy elsewhere for an hour then has one message of each worker waiting, and not thousands.

Every poll probes twice: with both MPICH and Open MPI the first probe often only pulls a message in, and the
second one sees it. One probe a wake costs a whole extra sleep of latency.
"""

from __future__ import annotations

import os
import struct
import time
from _thread import allocate_lock  # threading.Lock, without two more files for every rank to open

from mpi4py import MPI

from mpiflow.comm.segments import Segment
from mpiflow.errors import FarmLost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Buffer, Callable, Sequence  # type: ignore[attr-defined]
    from mmap import mmap

HEAD, HEAD_WITH, PIECE = 1, 2, 3
PIECE_BYTES = 1 << 30
#: Up to so many seconds a wait looks for messages all the time, and a longer one sleeps.
LOOK_AT_MOST = 50e-6
#: Probes of such a wait between two moments in which it gives way to other processes.
PROBES = 4
#: Messages taken in one poll, so that a flood from the workers cannot keep rank 0 from giving out work.
MOST_MESSAGES = 64
#: What MPI reports when a process has died, and the communicator is otherwise well.
_DEAD = (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING)


class _Incoming:
    """A message whose attachments are still on their way."""

    __slots__ = ("attachments", "head", "peer", "requests")

    def __init__(self, peer: int, head: bytearray, attachments: list[Segment]) -> None:
        self.peer = peer
        self.head = head
        self.attachments = attachments
        self.requests: list[MPI.Request] = []


def _pieces(buffer: memoryview) -> list[memoryview]:
    return [buffer[start : start + PIECE_BYTES] for start in range(0, len(buffer), PIECE_BYTES)]


class MPIComm:
    """A `Comm` over MPI, collective over COMM_WORLD; rank 0's peers are all other ranks, a worker's peer is rank 0.

    Parameters
    ----------
    room : callable
        For a rank, what makes the memory that attachments are received into, from their size in bytes.
    inside : bytearray or mmap, optional
        Its one byte is 1 for as long as this rank is inside MPI, for who watches it from outside.
    """

    def __init__(
        self, room: Callable[[int], Callable[[int], Segment]], inside: bytearray | mmap | None = None
    ) -> None:
        self._comm = MPI.COMM_WORLD.Dup()
        # A peer that has died is an error to be told, never the end of the job by MPI's own default.
        self._comm.Set_errhandler(MPI.ERRORS_RETURN)
        self.rank = self._comm.Get_rank()
        self.size = self._comm.Get_size()
        self._room = room(self.rank)
        self.peers = list(range(1, self.size)) if self.rank == 0 else [0]
        self._source = MPI.ANY_SOURCE if self.rank == 0 else 0
        self._status = MPI.Status()
        self._lock = allocate_lock()
        self._inside: bytearray | mmap = bytearray(1) if inside is None else inside
        #: Set when a rank has been lost: a collective call, MPI_Finalize among them, could hang now.
        self.hurt = False
        #: Peers that MPI has reported dead, for the user of this to take.
        self.lost: list[int] = []
        #: Peers that nothing is sent to, and of those the ones that do not come back.
        self._gone: set[int] = set()
        self._dead: set[int] = set()
        #: The peer that the present call of MPI has to do with; -1: none, or any.
        self._with = -1
        self._sends: list[tuple[MPI.Request, object, int]] = []
        self._incoming: list[_Incoming] = []
        self._beat: MPI.Request | None = None
        self._abandoned: list[object] = []

    @property
    def world(self) -> MPI.Intracomm:
        """The communicator of all ranks that this sends over, for `comm.gangs`; not to be used for messages."""
        return self._comm

    def send(self, peer: int, head: bytes, attachments: Sequence[Buffer] = ()) -> None:
        """Start to send a message; returns at once. To a peer that has been dropped: nothing.

        Raises
        ------
        FarmLost
            When MPI reports a failure that is no single peer's, here and in `poll`.
        """
        with self._lock:
            if peer in self._gone:
                return
            self._inside[0] = 1
            self._with = peer
            try:
                self._send(peer, head, attachments)
            except MPI.Exception as error:
                self._note_failure(error)
            finally:
                self._inside[0] = 0

    def beat(self) -> None:
        """Send rank 0 a sign of life, if it has received the last one."""
        with self._lock:
            self._with = 0
            try:
                if self._beat is None or self._beat.Test():
                    self._beat = self._comm.Issend([b"", MPI.BYTE], 0, HEAD)
            except MPI.Exception as error:
                self._note_failure(error)

    def _note_failure(self, error: MPI.Exception) -> None:
        """Take note of who has died, and go on with the others; FarmLost when that is not what has happened."""
        self.hurt = True
        if error.Get_error_class() in _DEAD:
            comm = self._comm
            comm.Ack_failed(self.size)
            failed = comm.Get_failed()
            ranks = MPI.Group.Translate_ranks(failed, list(range(failed.Get_size())), comm.Get_group())
        elif self._with >= 0:  # under ULFM too: a test of several requests does not say what has failed
            ranks = [self._with]
        else:
            raise FarmLost(f"MPI reports a failure: {error}") from error
        for rank in ranks:
            if rank not in self._dead:
                self._drop(rank)
                if rank in self.peers:
                    self.lost.append(rank)

    def drop(self, peer: int, for_good: bool) -> None:
        """Send nothing more to a peer, which is lost.

        Parameters
        ----------
        peer : int
            Its number.
        for_good : bool
            Whether it is dead. One that is silent may come back, see `take_back`.
        """
        self.hurt = True
        with self._lock:
            if for_good:
                self._drop(peer)
            else:
                self._gone.add(peer)

    def _drop(self, peer: int) -> None:
        self._gone.add(peer)
        self._dead.add(peer)
        self._abandoned += [entry for entry in self._sends if entry[2] == peer]
        self._abandoned += [message for message in self._incoming if message.peer == peer]
        self._sends = [entry for entry in self._sends if entry[2] != peer]
        self._incoming = [message for message in self._incoming if message.peer != peer]

    def take_back(self, peer: int) -> None:
        """A peer that was silent has been heard of again."""
        if peer not in self._dead:
            self._gone.discard(peer)

    def _send(self, peer: int, head: bytes, attachments: Sequence[Buffer]) -> None:
        if not attachments:
            self._start(peer, head, HEAD)
            return
        views = [memoryview(buffer).cast("B") for buffer in attachments]
        table = struct.pack(f"<{1 + len(views)}Q", len(views), *(len(view) for view in views))
        self._start(peer, table + head, HEAD_WITH)
        for view in views:
            for piece in _pieces(view):
                self._start(peer, piece, PIECE)

    def _start(self, peer: int, buffer: bytes | memoryview, tag: int) -> None:
        request = self._comm.Isend([buffer, MPI.BYTE], peer, tag)
        if not request.Test():  # most small messages are gone at once
            self._sends.append((request, buffer, peer))

    def poll(self) -> list[tuple[int, bytearray, list[Segment]]]:
        """Every message that has arrived whole, as (peer, head, attachments)."""
        arrived: list[tuple[int, bytearray, list[Segment]]] = []
        with self._lock:
            self._inside[0] = 1
            try:
                self._poll(arrived)
            except MPI.Exception as error:
                self._note_failure(error)
            finally:
                self._inside[0] = 0
        return arrived

    def _poll(self, arrived: list[tuple[int, bytearray, list[Segment]]]) -> None:
        comm, status, source, any_tag = self._comm, self._status, self._source, MPI.ANY_TAG
        if self._sends:
            self._sends = [entry for entry in self._sends if not self._is_sent(entry)]
        if self._incoming:
            self._finish(arrived)
        self._with = -1
        there = comm.Iprobe(source, any_tag, status) or comm.Iprobe(source, any_tag, status)
        while there:
            peer = self._with = status.Get_source()
            tag = status.Get_tag()
            if peer in self._dead:
                # Only taken out of the way. MPICH would copy it from a process that is not there, and fail, and after
                # some two hundred times of that it moves no message of anybody's any more.
                comm.Improbe(peer, tag)
            else:
                frame = bytearray(status.Get_count(MPI.BYTE))
                comm.Recv([frame, MPI.BYTE], peer, tag)
                if tag == HEAD and not self._waits_for(peer):
                    arrived.append((peer, frame, []))
                else:
                    self._expect(peer, frame, tag)
                    self._finish(arrived)
            self._with = -1
            there = len(arrived) < MOST_MESSAGES and comm.Iprobe(source, any_tag, status)

    def _is_sent(self, entry: tuple[MPI.Request, object, int]) -> bool:
        self._with = entry[2]
        return entry[0].Test()

    def _waits_for(self, peer: int) -> bool:
        return any(message.peer == peer for message in self._incoming)

    def _expect(self, peer: int, frame: bytearray, tag: int) -> None:
        """Post the receives of a message with attachments; later heads of that peer queue behind it."""
        sizes: tuple[int, ...] = ()
        if tag == HEAD_WITH:
            (count,) = struct.unpack_from("<Q", frame)
            sizes = struct.unpack_from(f"<{count}Q", frame, 8)
            frame = frame[8 + 8 * count :]
        message = _Incoming(peer, frame, [self._room(size) for size in sizes])
        self._incoming.append(message)
        for segment in message.attachments:
            for piece in _pieces(segment.view):
                message.requests.append(self._comm.Irecv([piece, MPI.BYTE], peer, PIECE))

    def _finish(self, arrived: list[tuple[int, bytearray, list[Segment]]]) -> None:
        """Move messages that are complete, in the order of each peer's heads, to `arrived`."""
        held_up: set[int] = set()
        for message in self._incoming.copy():
            self._with = message.peer
            if message.peer in held_up or not MPI.Request.Testall(message.requests):
                held_up.add(message.peer)
            else:
                self._incoming.remove(message)  # at once: after a failure of the next one it is not to come again
                arrived.append((message.peer, message.head, message.attachments))

    def flush(self, seconds: float) -> None:
        """Wait until everything has been sent, at most so long; what arrives meanwhile is dropped."""
        end = time.monotonic() + seconds
        while self._sends and time.monotonic() < end:
            self.poll()

    def wait(self, seconds: float) -> None:
        """Look for messages, if it is for a moment; else sleep, for MPI offers nothing to wait on that sleeps."""
        if seconds > LOOK_AT_MOST:
            time.sleep(seconds)
            return
        comm, source, any_tag = self._comm, self._source, MPI.ANY_TAG
        end = time.perf_counter() + seconds
        with self._lock:
            self._inside[0] = 1
            self._with = -1
            try:
                while time.perf_counter() < end:
                    for _ in range(PROBES):  # each takes 0.3 µs, giving way twice as much
                        if comm.Iprobe(source, any_tag):
                            return
                    os.sched_yield()  # with more ranks than cores, the one we wait for may need this one
            except MPI.Exception as error:
                self._note_failure(error)
            finally:
                self._inside[0] = 0

    def close(self) -> None:
        """Nothing: MPI is ended by `world.finalize`."""

    def abort(self, code: int) -> None:
        """End the whole job by force; does not return."""
        self._comm.Abort(code)
