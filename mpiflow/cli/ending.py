"""When this job ends: from the command line, or from the batch system."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from mpiflow.jobs.deadline import Deadline, find_deadline
from mpiflow.kernel.drain import job

if TYPE_CHECKING:
    from mpiflow.cli.arguments import Arguments

logger = logging.getLogger("mpiflow.jobs")


def know_the_end(parsed: Arguments) -> None:
    """Have the kernels know when the job's time is over.

    Some batch systems have to be asked by a command, and may be slow to answer: the script does not wait for it.
    """
    if parsed.deadline is not None:
        _take(Deadline(parsed.deadline, "--deadline"), parsed.drain_before)
    else:
        environ = dict(os.environ)  # before the script changes it
        look = threading.Thread(target=_look, args=(environ, parsed.drain_before), name="mpiflow-deadline", daemon=True)
        look.start()


def _look(environ: dict[str, str], before: float | None) -> None:
    _take(find_deadline(environ, time.time()), before)


def _take(deadline: Deadline, before: float | None) -> None:
    if deadline.moment is None:
        logger.info("The end of the job is not known: %s", deadline.source)
        return
    now, left = time.monotonic(), deadline.moment - time.time()
    if left <= 0:  # a job that still runs was given more time
        logger.info("The end of the job is not known: %s says that it is over", deadline.source)
        return
    job.end_at(now + left, before, now, deadline.source)  # from here on by a clock that nobody sets
    logger.info("The job ends in %.0f s: %s", left, deadline.source)
