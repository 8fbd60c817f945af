"""Which workers are heard of: silence is how most launches tell that a rank has died.

MPICH reports nothing when a rank dies, and rank 0 must not ask: a message to a dead peer may never come back
from MPI. So every worker says something at least once a period, and one that has been silent for longer than
the limit is lost. It may come back: a rank that was stopped, or that its node had swapped out.

Only time in which rank 0 itself listened counts. A script that computes for an hour, or a job that the batch
system has suspended, must not find all of its workers silent: `judge` is called again and again while rank 0
listens, and a longer gap between two calls is taken off every worker's silence.

A worker that runs a task in its own process says nothing meanwhile, and is not judged (`exempt`): its guardian, or
MPI, is to tell of its death. The guardian can do so from when the worker knows where, so before it has acknowledged
its settings (`answered`) it is judged as all others.

A worker in a gang is not judged either, until the gang ends (`in_gang`).

A worker with such tasks is exempt for the rest of the job, also when its tasks run in runners later on. When its
executor ends, the worker may be in a task that nobody waits for any more, for hours, and what is read of it
afterwards may have been sent before. Judged, it would be lost in the midst of that, and a farm of one worker with it.
The price: if such a worker's whole node is cut off, its guardian included, only MPI or the launcher can tell.
"""

from __future__ import annotations

from collections.abc import Iterable


class Presence:
    """When each worker was last heard of; time is an argument, in seconds on any clock that only goes forward.

    Parameters
    ----------
    silence : float
        After how many seconds of silence a worker is lost.
    report : float
        How many seconds the workers have to report at the start.

    Examples
    --------
    >>> presence = Presence(silence=1.0, report=60.0)
    >>> presence.expect([1, 2], now=0.0)
    >>> presence.heard(1, now=0.0), presence.heard(2, now=0.0)
    (None, None)
    >>> for tenth in range(1, 12):
    ...     presence.heard(1, now=tenth / 10)
    ...     lost = presence.judge(now=tenth / 10)
    >>> [(worker, round(seconds, 1)) for worker, seconds in lost]
    [(2, 1.1)]
    """

    def __init__(self, silence: float, report: float) -> None:
        self.silence = silence
        self.report = report
        #: Workers that are not judged once they have answered, and all that have.
        self.exempt: set[int] = set()
        self.answered: set[int] = set()
        #: Workers that are in a gang now: for as long they are as the exempt ones.
        self.in_gang: set[int] = set()
        #: Seconds between two calls of `judge`, about; a gap of twice as much is one in which nobody listened.
        self.every = min(1.0, silence / 10)
        self._heard: dict[int, float] = {}
        self._awaited: dict[int, float] = {}
        self._judged: float | None = None

    def expect(self, workers: Iterable[int], now: float) -> None:
        """These are to report."""
        self._awaited.update((worker, now) for worker in workers)

    def heard(self, worker: int, now: float) -> None:
        """A worker has said something, whatever it is."""
        self._heard[worker] = now

    def reported(self, worker: int) -> None:
        """A worker has come into service."""
        self._awaited.pop(worker, None)

    def awaits(self, worker: int) -> bool:
        """Whether a worker is yet to report, and may."""
        return worker in self._awaited

    def forget(self, worker: int) -> None:
        """A worker is lost: it is judged no more until it is heard of again."""
        self._heard.pop(worker, None)
        self._awaited.pop(worker, None)

    def judge(self, now: float) -> list[tuple[int, float]]:
        """Workers that have been silent for too long, each with the seconds of it."""
        self._take_off_gap(now)
        exempt, limit = (self.exempt | self.in_gang) & self.answered, now - self.silence
        return [(worker, now - last) for worker, last in self._heard.items() if last < limit and worker not in exempt]

    def missing(self, now: float) -> list[int]:
        """Workers that should have reported by now; each is named once."""
        late = [worker for worker, since in self._awaited.items() if now - since > self.report]
        for worker in late:
            del self._awaited[worker]
        return sorted(late)

    def _take_off_gap(self, now: float) -> None:
        before, self._judged = self._judged, now
        gap = 0.0 if before is None else now - before - self.every
        if gap > self.every:
            for known in (self._heard, self._awaited):
                for worker in known:
                    known[worker] = min(now, known[worker] + gap)  # it may have been heard of just now
