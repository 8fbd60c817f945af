"""What a DataFlowKernel waits for, in words: for the watchdog, and for whoever asks a run what it is at.

Read from another thread than the one that drives, with nothing stopped meanwhile: a line may be a moment old. The
farm is looked at under its lock, for which there is a time limit; who holds it for that long is in MPI, and that is
said.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from math import inf
from typing import TYPE_CHECKING, Any

from mpiflow.executors.mpi import MPIExecutor
from mpiflow.kernel.dependencies import source_of
from mpiflow.kernel.task import FINAL_STATES, States, Task
from mpiflow.monitor.collective import collective_words
from mpiflow.monitor.progress import duration
from mpiflow.monitor.watchdog import Watchdog
from mpiflow.representation import in_words
from mpiflow.stacks import line_of_script, main_frame

if TYPE_CHECKING:
    from mpiflow.executors.fleet import Fleet
    from mpiflow.kernel.dataflow import DataFlowKernel
    from mpiflow.kernel.resolve import Resolver

#: Ranks, and futures from elsewhere, that are named; the others are counted.
MOST_RANKS, MOST_FUTURES = 10, 3


def watchdog_of(kernel: DataFlowKernel, resolver: Resolver, log: Callable[..., object]) -> Watchdog:
    """A watchdog that looks after a kernel, started unless its Config says never.

    Parameters
    ----------
    kernel : DataFlowKernel
        What it watches.
    resolver : Resolver
        The kernel's own.
    log : callable
        As `RunDirectory.log`.
    """
    after = kernel.config.stall_warning
    dog = Watchdog(
        after or inf,
        lambda: progress_mark(kernel, resolver.retry_count),
        lambda: waited_for(kernel, time.time()),
        lambda line: log("%s", line, level=logging.WARNING),
    )
    if after:
        dog.start()
    return dog


def progress_mark(kernel: DataFlowKernel, retries: int) -> Hashable | None:
    """What changes when a task or a try of one ends, or a worker reports; None when there is nothing to wait for.

    Parameters
    ----------
    kernel : DataFlowKernel
        Whose tasks.
    retries : int
        Tries that have failed and were followed by another.
    """
    if not kernel.unended:
        return None
    reported = sum(len(fleet.hosts) for fleet in _fleets(kernel))
    return sum(kernel.ended_counts.values()), retries, reported


def waited_for(kernel: DataFlowKernel, now: float) -> list[str]:
    """What the tasks that have not ended wait for, a line each.

    Parameters
    ----------
    kernel : DataFlowKernel
        Whose tasks.
    now : float
        `time.time`, in seconds.
    """
    tasks = [task for task in list(kernel.unended.values()) if task.state not in FINAL_STATES]
    launched = [task for task in tasks if task.state is States.launched]
    lines: list[str] = []
    for fleet in _fleets(kernel):
        lines += _of_ranks(kernel, fleet, launched, now)
    lines += _of_other_executors(kernel, launched, now)
    lines += _of_waiting(kernel, [task for task in tasks if task.state is not States.launched])
    frame = main_frame()
    if where := line_of_script(frame):
        lines.append(f"the script is at {where}")
    return lines + collective_words(frame)


def _fleets(kernel: DataFlowKernel) -> list[Fleet]:
    """The workers that its executors use; one fleet for all of them, nearly always."""
    executors = [executor for executor in list(kernel.places.bulk.values()) if isinstance(executor, MPIExecutor)]
    return list({id(executor.fleet): executor.fleet for executor in executors}.values())


def _of_ranks(kernel: DataFlowKernel, fleet: Fleet, launched: Sequence[Task], now: float) -> list[str]:
    """Ranks with what they hold, oldest first; what no rank has; ranks that have never been heard of."""
    try:
        held = {worker: own for worker, tasks in fleet.held().items() if (own := [t for t in tasks if t.dfk is kernel])}
    except TimeoutError as error:
        return [str(error)]
    lines: list[str] = []
    oldest = {worker: min(tasks, key=_given) for worker, tasks in held.items()}
    for worker in sorted(oldest, key=lambda worker: _given(oldest[worker]))[:MOST_RANKS]:
        more = f" and {len(held[worker]) - 1:,} more" if len(held[worker]) > 1 else ""
        since = _since(oldest[worker], now)
        lines.append(f"{fleet.where(worker)} has {oldest[worker].words}{more}, {since}")
    if len(held) > MOST_RANKS:
        lines.append(f"and {len(held) - MOST_RANKS:,} ranks more have tasks, given out later")
    with_ranks = {task.id for tasks in held.values() for task in tasks}
    silent = sorted(set(fleet.comm.peers) - fleet.hosts.keys())
    for label, executor in kernel.places.bulk.items():
        if isinstance(executor, MPIExecutor) and executor.fleet is fleet:
            queued = [task for task in launched if task.executor == label and task.id not in with_ranks]
            why = "no worker has reported yet" if not fleet.hosts else "no worker of it has room"
            if queued:
                lines.append(f"{_some(queued)} in the queue of executor {label!r}: {why}, {_since(queued[0], now)}")
    if fleet.gangs is not None:
        lines += fleet.gangs.in_words()
    if silent:
        lines.append(f"{_ranks(silent)} {'has' if len(silent) == 1 else 'have'} not reported since the start")
    return lines


def _of_other_executors(kernel: DataFlowKernel, launched: Sequence[Task], now: float) -> list[str]:
    """Tasks that threads of rank 0, or executors of the user's, have."""
    lines: list[str] = []
    for label, executor in kernel.places.bulk.items():
        own = [task for task in launched if task.executor == label]
        if own and not isinstance(executor, MPIExecutor):
            lines.append(f"executor {label!r} has {_some(own)}, {_since(own[0], now)}")
    return lines


