"""Sockets between the processes of a node, and descriptors that travel through them.

These are the stdlib's own, without its Python half: `socket` imports `selectors`, `enum`, `array` and more,
five files that every rank of a job would open.
"""

from __future__ import annotations

import os
import struct
from _socket import AF_UNIX, MSG_DONTWAIT, SCM_RIGHTS, SHUT_WR, SOCK_SEQPACKET, SOL_SOCKET, socket, socketpair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MSG_DONTWAIT", "SHUT_WR", "packet_pair", "receive_fds", "send_fds", "socket", "stream_pair"]

_FD = struct.calcsize("i")


def stream_pair() -> tuple[socket, socket]:
    """Two ends of a stream of bytes."""
    return socketpair()


def packet_pair() -> tuple[socket, socket]:
    """Two ends of a way on which packets keep their borders."""
    return socketpair(AF_UNIX, SOCK_SEQPACKET)


def send_fds(channel: socket, packet: bytes, fds: Sequence[int]) -> None:
    """Send a packet with descriptors; the other end gets its own for the same open files."""
    channel.sendmsg([packet], [(SOL_SOCKET, SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))])


def receive_fds(channel: socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Take the next packet and its descriptors; empty, and none, at the end.

    Parameters
    ----------
    channel : socket
        One end of a `packet_pair`.
    size : int
        Bytes of the largest packet.
    most : int
        Descriptors that come with one, at most.
    """
    packet, ancillary, _, _ = channel.recvmsg(size, struct.calcsize(f"{most}i") + 64)
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            fds.extend(struct.unpack(f"{len(data) // _FD}i", data[: len(data) - len(data) % _FD]))
    for fd in fds:
        os.set_inheritable(fd, False)  # received descriptors are, as no others in Python
    return packet, fds
