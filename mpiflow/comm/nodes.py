"""One rank of each node, for what is done once a node; the other ranks wait without using the processor.

For ``mpiflow stage``, which may run where nothing of ours is installed yet: beside mpi4py this needs the standard
library only.
"""

from __future__ import annotations

import time

from mpiflow.comm import world  # first: it says how MPI is to be started

from mpi4py import MPI  # isort: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

#: Bytes of one broadcast: enough for the network, little for a node's memory.
PIECE = 16 << 20


class Nodes:
    """The nodes of this job, as seen by one of its ranks.

    Attributes
    ----------
    leads : bool
        Whether this rank acts for its node; the others only `wait`.
    first : bool
        Whether it is rank 0 of the job, which leads, too.
    size : int
        How many ranks MPI knows of.
    """

    def __init__(self) -> None:
        everyone = MPI.COMM_WORLD
        node = everyone.Split_type(MPI.COMM_TYPE_SHARED)
        self.size = everyone.Get_size()
        self.leads = node.Get_rank() == 0
        self.first = everyone.Get_rank() == 0
        self._leaders = everyone.Split(0 if self.leads else 1, everyone.Get_rank())
        node.Free()

    def wait(self, code: int) -> int:
        """Wait until every rank is here; the code that the first rank has brought."""
        request = MPI.COMM_WORLD.Ibarrier()
        while not request.Test():
            time.sleep(0.01)
        found: int = MPI.COMM_WORLD.bcast(code)
        return found

    def tell(self, value: Any) -> Any:
        """What the first leader says, to all leaders."""
        return self._leaders.bcast(value)

    def ask(self, value: Any) -> list[Any]:
        """What each leader says, to all leaders."""
        found: list[Any] = self._leaders.allgather(value)
        return found

    def pieces(self, read: Callable[[memoryview], int] | None) -> Iterator[memoryview]:
        """Bytes that the first leader reads, to all leaders; each has to take them to their end.

        Parameters
        ----------
        read : callable or None
            On the first leader: fills a buffer and returns how much there is; 0 at the end, -1 when it failed.

        Yields
        ------
        memoryview
            The next piece, good until the one after it.

        Raises
        ------
        EOFError
            The first leader could not read on.
        """
        buffer = memoryview(bytearray(PIECE))
        while True:
            length: int = self._leaders.bcast(read(buffer) if read is not None else 0)
            if length < 0:
                raise EOFError
            if not length:
                return
            self._leaders.Bcast([buffer[:length], MPI.BYTE])
            yield buffer[:length]

    def end(self) -> None:
        """End MPI."""
        self._leaders.Free()
        world.finalize()

    def abort(self) -> None:
        """End all ranks at once: this one cannot go on, and the others would wait for it."""
        MPI.COMM_WORLD.Abort(1)