def _of_waiting(kernel: DataFlowKernel, waiting: Sequence[Task]) -> list[str]:
    """Tasks that no executor has: those that wait for others, and for what futures from elsewhere."""
    foreign: dict[int, tuple[Future[Any], Task]] = {}
    counts: Counter[str] = Counter()
    for task in waiting:
        unmet = [future for future in task.depends if not future.done()]
        for future in unmet:
            if source_of(future, kernel) is None:
                foreign.setdefault(id(future), (future, task))
        if not unmet:
            counts["ready, and not handed out by rank 0"] += 1
        elif task.state is States.joining:
            counts["waiting for the futures that their bodies returned"] += 1
        else:
            counts["waiting for other tasks, or futures, among their arguments"] += 1
    lines = [f"{number:,} task{'s' if number > 1 else ''} {what}" for what, number in counts.items()]
    for future, task in list(foreign.values())[:MOST_FUTURES]:
        lines.append(f"{task.words} waits for a future that is no task of this run: {in_words(future)}")
    if len(foreign) > MOST_FUTURES:
        lines.append(f"and {len(foreign) - MOST_FUTURES:,} such futures more")
    return lines


def _some(tasks: Sequence[Task]) -> str:
    """The first of some tasks, and how many more."""
    return tasks[0].words if len(tasks) == 1 else f"{tasks[0].words} and {len(tasks) - 1:,} more"


def _given(task: Task) -> float:
    """When a task was given to its executor; in the midst of that it has no time yet, and this is the latest."""
    return getattr(task, "launched", inf)


def _since(task: Task, now: float) -> str:
    return f"for {duration(max(0.0, now - _given(task)))}"


def _ranks(numbers: Sequence[int]) -> str:
    """Ranks in words, neighbours as a range.

    Examples
    --------
    >>> _ranks([3]), _ranks([1, 2, 3, 7])
    ('rank 3', 'ranks 1-3, 7')
    """
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1][1:] = [number]
        else:
            spans.append([number])
    named = ", ".join("-".join(map(str, span)) for span in spans[:20])
    return f"rank{'s' if len(numbers) > 1 else ''} {named}{', …' if len(spans) > 20 else ''}"
