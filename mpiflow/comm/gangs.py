"""Communicators for gangs: a task that runs on several ranks gets one of exactly these.

`MPI_Comm_create_group` concerns the members only; a split would be collective over the whole world, rank 0 and
whoever is busy included. It is made over our own duplicate of COMM_WORLD, under a tag for each gang: what a member
that died had begun to say can never be taken for a later gang's.

Once any rank has died, a member or not, Open MPI makes no communicator of that parent any more. Then these ranks make
a *parent* of their own by `MPI_Comm_create_from_group`, and keep it: later gangs of these ranks, or of some of them,
take it, and rank 0 says which. It has to be rare, for the launcher takes the longer the more of them there have been:
2 ms at first, a tenth of a second after 250 (Open MPI 5.0). And nothing else of this process may be in MPI meanwhile:
with a second thread that looked for messages one in some hundreds never came back. Communicators with such a parent
are not revoked: with Open MPI 5.0 a revoke then and now reached another communicator of a member, or crashed it.
Rejected: `MPI_Comm_shrink`, for which every rank of the job would have to come, whatever it is at, and whose
nonblocking form fails there; and merged intercommunicators, which need a bridge without dead members as well.

A communicator is freed when all went well. After a failure it stays: messages may still be under way in it, and MPI
would hand its number, and with it those messages, to the next one. That costs a number out of some thousands.
"""

from __future__ import annotations

from mpi4py import MPI

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpiflow.comm.mpi import MPIComm

#: What a member is given.
Communicator = MPI.Intracomm
#: Tags run from here; every MPI has at least 32767.
_FIRST_TAG, _TAGS = 16, 32_000
#: What MPI reports where others do not go on: a peer has died, or somebody has revoked the communicator.
_OTHERS = {MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_REVOKED}
#: MPICH has no word of its own for it, and Open MPI none where a member dies while a parent is made.
_PERHAPS_OTHERS = {MPI.ERR_OTHER, MPI.ERR_INTERN, MPI.ERR_UNKNOWN, MPI.ERR_UNSUPPORTED_OPERATION}
#: What earlier gangs of this process have left as parents, by the number of the gang.
_parents: dict[int, Communicator] = {}


def communicator(comm: MPIComm, ranks: Sequence[int], number: int, parent: int) -> Communicator:
    """A communicator of these ranks in this order; collective over them, and them only.

    Parameters
    ----------
    comm : MPIComm
        What they talk to rank 0 by.
    ranks : sequence of int
        In the world.
    number : int
        Of the gang: the same on each of them.
    parent : int
        Its parent, as in `wire.GANG`.
    """
    group = comm.world.Get_group()
    members = group.Incl(ranks)
    try:
        if parent == number:
            _parents[number] = MPI.Intracomm.Create_from_group(members, f"mpiflow-{number}")
            _parents[number].Set_errhandler(MPI.ERRORS_RETURN)
        made = (_parents[parent] if parent else comm.world).Create_group(members, _FIRST_TAG + number % _TAGS)
    finally:
        members.Free()
        group.Free()
    # A failure is to be an exception of the task, whatever the parent has.
    made.Set_errhandler(MPI.ERRORS_RETURN)
    # Nobody may revoke it before all have it: Open MPI crashes where it is half made.
    made.Barrier()
    return made


def alone() -> Communicator:
    """The communicator of this process alone; starts MPI where it has not been."""
    return MPI.COMM_SELF


def revoke(communicator: Communicator) -> None:
    """Have every rank that is inside a call of this communicator come back with an error (ULFM only)."""
    communicator.Revoke()


def is_of_others(error: BaseException | None) -> bool | None:
    """Whether this failure, or one that led to it, is MPI's word that other ranks do not go on; None: perhaps."""
    seen: set[int] = set()
    found: bool | None = False
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MPI.Exception):
            kind = error.Get_error_class()
            if kind in _OTHERS:
                return True
            found = None if kind in _PERHAPS_OTHERS else found
        error = error.__cause__ or error.__context__
    return found


def threads_may_call() -> bool:
    """Whether a second thread may call MPI while the first one is in it."""
    return MPI.Query_thread() == MPI.THREAD_MULTIPLE
