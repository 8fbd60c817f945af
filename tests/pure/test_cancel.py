"""Taking tasks back before they begin, and ending those that run."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest
from fakes import LONG, Hand, call, eventually, in_thread, make_kernel

from mpiflow.errors import DependencyError, JoinError, TaskKilled
from mpiflow.executors.base import Executor
from mpiflow.executors.threads import ThreadPoolExecutor
from mpiflow.kernel.app import App
from mpiflow.kernel.dataflow import DataFlowKernel
from mpiflow.kernel.futures import AppFuture
from mpiflow.kernel.task import Task


class Yielding(Hand):
    """Gives a task back as long as a test does not say that it runs; ends what runs by force."""

    def __init__(self) -> None:
        super().__init__()
        self.running_now: set[int] = set()
        self.killed: list[int] = []

    def revoke(self, task: Task) -> bool:
        return task.id not in self.running_now and self.given.pop(task.id, None) is not None

    def kill(self, task: Task) -> bool:
        self.killed.append(task.id)
        return self.given.pop(task.id, None) is not None


@pytest.fixture
def hand() -> Yielding:
    return Yielding()


@pytest.fixture
def kernel(hand: Yielding) -> Iterator[DataFlowKernel]:
    kernel = make_kernel(hand, retries=1)
    yield kernel
    failure = kernel.driver.failure
    kernel.cleanup()
    assert failure is None
    assert kernel._resolver._graph.waiting == 0
    assert not any(kernel.places.load.values())


def add(*numbers: int) -> int:
    return sum(numbers)


def sent(hand: Hand, *futures: AppFuture) -> bool:
    return eventually(lambda: all(future.tid in hand.given for future in futures))


# --- cancel ---------------------------------------------------------------------------------------------------


def test_a_task_that_waits_for_another_is_taken_back(kernel: DataFlowKernel, hand: Yielding) -> None:
    first = call(kernel, add)
    second = call(kernel, add, first)
    assert sent(hand, first)
    assert second.cancel()
    assert (second.cancelled(), second.done(), second.running()) == (True, True, False)
    with pytest.raises(CancelledError):
        second.result(LONG)
    assert isinstance(second.exception(LONG), CancelledError)
    hand.finish(first, 1)  # those that wait for it, and are gone, must not trouble it
    assert first.result(LONG) == 1
    assert hand.bulks == [[0]]


def test_cancelling_twice_is_as_once_and_after_the_end_is_too_late(kernel: DataFlowKernel, hand: Yielding) -> None:
    first = call(kernel, add)
    second = call(kernel, add, first)
    assert second.cancel()
    assert second.cancel()
    assert not second.kill()
    assert sent(hand, first)
    hand.finish(first)
    assert first.result(LONG) is None
    assert not first.cancel()
    assert not first.kill()
    assert not first.cancelled()


def test_what_an_executor_has_not_begun_is_taken_back_and_what_runs_goes_on(
    kernel: DataFlowKernel, hand: Yielding
) -> None:
    queued, running = call(kernel, add), call(kernel, add)
    assert sent(hand, queued, running)
    hand.running_now.add(running.tid)
    assert queued.cancel()
    assert not running.cancel()
    assert running.running()
    hand.finish(running, 3)
    assert running.result(LONG) == 3
    assert kernel.task_state_counts[queued.task.state] == 1


def test_those_that_depend_on_a_cancelled_task_fail_with_it_as_the_cause(
    kernel: DataFlowKernel, hand: Yielding
) -> None:
    first = call(kernel, add)
    second = call(kernel, add, first)
    third = call(kernel, add, 1, second)
    assert second.cancel()
    error = third.exception(LONG)
    assert isinstance(error, DependencyError)
    assert str(error) == "Dependency failure for task 2. The representative cause is via task 1"
    assert isinstance(error.__cause__, CancelledError)
    assert sent(hand, first)
    hand.finish(first)
    assert first.result(LONG) is None


def test_a_cancelled_task_is_not_tried_again(kernel: DataFlowKernel, hand: Yielding) -> None:
    future = call(kernel, add)
    assert sent(hand, future)
    assert future.cancel()
    assert not eventually(lambda: hand.given, seconds=0.01)
    assert future.task_record["fail_count"] == 0


def test_a_retry_that_waits_can_be_cancelled(hand: Yielding) -> None:
    kernel = make_kernel(hand, retries=5, helped=False)
    try:
        future = call(kernel, add)
        kernel.driver.nudge()
        task, _, _ = hand.given.pop(future.tid)
        hand.inbox.append((task, None, OSError("x")))
        kernel.driver.nudge()  # sends it again
        assert future.cancel()
        assert hand.bulks == [[0], [0]]
        assert not hand.given
    finally:
        kernel.cleanup()


def test_many_are_cancelled_in_any_order_while_others_go_on(kernel: DataFlowKernel, hand: Yielding) -> None:
    root = call(kernel, add)
    futures = [call(kernel, add, root) for _ in range(1000)]
    assert all(future.cancel() for future in reversed(futures[::2]))
    assert sent(hand, root)
    hand.finish(root, 1)
    assert sent(hand, *futures[1::2])
    assert len(hand.given) == 500
    hand.finish_together(*futures[1::2])
    kernel.wait_for_current_tasks()


def test_callbacks_and_waits_of_the_standard_library_hear_of_a_cancel(kernel: DataFlowKernel, hand: Yielding) -> None:
    first = call(kernel, add)
    second = call(kernel, add, first)
    heard: list[AppFuture] = []
    second.add_done_callback(heard.append)
    assert second.cancel()
    assert concurrent.futures.wait([second], timeout=LONG).done == {second}
    assert next(concurrent.futures.as_completed([second], timeout=LONG)) is second
    assert eventually(lambda: heard == [second])
    assert sent(hand, first)
    hand.finish(first)
    assert first.result(LONG) is None


def test_a_cancel_in_a_callback_and_in_another_thread(kernel: DataFlowKernel, hand: Yielding) -> None:
    first, slow = call(kernel, add), call(kernel, add)
    second, third = call(kernel, add, slow), call(kernel, add, slow)
    said: list[bool] = []
    first.add_done_callback(lambda _: said.append(second.cancel()))
    assert sent(hand, first, slow)
    hand.finish(first)
    assert eventually(lambda: said == [True])
    in_thread(lambda: said.append(third.cancel())).join(LONG)
    assert said == [True, True]
    hand.finish(slow)
    assert slow.result(LONG) is None


# --- kill -----------------------------------------------------------------------------------------------------


def test_a_task_that_runs_is_ended_without_a_retry(kernel: DataFlowKernel, hand: Yielding) -> None:
    future = call(kernel, add)
    after = call(kernel, add, future)
    assert sent(hand, future)
    hand.running_now.add(future.tid)
    assert future.kill()
    assert hand.killed == [0]
    with pytest.raises(TaskKilled, match=r"task 0 \(add\) was ended by kill\(\)"):
        future.result(LONG)
    assert not future.cancelled()
    assert future.task_status() == "failed"
    error = after.exception(LONG)
    assert isinstance(error, DependencyError)
    assert error.__cause__ is future.exception()


def test_a_late_word_of_a_killed_task_counts_for_nothing(kernel: DataFlowKernel, hand: Yielding) -> None:
    future = call(kernel, add)
    assert sent(hand, future)
    hand.running_now.add(future.tid)
    task = future.task
    assert future.kill()
    hand.inbox.append((task, "late", None))
    assert call(kernel, add).cancel() in (True, False)  # a superstep has been taken
    assert isinstance(future.exception(LONG), TaskKilled)
    assert not kernel.tasks


@pytest.mark.parametrize("waits_in", ["result", "wait", "the barrier"])
def test_a_thread_may_kill_what_the_script_waits_for(kernel: DataFlowKernel, hand: Yielding, waits_in: str) -> None:
    """Whoever waits holds the kernel's lock for as long as it waits, and lets others in."""
    future = call(kernel, add)
    assert sent(hand, future)
    hand.running_now.add(future.tid)
    timer = threading.Timer(0.05, future.kill)
    timer.start()
    began = time.monotonic()
    if waits_in == "result":
        with pytest.raises(TaskKilled):
            future.result(LONG)
    elif waits_in == "wait":
        assert concurrent.futures.wait([future], timeout=LONG).done
    else:
        kernel.wait_for_current_tasks()
    assert time.monotonic() - began < LONG / 2
    timer.join()


