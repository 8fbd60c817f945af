"""Memory for attachments: large buffers that are handed on instead of copied.

A shared segment is a memfd: memory with a descriptor and no name, which dies with its last user. A worker
receives an attachment from MPI straight into one and passes the descriptor to the runner, which maps it; the
array of the task then lies in that memory. Results go back the same way. Rank 0 needs no descriptor and takes
anonymous pages.
"""

from __future__ import annotations

import mmap
import os
import struct

from mpiflow.comm.sockets import receive_fds, send_fds
from mpiflow.linux import memory_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined]

    from mpiflow.comm.sockets import socket

_SIZE = struct.Struct("<Q")


class Segment:
    """Writable memory for one attachment.

    Attributes
    ----------
    view : memoryview
        The bytes.
    fd : int
        Descriptor of shared memory, -1 if it is private to this process.
    """

    __slots__ = ("fd", "view")

    def __init__(self, view: memoryview, fd: int = -1) -> None:
        self.view = view
        self.fd = fd

    def __len__(self) -> int:
        return len(self.view)

    def close(self) -> None:
        """Give the descriptor back; the memory lives as long as somebody looks at it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def private(size: int) -> Segment:
    """Memory of this process alone. A bytearray would be zeroed once more than the kernel does already."""
    return Segment(memoryview(mmap.mmap(-1, size)) if size else memoryview(bytearray()))


def shared(size: int) -> Segment:
    """Memory that can be passed to another process."""
    fd = memory_file(size)
    return Segment(_mapped(fd, size), fd)


def shared_copy(buffer: Buffer) -> Segment:
    """A copy of a buffer in memory that can be passed to another process."""
    source = memoryview(buffer).cast("B")
    segment = shared(len(source))
    segment.view[:] = source
    return segment


def _mapped(fd: int, size: int) -> memoryview:
    return memoryview(mmap.mmap(fd, size)) if size else memoryview(bytearray())


def send_segment(channel: socket, segment: Segment) -> None:
    """Pass shared memory on. The channel keeps packet borders, so packets and descriptors stay together."""
    send_fds(channel, _SIZE.pack(len(segment)), [segment.fd])


def receive_segment(channel: socket) -> Segment:
    """Take the next shared memory that was passed; it was sent before the record that needs it."""
    packet, fds = receive_fds(channel, _SIZE.size, 1)
    if not fds:
        raise EOFError("the other side of a segment channel has gone")
    (size,) = _SIZE.unpack(packet)
    return Segment(_mapped(fds[0], size), fds[0])
