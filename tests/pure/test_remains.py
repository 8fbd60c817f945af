"""What tasks leave running: it is ended with them, and what is no task's own is spared."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

import pytest
from test_pool import Pool
from test_zygote import alive, leave_orphans, written

from mpiflow.comm import wire
from mpiflow.comm.wire import DIED, OVERTIME
from mpiflow.worker.zygote import exec_zygote

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.timeout(90),
]


@pytest.fixture
def pool() -> Iterator[Pool]:
    """A pool with one runner."""
    made = Pool(exec_zygote(), 1)
    yield made
    made.pool.close()


@pytest.mark.parametrize("kind", [wire.TASK, wire.TASK_FORK])
def test_nothing_of_a_task_outlives_it(pool: Pool, kind: int) -> None:
    (pids,) = pool.all(pool.add(leave_orphans(), kind=kind))
    assert len(pids) == 4
    assert not any(alive(pid) for pid in pids)


@pytest.mark.parametrize("how", ["walltime", "kill", "drop"])
def test_nothing_of_a_task_outlives_its_runner(pool: Pool, tmp_path: Path, how: str) -> None:
    aid = pool.add(leave_orphans(str(tmp_path / "pids")), walltime=3.0 if how == "walltime" else 0.0)
    assert pool.until((tmp_path / "pids").exists)
    pids = written(tmp_path / "pids")
    if how == "drop":
        pool.pool.drop({aid})
    elif how == "kill":
        os.kill(pool.pool._runners[0].pid, signal.SIGKILL)
    if how != "drop":
        assert pool.until(lambda: aid in pool.ended)
        assert pool.ended[aid][0] == (OVERTIME if how == "walltime" else DIED)
        assert not any(alive(pid) for pid in pids), "before anybody hears of its end"
    assert pool.run(divmod, 7, 2) == (3, 1)
    assert pool.until(lambda: not any(alive(pid) for pid in pids))


def test_a_process_that_daemonises_itself_in_python_is_ended(pool: Pool) -> None:
    def daemonise() -> int:
        reading, writing = os.pipe()
        if not os.fork():
            os.setsid()
            if os.fork():
                os._exit(0)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writing, str(os.getpid()).encode())
            time.sleep(1000)
        return int(os.read(reading, 100))

    assert not alive(pool.run(daemonise))


def test_a_runner_goes_on_after_what_its_tasks_have_left(pool: Pool) -> None:
    pids = []
    for _ in range(5):
        pool.run(leave_orphans())
        pids.append(pool.run(os.getpid))
    assert len(set(pids)) == 1


def test_a_zombie_that_a_task_leaves_is_waited_for(pool: Pool) -> None:
    def leave() -> int:
        pid = os.fork()
        if not pid:
            os._exit(0)
        time.sleep(0.1)
        return pid

    def zombies() -> list[str]:
        with open(f"/proc/self/task/{os.getpid()}/children") as listing:
            return listing.read().split()

    pool.run(leave)
    assert pool.run(zombies) == []


def test_a_process_that_is_waited_for_by_its_task_is_let_live(pool: Pool) -> None:
    def run() -> str:
        return subprocess.run(["sh", "-c", "sleep 0.2; echo through"], stdout=subprocess.PIPE, text=True).stdout

    assert pool.all(*(pool.add(run) for _ in range(3))) == ["through\n"] * 3


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_works_in_one_task_after_the_other(pool: Pool, method: str) -> None:
    """Its tracker and its forkserver belong to the runner; the workers that a task has left do not."""

    def use(method: str) -> tuple[int, list[int], int]:
        context = multiprocessing.get_context(method)
        pool = context.Pool(2)  # and never closed
        pids = [process.pid for process in pool._pool]  # type: ignore[attr-defined]
        tracker = resource_tracker._resource_tracker._pid or 0  # type: ignore[attr-defined]
        return sum(pool.map(abs, range(-10, 0))), pids, tracker

    for _ in range(3):
        total, pids, _ = pool.run(use, method)
        assert total == 55
        assert not any(alive(pid) for pid in pids)


def test_the_tracker_of_a_runner_lives_from_task_to_task_and_tidies_up_after_it(pool: Pool) -> None:
    def make() -> tuple[str, int]:
        kept = shared_memory.SharedMemory(create=True, size=4096)
        sys.kept = kept  # type: ignore[attr-defined]
        return kept.name, resource_tracker._resource_tracker._pid  # type: ignore[attr-defined]

    (name, tracker), (other, same) = pool.run(make), pool.run(make)
    assert tracker == same
    assert alive(tracker)
    names = [Path("/dev/shm", shared.lstrip("/")) for shared in (name, other)]
    assert all(path.exists() for path in names)
    dies = pool.add(os._exit, 3)
    pool.died(dies)
    assert pool.until(lambda: not any(path.exists() for path in names)), "nothing lies about in /dev/shm"
    assert pool.until(lambda: not alive(tracker))


def test_a_runner_with_a_pool_that_a_task_has_left_is_not_used_again(pool: Pool) -> None:
    """The processes of the pool have been killed, perhaps with its locks: to use it would be to wait for ever."""

    def use() -> tuple[int, int]:
        if not hasattr(sys, "kept"):
            sys.kept = multiprocessing.get_context("fork").Pool(2)  # type: ignore[attr-defined]
        return os.getpid(), sum(sys.kept.map(abs, range(-10, 0)))  # type: ignore[attr-defined]

    used = [pool.add(use) for _ in range(4)]
    behind = [pool.add(divmod, 7, 2) for _ in range(4)]
    found = pool.all(*used)
    assert [total for _, total in found] == [55] * 4
    assert len({pid for pid, _ in found}) == 4
    assert pool.all(*behind) == [(3, 1)] * 4
    assert sorted(pool.order) == used + behind


def test_a_thread_that_a_task_leaves_is_let_be(pool: Pool) -> None:
    def leave() -> int:
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        return os.getpid()

    assert pool.run(leave) == pool.run(leave)


def test_a_stopped_process_is_ended_too(pool: Pool) -> None:
    def leave() -> int:
        child = subprocess.Popen(["sleep", "1000"])
        child.send_signal(signal.SIGSTOP)
        return child.pid

    assert not alive(pool.run(leave))


def test_other_tasks_of_the_zygote_are_not_touched(tmp_path: Path) -> None:
    """One of two runners dies while the other one's task has children."""
    pool = Pool(exec_zygote(), 2)
    try:
        lives = pool.add(leave_orphans(str(tmp_path / "pids")))
        assert pool.until((tmp_path / "pids").exists)
        pids = written(tmp_path / "pids")
        for _ in range(3):
            pool.died(pool.add(os._exit, 3))
        assert all(alive(pid) for pid in pids)
        assert lives not in pool.ended
    finally:
        pool.pool.close()


