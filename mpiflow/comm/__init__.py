"""Everything that travels: the only room that imports mpi4py.

A `Comm` moves messages between rank 0 and its workers and knows nothing of what is in them. Two kinds stand
behind the one small interface, `comm.mpi` over MPI and `comm.local` to a worker in the same process (a script
without MPI); tests have a third, which only pretends.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Buffer, Sequence  # type: ignore[attr-defined]
    from typing import Protocol

    from mpiflow.comm.segments import Segment

    class Comm(Protocol):
        """What an executor needs of the world."""

        peers: list[int]
        #: Peers that are known to be dead, for the user of this to take.
        lost: list[int]

        def send(self, peer: int, head: bytes, attachments: Sequence[Buffer] = ()) -> None:
            """Start to send; returns at once, and keeps the buffers until they are gone."""

        def poll(self) -> list[tuple[int, bytearray, list[Segment]]]:
            """Every message that has arrived whole, as (peer, head, attachments); never waits."""

        def drop(self, peer: int, for_good: bool) -> None:
            """Send nothing more to a peer, which is dead (for good) or silent."""

        def take_back(self, peer: int) -> None:
            """A silent peer has been heard of again."""

        def wait(self, seconds: float) -> None:
            """Wait until something may have arrived, at most so long; without sleeping if it is for a moment."""

        def close(self) -> None:
            """Let go of what is below it."""
