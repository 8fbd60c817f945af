"""A fleet without MPI: runners of this very process."""

from __future__ import annotations

import atexit
import os
import sys
from typing import TYPE_CHECKING

from mpiflow.comm.local import LocalComm
from mpiflow.executors.fleet import Fleet, install
from mpiflow.worker.worker import Worker, describe_rank

if TYPE_CHECKING:
    from mpiflow.worker.zygote import Zygote


def local_fleet(zygote: Zygote | None = None) -> Fleet:
    """Make and install a fleet of local runners, one for each usable CPU by default.

    Parameters
    ----------
    zygote : Zygote, optional
        What runners are forked from; made here if there is none yet.
    """
    from mpiflow.linux import usable_cpus
    from mpiflow.monitor.console import Console
    from mpiflow.worker.zygote import exec_zygote

    cpus = usable_cpus()
    fleet = Fleet(LocalComm(Worker(zygote or exec_zygote(), cpus)), runner_settings(in_rank=False), Console().printed)
    fleet.default_runners = cpus
    fleet.on_hello(0, describe_rank(0))
    install(fleet)
    atexit.register(_close, fleet, os.getpid())
    return fleet


def runner_settings(in_rank: bool) -> dict[str, object]:
    """What runners are started with: this process's directory and path.

    Parameters
    ----------
    in_rank : bool
        Whether tasks may run in the workers' own processes, which then see the same modules.
    """
    path = [os.path.abspath(entry) for entry in sys.path[:1]]
    return {"path": path, "directory": os.getcwd(), "in_rank": in_rank}


def _close(fleet: Fleet, pid: int) -> None:
    if os.getpid() == pid:  # not in a child that the script forked
        fleet.comm.close()
