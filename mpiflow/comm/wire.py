"""What messages say: streams of records, the same between ranks as between a rank and its runners.

A record is a header of 28 bytes and a payload::

    aid  u64   number of the attempt (TASK, DONE, ...), or a count
    tid  u32   number of the task, for words to the user and random streams
    fid  u32   number of the function
    size u32   bytes of payload that follow the header
    time f32   a task's walltime on the way out (0: none), its duration on the way back, in seconds
    kind u16   one of the constants below
    more u16   how many of the message's attachments belong to this record, in order

A worker passes a task's record on to a runner, and a runner's back to rank 0, without opening it. Payloads
above `INLINE` bytes and large buffers go as attachments beside the stream, so that they are never copied
into it; then ``size`` is 0 and the first attachment is the payload.

=========  =================  ====================================================================
kind       direction          payload
=========  =================  ====================================================================
SETTINGS   rank 0 → worker    pickled dict: directories, environment, how many runners
FUNCTION   rank 0 → runner    a function with its name and seed, sent before the first task that needs it
TASK       rank 0 → runner    pickled (args, kwargs); runs in a runner that is used again
TASK_RANK  rank 0 → worker    the same, to run in the worker's own process
TASK_FORK  rank 0 → worker    the same, to run in a process of its own
DROP       rank 0 → worker    attempt numbers, u64 each: forget these, kill what runs them
PING       rank 0 → worker    nothing; acknowledged at once
QUIT       rank 0 → worker    nothing; the job is over, end the runners and say BYE
LEAVE      rank 0 → worker    nothing; leave. ``aid`` above 0: a rank is lost, leave without MPI_Finalize
FORGET     rank 0 → runner    nothing; the function is called no more
LIMIT      rank 0 → worker    bytes of memory, u64, that the task of this attempt, which follows, may use
TASK_GANG  rank 0 → worker    a member's part of a gang, see `GANG`, then the same as in a TASK; runs in the rank
STACKS     rank 0 → worker    nothing; say what your threads and your runners are at
HAND_BACK  rank 0 → worker    attempt numbers, u64 each: give back those of these that have not begun
HELLO      worker → rank 0    pickled dict: host, pid, CPUs; or what is wrong with it
ACK        worker → rank 0    nothing; ``aid`` is how many messages have been received since the last
STARTED    runner → worker    nothing; sent for tasks with a walltime, whose clock starts now
DONE       runner → rank 0    pickled result
RAISED     runner → rank 0    a failure, see `comm.pickling`
DIED       worker → rank 0    pickled words: how the process that ran the task ended. Of a gang: the rank has come back
                              because others did not go on; a failure, or nothing where rank 0 has told it to
OVERTIME   worker → rank 0    the task was ended at its walltime: nothing; at its memory limit: limit and peak, u64 each
OUTPUT     worker → rank 0    what tasks printed: pickled list of (tid, fid, stream, text, bytes left out)
STUCK      worker → rank 0    pickled words: what this rank does not come back from; it says nothing more until it does
MET        worker → rank 0    nothing; this member of a gang has its communicator. Where gangs meet one after the other
BYE        worker → rank 0    nothing; its last word, the runners have gone
LEAVING    runner → worker    nothing; it ends now, so that what it was given ahead is for another
STACK_TEXT worker → rank 0    pickled list of (what, text): the rank itself, then each runner
NOT_BEGUN  worker → rank 0    pickled list of attempt numbers: these have not begun here, and will not
USED       runner → rank 0    when a task began, and what it uses: `USAGE`. Sent where the run is monitored
=========  =================  ====================================================================
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

#: aid, tid, fid, size, time, kind, more
HEADER = Struct("<QIIIfHH")
HEADER_SIZE: Final = 28
#: Payload of an OVERTIME that is one of memory: limit and peak.
EXCESS = Struct("<QQ")
#: Payload of a USED: when the task began, and when this was seen (seconds since the epoch); whether the task had ended
#: then; whether there is more than that; process, processes below it, processor, memory in percent of the node's; CPU
#: time of user and system, address space, memory, characters read and written, context switches of both kinds, state.
USAGE = Struct("<dd??IIhfddQQQQQQc")
#: Payload of a TASK_GANG begins with the number of the gang, that of its communicator's parent (0: all ranks of the
#: job; of an earlier gang: the one that it left; its own: there is none yet), and a count of the gang's ranks; then
#: those, u32 each, in order.
GANG = Struct("<III")
#: Payloads and buffers above this many bytes travel beside the stream. Below it a copy is cheaper than
#: another message (MPI) or another file descriptor (a runner).
INLINE: Final = 64 * 1024

# `Final` has mypyc write the numbers themselves into the loops that look at every record.
SETTINGS: Final = 1
FUNCTION: Final = 2
TASK: Final = 3
TASK_RANK: Final = 4
TASK_FORK: Final = 5
DROP: Final = 6
PING: Final = 7
QUIT: Final = 8
FORGET: Final = 9
STACKS: Final = 10
LIMIT: Final = 11
LEAVE: Final = 12
HAND_BACK: Final = 13
TASK_GANG: Final = 14

HELLO: Final = 16
ACK: Final = 17
STARTED: Final = 18
DONE: Final = 19
RAISED: Final = 20
DIED: Final = 21
OVERTIME: Final = 22
OUTPUT: Final = 23
BYE: Final = 24
STACK_TEXT: Final = 25
LEAVING: Final = 26
NOT_BEGUN: Final = 27
USED: Final = 28
STUCK: Final = 29
MET: Final = 30


def record(kind: int, payload: bytes = b"", aid: int = 0, tid: int = 0, fid: int = 0) -> bytes:
    """A record with its payload inside the stream.

    Parameters
    ----------
    kind : int
        One of this module's constants.
    payload : bytes
        At most 4 GiB.

    Returns
    -------
    bytes
        The record.
    """
    return HEADER.pack(aid, tid, fid, len(payload), 0.0, kind, 0) + payload


def records(stream: bytearray | bytes) -> Iterator[tuple[int, int, int, float, int, int, int, int]]:
    """Walk over the records of a message.

    Yields
    ------
    tuple
        aid, tid, fid, time, kind, more, and where the payload starts and ends in the stream; the header is
        the `HEADER.size` bytes before it. Places, not views: a slice costs as much as the whole step.
    """
    unpack, header = HEADER.unpack_from, HEADER_SIZE
    position, end = 0, len(stream)
    while position < end:
        aid, tid, fid, size, time, kind, more = unpack(stream, position)
        start = position + header
        position = start + size
        yield aid, tid, fid, time, kind, more, start, position
