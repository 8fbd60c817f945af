"""What runners are at, asked from outside while they are at it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import eventually
from test_pool import Pool
from test_zygote import alive

from mpiflow.worker.zygote import exec_zygote

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="memory files and /proc"),
    pytest.mark.timeout(60),
]


@pytest.fixture
def pool() -> Iterator[Pool]:
    """A pool with two runners."""
    made = Pool(exec_zygote(), 2)
    yield made
    made.pool.close()


def busy(pool: Pool, function: Callable[..., object], path: Path) -> int:
    """Have a runner begin a task that touches a file first; its attempt."""
    aid = pool.add(function, str(path))
    assert pool.until(lambda: path.exists() and all(runner.pid for runner in pool.pool._runners))
    return aid


def sleeps_deeply() -> Callable[[str], str]:
    def innermost_of_all(path: str) -> str:
        with open(path, "w"):
            time.sleep(3)
        return "undisturbed"

    def above(path: str) -> str:
        return innermost_of_all(path)

    return above


def test_each_runner_tells_its_stack_and_goes_on(pool: Pool, tmp_path: Path) -> None:
    aids = [busy(pool, sleeps_deeply(), tmp_path / name) for name in "ab"]
    for _ in range(2):
        told = pool.pool.stacks()
        assert [slot for slot, _, _ in told] == [0, 1]
        assert {pid for _, pid, _ in told} == {runner.pid for runner in pool.pool._runners}
        for _, _, text in told:
            assert text.count("most recent call first") == 1, "the last answer is not in the next"
            assert text.index("innermost_of_all") < text.index("in above") < text.index("in run_task")
    assert pool.all(*aids) == ["undisturbed"] * 2


def test_all_threads_of_a_runner_are_told(pool: Pool, tmp_path: Path) -> None:
    def start(path: str) -> None:
        def in_a_thread() -> None:
            time.sleep(1000)

        threading.Thread(target=in_a_thread, daemon=True).start()
        with open(path, "w"):
            time.sleep(1000)

    busy(pool, start, tmp_path / "a")
    ((_, _, text),) = pool.pool.stacks()
    assert "in_a_thread" in text
    assert "in start" in text


def test_one_in_c_code_that_holds_the_interpreter_tells_too(pool: Pool, tmp_path: Path) -> None:
    def compute(path: str) -> None:
        with open(path, "w"):
            ctypes.PyDLL(None).sleep(1000)  # PyDLL: the lock is not let go

    busy(pool, compute, tmp_path / "a")
    time.sleep(0.1)
    ((_, _, text),) = pool.pool.stacks()
    assert "in compute" in text


def test_one_that_cannot_answer_is_not_waited_for(pool: Pool, tmp_path: Path) -> None:
    busy(pool, sleeps_deeply(), tmp_path / "a")
    aid = busy(pool, sleeps_deeply(), tmp_path / "b")
    stopped = next(runner for runner in pool.pool._runners if runner.tasks[0].aid == aid)
    os.kill(stopped.pid, signal.SIGSTOP)
    began = time.monotonic()
    told = {pid: text for _, pid, text in pool.pool.stacks()}
    assert time.monotonic() - began < 10.0
    assert told.pop(stopped.pid) == "no answer within 0.2 s; the state of its process is T\n"
    assert "innermost_of_all" in told.popitem()[1]


def test_a_program_that_has_taken_the_place_of_a_runner_does_not_mind(pool: Pool, tmp_path: Path) -> None:
    """And neither do programs that tasks start: nobody asks them."""

    def replace(path: str) -> None:
        os.execlp("sh", "sh", "-c", f"echo $$ > {path}; exec sleep 1000")

    def start(path: str) -> None:
        child = subprocess.Popen(["sleep", "1000"])
        with open(path, "w") as file:
            file.write(str(child.pid))
        child.wait()

    for name, function in (("a", replace), ("b", start)):
        busy(pool, function, tmp_path / name)
        assert eventually((tmp_path / name).read_text)
    told = pool.pool.stacks()
    assert sum("no answer within 0.2 s; the state of its process is S" in text for _, _, text in told) == 1
    assert all(alive(int((tmp_path / name).read_text())) for name in "ab")


def test_a_pool_without_runners_has_nothing_to_tell(pool: Pool) -> None:
    assert pool.pool.stacks() == []
