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


def ranks_on_this_node() -> int:
    """Ranks that share this node's memory; collective over the world."""
    node = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
    ranks: int = node.Get_size()
    node.Free()
    return ranks


def library() -> Library:
    """The MPI that is loaded, in words."""
    name = " ".join(MPI.Get_library_version().split("\n")[0].split()).rstrip("\0")
    standard = ".".join(map(str, MPI.Get_version()))
    return Library(name, standard, mpi4py.__version__, _THREAD_LEVELS[MPI.Query_thread()])


def finalize() -> None:
    """End MPI. Leave by a normal exit afterwards: MPICH tells its launcher from libc's exit()."""
    MPI.Finalize()
