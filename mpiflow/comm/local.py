"""A `Comm` without MPI: the worker is an object of the same process, its runners are real.

For ``python script.py`` on a laptop, and for an MPI world of one.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from mpiflow.comm.segments import Segment, shared_copy

if TYPE_CHECKING:
    from collections.abc import Buffer, Sequence  # type: ignore[attr-defined]

    from mpiflow.worker.worker import Worker


class LocalComm:
    """Rank 0's way to a worker in its own process; the worker's number is 0.

    Parameters
    ----------
    worker : Worker
        What takes the messages.
    """

    def __init__(self, worker: Worker) -> None:
        self.peers = [0]
        self.lost: list[int] = []  # the worker ends with this process
        self._worker = worker
        self._lock = threading.Lock()  # several DataFlowKernels may drive at once

    def send(self, peer: int, head: bytes, attachments: Sequence[Buffer] = ()) -> None:
        """Hand a message over."""
        with self._lock:
            self._worker.receive(bytearray(head), [shared_copy(buffer) for buffer in attachments])

    def poll(self) -> list[tuple[int, bytearray, list[Segment]]]:
        """What the worker has to say."""
        with self._lock:
            self._worker.step(0.0, time.perf_counter())
            head, attachments = self._worker.take(acknowledge=True)
        if not head:
            return []
        return [(0, bytearray(head), [Segment(memoryview(buffer)) for buffer in attachments])]

    def drop(self, peer: int, for_good: bool) -> None:
        """Never called: the worker cannot be lost."""

    def take_back(self, peer: int) -> None:
        """Never called, as it cannot be dropped."""

    def wait(self, seconds: float) -> None:
        """Sleep until a runner has something to say, at most so long."""
        with self._lock:
            self._worker.step(seconds, time.perf_counter())

    def close(self) -> None:
        """End the runners."""
        with self._lock:
            self._worker.pool.close()
