"""AppFuture: a concurrent.futures.Future to everyone who looks, from any number of threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, Future, as_completed
from typing import Any, cast

import pytest
from fakes import LONG, in_thread

from mpiflow.kernel.app import App
from mpiflow.kernel.futures import AppFuture
from mpiflow.kernel.task import States, Task


class Kernel:
    """As much of a kernel and its driver as a future looks at: it counts how often it is called for."""

    def __init__(self) -> None:
        self.woken = 0
        self.driver = self

    def __getattr__(self, name: str) -> Callable[[], None]:
        return self._wake

    def _wake(self) -> None:
        self.woken += 1

    def wait(self, task: Task, timeout: float | None) -> None:
        end = time.monotonic() + (LONG if timeout is None else timeout)
        while not task.fulfilled:
            if time.monotonic() >= end:
                raise TimeoutError
            time.sleep(0.0001)


def new_future(kernel: Kernel | None = None, number: int = 0) -> AppFuture:
    task = Task(number, App(len), (), {})
    task.dfk = kernel or Kernel()  # type: ignore[assignment]
    future = task.future = AppFuture(task)
    return future


def fulfil(future: AppFuture, value: object = None, error: BaseException | None = None) -> None:
    """What a kernel does at the end of a superstep."""
    task = future.task
    if error is None:
        task.value, task.state = value, States.exec_done
    else:
        task.error, task.state = error, States.failed
    if task.fulfil():
        future.run_callbacks()


@pytest.fixture
def restless() -> Iterator[None]:
    """An interpreter that switches threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def turns(most: int) -> Iterator[int]:
    """Try a race so often; less often on a loaded machine, where each switch of threads is slow."""
    end = time.monotonic() + 5.0
    for turn in range(most):
        yield turn
        if time.monotonic() > end:
            return


def test_it_is_a_future_of_the_standard_library() -> None:
    future = new_future()
    assert isinstance(future, Future)
    assert not future.done()
    assert not future.cancelled()
    fulfil(future, 3)
    assert future.done()
    assert future.result() == 3
    assert future.result(timeout=0) == 3
    assert future.exception() is None
    assert not future.running()


def test_a_failure_is_raised_each_time_it_is_asked_for() -> None:
    future, error = new_future(), ValueError("x")
    fulfil(future, None, error)
    for _ in range(2):
        with pytest.raises(ValueError, match="x") as caught:
            future.result()
        assert caught.value is error
    assert future.exception() is error


def test_nothing_but_waiting_costs_a_condition() -> None:
    future = new_future()
    assert future.task.condition is None
    fulfil(future, 1)
    assert future.result() == 1
    assert future.task.condition is None


@pytest.mark.parametrize(
    ("state", "running"), [(States.pending, False), (States.launched, True), (States.joining, True)]
)
def test_it_says_whether_it_runs(state: States, running: bool) -> None:
    future = new_future()
    future.task.state = state
    assert future.running() is running
    assert future.task_status() == state.name
    fulfil(future)
    assert not future.running()


def test_it_names_its_task() -> None:
    future = new_future(number=17)
    assert future.tid == 17
    assert "task 17 (len)" in repr(future)
    assert list(future.outputs) == []
    assert {new_future(), future} >= {future}


# --- the standard library's functions -----------------------------------------------------------------------


@pytest.mark.parametrize("when", [ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION])
@pytest.mark.parametrize("number", [1, 3])
def test_wait_sees_what_ends_before_and_during_it(when: str, number: int) -> None:
    kernel = Kernel()
    futures = [new_future(kernel, place) for place in range(number)]
    fulfil(futures[0], 0)

    def end() -> None:
        time.sleep(0.005)
        for future in futures[1:]:
            fulfil(future, None, ValueError("x"))

    thread = in_thread(end)
    done, rest = concurrent.futures.wait(futures, LONG, when)
    assert futures[0] in done
    assert not rest or when != ALL_COMPLETED
    thread.join()
    assert concurrent.futures.wait(futures, LONG).done == set(futures)
    assert all(future._waiters == [] for future in futures), "nobody is left in the queue"


def test_wait_calls_for_the_helper_thread_and_gives_up_in_time() -> None:
    kernel = Kernel()
    future = new_future(kernel)
    assert concurrent.futures.wait([future], 0.005).not_done == {future}
    assert kernel.woken > 0


def test_as_completed_yields_each_once_beside_futures_of_others() -> None:
    futures: list[Future[Any]] = [new_future(number=place) for place in range(5)]
    other: Future[int] = Future()
    fulfil(futures[3])  # type: ignore[arg-type]

    def end() -> None:
        for future in (futures[4], futures[0], other, futures[2], futures[1]):
            time.sleep(0.001)
            fulfil(future, 1) if isinstance(future, AppFuture) else future.set_result(1)

    coming = as_completed([*futures, other], LONG)
    assert next(coming) is futures[3], "the one that is there"
    thread = in_thread(end)
    order = list(coming)
    thread.join()
    assert set(order) == {*futures, other} - {futures[3]}
    assert len(order) == 5


def test_as_completed_gives_up_in_time() -> None:
    with pytest.raises(concurrent.futures.TimeoutError):
        next(as_completed([cast(Future[Any], new_future())], 0.005))


