"""Runners and zygotes that somebody has stopped by a signal: they are found, and ended, and the work goes on."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest
from test_pool import Pool, sleeper
from test_zygote import alive

from mpiflow.comm.wire import DIED
from mpiflow.worker import limits
from mpiflow.worker.zygote import exec_zygote

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.timeout(90),
]


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """A pool with one runner that looks five times a second, and waits for half a second."""
    monkeypatch.setattr(limits, "LOOK_EVERY", 0.2)
    monkeypatch.setattr(limits, "STOPPED_AT_MOST", 0.6)
    made = Pool(exec_zygote(), 1)
    yield made
    made.pool.close()


def test_runner_is_stopped(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    pid = pool.run(os.getpid)
    sleeps, behind = pool.add(sleeper(), 1000), pool.add(os.getpid)
    assert pool.until(lambda: pool.pool._runners[0].tasks)
    os.kill(pid, signal.SIGSTOP)
    code, died, _ = pool.died(sleeps)
    assert (code, died) == (-signal.SIGKILL, pid)
    assert pool.all(behind) != [pid]
    said = capfd.readouterr().err
    assert f"mpiflow: a runner (pid {pid}) on " in said
    assert "has been stopped by a signal for 0.6 s; it is ended" in said


def test_zygote_is_stopped(pool: Pool) -> None:
    """It is told to go on, and no task is the worse for it."""
    zygote = pool.pool._zygote.pid
    sleeps = pool.add(sleeper(), 0.5)
    pool.step()
    os.kill(zygote, signal.SIGSTOP)
    dies = pool.add(os._exit, 3)
    pool.all(sleeps)
    assert pool.died(dies)[0] == 3, "it reports again"
    assert pool.pool._zygote.pid == zygote


def test_zygote_is_stopped_again_and_again(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    """It takes its runners along; a task that ran is charged, and what comes after it runs below another zygote."""
    pid = pool.run(os.getpid)
    zygote = pool.pool._zygote.pid
    sleeps, behind = pool.add(sleeper(), 1000), pool.add(os.getpid)

    def stopped_until_the_end() -> bool:
        if pool.pool._zygote.pid == zygote:
            os.kill(zygote, signal.SIGSTOP)
        return sleeps in pool.ended

    assert pool.until(stopped_until_the_end)
    assert pool.ended[sleeps][0] == DIED
    assert pool.all(behind) != [pid]
    assert not alive(zygote)
    assert f"the zygote (pid {zygote}) on " in capfd.readouterr().err


def test_zygote_is_stopped_before_it_has_forked(pool: Pool) -> None:
    os.kill(pool.pool._zygote.pid, signal.SIGSTOP)
    assert pool.run(divmod, 7, 2) == (3, 1)


def test_one_that_is_stopped_for_a_moment_goes_on(pool: Pool) -> None:
    pid = pool.run(os.getpid)
    sleeps = pool.add(sleeper(), 1.0)
    assert pool.until(lambda: pool.pool._runners[0].tasks)
    for _ in range(2):
        os.kill(pid, signal.SIGSTOP)
        pool.until(lambda: False, seconds=0.3)
        os.kill(pid, signal.SIGCONT)
        pool.until(lambda: False, seconds=0.3)
    assert pool.all(sleeps) == [pid]


def test_time_in_which_the_worker_itself_did_not_run_does_not_count(pool: Pool) -> None:
    """A suspended job: all of it was stopped, and one look sees a runner that is just being woken."""
    pid = pool.run(os.getpid)
    sleeps = pool.add(sleeper(), 1.0)
    assert pool.until(lambda: pool.pool._runners[0].tasks)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1.0)
    pool.step()
    os.kill(pid, signal.SIGCONT)
    assert pool.all(sleeps) == [pid]


def test_a_runner_without_work_may_be_stopped_for_as_long_as_it_likes(pool: Pool) -> None:
    pid = pool.run(os.getpid)
    os.kill(pid, signal.SIGSTOP)
    pool.until(lambda: False, seconds=1.2)
    assert alive(pid)
    os.kill(pid, signal.SIGCONT)
    assert pool.run(os.getpid) == pid
