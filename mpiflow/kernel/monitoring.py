"""What a run tells its monitoring database, in Parsl's words: what becomes of each task, where, and on what nodes.

It hears what the log hears (`kernel.task_log`), so a run without monitoring pays nothing. Each event makes one or two
tuples; all else is the business of the database's own thread (`monitor.database`).

*Moments.* A task's states have moments of rank 0, but for ``running`` and ``running_ended``, which the worker has
measured, by its own clock. Clocks of nodes differ, and a reader orders a task's states by their moments, so each is
kept behind the one before it, by a microsecond at least, and what a worker says of a try is moved, all by the same, to
where it can have been.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from mpiflow.comm.wire import USAGE
from mpiflow.data.files import File
from mpiflow.data.futures import DataFuture
from mpiflow.errors import JoinError
from mpiflow.kernel.futures import AppFuture
from mpiflow.kernel.task import States
from mpiflow.monitor.database import MOST_WAITING, Database
from mpiflow.monitor.redaction import without_secrets
from mpiflow.representation import in_words

if TYPE_CHECKING:
    from mpiflow.executors.base import BulkExecutor
    from mpiflow.kernel.dataflow import DataFlowKernel
    from mpiflow.kernel.task import Task
    from mpiflow.monitor.hub import MonitoringHub

#: The one block of a job: its allocation.
BLOCK = "0"
#: Characters of a text that a user's objects make of themselves.
MOST_TEXT = 10_000
#: Where batch systems name the job.
_JOB_IDS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID", "COBALT_JOBID", "JOB_ID")
#: What psutil calls the letters of ``/proc/PID/stat``.
_STATUS = {
    "R": "running", "S": "sleeping", "D": "disk-sleep", "T": "stopped", "t": "tracing-stop", "Z": "zombie",
    "X": "dead", "I": "idle", "P": "parked", "W": "waking", "K": "wake-kill",
}  # fmt: skip
#: How often a task has failed, at what cost, and the words of the failures of its latest try.
_Failures = tuple[int, float, Sequence[str]]
_UNHURT: _Failures = (0, 0.0, ())
#: Inputs, outputs, stdin, stdout and stderr of a call that says nothing of them.
_NO_TEXTS = ("None", "None", None, "", "")
#: Seconds between two notes of when nodes were heard of last.
_NODES_EVERY = 30.0


class _Story:
    """What is kept of a task until it ends: the moment of its last state, its row so far, where it runs."""

    __slots__ = ("host", "last", "row", "running", "shift")

    def __init__(self, last: int, row: tuple[Any, ...]) -> None:
        self.last = last
        self.row = row
        self.running = 0
        #: By how much the worker's clock has to be moved, in microseconds.
        self.shift = 0
        self.host: str | None = None


class Monitoring:
    """The monitoring of one DataFlowKernel.

    Parameters
    ----------
    dfk : DataFlowKernel
        Whose tasks they are.
    hub : MonitoringHub
        How it is wanted.
    parent : str
        Where the database is by default.
    say : callable
        Tells the log and the console a line.
    log : callable
        Tells the log a line.
    """

    def __init__(
        self,
        dfk: DataFlowKernel,
        hub: MonitoringHub,
        parent: str,
        say: Callable[[str], None],
        log: Callable[[str], None],
    ) -> None:
        self._dfk = dfk
        self._run_id = dfk.run_id
        self._stories: dict[int, _Story] = {}
        self._interval = hub.resource_monitoring_interval if hub.resource_monitoring_enabled else -1.0
        self._began = _microseconds(time.time())
        name = hub.workflow_name or _name_of_script()
        version = hub.workflow_version or time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._began // 1_000_000))
        self._about = (self._run_id, name, version, self._began)
        self._place = (os.uname().nodename, _user(), dfk.run_dir)
        self._counts = -1, -1
        self._completed: int | None = None
        self._nodes: dict[str, tuple[Any, ...]] = {}
        self._nodes_at = 0.0
        self._looking = threading.Lock()
        #: Executors whose block has been entered.
        self._blocks: list[str] = []
        self._database = Database(hub.path(parent), self._news, say, log if hub.monitoring_debug else None)
        self._tasks, self._tries = self._database.tasks, self._database.tries
        self._statuses, self._resources = self._database.statuses, self._database.resources

    @property
    def usage_every(self) -> float:
        """Seconds between two looks at what a running task uses; 0: at its begin and end only; below 0: never."""
        return self._interval

    @property
    def path(self) -> str:
        """The file of the database."""
        return self._database.path

    def start(self) -> None:
        """Begin to write."""
        self._database.start()

    def close(self) -> None:
        """Write what is left, and that the run has ended."""
        self._completed = _microseconds(time.time())
        self._database.blocks.extend(self._block(label, "COMPLETED") for label in self._blocks)
        self._database.close()

    # --- tasks ----------------------------------------------------------------------------------------------

    def called(self, task: Task, depends: Sequence[Future[Any]]) -> None:
        """A task has been made of a call."""
        if len(self._statuses) > MOST_WAITING:
            self._database.make_room()
        tid, app, invoked = task.id, task.app, _microseconds(task.invoked)
        row = (
            tid, self._run_id, _numbers_of(depends) if depends else "", _text(app.name), "1" if app.cache else "0",
            None, *(_texts(task.kwargs) if task.kwargs else _NO_TEXTS), invoked, None, 0, 0.0,
        )  # fmt: skip
        self._stories[tid] = _Story(invoked, row)
        self._tasks[tid] = row
        self._statuses.append((tid, "pending", invoked, self._run_id, 0))

    def launched(self, task: Task, label: str) -> None:
        """A try of a task has been handed to an executor."""
        if len(self._statuses) > MOST_WAITING:
            self._database.make_room()
        story = self._story(task)
        story.running, story.host = 0, None
        self._enter_status(task, story, "launched", _microseconds(task.launched))
        self._enter_try(task, story, label, _UNHURT)

    def changed(self, task: Task) -> None:
        """A task is tried again, or its body has returned what it joins; nothing else is news."""
        again = task.state is States.fail_retryable
        if not again and task.state is not States.joining:
            return
        now, story = _microseconds(time.time()), self._story(task)
        failures = task.failures()
        self._enter_status(task, story, task.state.name, now)
        self._enter_try(task, story, task.executor, failures, now if again else None)
        if again:
            story.last += 1
            self._statuses.append((task.id, "pending", story.last, self._run_id, task.tries))
            self._enter_task(task, story, failures)

    def ended(self, task: Task) -> None:
        """A task is in its final state."""
        story = self._story(task)
        now, failures = _microseconds(task.returned), task.failures()
        self._enter_status(task, story, task.state.name, now)
        label = task.executor or self._dfk.places.only(task)
        self._enter_try(task, story, label, failures, now)
        self._enter_task(task, story, failures, story.last)
        del self._stories[task.id]

    def measured(self, task: Task, host: str, payload: bytes | memoryview) -> None:
        """A worker, or a thread here, has said that a task runs, or has run, and what it uses."""
        story = self._stories.get(task.id)
        if story is None or self._interval < 0:
            return  # it was killed meanwhile; or another kernel on the same workers has asked
        began, moment, ending, sampled, *usage = USAGE.unpack_from(payload)
        now = _microseconds(time.time())
        if not story.running:
            self._enter_status(task, story, "running", min(_microseconds(began), now))
            story.running, story.host = story.last, _text(host)
            story.shift = story.running - _microseconds(began)
            self._enter_try(task, story, task.executor, _UNHURT)
        at = min(_microseconds(moment) + story.shift, now)
        if sampled and self._interval > 0:
            self._resources.append(self._resource(task, at, *usage))
        if ending:
            self._enter_status(task, story, "running_ended", at)

    def timed(self, task: Task, call: Callable[[], Any]) -> Callable[[], Any]:
        """The call of a task that a thread of this process makes, with word of its begin and its end."""
        here = self._place[0]

        def tell(began: float, now: float, ending: bool) -> None:
            self.measured(task, here, USAGE.pack(began, now, ending, False, *(0,) * 12, b" "))

        def run() -> Any:
            began = time.time()
            tell(began, began, False)
            try:
                return call()
            finally:
                tell(began, time.time(), True)

        return run

    # --- rows -----------------------------------------------------------------------------------------------

    def _story(self, task: Task) -> _Story:
        """What is known of a task; of one whose call was refused, nobody has told yet."""
        story = self._stories.get(task.id)
        if story is None:
            self.called(task, task.depends)
            story = self._stories[task.id]
        return story

    def _enter_status(self, task: Task, story: _Story, name: str, moment: int) -> None:
        story.last = max(moment, story.last + 1)
        self._statuses.append((task.id, name, story.last, self._run_id, max(0, task.tries - 1)))

    def _enter_task(self, task: Task, story: _Story, failures: _Failures, returned: int | None = None) -> None:
        row = story.row
        count, cost, _ = failures
        if not math.isfinite(cost):  # a retry handler that raises: no budget is that large, and Parsl says so
            cost = self._dfk.config.retries + 1
        # by now there are values in the place of futures
        texts = _texts(task.kwargs) if task.kwargs and task.tries else row[6:11]
        self._tasks[task.id] = story.row = (*row[:5], task.hashsum, *texts, row[11], returned, count, cost)

    def _enter_try(
        self, task: Task, story: _Story, label: str, failures: _Failures, returned: int | None = None
    ) -> None:
        launched = _microseconds(task.launched) if task.tries else None
        if task.state is States.memo_done:
            launched = returned  # it was ready, and that was all it took
        number = max(0, task.tries - 1)
        history = ",".join(_text(without_secrets(words)) for words in failures[2]) if failures[2] else ""
        joins = _numbers_of(task.depends) if task.app.join and _joins(task) else None
        executor = self._dfk.places.bulk.get(label)
        block = BLOCK if task.tries and executor is not None and executor.in_processes else None
        self._tries[task.id, number] = (
            number, task.id, self._run_id, block, story.host, label, launched, story.running or None, returned, history,
            joins,
        )  # fmt: skip

    def _resource(
        self, task: Task, at: int, pid: int, children: int, cpu: int, percent: float, user: float, system: float,
        virtual: int, resident: int, read: int, written: int, voluntary: int, involuntary: int, state: bytes,
    ) -> tuple[Any, ...]:  # fmt: skip
        letter = state.decode()
        return (
            max(0, task.tries - 1), task.id, self._run_id, at, self._interval, pid, percent, children, user, system,
            virtual, resident, read, written, _STATUS.get(letter, letter), str(cpu), voluntary, involuntary,
        )  # fmt: skip

    def _block(self, label: str, status: str) -> tuple[Any, ...]:
        job = next((os.environ[name] for name in _JOB_IDS if os.environ.get(name)), None)
        return self._run_id, label, BLOCK, job, _microseconds(time.time()), status

    # --- by the database's thread, before it writes ------------------------------------------------------------

    def _news(self) -> None:
        """Enter what is not worth an event of its own: how far the run is, and the nodes."""
        ended = self._dfk.ended_counts
        counts = ended[States.failed], ended[States.exec_done]
        if counts != self._counts or self._completed is not None:
            self._counts = counts
            self._database.workflows[self._run_id] = (*self._about, self._completed, *self._place, *counts)
        self.look_at_nodes(time.time() - self._nodes_at >= _NODES_EVERY)

    def look_at_nodes(self, heard: bool = True) -> None:
        """Enter the nodes of which something is new, while the executors still have them.

        Parameters
        ----------
        heard : bool
            Whether to enter of the others too that they are there.
        """
        with self._looking:
            now = time.time()
            for executor in list(self._dfk.places.bulk.values()):
                if executor.in_processes:
                    self._enter_nodes(executor, _microseconds(now), heard)
            if heard:
                self._nodes_at = now

    def _enter_nodes(self, executor: BulkExecutor, now: int, heard: bool) -> None:
        """The block of an executor, and each of its nodes where something has changed."""
        if executor.label not in self._blocks:
            self._blocks.append(executor.label)
            self._database.blocks.append(self._block(executor.label, "RUNNING"))
        hosts: dict[str, list[tuple[int, dict[str, object], int, bool]]] = {}
        for worker, (said, slots, serving) in executor.census().items():
            hosts.setdefault(str(said["host"]), []).append((worker, said, slots, serving))
        for host, workers in hosts.items():
            said, active = workers[0][1], any(serving for _, _, _, serving in workers)
            slots = sum(slots for _, _, slots, serving in workers if serving or not active)
            ranks = _ranks([worker for worker, _, _, _ in workers])
            facts = ranks, said.get("cores", 0), said.get("memory", 0), active, slots
            known = self._nodes.get(host)
            if known is None or facts != known[0] or (heard and active):
                first = now if known is None else known[1]
                self._nodes[host] = facts, first
                uid, cores, memory, active, slots = facts
                self._database.nodes[host] = (
                    None, self._run_id, _text(host), uid, BLOCK, cores, memory, active, slots, str(said.get("python")),
                    first, now,
                )  # fmt: skip


def _microseconds(seconds: float) -> int:
    return int(seconds * 1_000_000)


def _joins(task: Task) -> bool:
    """Whether what a task of a join_app depends on is what its body has returned."""
    joined = task.state is States.joining or task.state is States.exec_done
    return joined or isinstance(getattr(task, "error", None), JoinError)


def _numbers_of(futures: Sequence[Future[Any]]) -> str:
    """Numbers of the tasks whose futures these are."""
    return ",".join(str(future.tid) for future in futures if isinstance(future, AppFuture | DataFuture))


def _text(text: str) -> str:
    """The text as SQLite can keep it, and everybody read it: without NULs, and without halves of characters."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _shown(value: object) -> str:
    """What a user's objects say of themselves, cut where it is long."""
    if value is None:
        return "None"
    text = _text(without_secrets(value if isinstance(value, str) else in_words(value)))
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}… ({len(text):,} characters)"


