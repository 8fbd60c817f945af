"""A job in the hands of a batch system: how it stands, its end, what it prints."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from mpiflow.errors import BatchSystemError, ConfigurationError
from mpiflow.exitcodes import DRAINED
from mpiflow.jobs import local, record, systems
from mpiflow.jobs.commands import run
from mpiflow.jobs.detect import find_system
from mpiflow.jobs.record import Record
from mpiflow.jobs.states import CANCELLED, DONE, PENDING, RUNNING, UNKNOWN, JobState, ended_with, together
from mpiflow.jobs.status import MOST, POLLER, Poller

#: Seconds that a batch system has to end a job.
CANCEL_WITHIN = 60.0
#: Seconds for which a job may be in no queue and no account before it counts as gone: accounts are kept late.
GONE_AFTER = 60.0
#: The file to which the script adds a line when it ends: the id of the job, the attempt, the exit code.
ENDED = "ended"
#: With this exit code a script tells Grid Engine to run it again.
GRID_ENGINE_AGAIN = 99


class Job:
    """A job that was submitted.

    Parameters
    ----------
    record : Record
        What was written down of it.
    poller : Poller, optional
        Asks the batch system; default: the one of this process, so that many jobs cost one question.

    Attributes
    ----------
    record : Record
        What was written down of it.

    Examples
    --------
    >>> job = JobSpec(script="sweep.py", nodes=4, time=7200, account="m1234").submit()  # doctest: +SKIP
    >>> job.wait().exit_code                                                            # doctest: +SKIP
    0
    """

    def __init__(self, record: Record, poller: Poller | None = None) -> None:
        self.record = record
        self._poller = poller or POLLER
        if record.system != "fork":
            self._poller.watch(record.system, record.all_ids())

    def __repr__(self) -> str:
        return f"Job({self.id!r}, system={self.system!r}, output={self.output!r})"

    @property
    def id(self) -> str:
        """Its id in the batch system: that of the first, where others have gone on from it."""
        return self.record.ids[0]

    @property
    def system(self) -> str:
        """The batch system."""
        return self.record.system

    @property
    def output(self) -> str:
        """The directory of its script and of what it prints; empty where it was not submitted by mpiflow."""
        return self.record.output

    def status(self) -> JobState:
        """How it stands.

        A job that goes on as another job counts as one: it has ended when the last of them has. Where the batch system
        cannot be asked the state is the last that was known, or ``unknown`` with the reason.
        """
        while True:
            ids = self.record.all_ids()
            states = [self._state_of(job) for job in ids]
            if self.record.all_ids() == ids:  # else it has gone on meanwhile, and what was asked is not the last
                break
        for state in states:
            if state.state == RUNNING:
                return state
        waiting = [state for state in states if state.state == PENDING]
        return waiting[0] if waiting else self._end(states)

    def wait(
        self,
        timeout: float | None = None,
        tell: Callable[[JobState], None] | None = None,
        between: Callable[[], None] | None = None,
    ) -> JobState:
        """Wait for its end.

        Parameters
        ----------
        timeout : float, optional
            Seconds after which to return anyway.
        tell : callable, optional
            Hears of every state that is not that of before.
        between : callable, optional
            Called about once a second meanwhile, however seldom the batch system is asked.

        Returns
        -------
        JobState
            How it has ended, or stands. ``unknown``: the batch system has forgotten it, and it has not said itself how
            it ended.
        """
        end = None if timeout is None else time.monotonic() + timeout
        last: JobState | None = None
        gone_since: float | None = None
        while True:
            state = self.status()
            if state != last and tell is not None:
                tell(state)
            last = state
            now = time.monotonic()
            gone_since = (gone_since or now) if state.state == UNKNOWN and not self._asks_in_vain() else None
            if state.ended or (gone_since is not None and now - gone_since >= GONE_AFTER):
                self._poller.forget(self.system, self.record.all_ids())
                return state
            if end is not None and now >= end:
                return state
            if between is not None:
                between()
            self._pause(min(MOST if between is None else 1.0, MOST if end is None else end - now))

    def cancel(self) -> int:
        """End it: the last link first, so that none begins because the one before it has ended.

        Returns
        -------
        int
            How many of its jobs were told to end; 0 when it had ended before.

        Raises
        ------
        BatchSystemError
            The batch system refuses; with its words.
        """
        ids = self.record.all_ids()
        states = {job: self._state_of(job) for job in ids}
        left = [job for job in reversed(ids) if not states[job].ended]
        refused = []
        for job in left:
            if self.system == "fork":
                local.cancel(job)
                continue
            if states[job].state == UNKNOWN and not self._asks_in_vain():  # scancel is content with any number
                refused.append(f"{systems.find(self.system).title} does not know it (any more)")
                continue
            line = [word.format(job=job) for word in systems.find(self.system).cancel]
            answer = run(line, CANCEL_WITHIN)
            if answer.code != 0:
                refused.append(f"{line[0]}: {answer.words}")
        if refused and len(refused) == len(left):
            raise BatchSystemError("\n".join(refused))
        return len(left)

    def logs(self) -> list[Path]:
        """The files that it has printed into, the oldest first."""
        if not self.output:
            return []
        found = [path for ending in ("out", "err", "log") for path in Path(self.output).glob(f"*.{ending}")]
        return sorted(found, key=lambda path: (path.stat().st_mtime, path.name))

    def _state_of(self, job: str) -> JobState:
        """How one of its jobs stands, as the batch system says it, or as its script has left word."""
        if self.system == "fork":
            return local.state(job, self._own_word(job))
        answered = self._poller.ask(self.system, [job])[job]
        state = answered.state
        if state is not None and state.state != UNKNOWN:
            if self.system == "gridengine" and state.exit_code == GRID_ENGINE_AGAIN:
                return self._after_another_run(job)
            if state.state == DONE and self.record.array and (own := self._own_word(job)):
                return ended_with(own, "as a script of it has left word")  # queues forget members one by one
            return state
        own = self._own_word(job)
        if own is not None and not answered.error:
            return ended_with(own, "as its script has left word")
        if state is None and answered.error:
            return JobState(UNKNOWN, None, answered.error)
        return state or JobState(UNKNOWN, None, "the batch system does not know it (any more)")

    def _after_another_run(self, job: str) -> JobState:
        """How a job of Grid Engine stands that is not in the queue, and whose last account is that it was to run again.

        Accounts are written late. So either the one of its last run is still to come, or it was deleted in between.
        """
        own = self._own_word(job)
        if own is None:
            return JobState(CANCELLED, None, "deleted while it waited to go on")
        if own != GRID_ENGINE_AGAIN:
            return ended_with(own, "as its script has left word")
        if time.time() - os.stat(os.path.join(self.output, ENDED)).st_mtime < GONE_AFTER:
            return JobState(UNKNOWN, None, "it has left the queue; its account is still to come")
        return JobState(CANCELLED, None, "deleted while it waited to go on")

    def _own_word(self, job: str) -> int | None:
        """The exit code with which the script of a job has left; the last, where it ran several times."""
        if not self.output:
            return None
        try:
            lines = Path(self.output, ENDED).read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return None
        said = [words for line in lines if len(words := line.split()) == 3 and words[2].isdecimal()]
        codes = {one: int(code) for one, _, code in said if _number(one) == _number(job)}  # the last of each counts
        # 85 is of one that goes on, and must not hide one that has failed
        return max(codes.values(), default=None, key=lambda code: (code not in (0, DRAINED), code))

    def _end(self, states: list[JobState]) -> JobState:
        """How all of it has ended: well, if one of its jobs has done the work; else as the last that is known of."""
        if self.record.array:  # each of it may have gone on as a job of its own; the first then ended with 85
            last = [state for state in states if state.exit_code != DRAINED and state.state != UNKNOWN]
            return together(last) if last else states[-1]
        done = [state for state in states if state.state == DONE]
        known = [state for state in states if state.state != UNKNOWN]
        return (done or known or states)[-1]

    def _asks_in_vain(self) -> bool:
        """Whether the batch system cannot be asked just now: then nothing follows from its silence."""
        if self.system == "fork":
            return False
        ids = self.record.all_ids()
        return any(answered.error for answered in self._poller.ask(self.system, ids).values())

    def _pause(self, most: float) -> None:
        if self.system == "fork":
            time.sleep(min(0.2, most))
        else:
            self._poller.pause(self.system, most)


def _number(job: str) -> str:
    """A job's id without the name of a server, and without the number of its place in an array."""
    return re.split(r"[._\[]", job)[0]


def find(text: str, system: str = "") -> Job:
    """The job that a user has named.

    Parameters
    ----------
    text : str
        Its id, or its directory.
    system : str, optional
        The batch system of an id that mpiflow knows nothing of; default: the one of this machine.

    Raises
    ------
    ConfigurationError
        It is no id and no directory of a job, or there is no batch system here.
    """
    known = record.find(text)
    if known is not None:
        return Job(known)
    may_be = system == "flux" or text.startswith("ƒ") or any(letter.isdigit() for letter in text)  # flux: base 58
    if os.path.sep in text or not text or text.startswith("-") or not may_be:
        raise ConfigurationError(f"{text}: neither the id of a job nor the directory of one")
    here = os.getcwd()
    unknown = Record(
        system=system or find_system(), ids=(text,), array=False, name="", script="", directory=here, output="",
        host="", submitted=0.0,
    )  # fmt: skip
    return Job(unknown)
