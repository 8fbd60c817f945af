"""The end of a job: rank 0 lets the workers go, each says that it does, is told how, and all leave MPI together.

Once a rank has been lost, MPI_Finalize may wait for it for ever, so then each leaves by itself; where a guardian
stands beside rank 0 it ends the job with the script's own code and without a word of the launcher's, whatever is left
of it. How they leave is said last of all, when every worker has spoken: what dies before that is still seen. A rank
that does not leave in time runs a task itself, or was stopped. It is ended by force: a hang would cost more than the
launcher's noise.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from mpiflow.comm import wire

if TYPE_CHECKING:
    from mpiflow.cli.rank0 import Job
    from mpiflow.executors.fleet import Fleet

#: Seconds that workers have to leave; one that runs a task in its rank may not hear of it.
LEAVE_WITHIN = 10.0
#: Seconds that the others have to leave before rank 0 does: when all go at once, Open MPI's daemon complains.
HEAD_START = 0.1
#: Seconds that the last messages may take.
FLUSH_WITHIN = 1.0


def let_go(job: Job, fleet: Fleet | None, code: int) -> None:
    """Tell every worker to leave and wait until each has said that it does.

    Parameters
    ----------
    job : Job
        Rank 0's way to them, and which are near.
    fleet : Fleet or None
        What is known of them; None where no script was run.
    code : int
        What the job ends with.
    """
    comm = job.comm
    losses = fleet.losses if fleet is not None else None
    if losses is not None:
        losses.leaving = True
    waited_for = set(comm.peers if losses is None else losses.present)
    for peer in waited_for:
        comm.send(peer, wire.record(wire.QUIT))
    end = time.monotonic() + LEAVE_WITHIN
    while waited_for and time.monotonic() < end:
        for peer, head, _ in comm.poll():
            if losses is not None:
                losses.presence.heard(peer, time.monotonic())
            if any(kind == wire.BYE for _, _, _, _, kind, _, _, _ in wire.records(head)):
                waited_for.discard(peer)
        if losses is not None:
            losses.look(time.monotonic())
            waited_for.intersection_update(losses.present)
        time.sleep(0.0002)
    if waited_for:
        ranks = ", ".join(map(str, sorted(waited_for)))
        print(
            f"mpiflow: rank {ranks} did not leave within {LEAVE_WITHIN:g} s (a task runs in the rank itself, or the "
            "rank was stopped?); the job is ended by force",
            file=sys.stderr,
            flush=True,
        )
        comm.hurt = True
    for peer in comm.peers if losses is None else losses.present:
        comm.send(peer, wire.record(wire.LEAVE, aid=int(comm.hurt)))
    comm.flush(FLUSH_WITHIN)
    if comm.hurt and job.protection != "guardian":
        silent = losses.silent if losses is not None else []
        time.sleep(HEAD_START)
        elsewhere = _end_nearby(job.nearby, waited_for.union(silent))
        # MPI can end one that was well a moment ago, or that never came so far; not one whose host is cut off.
        if any(rank in waited_for or (fleet is not None and rank not in fleet.hosts) for rank in elsewhere):
            comm.abort(code)


def _end_nearby(nearby: dict[int, int], ranks: set[int]) -> set[int]:
    """End those of these ranks that are on this node by a signal; the others."""
    for rank in ranks & nearby.keys():
        try:
            os.kill(nearby[rank], signal.SIGKILL)
        except ProcessLookupError:
            continue  # it has left
    return ranks - nearby.keys()
