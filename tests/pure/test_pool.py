"""A worker's runners, real ones: what comes back, and who died of what."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import LONG, eventually
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_zygote import alive

from mpiflow.comm import wire
from mpiflow.comm.pickling import pack, pack_function, unpack, unpack_failure
from mpiflow.comm.segments import Segment, shared_copy
from mpiflow.comm.wire import DIED, DONE, EXCESS, HEADER, INLINE, NOT_BEGUN, OUTPUT, OVERTIME, RAISED, record, records
from mpiflow.linux import open_descriptors
from mpiflow.worker.channel import MOST_BYTES, Task
from mpiflow.worker.pool import RunnerPool
from mpiflow.worker.zygote import Zygote, exec_zygote

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.timeout(60),
]


class Pool:
    """A pool, and what rank 0 would make of its records."""

    def __init__(self, zygote: Zygote, runners: int) -> None:
        self.pool = RunnerPool(zygote)
        self.size(runners)
        self.aid = 0
        self.fids: dict[Callable[..., Any], int] = {}
        #: For each attempt how it ended: kind, and value, exception or payload.
        self.ended: dict[int, tuple[int, Any]] = {}
        self.seconds: dict[int, float] = {}
        self.order: list[int] = []
        #: What was printed: (tid, stream) to text; and bytes left out.
        self.printed: dict[tuple[int, int], bytes] = {}
        self.left_out = 0
        #: Attempts that it has given back, in order.
        self.given_back: list[int] = []

    def size(self, runners: int, **settings: object) -> None:
        self.pool.configure(runners, {"environment": {}, "path": [], "directory": "/", **settings})

    def add(
        self, function: Callable[..., Any], *args: Any, walltime: float = 0.0, memory: int = 0, kind: int = wire.TASK
    ) -> int:
        """Give it a task; the number of the attempt, which is the task's as well."""
        if function not in self.fids:
            fid = self.fids[function] = len(self.fids) + 1
            packed = pack((f"function {fid}", 0, pack_function(function)), [])
            self.pool.learn(fid, memoryview(record(wire.FUNCTION, packed, fid=fid)))
        fid = self.fids[function]
        self.aid += 1
        beside: list[Any] = []
        call = pack((args, {}), beside)
        head = HEADER.pack(self.aid, self.aid, fid, len(call), walltime, kind, len(beside))
        segments = [shared_copy(buffer) for buffer in beside]
        if memory:
            self.pool.limit(self.aid, memory)
        self.pool.add(Task(self.aid, self.aid, fid, walltime, kind, memoryview(head + call), segments))
        return self.aid

    def step(self, seconds: float = 0.01) -> None:
        self.pool.step(seconds)
        taken, segments = self.pool.take()
        for data in taken:
            stream = bytes(data)
            for aid, tid, _, took, kind, more, start, end in records(stream):
                beside, segments = segments[:more], segments[more:]
                self.hear(aid, tid, took, kind, stream[start:end], beside)
        assert not segments

    def hear(self, aid: int, tid: int, took: float, kind: int, payload: bytes, beside: list[Segment]) -> None:
        if kind == NOT_BEGUN:
            self.given_back += pickle.loads(payload)
            return
        if kind == OUTPUT:
            for task, fid, stream, text, left_out in pickle.loads(payload):
                assert task == 0 or fid in self.fids.values()
                self.printed[task, stream] = self.printed.get((task, stream), b"") + text
                self.left_out += left_out
            return
        assert aid == tid
        assert aid not in self.ended, "it has ended before"
        self.order.append(aid)
        self.seconds[aid] = took
        if kind == DONE:
            self.ended[aid] = kind, unpack(payload, [segment.view for segment in beside])
        elif kind == RAISED:
            self.ended[aid] = kind, unpack_failure(payload, f"task {tid}")
        elif kind == DIED:
            self.ended[aid] = kind, pickle.loads(payload)
        else:
            assert kind == OVERTIME
            self.ended[aid] = kind, EXCESS.unpack(payload) if payload else None

    def until(self, condition: Callable[[], object], seconds: float = LONG) -> bool:
        """Go on until something is so; whether it came about."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            self.step()
        return True

    def all(self, *aids: int) -> list[Any]:
        """The values of attempts, all of which must end well."""
        assert self.until(lambda: self.ended.keys() >= set(aids)), f"only {sorted(self.ended)} have ended"
        assert [self.ended[aid][0] for aid in aids] == [DONE] * len(aids), [self.ended[aid] for aid in aids]
        return [self.ended[aid][1] for aid in aids]

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """The value of one task."""
        return self.all(self.add(function, *args))[0]

    def died(self, aid: int) -> tuple[int, int, int]:
        """Code, process id and peak memory of a runner that died with an attempt."""
        assert self.until(lambda: aid in self.ended)
        kind, (code, pid, peak) = self.ended[aid]
        assert kind == DIED
        return code, pid, peak


@pytest.fixture
def make() -> Iterator[Callable[[int], Pool]]:
    made: list[Pool] = []

    def one(runners: int) -> Pool:
        made.append(Pool(exec_zygote(), runners))
        return made[-1]

    yield one
    for pool in made:
        pool.pool.close()


@pytest.fixture
def pool(make: Callable[[int], Pool]) -> Pool:
    """A pool with one runner."""
    return make(1)


def sleeper() -> Callable[[float], int]:
    def sleep(seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    return sleep


def printer() -> Callable[..., None]:
    def say(*words: str) -> None:
        print(*words)

    return say


# --- what comes back -----------------------------------------------------------------------------------


def test_results_come_back_with_how_long_they_took(pool: Pool) -> None:
    quick, slow = pool.add(divmod, 7, 2), pool.add(sleeper(), 0.5)
    value, _ = pool.all(quick, slow)
    assert value == (3, 1)
    assert pool.seconds[quick] < 0.5 <= pool.seconds[slow] < LONG


def test_failures_come_back_as_exceptions(pool: Pool) -> None:
    def leave() -> None:
        sys.exit(3)

    divided, left, well = pool.add(divmod, 7, 0), pool.add(leave), pool.add(divmod, 7, 1)
    pool.all(well)
    assert pool.ended[divided][0] == pool.ended[left][0] == RAISED
    assert isinstance(pool.ended[divided][1], ZeroDivisionError)
    assert type(pool.ended[left][1]).__name__ == "TaskExited"


def test_a_result_that_cannot_be_pickled_is_a_failure_of_its_task(pool: Pool) -> None:
    def generator() -> object:
        return (item for item in [1])

    bad, good = pool.add(generator), pool.add(divmod, 7, 1)
    pool.all(good)
    error = pool.ended[bad][1]
    assert type(error).__name__ == "SerializationError"
    assert f"task {bad} (function" in str(error)
    assert "its result of type generator cannot be pickled" in str(error)


def test_one_runner_takes_tasks_in_their_order(pool: Pool) -> None:
    aids = [pool.add(divmod, n, 3) for n in range(500)]
    assert pool.all(*aids) == [divmod(n, 3) for n in range(500)]
    assert pool.order == aids


def test_k_runners_run_k_tasks_at_once(make: Callable[[int], Pool], tmp_path: Path) -> None:
    pool = make(3)

    def meet(place: str, number: int) -> tuple[int, int]:
        with open(os.path.join(place, str(number)), "w"):
            end = time.monotonic() + 5
            while len(os.listdir(place)) < 3 and time.monotonic() < end:
                time.sleep(0.001)
        return len(os.listdir(place)), os.getpid()

    met = pool.all(*(pool.add(meet, str(tmp_path), number) for number in range(3)))
    assert [number for number, _ in met] == [3, 3, 3]
    assert len({pid for _, pid in met}) == 3


def test_no_more_runners_are_started_than_needed(make: Callable[[int], Pool]) -> None:
    pool = make(4)
    pids = {pool.run(os.getpid) for _ in range(5)}
    assert len(pids) == 1


def test_more_runners_may_be_had_later(pool: Pool) -> None:
    sleep = sleeper()
    assert len(set(pool.all(*(pool.add(sleep, 0.02) for _ in range(4))))) == 1
    pool.size(4)
    assert len(set(pool.all(*(pool.add(sleep, 0.1) for _ in range(4))))) == 4


def test_long_tasks_spread_over_runners_though_short_ones_came_before(make: Callable[[int], Pool]) -> None:
    pool = make(2)
    pool.all(*(pool.add(divmod, n, 3) for n in range(200)))
    sleep = sleeper()
    started = time.monotonic()
    pids = pool.all(*(pool.add(sleep, 0.5) for _ in range(4)))
    assert len(set(pids)) == 2
    assert time.monotonic() - started < 1.9


def test_a_runner_holds_nothing_over_from_one_task_to_the_next(pool: Pool) -> None:
    def spoil() -> None:
        os.chdir("/usr")
        os.environ["SPOILT"] = "yes"
        os.environ.pop("HOME", None)

    def look() -> tuple[str, str | None, bool]:
        return os.getcwd(), os.environ.get("SPOILT"), "HOME" in os.environ

    before = pool.run(look)
    pool.run(spoil)
    assert pool.run(look) == before == ("/", None, "HOME" in os.environ)


# --- large ones ----------------------------------------------------------------------------------------


def buffers(number: int, size: int) -> list[pickle.PickleBuffer]:
    return [pickle.PickleBuffer(bytes([place % 256]) * size) for place in range(number)]


def echo() -> Callable[[Any], Any]:
    """A task that gives back what it got, buffers as buffers."""

    def back(items: list[Any]) -> list[Any]:
        return [pickle.PickleBuffer(item) for item in items]

    return back


@pytest.mark.timeout(20)  # a worker that blocks cannot be waited for in any other way
@pytest.mark.parametrize(
    ("number", "size"), [(1, INLINE), (1, 5 << 20), (5, INLINE + 1), (20, INLINE), (400, INLINE)]
)
def test_buffers_of_any_number_go_there_and_back(pool: Pool, number: int, size: int) -> None:
    back = pool.run(echo(), buffers(number, size))
    assert [bytes(item) for item in back] == [bytes([place % 256]) * size for place in range(number)]


def test_several_tasks_with_buffers_keep_their_own(pool: Pool) -> None:
    aids = [pool.add(echo(), buffers(3, INLINE + n)) for n in range(15)]
    for n, back in enumerate(pool.all(*aids)):
        assert [len(bytes(item)) for item in back] == [INLINE + n] * 3


def test_a_large_argument_and_a_large_result_that_are_no_buffers(pool: Pool) -> None:
    text = "x" * (3 << 20)
    assert pool.run(str.upper, text) == text.upper()


def test_a_large_failure_comes_back_before_long(pool: Pool) -> None:
    def fail() -> None:
        raise ValueError("x" * (40 << 20))

    aid = pool.add(fail)
    assert pool.until(lambda: aid in pool.ended, seconds=4.0), "it is joined anew for each piece"
    assert len(pool.ended[aid][1].args[0]) == 40 << 20


def test_nothing_is_left_open_by_buffers(pool: Pool) -> None:
    pool.run(echo(), buffers(2, INLINE))
    gc.collect()
    before = len(open_descriptors())
    for _ in range(5):
        pool.run(echo(), buffers(3, INLINE))
    pool.ended.clear()
    gc.collect()
    assert len(open_descriptors()) <= before


# --- deaths --------------------------------------------------------------------------------------------


def dying(kind: str) -> Callable[[], None]:
    """A task that takes its process with it."""

    def die() -> None:
        if kind == "exits well":
            os._exit(0)
        if kind == "exits":
            os._exit(3)
        if kind == "closes everything":
            os.closerange(0, 100)
            time.sleep(60)
        os.kill(os.getpid(), getattr(signal, kind))

    return die


@pytest.mark.parametrize(
    ("kind", "code"), [("exits well", 0), ("exits", 3), ("SIGKILL", -9), ("SIGSEGV", -11), ("SIGABRT", -6)]
)
def test_a_death_charges_the_task_that_ran_and_no_other(pool: Pool, kind: str, code: int) -> None:
    first = pool.run(os.getpid)
    before = [pool.add(divmod, n, 3) for n in range(20)]
    dies = pool.add(dying(kind))
    behind = [pool.add(os.getpid) for _ in range(20)]
    pool.all(*before)
    told, pid, peak = pool.died(dies)
    assert (told, pid) == (code, first)
    assert 1000 < peak < 1 << 20, "KiB"
    others = set(pool.all(*behind))
    assert len(others) == 1
    assert others != {first}, "the tasks behind it ran in another process"
    assert pool.order.count(dies) == 1


def test_one_runner_dies_and_the_others_do_not_mind(make: Callable[[int], Pool]) -> None:
    pool = make(3)
    sleep = sleeper()
    slow = [pool.add(sleep, 0.2) for _ in range(2)]
    dies = pool.add(dying("SIGKILL"))
    pool.died(dies)
    assert not pool.ended.keys() & set(slow)
    pool.all(*slow)


def test_a_task_that_kills_every_runner_it_meets_is_charged_once_each(pool: Pool) -> None:
    aids = [pool.add(dying("SIGKILL")) for _ in range(5)]
    pids = [pool.died(aid)[1] for aid in aids]
    assert len(set(pids)) == 5
    assert pool.run(divmod, 7, 2) == (3, 1)


def test_a_task_that_dies_with_buffers_in_hand_leaves_nothing_open(pool: Pool) -> None:
    def die(_: object) -> None:
        os._exit(3)

    pool.died(pool.add(die, buffers(3, INLINE)))
    pool.run(os.getpid)
    before = len(open_descriptors())
    for _ in range(3):
        dies, behind = pool.add(die, buffers(3, INLINE)), pool.add(echo(), buffers(3, INLINE))
        pool.died(dies)
        assert [bytes(item) for item in pool.all(behind)[0]] == [bytes(b) for b in buffers(3, INLINE)]
    pool.ended.clear()
    gc.collect()
    assert len(open_descriptors()) <= before


def test_what_a_dead_runner_had_started_is_ended(pool: Pool) -> None:
    def start_and_die(path: str) -> None:
        child = subprocess.Popen(["sleep", "1000"])
        with open(path, "w") as file:
            file.write(str(child.pid))
        os._exit(1)

    path = f"/tmp/{os.getpid()}-{time.monotonic_ns()}"
    try:
        pool.died(pool.add(start_and_die, path))
        child = int(Path(path).read_text())
    finally:
        os.unlink(path)
    assert pool.until(lambda: not alive(child))


@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(
    runners=st.integers(1, 3),
    kinds=st.lists(
        st.sampled_from(["well", "well", "well", "raises", "dies", "prints", "large", "alone"]), max_size=25
    ),
)
def test_any_mixture_of_tasks_ends_each_once_and_as_it_must(runners: int, kinds: list[str]) -> None:
    pool = Pool(exec_zygote(), runners)
    functions: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "well": (divmod, (7, 2)),
        "raises": (divmod, (7, 0)),
        "dies": (dying("exits"), ()),
        "prints": (printer(), ("words",)),
        "large": (echo(), (buffers(2, INLINE),)),
        "alone": (os.getpid, ()),
    }
    try:
        for kind in kinds:
            function, args = functions[kind]
            pool.add(function, *args, kind=wire.TASK_FORK if kind == "alone" else wire.TASK)
        assert pool.until(lambda: len(pool.ended) == len(kinds)), f"{len(pool.ended)} of {len(kinds)}"
        ends = {"raises": RAISED, "dies": DIED}
        assert [pool.ended[aid][0] for aid in sorted(pool.ended)] == [ends.get(kind, DONE) for kind in kinds]
        assert pool.until(lambda: len(pool.printed) == kinds.count("prints"))
    finally:
        pool.pool.close()


# --- walltimes -----------------------------------------------------------------------------------------


def test_a_task_over_its_walltime_is_ended_with_all_it_started(pool: Pool, tmp_path: Path) -> None:
    def start_and_sleep(path: str) -> None:
        child = subprocess.Popen(["sleep", "1000"])
        with open(path, "w") as file:
            file.write(str(child.pid))
        time.sleep(1000)

    path = tmp_path / "child"
    started = time.monotonic()
    late = pool.add(start_and_sleep, str(path), walltime=1.5)
    behind = pool.add(divmod, 7, 2)
    assert pool.until(lambda: late in pool.ended)
    assert 1.5 <= time.monotonic() - started < 15
    assert pool.ended[late] == (OVERTIME, None)
    assert pool.all(behind) == [(3, 1)]
    assert pool.until(lambda: not alive(int(path.read_text())))


def test_a_walltime_counts_from_the_start_of_its_task(pool: Pool) -> None:
    sleep = sleeper()
    aids = [pool.add(sleep, 0.5, walltime=1.5) for _ in range(4)]
    pool.all(*aids)


def test_a_task_within_its_walltime_leaves_no_deadline_behind(pool: Pool) -> None:
    sleep = sleeper()
    pool.all(pool.add(divmod, 7, 2, walltime=1.0), pool.add(sleep, 1.3))


def test_a_task_that_ends_in_the_moment_of_its_walltime_does_not_cost_the_next_one(pool: Pool) -> None:
    """Its result has been sent, and not been read yet, when the deadline is looked at."""
    sleep = sleeper()
    pool.all(*(pool.add(divmod, n, 3) for n in range(100)))  # all are short: several are handed on together
    just, behind = pool.add(sleep, 0.05, walltime=0.8), pool.add(sleep, 1.5)
    (runner,) = pool.pool._runners
    assert pool.until(lambda: runner.deadline)
    assert len(runner.tasks) == 2
    time.sleep(1.0)  # the first has ended, the second runs
    pool.pool._limits.end_overdue()
    assert pool.until(lambda: {just, behind} <= pool.ended.keys())
    assert pool.ended[just][0] == DONE
    assert pool.ended[behind][0] == DONE, "it had no walltime at all"


# --- tasks that nobody wants any more ------------------------------------------------------------------


def test_what_is_dropped_from_the_queue_is_never_run(pool: Pool, tmp_path: Path) -> None:
    sleep = sleeper()
    first = pool.add(sleep, 0.1)
    pool.step()
    dropped = pool.add((tmp_path / "trace").touch)
    last = pool.add(divmod, 7, 2)
    pool.pool.drop({dropped})
    pool.all(first, last)
    assert dropped not in pool.ended
    assert not (tmp_path / "trace").exists()


def test_dropping_the_one_that_runs_kills_it_and_spares_those_behind(pool: Pool) -> None:
    pid = pool.run(os.getpid)
    runs = pool.add(sleeper(), 1000)
    behind = [pool.add(os.getpid) for _ in range(3)]
    assert pool.until(lambda: pool.pool._runners[0].tasks)
    pool.pool.drop({runs})
    pids = set(pool.all(*behind))
    assert pid not in pids
    assert runs not in pool.ended
    assert not alive(pid)


def test_one_that_is_dropped_behind_the_running_one_does_not_hold_up_those_after_it(pool: Pool) -> None:
    pool.all(*[pool.add(divmod, 7, 2) for _ in range(100)])  # tiny ones: a runner is given several ahead
    sleep = sleeper()
    first, dropped, last = pool.add(sleep, 0.2), pool.add(sleep, 1000), pool.add(divmod, 7, 2)
    assert pool.until(lambda: len(pool.pool._runners[0].tasks) >= 2), "the runner has both"
    pool.pool.drop({dropped})
    assert pool.all(first, last)[1] == (3, 1)
    assert dropped not in pool.ended


def test_a_runner_that_is_being_started_can_be_dropped(pool: Pool) -> None:
    runs = pool.add(sleeper(), 1000)
    pool.pool.step(0.0)  # asked for; its process id is not known yet
    pool.pool.drop({runs})
    assert pool.run(divmod, 7, 2) == (3, 1)
    assert runs not in pool.ended


@pytest.mark.parametrize("where", ["in the queue", "running", "behind the running one"])
def test_a_dropped_task_leaves_nothing_open(pool: Pool, where: str) -> None:
    sleep, back = sleeper(), echo()

    def sleep_on(_: object) -> None:
        time.sleep(1000)

    def once() -> None:
        if where == "running":
            dropped = pool.add(sleep_on, buffers(4, INLINE))
            assert pool.until(lambda: pool.pool._runners and pool.pool._runners[-1].tasks)
            time.sleep(0.02)
            pool.pool.drop({dropped})
        else:
            first = pool.add(sleep, 0.05)
            if where == "in the queue":
                pool.step()
            dropped = pool.add(back, buffers(4, INLINE))
            if where != "in the queue":
                pool.pool.step(0.0)
            pool.pool.drop({dropped})
            pool.all(first)
        assert pool.run(divmod, 7, 2) == (3, 1)

    once()
    gc.collect()
    before = len(open_descriptors())
    for _ in range(4):
        once()
    pool.ended.clear()
    gc.collect()
    assert len(open_descriptors()) <= before


# --- given back ------------------------------------------------------------------------------------------


def test_what_has_not_begun_is_given_back_and_what_runs_ends(pool: Pool, tmp_path: Path) -> None:
    """At once what no runner has; from behind the running one when that has ended, by a runner that leaves."""
    pool.all(*[pool.add(divmod, 7, 2) for _ in range(100)])  # tiny ones: a runner is given many ahead
    sleep = sleeper()

    def begin(name: str, _: bytes = b"") -> None:
        (tmp_path / name).touch()

    runs = pool.add(sleep, 0.5)
    behind = [pool.add(begin, f"behind {n}") for n in range(3)]
    kept = pool.add(begin, "kept")
    assert pool.until(lambda: len(pool.pool._runners[0].tasks) == 5), "the runner has all of them"
    queued = [pool.add(begin, f"queued {n}", bytes(INLINE + 1)) for n in range(2)]
    pool.pool.hand_back({runs, *behind, *queued})
    pool.step(0.0)
    assert pool.given_back == queued
    (pid,) = pool.all(runs)
    pool.all(kept)
    assert pool.given_back == [*queued, *behind]
    assert os.listdir(tmp_path) == ["kept"]
    assert eventually(lambda: not alive(pid))
    again = [pool.add(divmod, n, 2) for n in range(300)]
    assert pool.all(*again) == [divmod(n, 2) for n in range(300)]
    assert not pool.pool._asked_back


def test_a_runner_that_is_called_back_while_it_is_sent_much_is_told_when_it_has_all(pool: Pool) -> None:
    """Its tasks are short: it may run some more. Each ends once or comes back, from one that dies meanwhile too."""
    pool.all(*[pool.add(divmod, 7, 2) for _ in range(100)])
    sleep, size = sleeper(), len
    runs = pool.add(sleep, 0.3)
    large = [pool.add(size, bytes(INLINE - 100)) for _ in range(12)]  # more than a socket takes
    assert pool.until(lambda: pool.pool._runners[0].outgoing), "its socket is full"
    pool.pool.hand_back({runs, *large})
    (pid,) = pool.all(runs)
    assert pool.until(lambda: {*pool.given_back, *pool.ended} >= set(large))
    assert not pool.ended.keys() & set(pool.given_back)
    assert pool.run(os.getpid) != pid
    dies = pool.add(os._exit, 3)
    short = [pool.add(divmod, n, 2) for n in range(3)]
    pool.pool.step(0.0)
    pool.pool.hand_back({dies, *short})
    assert pool.died(dies)[0] == 3
    assert pool.until(lambda: {*pool.given_back, *pool.ended} >= {*large, *short})


# --- a process for each task ---------------------------------------------------------------------------


def test_a_task_may_have_a_process_of_its_own(make: Callable[[int], Pool]) -> None:
    pool = make(2)
    aids = [pool.add(os.getpid, kind=wire.TASK_FORK) for _ in range(6)]
    pids = pool.all(*aids)
    assert len(set(pids)) == 6
    assert pool.until(lambda: not any(alive(pid) for pid in pids))
    assert pool.until(lambda: not pool.pool._runners)
    pool.died(pool.add(dying("exits"), kind=wire.TASK_FORK))


def test_a_task_for_a_process_of_its_own_is_not_given_to_a_runner_with_those_before_it(pool: Pool) -> None:
    """Of two executors one has its tasks forked singly; runners are given many at a time once those are short."""
    pool.all(*(pool.add(os.getpid) for _ in range(50)))
    shared = [pool.add(os.getpid), pool.add(os.getpid)]
    single = [pool.add(os.getpid, kind=wire.TASK_FORK) for _ in range(4)]
    others = pool.all(*shared)
    alone = pool.all(*single)
    assert len({*others, *alone}) == 1 + len(alone)


def test_processes_of_their_own_are_no_more_at_once_than_runners(
    make: Callable[[int], Pool], tmp_path: Path
) -> None:
    pool = make(2)

    def count(place: str) -> int:
        own = os.path.join(place, str(os.getpid()))
        with open(own, "w"):
            time.sleep(0.03)
            number = len(os.listdir(place))
        os.unlink(own)
        return number

    aids = [pool.add(count, str(tmp_path), kind=wire.TASK_FORK) for _ in range(6)]
    assert max(pool.all(*aids)) == 2


# --- what tasks print ----------------------------------------------------------------------------------


@pytest.mark.parametrize("runners", [1, 3])
def test_output_is_ascribed_to_the_task_that_printed_it(make: Callable[[int], Pool], runners: int) -> None:
    pool = make(runners)
    say = printer()
    aids = [pool.add(say, f"this is task {n}") if n % 3 else pool.add(divmod, 7, 2) for n in range(40)]
    pool.all(*aids)
    expected = {(aid, 1): f"this is task {n}\n".encode() for n, aid in enumerate(aids) if n % 3}
    assert pool.until(lambda: len(pool.printed) == len(expected))
    assert pool.printed == expected
    assert pool.left_out == 0


def test_every_way_of_printing_is_heard(pool: Pool) -> None:
    def in_every_way() -> None:
        print("print")
        print("error", file=sys.stderr)
        sys.stdout.write("write without end")
        sys.stdout.flush()
        os.write(1, b" os.write ")
        subprocess.run("echo echo; echo echo2 >&2", shell=True, check=True)

    aid = pool.add(in_every_way)
    pool.all(aid)
    assert pool.until(lambda: pool.printed.keys() == {(aid, 1), (aid, 2)})
    assert pool.printed[aid, 1] == b"print\nwrite without end os.write echo\n"
    assert pool.printed[aid, 2] == b"error\necho2\n"


def test_the_last_words_of_a_task_that_dies_are_heard_and_are_its_own(pool: Pool) -> None:
    def cry() -> None:
        print("last words", flush=True)
        os._exit(3)

    cries, behind = pool.add(cry), pool.add(printer(), "mine")
    pool.died(cries)
    pool.all(behind)
    assert pool.until(lambda: len(pool.printed) == 2)
    assert pool.printed == {(cries, 1): b"last words\n", (behind, 1): b"mine\n"}


def test_output_beyond_what_a_person_reads_is_counted_and_left_out(pool: Pool) -> None:
    def flood() -> None:
        for _ in range(50):
            print("x" * 9_999)

    aid = pool.add(flood)
    pool.all(aid)
    assert pool.until(lambda: pool.left_out + len(pool.printed.get((aid, 1), b"")) == 500_000)
    assert MOST_BYTES <= len(pool.printed[aid, 1]) <= 3 * MOST_BYTES


def _spoilers() -> dict[str, Callable[[], None]]:
    def closes() -> None:
        sys.stdout.close()

    def closes_descriptor() -> None:
        os.close(1)

    def replaces_by_nothing() -> None:
        sys.stdout = None

    def replaces_by_a_buffer() -> None:
        import io

        sys.stdout = io.StringIO()

    def replaces_by_what_fails() -> None:
        class Odd:
            def flush(self) -> None:
                raise RuntimeError("odd")

        sys.stdout = Odd()

    def redirects_to_nowhere() -> None:
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)

    def redirects_to_a_file() -> None:
        os.dup2(os.open("/tmp", os.O_TMPFILE | os.O_RDWR), 1)
        print("into the file")

    return {name: value for name, value in locals().items() if callable(value)}


@pytest.mark.parametrize("how", list(_spoilers()))
def test_a_task_that_spoils_its_output_does_not_spoil_that_of_the_next(pool: Pool, how: str) -> None:
    spoils, prints = pool.add(_spoilers()[how]), pool.add(printer(), "heard")
    pool.all(spoils, prints)
    assert pool.until(lambda: pool.printed.get((prints, 1)) == b"heard\n", seconds=2.0), pool.printed


# --- the end -------------------------------------------------------------------------------------------


def test_closing_it_ends_runners_that_work_and_runners_that_wait() -> None:
    pool = Pool(exec_zygote(), 2)
    sleep = sleeper()
    pids = pool.all(pool.add(sleep, 0.1), pool.add(sleep, 0.1))
    pool.add(sleep, 1000)
    pool.step()
    pool.pool.close()
    assert len(set(pids)) == 2
    assert not any(alive(pid) for pid in pids)


def test_it_knows_whether_more_work_is_urgent(make: Callable[[int], Pool]) -> None:
    pool = make(2)
    assert not pool.pool.stocked
    sleep = sleeper()
    first = pool.add(sleep, 0.05)
    pool.step()
    assert not pool.pool.stocked, "one of two runners is free"
    second = pool.add(sleep, 0.05)
    pool.step(0.0)
    assert pool.pool.stocked
    pool.all(first, second)
    assert not pool.pool.stocked


def test_a_zygote_that_is_killed_is_replaced_and_what_ran_is_charged(make: Callable[[int], Pool]) -> None:
    """By a task that kills its parent, or by the kernel when memory runs out."""
    pool = make(2)
    done, pids = pool.add(abs, -1), {pool.pool._zygote.pid}
    assert pool.until(lambda: done in pool.ended)

    def kills_its_parent() -> None:
        time.sleep(0.2)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)

    fatal, beside = pool.add(kills_its_parent), pool.add(sleeper(), 60)
    assert pool.until(lambda: {fatal, beside} <= pool.ended.keys())
    for aid in (fatal, beside):
        kind, (code, pid, _) = pool.ended[aid]
        assert (kind, code) == (DIED, -signal.SIGKILL)
        assert eventually(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))
    after = [pool.add(abs, -n) for n in range(20)]
    assert pool.until(lambda: set(after) <= pool.ended.keys())
    assert [pool.ended[aid] for aid in after] == [(DONE, n) for n in range(20)]
    assert pool.pool._zygote.pid not in pids
