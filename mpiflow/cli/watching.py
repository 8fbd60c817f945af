"""Watch the script on rank 0: whether it sits in an MPI call that no other rank will answer.

Nearly all of mpi4py's calls let other threads run while they wait, so that a watchdog can look. Some do not
(``allreduce`` and ``reduce`` of Python objects do not), nor does every library. For these there is faulthandler's
timer, which needs no interpreter: it is wound up at each look, and when nobody could look for too long it writes where
every thread is. There is one such timer in a process: a script that sets it itself has it only until the next look.
"""

from __future__ import annotations

import faulthandler
import logging
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from mpiflow.kernel.loader import DataFlowKernelLoader
from mpiflow.monitor.collective import collective_words
from mpiflow.monitor.watchdog import Watchdog
from mpiflow.stacks import main_frame

#: Seconds that faulthandler's timer can be set to, and more than any job lasts.
LONGEST = 1e8
#: Its descriptor: the script may put anything into `sys.stderr`.
STANDARD_ERROR = 2


@contextmanager
def watching_script(after: float) -> Iterator[None]:
    """Have a watchdog look at the script meanwhile.

    A DataFlowKernel has a watchdog of its own, which sees what is waited for while tasks have not ended. This one is
    for the rest: a script may call ``COMM_WORLD.Barrier()`` before its first task, or after its last.

    Parameters
    ----------
    after : float
        Seconds in one and the same call after which it is named; 0 for never.
    """
    if not after:
        yield
        return

    def where() -> Hashable | None:
        faulthandler.dump_traceback_later(min(after, LONGEST), file=STANDARD_ERROR)
        return _where()

    where()
    dog = Watchdog(after, where, lambda: collective_words(main_frame()), logging.getLogger("mpiflow").warning)
    dog.start()
    try:
        yield
    finally:
        dog.close()
        faulthandler.cancel_dump_traceback_later()


def _where() -> Hashable | None:
    """The instruction that the main thread is at; None while there are tasks to wait for."""
    kernel = DataFlowKernelLoader._dfk
    frame = main_frame()
    if frame is None or (kernel is not None and kernel.unended):
        return None
    return id(frame), frame.f_lasti
