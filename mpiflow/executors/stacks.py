"""What every process of a job is at: the answer to ``mpiflow doctor --stacks``.

The answer is put together by a thread of its own: workers need a moment, and one that runs a task itself, or is no
more, never says anything. Meanwhile rank 0 goes on as it was.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpiflow.executors.fleet import installed
from mpiflow.representation import in_words
from mpiflow.stacks import own_stacks

if TYPE_CHECKING:
    from mpiflow.executors.fleet import Fleet
    from mpiflow.monitor.requests import Request

#: Seconds that workers have to answer.
ANSWER_WITHIN = 5.0
_POLL_EVERY = 0.01
_TITLE_WIDTH = 100


def answer_stacks(request: Request) -> None:
    """Answer with the stacks of all threads of rank 0, of every worker and of every runner; returns at once.

    Parameters
    ----------
    request : Request
        Of whoever wants to know.
    """
    threading.Thread(target=_answer, args=(request,), name="mpiflow-stacks", daemon=True).start()


def _answer(request: Request) -> None:
    text = f"{_title(f'rank 0, pid {os.getpid()} on {os.uname().nodename}')}\n{own_stacks()}"
    try:
        fleet = installed()
        if fleet is not None:
            text += stacks_of_workers(fleet)
    except Exception as error:  # MPI with a rank lost, say: what there is of an answer is worth having all the same
        text += f"{_title('the workers')}\nThey could not be asked: {in_words(error)}\n"
    request.answer(text)


def stacks_of_workers(fleet: Fleet, seconds: float = ANSWER_WITHIN) -> str:
    """The stacks of workers and runners as one text; those who do not answer are named.

    Parameters
    ----------
    fleet : Fleet
        The workers.
    seconds : float
        How long they have.
    """
    try:
        asked = fleet.ask_stacks()
        end = time.monotonic() + seconds
        while set(asked) - fleet.stacks.keys() and time.monotonic() < end:
            time.sleep(_POLL_EVERY)
            fleet.pump()  # nobody else may do so now: results that come with it wait for whoever drives next
    except TimeoutError as error:
        return f"{_title('the workers')}\nThey were not asked: {error}\n"
    parts = [_of_worker(fleet, worker, fleet.stacks[worker]) for worker in sorted(fleet.stacks)]
    silent = [worker for worker in fleet.comm.peers if worker not in fleet.stacks]
    parts += [f"{_title(fleet.where(worker))}\n{_why_silent(fleet, worker, seconds)}\n" for worker in silent]
    return "".join(parts)


def _of_worker(fleet: Fleet, worker: int, said: Sequence[tuple[str, str]]) -> str:
    """What one worker has said: of itself, unless it is rank 0's own process, and of its runners."""
    where = fleet.where(worker)
    named = [(f"{where}: {what}" if what else where, text) for what, text in said if what or worker]
    return "".join(f"{_title(name)}\n{text.rstrip()}\n" for name, text in named)


def _why_silent(fleet: Fleet, worker: int, seconds: float) -> str:
    if worker not in fleet.hosts:
        return "It has not reported since the start of the job."
    if fleet.losses is not None and worker in fleet.losses.dead:
        return "It is lost: it has died."
    why = "it runs a task itself (isolation='rank'), is stopped, or is lost"
    words = f"It has not answered within {seconds:g} s: {why}."
    if tasks := fleet.held().get(worker, []):
        words += f" It has {tasks[0].words}{f' and {len(tasks) - 1:,} more' if len(tasks) > 1 else ''}."
    return words


def _title(words: str) -> str:
    return f"\n--- {words} ".ljust(_TITLE_WIDTH, "-")
