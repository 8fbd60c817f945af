"""Runners that are replaced after so many tasks, or when they have grown too large; nothing behind them is lost."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from test_pool import Pool, sleeper
from test_zygote import alive

from mpiflow.errors import ConfigurationError
from mpiflow.executors.mpi import MPIExecutor
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


@pytest.mark.parametrize("runners", [1, 3])
@pytest.mark.parametrize("most", [1, 7, 1000])
def test_a_runner_leaves_after_so_many_tasks(pool: Pool, runners: int, most: int) -> None:
    pool.size(runners, max_tasks=most)
    aids = [pool.add(os.getpid) for _ in range(100)]
    ran = Counter(pool.all(*aids))
    assert max(ran.values()) <= most
    assert sorted(pool.order) == aids, "each once"
    if most < 1000:
        assert pool.until(lambda: sum(map(alive, ran)) <= runners)


def test_runners_are_not_recycled_unasked(pool: Pool) -> None:
    assert len(set(pool.all(*(pool.add(os.getpid) for _ in range(300))))) == 1


def test_a_runner_leaves_when_it_has_grown(pool: Pool) -> None:
    """And one that has grown and shrunk again does not."""
    pool.size(1, max_rss=200 << 20)

    def grow(size: int, keep: bool) -> int:
        data = bytearray(size)
        if keep:
            sys.kept = data  # type: ignore[attr-defined]
        return os.getpid()

    asked = [(1, True), (300 << 20, False), (300 << 20, True)]
    small, gone, kept = (pool.run(grow, size, keep) for size, keep in asked)
    assert small == gone == kept
    after = pool.all(*(pool.add(os.getpid) for _ in range(20)))
    assert len(set(after)) == 1
    assert after[0] != kept
    assert pool.until(lambda: not alive(kept))


def test_what_is_behind_a_task_that_grows_is_not_lost(pool: Pool) -> None:
    pool.size(2, max_rss=1)  # above it are all
    sleep = sleeper()
    aids = [pool.add(sleep, 0.001) for _ in range(60)]
    pool.all(*aids)
    assert sorted(pool.order) == aids


def test_a_limit_may_be_taken_back(pool: Pool) -> None:
    pool.size(1, max_tasks=1)
    assert len({pool.run(os.getpid) for _ in range(3)}) == 3
    pool.size(1)
    pool.run(os.getpid)
    assert len({pool.run(os.getpid) for _ in range(3)}) == 1


@pytest.mark.parametrize("value", [0, -1, 1.5, "7", True])
def test_max_tasks_that_is_none(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"MPIExecutor: max_tasks is .*; legal is a whole number from 1 up"):
        MPIExecutor(max_tasks=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -1, 1.5, "many", "4 apples", True])
def test_max_rss_that_is_none(value: object) -> None:
    words = r"MPIExecutor: max_rss is .*; legal is a whole number of bytes above 0, or a text like '4GB'"
    with pytest.raises(ConfigurationError, match=words):
        MPIExecutor(max_rss=value)  # type: ignore[arg-type]


def test_what_is_asked_is_shown() -> None:
    assert "max_tasks=3, max_rss='4GB'" in repr(MPIExecutor(max_tasks=3, max_rss="4GB"))
