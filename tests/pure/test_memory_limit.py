"""A task's limit of memory: what it may look like, whom it covers, and that it costs others nothing."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_pool import Pool, sleeper
from test_zygote import alive

from mpiflow.comm import wire
from mpiflow.comm.wire import OVERTIME
from mpiflow.executors.sizes import bytes_of, in_words
from mpiflow.worker.limits import TaskLimits
from mpiflow.worker.memory import of_tree
from mpiflow.worker.zygote import exec_zygote

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.timeout(90),
]

MIB = 1 << 20


@pytest.fixture
def pool() -> Iterator[Pool]:
    """A pool with one runner."""
    made = Pool(exec_zygote(), 1)
    yield made
    made.pool.close()


def hog() -> Callable[..., int]:
    """A task that takes memory, in its own process or in those it starts, and then sleeps."""

    def take(size: int, seconds: float, processes: int = 0, notes: str = "") -> int:
        own = size // max(processes, 1)
        code = f"import sys, time; sys.stdin.read(); data = bytearray({own}); time.sleep({seconds})"
        line = [sys.executable, "-c", code]
        children = [
            subprocess.Popen(line, start_new_session=True, stdin=subprocess.PIPE) for _ in range(processes)
        ]
        if notes:
            with open(notes, "w") as file:
                print(*(child.pid for child in children), file=file)
        for child in children:  # not before all are there and noted: with the first memory all may be over
            assert child.stdin is not None
            child.stdin.close()
        data = bytearray(0 if children else size)
        time.sleep(seconds)
        return len(data)

    return take


def test_task_exceeds_its_memory(pool: Pool) -> None:
    """It is ended as with a walltime: it alone is charged, and those behind it run elsewhere."""
    first = pool.run(os.getpid)
    large = pool.add(hog(), 300 * MIB, 1000.0, memory=100 * MIB)
    behind = pool.add(os.getpid)
    (pid,) = pool.all(behind)
    kind, (limit, peak) = pool.ended[large]
    assert (kind, limit) == (OVERTIME, 100 * MIB)
    assert 100 * MIB < peak < 1000 * MIB
    assert pid != first
    assert not alive(first)


def test_its_whole_process_tree_counts_and_is_killed(pool: Pool, tmp_path: Path) -> None:
    """Each of the processes alone is far below the limit, and none is of the runner's group or session."""
    notes = tmp_path / "pids"
    large = pool.add(hog(), 400 * MIB, 1000.0, 4, str(notes), memory=250 * MIB)
    assert pool.until(lambda: large in pool.ended)
    assert pool.ended[large][0] == OVERTIME
    pids = [int(pid) for pid in notes.read_text().split()]
    assert len(pids) == 4
    assert not any(alive(pid) for pid in pids)


def test_a_task_below_its_limit_ends_well_and_the_limit_is_forgotten(pool: Pool) -> None:
    sized = pool.add(hog(), 50 * MIB, 0.3, memory=200 * MIB)
    free = pool.add(hog(), 300 * MIB, 0.3)
    assert pool.all(sized, free) == [50 * MIB, 300 * MIB]
    assert pool.until(lambda: not pool.pool._limits.memory), "the next task has no limit, and nobody looks any more"


def test_what_processes_share_counts_once(pool: Pool) -> None:
    """Five processes see the same 150 MiB: 750 MiB by the sum of what each has."""

    def share(size: int) -> int:
        shared = mmap.mmap(-1, size)
        shared.write(bytes(size))
        children = []
        for _ in range(4):
            pid = os.fork()
            if not pid:
                sum(shared[::4096])
                time.sleep(0.5)
                os._exit(0)
            children.append(pid)
        sum(shared[::4096])
        time.sleep(0.5)
        return len([os.waitpid(pid, 0) for pid in children])

    assert pool.all(pool.add(share, 150 * MIB, memory=400 * MIB)) == [4]


def test_a_task_with_a_process_of_its_own_has_a_limit_too(pool: Pool) -> None:
    large = pool.add(hog(), 300 * MIB, 1000.0, memory=100 * MIB, kind=wire.TASK_FORK)
    assert pool.until(lambda: large in pool.ended)
    assert pool.ended[large][0] == OVERTIME


def test_a_walltime_holds_beside_a_limit_of_memory(pool: Pool) -> None:
    late = pool.add(sleeper(), 1000, walltime=0.3, memory=1 << 40)
    assert pool.until(lambda: late in pool.ended)
    assert pool.ended[late] == (OVERTIME, None)


def test_a_dropped_task_with_a_limit_leaves_nothing_behind(pool: Pool) -> None:
    running, waiting = (pool.add(sleeper(), 1000, memory=1 << 40) for _ in range(2))
    assert pool.until(lambda: pool.pool._runners and pool.pool._runners[0].pid)
    pool.pool.drop({running, waiting})
    assert pool.all(pool.add(divmod, 7, 2)) == [(3, 1)]
    assert pool.until(lambda: not pool.pool._limits.memory)


def test_nobody_looks_at_memory_where_no_task_has_a_limit(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TaskLimits, "measure", lambda *_: pytest.fail("it looked"))
    assert pool.all(pool.add(sleeper(), 0.3), pool.add(divmod, 7, 2))[1] == (3, 1)


def test_memory_of_a_tree_is_that_of_all_in_it() -> None:
    code = f"data = bytearray({100 * MIB}); print(flush=True); import time; time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        alone, both = of_tree(child.pid, 1 << 60), of_tree(os.getpid(), 1 << 60)
        child.send_signal(signal.SIGKILL)
    assert 100 * MIB < alone < 200 * MIB
    assert both > alone + of_tree(os.getpid(), 1 << 60) / 2
    assert of_tree(child.pid, 1 << 60) == 0, "it has ended"


# --- sizes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "size"),
    [
        (1, 1), (4096, 4096), ("7", 7), ("7B", 7), ("4GB", 4 * 10**9), ("512MiB", 512 * MIB), ("1.5G", 3 << 29),
        ("2k", 2048), ("2 kB", 2000), ("1TiB", 1 << 40), (" 4gb ", 4 * 10**9), (".5M", MIB // 2), ("1.M", MIB),
    ],
)  # fmt: skip
def test_amounts_of_memory(amount: object, size: int) -> None:
    assert bytes_of(amount) == size


@pytest.mark.parametrize(
    "amount",
    [
        "", "GB", "4 apples", "-4GB", "4iB", "4GBs", "1e3", "0", "0.1", "9999999T", 0, -1, 1.5, True, None, [4], b"4GB",
        1 << 63,
    ],
)  # fmt: skip
def test_what_is_no_amount_of_memory(amount: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011, callers have the words
        bytes_of(amount)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"), (1536 * MIB, "1.5 GiB"), (1 << 52, "4096 TiB"),
        (123_456_789, "117.7 MiB"),
    ],
)  # fmt: skip
def test_sizes_in_words(size: int, words: str) -> None:
    assert in_words(size) == words
