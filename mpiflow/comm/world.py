"""MPI itself: starting it, ending it, and what it says of itself.

Importing this module is MPI_Init.
"""

from __future__ import annotations

import mpi4py

mpi4py.rc.finalize = False  # done by `finalize`, before the exit code is decided on, not behind our back

from mpi4py import MPI  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class Library(NamedTuple):
        """The MPI that is loaded."""

        name: str
        standard: str
        mpi4py: str
        thread_level: str

else:
    from collections import namedtuple

    Library = namedtuple("Library", ("name", "standard", "mpi4py", "thread_level"))

_THREAD_LEVELS = {
    MPI.THREAD_SINGLE: "single",
    MPI.THREAD_FUNNELED: "funneled",
    MPI.THREAD_SERIALIZED: "serialized",
    MPI.THREAD_MULTIPLE: "multiple",
}


def size() -> int:
    """Ranks in MPI's world."""
    return MPI.COMM_WORLD.Get_size()


def on_this_node() -> tuple[int, list[int]]:
    """How many ranks share this node's memory, and which of them are workers, in order; collective over the world."""
    node = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
    ranks: list[int] = node.allgather(MPI.COMM_WORLD.Get_rank())
    node.Free()
    return len(ranks), [rank for rank in ranks if rank > 0]


def library() -> Library:
    """The MPI that is loaded, in words."""
    name = " ".join(MPI.Get_library_version().split("\n")[0].split()).rstrip("\0")
    standard = ".".join(map(str, MPI.Get_version()))
    return Library(name, standard, mpi4py.__version__, _THREAD_LEVELS[MPI.Query_thread()])


def finalize() -> None:
    """End MPI. Leave by a normal exit afterwards: MPICH tells its launcher from libc's exit()."""
    MPI.Finalize()