def test_a_task_in_a_thread_is_left_alone() -> None:
    kernel = make_kernel(ThreadPoolExecutor(max_threads=1))
    go = threading.Event()
    try:
        running, queued = call(kernel, go.wait), call(kernel, add, 1)
        assert eventually(lambda: queued.task_status() == "launched")
        time.sleep(0.02)  # its thread has begun the first
        assert not running.cancel()
        assert not running.kill()
        assert queued.cancel()
        go.set()
        assert running.result(LONG) is True
        assert call(kernel, add, 2).result(LONG) == 2, "the thread passes over what was taken back"
    finally:
        go.set()
        kernel.cleanup()


# --- joins ----------------------------------------------------------------------------------------------------


def joins(kernel: DataFlowKernel, inner: list[AppFuture]) -> AppFuture:
    return kernel.call(App(lambda: inner, join=True), (), {})


def test_a_join_that_waits_is_not_cancelled_and_can_be_killed(kernel: DataFlowKernel, hand: Yielding) -> None:
    inner = call(kernel, add)
    future = joins(kernel, [inner])
    assert eventually(lambda: future.task_status() == "joining")
    assert not future.cancel()
    assert future.kill()
    assert isinstance(future.exception(LONG), TaskKilled)
    assert not inner.done(), "what it has called goes on"
    hand.finish(inner, 5)
    assert inner.result(LONG) == 5


