"""A worker: takes records from rank 0, has them run, and sends back what came of them.

`Worker` is the part that knows nothing of how messages travel; a lone process without MPI uses it as well.
`serve` is its life on a rank.

**Waiting.** MPI has no descriptor to wait on, so a worker waits for its runners in a select and looks at MPI
between waits: at once while something happens, then after a tenth of the time nothing has, up to a limit that
depends on how urgent a message could be. An idle rank so costs under one percent of a core, and an answer of
a runner still wakes it at once.
"""

from __future__ import annotations

import os
import sys
import time
from _pickle import dumps, loads  # not `pickle`: see comm.pickling
from collections import deque

from mpiflow import linux
from mpiflow.comm import wire
from mpiflow.comm.wire import HEADER, HEADER_SIZE, records
from mpiflow.errors import FarmLost
from mpiflow.worker.channel import Task
from mpiflow.worker.environment import StandardStreams, Surroundings, enter, set_variables, thread_counts
from mpiflow.worker.pool import RunnerPool, not_begun
from mpiflow.worker.tasks import Functions, run_task
from mpiflow.worker.zygote import RANK_STOPPED_AT_MOST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Buffer, Callable  # type: ignore[attr-defined]

    from mpiflow.comm.mpi import MPIComm
    from mpiflow.comm.segments import Segment
    from mpiflow.worker.guardian import Guardian
    from mpiflow.worker.pool import Binding
    from mpiflow.worker.usage import Meter
    from mpiflow.worker.zygote import Zygote

#: How long a worker looks without sleeping after the last event, in seconds.
SPIN = 150e-6
#: Seconds of one such look at messages alone.
MOMENT = 10e-6
#: Longest sleep with work in hand, with nothing at all to do, and with every runner at work.
WAIT_SOME, WAIT_IDLE, WAIT_BUSY = 0.001, 0.005, 0.100
#: From this long without any event on, a worker counts as idle, in seconds.
IDLE_AFTER = 0.1
#: How long tasks run in the rank before it looks at its messages again, in seconds.
LOOK_EVERY = 0.0005
#: How long a stream of results may gather before it is passed on, in seconds: the runner then need not wake
#: the worker for each, and rank 0 gets them in one message.
GATHER = 100e-6
#: Nearly every acknowledgement.
_ACK_OF_ONE = wire.record(wire.ACK, aid=1)
#: Seconds between two signs of life, unless rank 0 wants another time.
HEARTBEAT = 2.0