_RANK = """
import os, signal, sys
sys.path[:0] = [{tests!r}]
from mpiflow.worker import limits
from mpiflow.worker.zygote import fork_zygote
zygote = fork_zygote()
from test_pool import Pool
from test_zygote import leave_orphans
limits.LOOK_EVERY = 0.2
pool = Pool(zygote, 1)
pool.pool.have_rank_watched(20.0)
aid = pool.add(leave_orphans({path!r}))
assert pool.until(lambda: os.path.exists({path!r}))
os.kill(zygote.pid, signal.SIGKILL)
assert pool.until(lambda: aid in pool.ended)
pids = [int(pid) for pid in open({path!r}).read().split()]
assert pool.until(lambda: not any(os.path.exists(f"/proc/{{pid}}") for pid in pids)), pids
assert pool.run(divmod, 7, 2) == (3, 1), "another zygote has taken its place"
pool.pool.close()
print("through")
"""


def test_zygote_of_a_rank_dies_and_nothing_of_its_tasks_outlives_it(tmp_path: Path) -> None:
    """They come to the rank, daemons too, for a worker rank adopts what its zygote leaves."""
    script = _RANK.format(tests=os.path.dirname(__file__), path=str(tmp_path / "pids"))
    line = [sys.executable, "-c", script]
    ended = subprocess.run(line, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert ended.stdout == "through\n"
