"""MPI itself: starting it, ending it, and what it says of itself.

Importing this module is MPI_Init.
"""

from __future__ import annotations

import os

import mpi4py

mpi4py.rc.finalize = False  # done by `finalize`, before the exit code is decided on, not behind our back
# Else mpi4py reduces objects (`comm.allreduce(x)`) over a hidden duplicate of the communicator, which is made in the
# first such call, with Python's lock held, and which nobody can revoke: a gang could not be called off in it.
mpi4py.rc.fast_reduce = False

from mpi4py import MPI  # noqa: E402

from mpiflow import linux  # noqa: E402

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

#: What MPICH and Open MPI call the files of their shared memory.
_SHARED_FILES = ("/dev/shm/mpich_shm_", "/dev/shm/sm_segment.")
_THREAD_LEVELS = {
    MPI.THREAD_SINGLE: "single",
    MPI.THREAD_FUNNELED: "funneled",
    MPI.THREAD_SERIALIZED: "serialized",
    MPI.THREAD_MULTIPLE: "multiple",
}


def size() -> int:
    """Ranks in MPI's world."""
    return MPI.COMM_WORLD.Get_size()


def on_this_node() -> dict[int, int]:
    """The ranks that share this node's memory, in order, and their process ids; collective over the world."""
    node = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
    ranks: list[tuple[int, int]] = node.allgather((MPI.COMM_WORLD.Get_rank(), os.getpid()))
    node.Free()
    return dict(sorted(ranks))


def unlink_files() -> None:
    """Take the names off the shared memory of this node's ranks, which keep what they have mapped.

    MPI removes these files in MPI_Finalize: after a rank has been lost, or killed, they would stay for ever, and
    fill the memory of the node. MPICH and Open MPI map them on every rank of a node before MPI_Init returns, so
    call it when all of those have come so far: after `on_this_node`.
    """
    for prefix in _SHARED_FILES:
        linux.unlink_mapped(prefix)


def library() -> Library:
    """The MPI that is loaded, in words."""
    name = " ".join(MPI.Get_library_version().split("\n")[0].split()).rstrip("\0")
    standard = ".".join(map(str, MPI.Get_version()))
    return Library(name, standard, mpi4py.__version__, _THREAD_LEVELS[MPI.Query_thread()])


def finalize() -> bool:
    """End MPI; whether it could be: not when a rank has died a moment ago.

    Other threads go on meanwhile, which mpi4py's own function does not let them: one of them may have to end what
    never ends. Leave by a normal exit afterwards: MPICH tells its launcher from libc's exit().
    """
    import ctypes

    for path in linux.loaded_libraries("libmpi"):
        library = ctypes.CDLL(path)
        if hasattr(library, "MPI_Finalize"):
            return bool(library.MPI_Finalize() == MPI.SUCCESS)
    try:
        MPI.Finalize()
    except MPI.Exception:  # under ULFM; nothing is left that anybody could do with it
        return False
    return True