class Worker:
    """What a worker does with records.

    Parameters
    ----------
    zygote : Zygote
        What its runners are forked from.
    cores : int
        Processors that this worker may use.
    place : tuple of int, optional
        The how-many-th worker of its node it is, and how many there are; default: alone.
    """

    def __init__(self, zygote: Zygote, cores: int, place: tuple[int, int] = (0, 1)) -> None:
        self.pool = RunnerPool(zygote)
        self._cores = cores
        self._place = place
        #: Whether the job is over, and whether this rank may leave.
        self.quitting = self.dismissed = False
        #: Whether it has to leave without MPI_Finalize, because another rank has been lost.
        self.hurt = False
        #: Where this rank's guardian may leave a note of its death.
        self.notes = ""
        #: Seconds between two signs of life.
        self.heartbeat = HEARTBEAT
        self._unacknowledged = 0
        #: Whether rank 0 waits for a word, whatever it is.
        self.pinged = False
        self._functions = Functions()
        self._in_rank: deque[Task] = deque()
        #: This rank's part of a gang, which is to run next, and whether it has been called off already.
        self.gang: Task | None = None
        self.called_off = False
        #: Whether the job outlives the end of this rank.
        self.expendable = False
        #: Whether MPI takes a communicator away from those that are blocked in it.
        self.revocable = False
        self._results: list[bytes | memoryview] = []
        self._attachments: list[Buffer] = []
        # Of tasks that run in this process; the streams are made with the first of them.
        self._surroundings: Surroundings | None = None
        self._own = dict(os.environ)
        self._streams: StandardStreams | None = None
        #: Whether to say what tasks use that run in this process, and what measures it; made with the first of them.
        self._measured = False
        self._meter: Meter | None = None

    def receive(self, head: bytearray, attachments: list[Segment]) -> None:
        """Take one message of rank 0."""
        taken = tasks = 0
        pool = self.pool
        view = memoryview(head)
        for aid, tid, fid, walltime, kind, more, start, end in records(head):
            if kind == wire.TASK or kind == wire.TASK_FORK or kind == wire.TASK_RANK:
                beside = attachments[taken : taken + more]
                taken += more
                tasks += 1
                task = Task(aid, tid, fid, walltime, kind, view[start - HEADER_SIZE : end], beside)
                if kind == wire.TASK_RANK:
                    self._in_rank.append(task)
                else:
                    pool.add(task)
            elif kind == wire.LIMIT:
                pool.limit(aid, int.from_bytes(view[start:end], "little"))
            elif kind == wire.FUNCTION:
                pool.learn(fid, view[start - HEADER_SIZE : end])
                self._functions.learn(fid, bytes(view[start:end]))
            elif kind == wire.FORGET:
                pool.forget(fid, view[start - HEADER_SIZE : end])
                self._functions.forget(fid)
            elif kind == wire.SETTINGS:
                self._configure(loads(view[start:end]))
            elif kind == wire.DROP:
                self._drop({int(number) for number in view[start:end].cast("Q")})
            elif kind == wire.HAND_BACK:
                self._hand_back({int(number) for number in view[start:end].cast("Q")})
            elif kind == wire.PING:
                self.pinged = True
            elif kind == wire.STACKS:
                self._tell_stacks()
            elif kind == wire.TASK_GANG:
                self.gang = Task(aid, tid, fid, walltime, kind, view[start:end], attachments[taken : taken + more])
                self.called_off = False
                taken += more
                tasks += 1
            elif kind == wire.QUIT:
                self.quitting = True
            elif kind == wire.LEAVE:
                self.dismissed = True
                self.hurt = aid > 0
        self._unacknowledged += tasks > 0

    def _tell_stacks(self) -> None:
        """Say what the threads of this process and its runners are at."""
        from mpiflow.stacks import own_stacks

        said = [("", own_stacks())]
        said += [(f"runner {slot}, pid {pid}", text) for slot, pid, text in self.pool.stacks()]
        self._results.append(wire.record(wire.STACK_TEXT, dumps(said, 5)))

    def _configure(self, settings: dict[str, object]) -> None:
        size = settings["runners"]
        assert isinstance(size, int)
        self.notes = str(settings.get("notes", ""))
        self.heartbeat = float(str(settings.get("heartbeat", HEARTBEAT)))
        self.expendable = bool(settings.get("protection"))
        self.revocable = settings.get("protection") == "ULFM"
        changed = settings.get("variables", {})  # by the script; None: removed
        assert isinstance(changed, dict)
        variables: dict[str, str | None] = {**thread_counts(self._cores // size), **changed}
        bindings = self._bindings(size, settings)
        self.pool.configure(size, dict(settings, environment=variables), bindings)
        self._measured = "usage_every" in settings
        if settings["in_rank"]:
            path = settings["path"]
            assert isinstance(path, list)
            sys.path[:1] = path  # the first was where the command was given, as always with `python -m`
            self._settle(variables, str(settings["directory"]))
            if settings.get("as_parsl"):
                import mpiflow.parsl

                mpiflow.parsl.install()

    def _settle(self, variables: dict[str, str | None], directory: str) -> None:
        """Give this process the environment and the directory in which tasks are to find themselves."""
        if self._surroundings is None:
            self._surroundings = Surroundings()
        set_variables({**dict.fromkeys(os.environ.keys() - self._own.keys()), **self._own, **variables})
        enter(directory)
        self._surroundings.remember()

    def _begin_measure(self) -> Meter:
        from mpiflow.worker.usage import Meter

        meter = self._meter = self._meter or Meter()
        meter.begin()
        return meter

    def _bindings(self, size: int, settings: dict[str, object]) -> list[Binding] | None:
        """What each runner is bound to; None where nobody has asked, which is nearly always."""
        affinity, accelerators = settings.get("affinity", "none"), settings.get("accelerators", ())
        if affinity == "none" and not accelerators and not settings.get("numbered"):
            return None
        from mpiflow.worker.binding import Place, own_processors, processors, variables

        assert isinstance(affinity, str)
        assert isinstance(accelerators, list | tuple)
        place = Place(*self._place)
        mine = own_processors(place, self._cores)
        bound = [processors(slot, size, mine, affinity, place.index * size) for slot in range(size)]
        return [(bound[slot], variables(slot, size, place, bound[slot], accelerators)) for slot in range(size)]

    def _drop(self, aids: set[int]) -> None:
        self._in_rank = deque(task for task in self._in_rank if task.aid not in aids)
        self.called_off = self.called_off or (self.gang is not None and self.gang.aid in aids)
        self.pool.drop(aids)

    def _hand_back(self, aids: set[int]) -> None:
        """Give back what has not begun: the job is drained, and it would run for longer than was thought."""
        here = [task for task in self._in_rank if task.aid in aids]
        if here:
            self._in_rank = deque(task for task in self._in_rank if task.aid not in aids)
            self._results.append(not_begun(here))
        self.pool.hand_back(aids)

    def step(self, seconds: float, now: float) -> bool:
        """Do what there is to do, waiting at most so long for the runners; whether anything happened.

        Parameters
        ----------
        seconds : float
            How long to wait.
        now : float
            What `time.perf_counter` says: the caller has asked it anyway, and each time costs 0.15 µs.
        """
        if not self._in_rank:
            # A look at descriptors is half of an empty round, and those of an empty pool have nothing to say.
            return (seconds > 0.0 or self.pool.in_use) and self.pool.step(seconds)
        if self.pool.in_use:
            self.pool.step(0.0)
        until = now + LOOK_EVERY
        while True:
            self._run_here(self._in_rank.popleft())
            if not self._in_rank or time.perf_counter() >= until:
                return True

    def _run_here(self, task: Task) -> None:
        """Run a task in this process."""
        if self._surroundings is None or self._streams is None:
            self._surroundings, self._streams = Surroundings(), StandardStreams()
        payload = task.record[HEADER_SIZE :]
        beside = [segment.view for segment in task.attachments]
        meter = self._begin_measure() if self._measured else None
        if task.walltime:
            from mpiflow.worker.walltime import limit

            with limit(task.walltime):
                outcome = run_task(self._functions, task.tid, task.fid, payload, beside)
        else:
            outcome = run_task(self._functions, task.tid, task.fid, payload, beside)
        if meter is not None:
            self._results.append(meter.end(task.aid, task.tid, task.fid))
        self._surroundings.restore()
        self._streams.settle()
        answer = HEADER.pack(
            task.aid,
            task.tid,
            task.fid,
            len(outcome.payload),
            outcome.seconds,
            outcome.kind,
            len(outcome.attachments),
        )
        self._results.append(answer + outcome.payload)
        self._attachments += outcome.attachments
        for segment in task.attachments:
            segment.close()

    def run_here(self, run: Callable[[Functions], tuple[bytes, list[Buffer]]]) -> None:
        """Have something run in this process, as tasks do there, that gives an answer for rank 0."""
        if self._surroundings is None or self._streams is None:
            self._surroundings, self._streams = Surroundings(), StandardStreams()
        answer, attachments = run(self._functions)
        self._surroundings.restore()
        self._streams.settle()
        self._results.append(answer)
        self._attachments += attachments

    def take(self, acknowledge: bool) -> tuple[bytes, list[Buffer]]:
        """One message for rank 0: what has come of tasks, and that its messages have been received.

        Parameters
        ----------
        acknowledge : bool
            Whether an acknowledgement is worth a message of its own.
        """
        results, segments = self.pool.take() if self.pool.in_use else ([], [])
        attachments: list[Buffer] = self._attachments
        if self._results:
            results = self._results + results
            self._results, self._attachments = [], []
        attachments = attachments + [segment.view for segment in segments]
        if self.pinged or (self._unacknowledged and (results or acknowledge)):
            one = self._unacknowledged == 1
            results.insert(0, _ACK_OF_ONE if one else wire.record(wire.ACK, aid=self._unacknowledged))
            self._unacknowledged = 0
            self.pinged = False
        return b"".join(results), attachments

    @property
    def unacknowledged(self) -> bool:
        """Whether rank 0 waits to hear that a message has arrived."""
        return self._unacknowledged > 0

    def longest_wait(self, quiet: float) -> float:
        """How long to sleep when nothing has happened for `quiet` seconds."""
        if self._in_rank or quiet < SPIN:
            return 0.0
        limit = WAIT_BUSY if self.pool.stocked else WAIT_IDLE if quiet > IDLE_AFTER else WAIT_SOME
        return min(max(quiet / 10, 10e-6), limit)


def serve(
    comm: MPIComm,
    zygote: Zygote,
    hello: dict[str, object],
    cores: int,
    place: tuple[int, int],
    guardian: Guardian,
) -> None:
    """A worker rank's life: from its greeting to the word to quit."""
    linux.sleep_exactly()
    worker = Worker(zygote, cores, place)
    worker.pool.have_rank_watched(RANK_STOPPED_AT_MOST)
    comm.send(0, wire.record(wire.HELLO, dumps(hello, 5)))
    last = beaten = time.perf_counter()
    busy = False
    told = ""
    while not worker.quitting:
        messages = comm.poll()
        for _, head, attachments in messages:
            worker.receive(head, attachments)
        if worker.notes != told:  # first of all: a task that runs here may be the end of this rank
            told = worker.notes
            guardian.tell(f"report {told}")
        if worker.pinged:
            _send(comm, worker, acknowledge=True)
        if worker.gang is not None:
            from mpiflow.worker.gangs import run_gang

            run_gang(comm, worker)
        now = time.perf_counter()
        if busy or messages:
            last = now
        if now - beaten >= worker.heartbeat:
            beaten = now
            comm.beat()
        if comm.lost:
            raise FarmLost("rank 0 is lost")
        quiet = now - last
        pause = 0.0 if messages else worker.longest_wait(quiet)
        if worker.unacknowledged and pause > 0.0:
            _send(comm, worker, acknowledge=True)
        if pause == 0.0 and not messages:
            if worker.pool.in_use:
                os.sched_yield()  # with more ranks than cores, rank 0 may need this one
            else:
                comm.wait(MOMENT)  # nothing else can come
        happened = worker.step(pause, now)
        if happened and worker.pool.streaming:
            time.sleep(GATHER)
            worker.step(0.0, now)
        if happened or messages or worker.pool.in_use:
            _send(comm, worker, acknowledge=False)
        busy = happened or bool(messages)
    worker.pool.close()
    comm.send(0, wire.record(wire.BYE))
    _await_leave(comm, worker)


def _await_leave(comm: MPIComm, worker: Worker) -> None:
    """Wait for rank 0 to say how to leave; when it is not there any more, there is one way only."""
    beaten = time.perf_counter()
    while not (worker.dismissed or comm.lost):
        for _, head, attachments in comm.poll():
            worker.receive(head, attachments)
        now = time.perf_counter()
        if now - beaten >= worker.heartbeat:
            beaten = now
            comm.beat()
        time.sleep(WAIT_SOME)
    if worker.hurt:
        comm.hurt = True


def _send(comm: MPIComm, worker: Worker, acknowledge: bool) -> None:
    head, attachments = worker.take(acknowledge)
    if head:
        comm.send(0, head, attachments)


def describe_rank(rank: int) -> dict[str, object]:
    """What a worker says of itself when it reports."""
    return {
        "rank": rank,
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "python": sys.version.split()[0],
    }
