"""How jobs stand: one poller asks each batch system about all its jobs at once, and less often while nothing changes.

A hundred scripts that each ask every second for their own job bring a scheduler to its knees, and sites turn such users
off. So all jobs of a process share one poller; a look is one command a batch system (one for each 200 jobs), the next
look comes a second later while states change, and up to a minute later while they do not.

A batch system that cannot be asked says nothing about its jobs: their last states are kept, with the reason beside
them, and it is asked again, later each time.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from mpiflow.errors import BatchSystemError
from mpiflow.jobs.commands import Answer, Running, run
from mpiflow.jobs.states import QUESTIONS, UNKNOWN, JobState, Question

#: Seconds that a command may take.
ANSWER_WITHIN = 30.0
#: Seconds between two looks: the least, how much longer each time while nothing changes, and the most.
FIRST, GROWTH, MOST = 1.0, 1.5, 60.0

#: Words by which a batch system says that it does not know a job, or not any more; a server that is "not found" is no
#: such word.
_NOT_KNOWN = re.compile(
    r"invalid job ?id|unknown job|jobid \S+ unknown|job has finished|\bjob\b.*(not found|do(es)? not exist)",
    re.IGNORECASE,
)


def look(system: str, ids: Iterable[str], running: Running = run) -> dict[str, JobState]:
    """Ask a batch system how jobs stand; those that it knows nothing of are left out.

    Parameters
    ----------
    system : str
        The batch system.
    ids : iterable of str
        Which jobs.
    running : callable, optional
        Runs a command line.

    Raises
    ------
    BatchSystemError
        It cannot be asked, or its answer is an error.
    """
    questions = QUESTIONS[system]
    wanted = list(dict.fromkeys(ids))
    found = _ask(questions.queue, wanted, running)
    missing = [job for job in wanted if job not in found]
    if missing and questions.history is not None:
        try:
            found |= _ask(questions.history, missing, running)
        except BatchSystemError as error:  # many sites keep no accounts; but it must be seen why nobody knows
            found |= {job: JobState(UNKNOWN, None, f"it has left the queue; {error}") for job in missing}
    return {job: found[job] for job in wanted if job in found}


def _ask(question: Question, ids: Sequence[str], running: Running) -> dict[str, JobState]:
    found: dict[str, JobState] = {}
    for first in range(0, len(ids), question.at_once):
        line = question.about(ids[first : first + question.at_once])
        answer = running(line, ANSWER_WITHIN)
        states = question.parse(answer.out)
        if not states and not _knows_none(answer):
            raise BatchSystemError(f"{line[0]}: {_first_line(answer.words)}")
        found |= states
    return found


def _knows_none(answer: Answer) -> bool:
    """Whether an answer without a state means that there is no such job."""
    return answer.code == 0 or _NOT_KNOWN.search(answer.err + answer.out) is not None


def _first_line(words: str) -> str:
    return words.splitlines()[0].strip()


class _Watched:
    """The jobs of one batch system."""

    def __init__(self) -> None:
        self.ids: dict[str, None] = {}
        self.states: dict[str, JobState] = {}
        self.looked = -MOST
        self.interval = FIRST
        self.error = ""


class Answered(NamedTuple):
    """A state, and why it may be an old one.

    Attributes
    ----------
    state : JobState or None
        How the job stood when the batch system was last asked; None where it knows nothing of the job.
    error : str
        Why it could not be asked now; empty when it could.
    """

    state: JobState | None
    error: str


class Poller:
    """Asks about all jobs that are watched, when the time for it has come. Threads may share it.

    Parameters
    ----------
    running : callable, optional
        Runs a command line.
    clock, sleep : callable, optional
        As in `time`.
    """

    def __init__(
        self,
        running: Running = run,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._running = running
        self._clock = clock
        self._sleep = sleep
        self._systems: dict[str, _Watched] = {}
        self._lock = threading.Lock()

    def watch(self, system: str, ids: Iterable[str]) -> None:
        """Ask about these jobs too, from the next look on."""
        with self._lock:
            self._systems.setdefault(system, _Watched()).ids |= dict.fromkeys(ids)

    def forget(self, system: str, ids: Iterable[str]) -> None:
        """Ask about these jobs no longer."""
        with self._lock:
            watched = self._systems.setdefault(system, _Watched())
            for job in ids:
                watched.ids.pop(job, None)
                watched.states.pop(job, None)

    def ask(self, system: str, ids: Sequence[str]) -> dict[str, Answered]:
        """How jobs stand: by a look now if one is due, or as the last one has found.

        Parameters
        ----------
        system : str
            The batch system.
        ids : sequence of str
            Which jobs; they are watched from now on.
        """
        self.watch(system, ids)
        with self._lock:
            watched = self._systems[system]
            fresh = all(job in watched.states for job in ids)
            if self._clock() - watched.looked >= (watched.interval if fresh else min(FIRST, watched.interval)):
                self._look(system, watched)
            return {job: Answered(watched.states.get(job), watched.error) for job in ids}

    def pause(self, system: str, most: float = MOST) -> None:
        """Wait until the next look is due, or so many seconds."""
        with self._lock:
            watched = self._systems.setdefault(system, _Watched())
            rest = watched.looked + watched.interval - self._clock()
        self._sleep(max(min(rest, most), 0.01))

    def _look(self, system: str, watched: _Watched) -> None:
        try:
            states = look(system, watched.ids, self._running)
        except BatchSystemError as error:
            watched.error = str(error)
            watched.interval = min(watched.interval * 2, MOST)
        else:
            watched.error = ""
            changed = states != watched.states
            watched.interval = FIRST if changed else min(watched.interval * GROWTH, MOST)
            watched.states = states
        watched.looked = self._clock()


#: The poller of this process.
POLLER = Poller()