def _texts(kwargs: dict[str, Any]) -> tuple[str, str, str | None, str, str]:
    """Inputs, outputs, stdin, stdout and stderr of a call."""
    stdin = kwargs.get("stdin")
    return (
        _shown(kwargs.get("inputs")), _shown(kwargs.get("outputs")), None if stdin is None else _shown(stdin),
        _target(kwargs.get("stdout")), _target(kwargs.get("stderr")),
    )  # fmt: skip


def _target(stream: object) -> str:
    """Where a task prints to."""
    if isinstance(stream, DataFuture):
        stream = stream.file_obj
    if isinstance(stream, File):
        return _text(stream.url)
    if isinstance(stream, tuple) and stream:
        stream = stream[0]
    return _text(os.fsdecode(stream)) if isinstance(stream, str | os.PathLike) else ""


def _ranks(workers: list[int]) -> str:
    """Ranks of a node, as ``rank 1-3,7``.

    Examples
    --------
    >>> _ranks([1, 2, 3, 7])
    'rank 1-3,7'
    """
    spans: list[list[int]] = []
    for worker in sorted(workers):
        if spans and worker == spans[-1][1] + 1:
            spans[-1][1] = worker
        else:
            spans.append([worker, worker])
    return "rank " + ",".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)


def _user() -> str:
    from getpass import getuser

    try:
        return getuser()
    except (KeyError, OSError):  # a container without this user in its passwd
        return str(os.getuid())


def _name_of_script() -> str:
    """The file that has loaded the Config, as Parsl finds it: the first on the stack that is not ours."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    scripts = os.path.join(package, "cli", "scripts", "")
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith(package) or path.startswith(scripts):
            return os.path.basename(path)
        frame = frame.f_back  # type: ignore[assignment]
    return "unnamed"