def test_an_event_loop_awaits_it() -> None:
    futures = [new_future(number=place) for place in range(3)]

    async def gather() -> list[Any]:
        loop = asyncio.get_running_loop()
        for place, future in enumerate(futures):
            loop.call_later(0.001 * place, in_thread, lambda f=future, p=place: fulfil(f, p))
        return await asyncio.gather(*map(asyncio.wrap_future, futures))

    assert asyncio.run(gather()) == [0, 1, 2]


# --- callbacks ----------------------------------------------------------------------------------------------


def test_callbacks_run_once_in_order_and_late_ones_at_once() -> None:
    future = new_future()
    heard: list[tuple[str, object]] = []
    for name in "abc":
        future.add_done_callback(lambda f, name=name: heard.append((name, f)))  # type: ignore[misc]
    assert heard == []
    fulfil(future)
    future.add_done_callback(lambda f: heard.append(("late", f)))
    assert heard == [("a", future), ("b", future), ("c", future), ("late", future)]


def test_fulfil_says_whether_there_are_callbacks_to_run() -> None:
    future = new_future()
    assert future.task.fulfil() is False
    future = new_future()
    future.add_done_callback(print)
    assert future.task.fulfil() is True
    future = new_future()
    assert future._condition is not None
    assert future.task.fulfil() is False


@pytest.mark.parametrize("late", [False, True], ids=["added before the end", "added after it"])
def test_a_failing_callback_is_logged_and_the_others_run(
    late: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """As with the standard library's futures, whenever it was added."""
    heard: list[object] = []

    def fail(_: Future[Any]) -> None:
        raise ValueError("a callback's own failure")

    future = new_future()
    if late:
        fulfil(future)
    with caplog.at_level(logging.ERROR, logger="concurrent.futures"):
        future.add_done_callback(fail)
        future.add_done_callback(heard.append)
        if not late:
            fulfil(future)
    assert heard == [future]
    assert "a callback's own failure" in caplog.text


def test_a_callback_calls_for_the_helper_thread() -> None:
    kernel = Kernel()
    future = new_future(kernel)
    future.add_done_callback(print)
    assert kernel.woken == 1


# --- races --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("restless")
def test_no_wait_misses_an_end_that_comes_in_the_same_moment() -> None:
    for _ in turns(300):
        future = new_future()
        start = threading.Barrier(3)
        seen: list[object] = []

        def wait(future: AppFuture = future, start: threading.Barrier = start, seen: Any = seen) -> None:
            start.wait(LONG)
            seen.append(concurrent.futures.wait([future], LONG).done)

        threads = [in_thread(wait), in_thread(wait)]
        start.wait(LONG)
        fulfil(future, 1)
        for thread in threads:
            thread.join(LONG)
        assert seen == [{future}, {future}]


@pytest.mark.usefixtures("restless")
def test_every_callback_runs_once_though_it_is_added_in_the_moment_of_the_end() -> None:
    for turn in turns(300):
        future = new_future()
        if turn % 2:
            assert future._condition is not None
        start = threading.Barrier(4)
        heard: list[int] = []

        def add(number: int, future: AppFuture = future, start: Any = start, heard: Any = heard) -> None:
            start.wait(LONG)
            for place in range(5):
                future.add_done_callback(lambda _, n=number * 5 + place: heard.append(n))  # type: ignore[misc]

        threads = [in_thread(lambda n=number: add(n)) for number in range(3)]  # type: ignore[misc]
        start.wait(LONG)
        fulfil(future, 1)
        for thread in threads:
            thread.join(LONG)
        assert sorted(heard) == list(range(15))


@pytest.mark.usefixtures("restless")
def test_as_completed_and_wait_in_many_threads_all_come_to_their_end() -> None:
    futures = [new_future(number=place) for place in range(200)]
    seen: list[int] = []

    def look(turn: int) -> None:
        own = futures[turn:] + futures[:turn]
        if turn % 2:
            seen.append(len(list(as_completed(cast(list[Future[Any]], own), LONG))))
        else:
            seen.append(len(concurrent.futures.wait(own, LONG).done))

    threads = [in_thread(lambda turn=turn: look(turn)) for turn in range(4)]  # type: ignore[misc]
    for future in futures:
        fulfil(future, 1)
    for thread in threads:
        thread.join(LONG)
    assert seen == [200] * 4


# --- memory -------------------------------------------------------------------------------------------------


def test_a_future_and_its_task_go_when_nobody_has_them() -> None:
    """Once the kernel has let go of the task's end of the bond."""
    gc.disable()
    try:
        future = new_future()
        task = future.task
        watched = weakref.ref(future)
        fulfil(future, [1])
        del task.future, task, future
        assert watched() is None
    finally:
        gc.enable()


def test_asking_for_a_failure_makes_no_knot_that_only_the_collector_can_untie() -> None:
    gc.disable()
    try:
        future = new_future()
        watched = weakref.ref(future)
        fulfil(future, None, ValueError("x"))
        del future.task.future
        with pytest.raises(ValueError, match="x"):
            future.result()
        del future
        assert watched() is None
    finally:
        gc.enable()
