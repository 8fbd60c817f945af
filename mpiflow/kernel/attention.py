"""What a DataFlowKernel looks at besides its tasks: how late it is, and what somebody asks from outside."""

from __future__ import annotations

import sys
import time
from collections import deque
from math import inf
from typing import TYPE_CHECKING

from mpiflow.kernel.drain import Drain, job
from mpiflow.monitor.requests import Requests

if TYPE_CHECKING:
    from mpiflow.kernel.dataflow import DataFlowKernel
    from mpiflow.kernel.task import Task


class Attention:
    """The run's ear; called once in a while by whoever drives.

    Parameters
    ----------
    kernel : DataFlowKernel
        Whose.
    ready : deque of Task
        Its tasks that may be started.
    """

    def __init__(self, kernel: DataFlowKernel, ready: deque[Task]) -> None:
        self._kernel = kernel
        self.drain = Drain(kernel, ready, job)
        self._requests: Requests | None = None
        try:
            self._requests = Requests(kernel.run_dir)
        except OSError as error:
            self._be_deaf(error)

    @property
    def chooses(self) -> bool:
        """Whether some tasks may not be started: an end of the job is known, or it is being drained."""
        return job.limit < inf or bool(job.why)

    def tick(self) -> None:
        """Look at the clock, and at requests, each about once a second."""
        now = time.monotonic()
        if self._requests is not None:
            try:
                self._requests.serve(now)
            except OSError as error:  # the disk is full, or gone: no reason to lose the run
                self._be_deaf(error)
        self.drain.tick(now)

    def _be_deaf(self, error: OSError) -> None:
        self._requests = None
        words = f"requests to this run cannot be taken any more ({error}): mpiflow drain and stop do not reach it"
        print(f"mpiflow: {words}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Listen no more."""
        self.drain.close()
        job.left += len(self._kernel.unended) if job.ended else 0
        if self._requests is not None:
            try:
                self._requests.close()
            except OSError as error:
                self._be_deaf(error)