def test_a_join_fails_with_a_cancelled_inner_task(kernel: DataFlowKernel, hand: Yielding) -> None:
    inner = call(kernel, add)
    future = joins(kernel, [inner])
    assert eventually(lambda: future.task_status() == "joining")
    assert inner.cancel()
    error = future.exception(LONG)
    assert isinstance(error, JoinError)
    assert isinstance(error.__cause__, CancelledError)


# --- cached calls ---------------------------------------------------------------------------------------------


def cached() -> App:
    return App(add, cache=True)


def test_an_equal_call_that_waited_for_a_killed_one_runs_itself(kernel: DataFlowKernel, hand: Yielding) -> None:
    source, app = call(kernel, add), cached()
    first, second, third = (kernel.call(app, (source, 2), {}) for _ in range(3))
    assert sent(hand, source)
    hand.finish(source, 1)
    assert sent(hand, first)
    hand.running_now.add(first.tid)
    assert first.kill()
    assert sent(hand, second)
    assert hand.arguments(second) == ((1, 2), {})
    assert third.tid not in hand.given, "one of them is enough"
    hand.finish(second, 3)
    assert (second.result(LONG), third.result(LONG), third.task_status()) == (3, 3, "memo_done")


def test_a_call_that_follows_an_equal_one_can_be_cancelled_alone(kernel: DataFlowKernel, hand: Yielding) -> None:
    app = cached()
    first, second, third = (kernel.call(app, (1, 2), {}) for _ in range(3))
    assert sent(hand, first)
    assert second.cancel()
    hand.finish(first, 3)
    assert (first.result(LONG), third.result(LONG)) == (3, 3)
    assert kernel.call(app, (1, 2), {}).result(LONG) == 3


def test_a_cancelled_cached_call_is_not_remembered_as_a_failure(kernel: DataFlowKernel, hand: Yielding) -> None:
    app = cached()
    first = kernel.call(app, (1, 2), {})
    assert sent(hand, first)
    assert first.cancel()
    again = kernel.call(app, (1, 2), {})
    assert sent(hand, again)
    hand.finish(again, 3)
    assert again.result(LONG) == 3


# --- executors of others ----------------------------------------------------------------------------------------


class _Others(Executor):
    """Hands out futures, and runs nothing."""

    label = "others"

    def __init__(self, kind: type[Future[Any]]) -> None:
        super().__init__()
        self.kind = kind
        self.futures: list[Future[Any]] = []

    def submit(self, func: Any, resource_specification: dict[str, Any], *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(self.kind())
        return self.futures[-1]

    def shutdown(self) -> None:
        """Nothing is open."""


class _Refusing(Future[Any]):
    def cancel(self) -> bool:
        raise NotImplementedError("Cancel not implemented")


class _EndingMeanwhile(Future[Any]):
    """Ends in the very moment in which it is asked to be cancelled."""

    def cancel(self) -> bool:
        self.set_result("in time")
        return False


@pytest.mark.parametrize("kind", [_Refusing, _EndingMeanwhile])
def test_a_cancel_that_another_executor_declines_costs_no_result(kind: type[Future[Any]]) -> None:
    executor = _Others(kind)
    kernel = make_kernel(executor)
    try:
        future = call(kernel, add)
        assert eventually(lambda: executor.futures)
        assert not future.cancel()
        if kind is _Refusing:
            executor.futures[0].set_result("in time")
        assert future.result(LONG) == "in time"
    finally:
        kernel.cleanup()


def test_a_cancel_that_another_executor_grants() -> None:
    executor = _Others(Future)
    kernel = make_kernel(executor, retries=3)
    try:
        future = call(kernel, add)
        assert eventually(lambda: executor.futures)
        assert future.cancel()
        assert isinstance(future.exception(LONG), CancelledError)
        assert len(executor.futures) == 1
    finally:
        kernel.cleanup()


def test_a_future_that_its_executor_cancels_by_itself_is_a_failed_try() -> None:
    executor = _Others(Future)
    kernel = make_kernel(executor, retries=1)
    try:
        future = call(kernel, add)
        assert eventually(lambda: executor.futures)
        executor.futures[0].cancel()
        assert eventually(lambda: len(executor.futures) == 2), "it is tried again"
        executor.futures[1].set_result(4)
        assert future.result(LONG) == 4
    finally:
        kernel.cleanup()
