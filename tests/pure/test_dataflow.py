"""The DataFlowKernel over an executor that ends tasks on command."""

from __future__ import annotations

import concurrent.futures
import gc
import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from fakes import LONG, Hand, call, eventually, in_thread, make_kernel
from hypothesis import given, settings
from hypothesis import strategies as st

from mpiflow.config import Config
from mpiflow.data.files import File
from mpiflow.errors import (
    DependencyError,
    JoinError,
    MpiflowError,
    NoDataFlowKernelError,
    TaskExited,
    TasksAbandoned,
)
from mpiflow.executors.base import Completion, Submission
from mpiflow.executors.threads import ThreadPoolExecutor
from mpiflow.kernel import loader
from mpiflow.kernel.app import App
from mpiflow.kernel.dataflow import NUDGE_AT, DataFlowKernel
from mpiflow.kernel.futures import AppFuture
from mpiflow.kernel.memoizer import BasicMemoizer
from mpiflow.kernel.task import States

Make = Callable[..., DataFlowKernel]




@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def kernel(make: Make, hand: Hand) -> DataFlowKernel:
    """A kernel over one `Hand`."""
    return make(hand)


@pytest.fixture
def busy(make: Make) -> DataFlowKernel:
    """A kernel that runs every task by itself."""
    return make(Hand(by_itself=True))


def add(*numbers: int) -> int:
    return sum(numbers)


def fail(words: str = "x", *_: object) -> None:
    raise ValueError(words)


def was_given(hand: Hand, *futures: AppFuture) -> bool:
    """Whether the executor has these tasks, or gets them before long."""
    return eventually(lambda: all(future.tid in hand.given for future in futures))


def join(kernel: DataFlowKernel, body: Callable[..., Any], *args: Any) -> AppFuture:
    return kernel.call(App(body, join=True), args, {})


# --- a call and its future -----------------------------------------------------------------------------


def test_a_call_returns_at_once_and_is_run_with_its_arguments(kernel: DataFlowKernel, hand: Hand) -> None:
    future = call(kernel, add, 1, 2, key="word")
    assert not future.done()
    assert was_given(hand, future)
    assert hand.arguments(future) == ((1, 2), {"key": "word"})
    assert future.running()
    hand.finish(future, "the value")
    assert future.result(LONG) == "the value"
    assert (future.task_status(), kernel.tasks, kernel.task_count) == ("exec_done", {}, 1)


def test_tasks_are_numbered_in_the_order_of_their_calls(busy: DataFlowKernel) -> None:
    assert [call(busy, add, n).tid for n in range(5)] == [0, 1, 2, 3, 4]


def test_a_failure_is_the_tasks_own_exception(kernel: DataFlowKernel, hand: Hand) -> None:
    future, error = call(kernel, add), KeyError("k")
    assert was_given(hand, future)
    hand.finish(future, error=error)
    assert future.exception(LONG) is error
    assert future.task_status() == "failed"
    assert kernel.ended_counts[States.failed] == 1


def test_a_task_that_leaves_by_sys_exit_has_failed(make: Make) -> None:
    kernel = make(ThreadPoolExecutor())
    with pytest.raises(TaskExited, match=r"task 0 \(exit\) called sys.exit\(3\)"):
        call(kernel, sys.exit, 3).result(LONG)


def test_a_wait_gives_up_in_time_and_can_be_taken_up_again(kernel: DataFlowKernel, hand: Hand) -> None:
    future = call(kernel, add)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.exception(0)
    assert was_given(hand, future)
    hand.finish(future, 3)
    assert future.result(LONG) == 3


def test_the_callers_lists_and_dicts_stay_as_they_are(busy: DataFlowKernel) -> None:
    inputs, outputs = [call(busy, add, 1)], [File("out.txt")]
    kwargs: dict[str, Any] = {"inputs": inputs, "outputs": outputs}
    future = busy.call(App(lambda inputs, outputs: (inputs, outputs)), (), kwargs)
    seen_inputs, seen_outputs = future.result(LONG)
    assert seen_inputs == [1]
    assert isinstance(inputs[0], Future)
    assert kwargs == {"inputs": inputs, "outputs": outputs}
    assert seen_outputs is not outputs


@pytest.mark.parametrize("walltime", [0, -1, "1", True, float("nan")])
def test_a_walltime_that_is_no_time_is_refused_at_the_call(busy: DataFlowKernel, walltime: Any) -> None:
    with pytest.raises(TypeError, match=r"add: walltime is .*; legal is a number of seconds above 0"):
        call(busy, add, walltime=walltime)
    assert busy.tasks == {}
    busy.wait_for_current_tasks()


def test_outputs_that_are_no_files_are_refused_at_the_call(busy: DataFlowKernel) -> None:
    with pytest.raises(TypeError, match="add: outputs takes File objects, not str: 'x'"):
        call(busy, add, outputs=["x"])
    assert busy.tasks == {}


def test_a_task_goes_to_the_executors_it_names(make: Make) -> None:
    first, second = Hand("first"), Hand("second")
    kernel = make(first, second)
    named = [kernel.call(App(add, executors=["second"]), (), {}) for _ in range(3)]
    spread = [kernel.call(App(add), (), {}) for _ in range(4)]
    assert was_given(second, *named)
    assert eventually(lambda: len(first.given) + len(second.given) == 7)
    assert len(first.given) == 4, "those that may go anywhere go where there is less to do"
    assert all(future.tid not in first.given for future in named)
    del spread


@pytest.mark.parametrize("label", ["third", ""])
def test_an_executor_that_is_not_there_is_refused_at_the_call(busy: DataFlowKernel, label: str) -> None:
    with pytest.raises(ValueError, match=f"Task of app 'add' requested invalid executor '{label}'.*'hand'"):
        busy.call(App(add, executors=[label]), (), {})
    assert busy.tasks == {}


def test_executors_are_started_with_the_seed(make: Make, hand: Hand) -> None:
    make(hand, seed=7)
    assert hand.settings is not None
    assert hand.settings.seed == 7


# --- dependencies --------------------------------------------------------------------------------------


def test_futures_among_the_arguments_are_awaited_and_replaced(kernel: DataFlowKernel, hand: Hand) -> None:
    first, second, third = (call(kernel, add) for _ in range(3))
    last = call(kernel, add, first, [second], word=second, inputs=[third, 5])
    assert was_given(hand, first, second, third)
    for place, future in enumerate((third, first, second)):
        assert last.tid not in hand.given
        hand.finish(future, place)
        assert future.result(LONG) == place
    assert was_given(hand, last)
    assert hand.arguments(last) == ((1, [second]), {"word": 2, "inputs": [0, 5]})
    hand.finish(last)


def test_a_future_that_is_done_already_is_no_dependency(busy: DataFlowKernel) -> None:
    first = call(busy, add, 1)
    assert first.result(LONG) == 1
    assert call(busy, add, first, first).result(LONG) == 2


def test_a_failed_dependency_fails_those_that_need_it_with_words_for_the_way(busy: DataFlowKernel) -> None:
    root = call(busy, fail)
    middle = call(busy, add, root)
    last = call(busy, add, 1, middle)
    error = last.exception(LONG)
    assert isinstance(error, DependencyError)
    assert str(error) == "Dependency failure for task 2. The representative cause is via task 1 <- task 0"
    assert error.__cause__ is root.exception()
    assert error.dependent_exceptions_tids == [(middle.exception(), "task 1")]
    assert last.task_status() == "dep_fail"
    assert busy.ended_counts[States.dep_fail] == 2


def test_several_failed_dependencies_are_all_named(busy: DataFlowKernel) -> None:
    first, good, second = call(busy, fail, "a"), call(busy, add), call(busy, fail, "b")
    error = call(busy, add, first, good, second).exception(LONG)
    assert isinstance(error, DependencyError)
    assert [source for _, source in error.dependent_exceptions_tids] == ["task 0", "task 2"]
    assert str(error).endswith("via task 0 (+ others)")


def test_a_dependency_that_has_failed_long_ago_fails_a_new_call(busy: DataFlowKernel) -> None:
    root = call(busy, fail)
    assert root.exception(LONG) is not None
    with pytest.raises(DependencyError, match="via task 0"):
        call(busy, add, root).result(LONG)


def test_a_task_whose_dependency_failed_is_never_run(kernel: DataFlowKernel, hand: Hand) -> None:
    root = call(kernel, add)
    last = call(kernel, add, root)
    assert was_given(hand, root)
    hand.finish(root, error=ValueError("x"))
    assert isinstance(last.exception(LONG), DependencyError)
    assert hand.bulks == [[0]]


def test_futures_from_elsewhere_are_awaited(kernel: DataFlowKernel, hand: Hand) -> None:
    done: Future[int] = Future()
    done.set_result(1)
    later: Future[int] = Future()
    last = call(kernel, add, done, later)
    assert not eventually(lambda: hand.given, seconds=0.01)
    later.set_result(2)
    assert was_given(hand, last)
    assert hand.arguments(last) == ((1, 2), {})
    hand.finish(last)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("how", ["fails", "is cancelled"])
def test_a_future_from_elsewhere_that_fails_fails_the_task(busy: DataFlowKernel, when: str, how: str) -> None:
    other: Future[int] = Future()

    def end() -> None:
        if how == "fails":
            other.set_exception(KeyError("k"))
        else:
            other.cancel()

    if when == "before":
        end()
    last = call(busy, add, other)
    if when == "after":
        end()
    error = last.exception(LONG)
    assert isinstance(error, DependencyError)
    assert "via <Future at" in str(error)
    assert isinstance(error.__cause__, KeyError if how == "fails" else concurrent.futures.CancelledError)


def test_a_file_that_a_task_writes_is_awaited_and_handed_on(kernel: DataFlowKernel, hand: Hand) -> None:
    writer = call(kernel, add, outputs=[File("out.txt")])
    (written,) = writer.outputs
    reader = call(kernel, add, written, inputs=[written])
    assert was_given(hand, writer)
    assert reader.tid not in hand.given
    hand.finish(writer, 0)
    assert was_given(hand, reader)
    (file,), kwargs = hand.arguments(reader)
    assert isinstance(file, File)
    assert (file.path, kwargs["inputs"]) == ("out.txt", [file])
    hand.finish(reader, error=ValueError("x"))
    assert written.result(LONG) is file
    assert written.filepath == "out.txt"


def test_a_file_of_a_failed_task_is_named_as_such(busy: DataFlowKernel) -> None:
    writer = call(busy, lambda outputs: fail(), outputs=[File("out.txt")])
    (written,) = writer.outputs
    with pytest.raises(DependencyError, match="via DataFuture from task 0"):
        call(busy, add, written).result(LONG)
    with pytest.raises(ValueError, match="x"):
        written.result(LONG)


def test_a_callback_may_wait_for_a_file_of_a_task_that_ended_with_its_own(
    kernel: DataFlowKernel, hand: Hand
) -> None:
    """The callbacks of both are still to be run, one after the other, by one thread."""
    first, second = call(kernel, add), call(kernel, add, outputs=[File("out.txt")])
    heard: list[object] = []
    assert was_given(hand, first, second)
    first.add_done_callback(lambda _: heard.append(second.outputs[0].result(2.0).path))
    hand.finish_together(first, second)
    assert eventually(lambda: heard, seconds=1.0), "the callback waits for one that waits behind it"
    assert heard == ["out.txt"]


@st.composite
def _dags(draw: st.DrawFn) -> list[tuple[list[int], bool]]:
    """For each task the earlier ones it needs, and whether it fails by itself."""
    number = draw(st.integers(1, 15))
    return [
        (draw(st.lists(st.integers(0, task - 1), max_size=4)) if task else [], draw(st.integers(0, 9)) == 0)
        for task in range(number)
    ]


@settings(max_examples=30)
@given(_dags(), st.randoms(use_true_random=False))
def test_any_graph_gives_what_a_sequential_program_gives(
    dag: list[tuple[list[int], bool]], chance: Any
) -> None:
    hand = Hand()
    kernel = make_kernel(hand)
    try:
        futures: list[AppFuture] = []
        expected: list[int | None] = []
        for number, (needs, fails) in enumerate(dag):
            futures.append(call(kernel, add, number, *(futures[n] for n in needs)))
            values = [expected[n] for n in needs]
            sound = not fails and None not in values
            expected.append(number + sum(value or 0 for value in values) if sound else None)
        while kernel.tasks:
            assert eventually(lambda: hand.given)
            future = futures[chance.choice(sorted(hand.given))]
            args, _ = hand.arguments(future)
            if dag[future.tid][1]:
                hand.finish(future, error=ValueError("own"))
            else:
                hand.finish(future, sum(args))
            assert future.exception(LONG) is None or dag[future.tid][1]
        for future, value, (needs, _) in zip(futures, expected, dag, strict=True):
            if value is not None:
                assert future.result(LONG) == value
            else:
                inherited = any(expected[n] is None for n in needs)
                assert type(future.exception(LONG)) is (DependencyError if inherited else ValueError)
    finally:
        kernel.cleanup()


# --- long chains ---------------------------------------------------------------------------------------


def test_a_chain_of_ten_thousand_keeps_the_stack_flat(busy: DataFlowKernel) -> None:
    future = call(busy, add, 0)
    for _ in range(10_000):
        future = call(busy, add, future, 1)
    assert future.result(LONG) == 10_000


def test_a_failure_runs_through_a_chain_of_ten_thousand(kernel: DataFlowKernel, hand: Hand) -> None:
    first = future = call(kernel, add)
    for _ in range(10_000):
        future = call(kernel, add, future)
    assert was_given(hand, first)
    started = time.thread_time()
    hand.finish(first, error=ValueError("root"))
    error = future.exception(LONG)
    assert isinstance(error, DependencyError)
    assert error.__cause__ is first.exception()
    assert str(error).count("<-") == 9999
    # A tenth of a second on any machine; fifty million steps if each link looks through all before it.
    assert time.thread_time() - started < 1.5


def test_a_failure_through_a_chain_is_written_to_the_log_in_short_lines(tmp_path: Path) -> None:
    kernel = DataFlowKernel(Config(executors=[Hand(by_itself=True)], run_dir=str(tmp_path)))
    with kernel:
        future = call(kernel, fail)
        for _ in range(300):
            future = call(kernel, add, future)
        assert isinstance(future.exception(LONG), DependencyError)
    log = Path(kernel.run_dir, "mpiflow.log").read_text()
    assert "task 300 (add) failed" in log
    assert max(map(len, log.splitlines())) < 20_000
    assert len(log) < 1_000_000


def test_a_join_of_joins_of_joins_keeps_the_stack_flat(busy: DataFlowKernel) -> None:
    def deeper(levels: int) -> AppFuture:
        return join(busy, deeper, levels - 1) if levels else call(busy, add, 42)

    assert join(busy, deeper, 300).result(LONG) == 42


# --- retries -------------------------------------------------------------------------------------------


def flaky(failures: int) -> Callable[[], str]:
    left = [failures]

    def work() -> str:
        if left[0]:
            left[0] -= 1
            raise ValueError(f"{left[0]} left")
        return "done"

    return work


@pytest.mark.parametrize(
    ("retries", "failures", "well"), [(0, 0, True), (0, 1, False), (2, 2, True), (2, 3, False)]
)
def test_a_task_is_tried_again_while_its_budget_lasts(
    make: Make, retries: int, failures: int, well: bool
) -> None:
    kernel = make(retries=retries)
    future = call(kernel, flaky(failures))
    assert (future.exception(LONG) is None) is well
    record = future.task_record
    assert record["fail_count"] == failures
    assert record["try_id"] == min(failures, retries)
    assert len(record["fail_history"]) == (not well), "of the last try, as in Parsl"
    assert all("ValueError" in words for words in record["fail_history"])


def test_a_record_counts_the_failures_of_others_once(make: Make) -> None:
    kernel = make(retries=1)
    failed = call(kernel, flaky(9))
    follower = call(kernel, add, failed)
    joined = kernel.call(App(lambda: [failed], join=True), (), {})
    assert isinstance(joined.exception(LONG), JoinError)
    assert isinstance(follower.exception(LONG), DependencyError)
    for future, count, cost in ((failed, 2, 2.0), (follower, 1, 1.0), (joined, 1, 0.0)):
        record = future.task_record
        assert (record["fail_count"], record["fail_cost"]) == (count, cost)
        assert len(record["fail_history"]) == 1
    assert follower.task_record["fail_history"][0].startswith("DependencyError(")
    assert joined.task_record["fail_history"][0].startswith("JoinError(")


def test_a_record_says_whether_the_result_was_known(make: Make, hand: Hand) -> None:
    kernel = make(hand)
    first = call(kernel, add)
    second = call(kernel, add, first)
    assert was_given(hand, first)
    assert first.task_record["from_memo"] is False
    assert second.task_record["from_memo"] is None
    hand.finish(first, 1)
    assert was_given(hand, second)
    hand.finish(second, 1)
    assert second.result(LONG) == 1
    assert second.task_record["from_memo"] is False


def test_a_retry_has_the_same_number_and_arguments(make: Make, hand: Hand) -> None:
    kernel = make(hand, retries=1)
    source = call(kernel, add)
    future = call(kernel, add, source)
    assert was_given(hand, source)
    hand.finish(source, 5)
    for error in (ValueError("x"), None):
        assert was_given(hand, future)
        assert hand.arguments(future) == ((5,), {})
        hand.finish(future, "ok", error)
    assert future.result(LONG) == "ok"
    assert hand.bulks == [[0], [1], [1]]


def test_a_handler_says_what_a_failure_costs(make: Make) -> None:
    seen: list[tuple[str, int]] = []

    def handler(error: BaseException, record: dict[str, Any]) -> float:
        seen.append((str(error), record["id"]))
        return 0.5

    future = call(make(retries=1, retry_handler=handler), flaky(3))
    assert isinstance(future.exception(LONG), ValueError)
    assert seen == [("2 left", 0), ("1 left", 0), ("0 left", 0)]
    assert future.task_record["fail_cost"] == pytest.approx(1.5)


def test_a_handler_that_raises_ends_the_task_with_its_own_exception(make: Make) -> None:
    def handler(error: BaseException, record: dict[str, Any]) -> float:
        raise KeyError("the handler's")

    kernel = make(retries=5, retry_handler=handler)
    future = call(kernel, flaky(1))
    error = future.exception(LONG)
    assert isinstance(error, KeyError)
    assert isinstance(error.__cause__, ValueError)
    assert call(kernel, add, 1).result(LONG) == 1


@pytest.mark.parametrize("cost", [None, "much", [1]], ids=repr)
def test_a_handler_that_returns_no_number_ends_the_task_and_not_the_kernel(make: Make, cost: Any) -> None:
    kernel = make(retries=5, retry_handler=lambda error, record: cost)
    future, other = call(kernel, flaky(1)), call(kernel, add, 1)
    assert other.result(LONG) == 1
    assert isinstance(future.exception(LONG), Exception)
    assert call(kernel, add, 2).result(LONG) == 2


def test_a_handler_may_call_apps_and_look_at_the_kernel(make: Make) -> None:
    called: list[AppFuture] = []

    def handler(error: BaseException, record: dict[str, Any]) -> float:
        source = call(record["dfk"], add, 1)
        called.append(call(record["dfk"], add, source, 1))
        return 1.0

    kernel = make(retries=1, retry_handler=handler)
    seen: list[object] = []
    thread = in_thread(lambda: seen.append(call(kernel, flaky(1)).result(LONG)))
    thread.join(2.0)
    assert not thread.is_alive(), "the handler waits for the lock under which it is called"
    assert seen == ["done"]
    assert called[0].result(LONG) == 2


class _Unspeakable(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no words")

    __str__ = __repr__


def test_an_exception_without_words_ends_its_task_and_not_the_kernel(busy: DataFlowKernel) -> None:
    def work() -> None:
        raise _Unspeakable

    future, other = call(busy, work), call(busy, add, 1)
    assert other.result(LONG) == 1
    assert isinstance(future.exception(LONG), Exception)
    assert isinstance(call(busy, add, future).exception(LONG), DependencyError)
    assert call(busy, add, 2).result(LONG) == 2


# --- joins ---------------------------------------------------------------------------------------------


def test_a_join_has_the_value_of_the_future_it_returned(busy: DataFlowKernel) -> None:
    assert join(busy, lambda: call(busy, add, 1, 2)).result(LONG) == 3


def test_a_join_has_the_values_of_the_futures_it_returned(busy: DataFlowKernel) -> None:
    assert join(busy, lambda n: [call(busy, add, i, 1) for i in range(n)], 4).result(LONG) == [1, 2, 3, 4]


def test_a_join_of_nothing_is_an_empty_list(busy: DataFlowKernel) -> None:
    assert join(busy, lambda: []).result(LONG) == []


def test_a_join_holds_no_thread_while_it_waits(make: Make, hand: Hand) -> None:
    kernel = make(hand, internal_tasks_max_threads=1)
    inner: list[AppFuture] = []

    def body() -> AppFuture:
        inner.append(call(kernel, add))
        return inner[-1]

    joins = [join(kernel, body) for _ in range(5)]
    assert eventually(lambda: len(inner) == 5)
    assert eventually(lambda: all(future.task_status() == "joining" for future in joins))
    assert was_given(hand, *inner)
    for future in inner:
        hand.finish(future, future.tid)
    assert sorted(future.result(LONG) for future in joins) == sorted(future.tid for future in inner)


def test_a_join_waits_for_futures_of_others_and_for_those_that_are_done(busy: DataFlowKernel) -> None:
    other: Future[int] = Future()
    done = call(busy, add, 1)
    assert done.result(LONG) == 1
    future = join(busy, lambda: [done, other, done])
    assert not eventually(future.done, seconds=0.01)
    other.set_result(2)
    assert future.result(LONG) == [1, 2, 1]


def test_a_failure_of_what_a_join_waits_for_is_a_join_error(busy: DataFlowKernel) -> None:
    future = join(busy, lambda: [call(busy, add), call(busy, fail), call(busy, fail)])
    error = future.exception(LONG)
    assert isinstance(error, JoinError)
    assert str(error) == "Join failure for task 0. The representative cause is via task 2 (+ others)"
    assert isinstance(error.__cause__, ValueError)
    assert future.task_status() == "failed"


@pytest.mark.parametrize("value", [None, 3, (1, 2), [1], "ab", {"a": 1}], ids=repr)
def test_a_join_that_returns_no_futures_says_what_it_returned(busy: DataFlowKernel, value: object) -> None:
    with pytest.raises(TypeError, match="must return a Future or list of Futures, got") as caught:
        join(busy, lambda: value).result(LONG)
    assert repr(value) in str(caught.value)
    assert str(type(value)) in str(caught.value)


def test_a_join_that_returns_something_without_words_fails_alone(busy: DataFlowKernel) -> None:
    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError("no words")

    future, other = join(busy, Mute), call(busy, add, 1)
    assert other.result(LONG) == 1
    assert isinstance(future.exception(LONG), Exception)
    assert call(busy, add, 2).result(LONG) == 2


def test_a_join_whose_body_fails_has_failed_and_is_tried_again(make: Make) -> None:
    kernel = make(retries=1)
    assert isinstance(join(kernel, flaky(2)).exception(LONG), ValueError)
    work = flaky(1)
    assert join(kernel, lambda: [call(kernel, add, 3)] if work() else None).result(LONG) == [3]


# --- supersteps ----------------------------------------------------------------------------------------


def test_what_is_ready_together_goes_as_one_bulk(make: Make, hand: Hand) -> None:
    kernel = make(hand, helped=False)
    futures = [call(kernel, add) for _ in range(5)]
    chained = call(kernel, add, *futures)
    kernel.driver.nudge()
    assert hand.bulks == [[0, 1, 2, 3, 4]]
    hand.finish_together(*futures)
    kernel.driver.nudge()
    assert hand.bulks == [[0, 1, 2, 3, 4], [5]]
    assert [future.done() for future in (*futures, chained)] == [True] * 5 + [False]
    hand.finish(chained)
    kernel.driver.nudge()
    assert chained.done()
    assert kernel.supersteps == 3
    kernel.driver.nudge()
    assert kernel.supersteps == 3, "one in which nothing happens does not count"


def test_a_script_that_calls_and_calls_keeps_its_workers_fed(make: Make) -> None:
    hand = Hand()
    kernel = make(hand, helped=False)  # the calls themselves take supersteps
    for _ in range(NUDGE_AT - 1):
        call(kernel, add)
    assert hand.bulks == []
    call(kernel, add)
    assert [len(bulk) for bulk in hand.bulks] == [NUDGE_AT]


def test_a_superstep_block_holds_its_calls_back_sends_one_bulk_and_waits(make: Make) -> None:
    hand = Hand()
    kernel = make(hand)
    waited: list[bool] = []

    def script() -> None:
        with kernel.superstep():
            futures = [call(kernel, add, n) for n in range(3)]
            futures.append(call(kernel, add, *futures))
            time.sleep(0.01)
            assert hand.bulks == []
        waited.append(all(future.done() for future in futures))

    thread = in_thread(script)
    assert eventually(lambda: hand.bulks)
    time.sleep(0.01)
    assert waited == [], "it is a barrier"
    while thread.is_alive():
        for tid in list(hand.given):
            hand.run(tid)
        time.sleep(0.0005)
    assert waited == [True]
    assert hand.bulks == [[0, 1, 2], [3]]


def test_a_superstep_block_raises_no_failure_of_its_tasks(busy: DataFlowKernel) -> None:
    with busy.superstep():
        future = call(busy, fail)
    assert isinstance(future.exception(0), ValueError)


def test_a_superstep_block_that_raises_sends_and_does_not_wait(kernel: DataFlowKernel, hand: Hand) -> None:
    with pytest.raises(KeyError), kernel.superstep():  # noqa: PT012
        future = call(kernel, add)
        raise KeyError
    assert not future.done()
    assert was_given(hand, future)
    hand.finish(future, 1)
    assert future.result(LONG) == 1
    with kernel.superstep():
        pass


def test_a_superstep_block_inside_another_is_refused(busy: DataFlowKernel) -> None:
    with busy.superstep():
        outer = call(busy, add, 1)
        with pytest.raises(MpiflowError, match="inside a superstep"), busy.superstep():
            pass
    assert outer.result(0) == 1


@pytest.mark.parametrize(
    "wait",
    [
        lambda kernel, future: future.result(LONG),
        lambda kernel, future: future.exception(LONG),
        lambda kernel, future: kernel.wait_for_current_tasks(),
        lambda kernel, future: concurrent.futures.wait([future], 1.0),
        lambda kernel, future: list(concurrent.futures.as_completed([future], 1.0)),
        lambda kernel, future: future.outputs[0].result(1.0),
    ],
    ids=["result", "exception", "wait_for_current_tasks", "futures.wait", "as_completed", "a file's result"],
)
def test_waiting_inside_a_superstep_block_sends_what_it_holds_back(
    busy: DataFlowKernel, wait: Callable[[DataFlowKernel, AppFuture], object]
) -> None:
    with busy.superstep():
        future = call(busy, lambda outputs: 1, outputs=[File("x")])
        wait(busy, future)
        assert future.done()


def test_a_superstep_block_is_its_threads_own(kernel: DataFlowKernel, hand: Hand) -> None:
    futures: list[AppFuture] = []
    with pytest.raises(KeyError), kernel.superstep():  # noqa: PT012
        held = call(kernel, add)
        in_thread(lambda: futures.append(call(kernel, add))).join(LONG)
        assert was_given(hand, *futures)
        assert held.tid not in hand.given
        raise KeyError
    assert was_given(hand, held)


def test_the_bare_barrier_waits_for_what_was_called_so_far(kernel: DataFlowKernel, hand: Hand) -> None:
    futures = [call(kernel, add), call(kernel, add)]
    passed = threading.Event()

    def barrier() -> None:
        kernel.wait_for_current_tasks()
        passed.set()

    in_thread(barrier)
    assert was_given(hand, *futures)
    hand.finish(futures[0])
    assert not passed.wait(0.01)
    late = call(kernel, add)
    hand.finish(futures[1], error=ValueError("x"))
    assert passed.wait(LONG)
    assert not late.done()


def test_after_the_barrier_every_future_is_done(kernel: DataFlowKernel, hand: Hand) -> None:
    """Another thread drives, and is just entering the last end in the books."""
    future = call(kernel, add)
    assert was_given(hand, future)
    committing, go_on = threading.Event(), threading.Event()
    commit = kernel._commit

    def slow(ended: Any) -> None:
        if ended:
            committing.set()
            go_on.wait(LONG)
        commit(ended)

    kernel._commit = slow  # type: ignore[method-assign]
    hand.finish(future, 1)
    assert committing.wait(LONG)
    seen: list[bool] = []

    def barrier() -> None:
        kernel.wait_for_current_tasks()
        seen.append(future.done())

    thread = in_thread(barrier)
    thread.join(0.05)
    go_on.set()
    thread.join(LONG)
    assert seen == [True]


def test_what_has_ended_is_in_the_books_before_its_future_shows_it(
    kernel: DataFlowKernel, hand: Hand
) -> None:
    future = call(kernel, add)
    assert was_given(hand, future)
    commit = kernel._commit
    seen: list[tuple[int, bool]] = []

    def noting(ended: Any) -> None:
        seen.extend((task.id, future.done()) for task in ended)
        commit(ended)

    kernel._commit = noting  # type: ignore[method-assign]
    hand.finish(future)
    future.result(LONG)
    assert seen == [(0, False)]


def test_counts_add_up(make: Make) -> None:
    hand = Hand()
    kernel = make(hand)
    futures = [call(kernel, add) for _ in range(4)]
    dependant = call(kernel, add, futures[0])
    assert was_given(hand, *futures)
    hand.finish(futures[0], error=ValueError("x"))
    hand.finish(futures[1])
    assert dependant.exception(LONG) is not None
    futures[1].result(LONG)
    counts = kernel.counts()
    assert (counts.called, counts.done, counts.failed) == (5, 1, 2)
    assert counts.running + counts.waiting == 2


# --- waits in other people's functions -----------------------------------------------------------------


def test_the_helper_thread_drives_for_waits_of_the_standard_library(busy: DataFlowKernel) -> None:
    futures: list[Any] = [call(busy, add, n) for n in range(5)]
    futures.append(call(busy, add, *futures))
    assert concurrent.futures.wait(futures, LONG).not_done == set()
    assert {future.result(0) for future in concurrent.futures.as_completed(futures, LONG)} == {
        0,
        1,
        2,
        3,
        4,
        10,
    }


def test_a_callback_may_call_and_wait(busy: DataFlowKernel) -> None:
    heard: list[object] = []
    future = call(busy, add, 1)
    future.add_done_callback(lambda f: heard.append(call(busy, add, f, 1).result(LONG)))
    assert eventually(lambda: heard == [2])


@pytest.mark.parametrize("threads", [8])
def test_plain_threads_may_call_and_wait(busy: DataFlowKernel, threads: int) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    results: list[int] = []

    def work(number: int) -> None:
        for turn in range(50):
            first = call(busy, add, number, turn)
            results.append(call(busy, add, first, -turn).result(LONG))

    try:
        started = [in_thread(lambda n=number: work(n)) for number in range(threads)]  # type: ignore[misc]
        for thread in started:
            thread.join(LONG)
    finally:
        sys.setswitchinterval(before)
    assert sorted(results) == sorted(list(range(threads)) * 50)
    assert busy.task_count == 2 * 50 * threads
    assert busy.tasks == {}


def test_a_call_meets_the_end_of_what_it_depends_on(busy: DataFlowKernel) -> None:
    """A dependency may end in the very moment of the call, which must not be missed."""
    for turn in range(300):
        source = call(busy, add, turn)
        if turn % 3 == 0:
            busy.driver.wake()
        assert call(busy, add, source, 1).result(LONG) == turn + 1


# --- several kernels -----------------------------------------------------------------------------------


def test_kernels_at_once_do_not_mix_and_may_wait_for_each_other(make: Make) -> None:
    kernels = [make(Hand(by_itself=True)) for _ in range(3)]
    futures = [call(kernel, add, n) for n, kernel in enumerate(kernels)]
    assert [future.tid for future in futures] == [0, 0, 0]
    sums = [call(kernel, add, *futures) for kernel in kernels]
    assert [future.result(LONG) for future in sums] == [3, 3, 3]
    bad = call(kernels[0], fail)
    error = call(kernels[1], add, bad).exception(LONG)
    assert isinstance(error, DependencyError)
    assert "via <AppFuture of task 2 (fail)" in str(error)


def test_a_chain_that_goes_to_and_fro_between_kernels(make: Make) -> None:
    kernels = [make(Hand(by_itself=True)) for _ in range(2)]
    future = call(kernels[0], add, 0)
    for turn in range(100):
        future = call(kernels[turn % 2], add, future, 1)
    assert future.result(LONG) == 100


# --- the end -------------------------------------------------------------------------------------------


def test_cleanup_gives_up_what_has_not_ended(make: Make) -> None:
    hand = Hand()
    kernel = make(hand)
    running, waiting = call(kernel, add), None
    waiting = call(kernel, add, running)
    assert was_given(hand, running)
    heard: list[object] = []
    waiting.add_done_callback(heard.append)
    kernel.cleanup()
    for future in (running, waiting):
        with pytest.raises(
            TasksAbandoned, match=rf"task {future.tid} \(add\) .* had not ended when|had not ended"
        ):
            future.result(0)
    assert heard == [waiting]
    assert hand.shut_down == 1
    assert kernel.tasks == {}


def test_cleanup_ends_waits_in_other_threads(make: Make) -> None:
    kernel = make(Hand())
    future = call(kernel, add)
    seen: list[object] = []
    thread = in_thread(lambda: seen.append(future.exception(LONG)))
    other = in_thread(lambda: seen.append(concurrent.futures.wait([future], LONG).not_done))
    time.sleep(0.005)
    kernel.cleanup()
    thread.join(LONG)
    other.join(LONG)
    assert set() in seen
    assert any(isinstance(error, TasksAbandoned) for error in seen)


def test_cleanup_while_tasks_end_and_threads_wait(make: Make) -> None:
    """Every future comes to an end, with its value or given up, and no thread falls over."""
    for _ in range(20):
        kernel = make(Hand(by_itself=True))
        problems: list[BaseException] = []

        def work(kernel: DataFlowKernel = kernel, problems: list[BaseException] = problems) -> None:
            try:
                while True:
                    assert call(kernel, add, call(kernel, add, 1), 1).result(LONG) == 2
            except (TasksAbandoned, NoDataFlowKernelError, DependencyError):
                return
            except BaseException as error:
                problems.append(error)

        threads = [in_thread(work) for _ in range(3)]
        time.sleep(0.003)
        kernel.cleanup()
        for thread in threads:
            thread.join(LONG)
        assert not any(thread.is_alive() for thread in threads), "a wait outlives its kernel"
        assert problems == []
        assert kernel.tasks == {}, "a call in the moment of the cleanup is never given up"


def test_after_cleanup_nothing_may_be_called(make: Make) -> None:
    kernel = make()
    kernel.cleanup()
    with pytest.raises(NoDataFlowKernelError, match="cleaned up"):
        call(kernel, add)
    with pytest.raises(MpiflowError, match="second time"):
        kernel.cleanup()


@pytest.mark.parametrize("mode", ["cleanup", "skip", "wait"])
@pytest.mark.parametrize("raises", [False, True])
def test_leaving_the_block_does_what_exit_mode_says(make: Make, mode: str, raises: bool) -> None:
    kernel = make(Hand(by_itself=True), helped=False, exit_mode=mode)  # only a wait drives
    try:
        with kernel:
            future = call(kernel, add, 1)
            if raises:
                raise KeyError
    except KeyError:
        assert raises
    assert kernel.cleanup_called is (mode != "skip")
    if mode == "wait" and not raises:
        assert future.result(0) == 1
    elif mode != "skip":
        assert isinstance(future.exception(0), TasksAbandoned)


def test_a_kernel_that_was_loaded_is_forgotten_with_its_cleanup() -> None:
    kernel = loader.load(Config(executors=[Hand()], initialize_logging=False))
    try:
        assert loader.dfk() is kernel
        with pytest.raises(MpiflowError, match="already been loaded"):
            loader.load(Config(executors=[Hand()], initialize_logging=False))
    finally:
        kernel.cleanup()
    with pytest.raises(NoDataFlowKernelError, match="Must first load config"):
        loader.dfk()


def test_an_executor_that_does_not_start_leaves_nothing_behind(tmp_path: Path) -> None:
    class Broken(Hand):
        def start(self) -> None:
            raise OSError("no such machine")

    good = Hand("good")
    handlers = list(logging.getLogger("mpiflow").handlers)
    with pytest.raises(OSError, match="no such machine"):
        DataFlowKernel(Config(executors=[good, Broken("bad")], run_dir=str(tmp_path)))
    assert good.shut_down == 1, "what had been started is let go"
    left = [handler for handler in logging.getLogger("mpiflow").handlers if handler not in handlers]
    for handler in left:
        logging.getLogger("mpiflow").removeHandler(handler)
        handler.close()
    assert left == [], "the log is closed"


# --- memory --------------------------------------------------------------------------------------------


class Big:
    """Something that a weak reference can watch."""


def _plain(kernel: DataFlowKernel, big: Big) -> AppFuture:
    return call(kernel, len, [big])


def _with_dependency(kernel: DataFlowKernel, big: Big) -> AppFuture:
    return call(kernel, lambda *things: things[1], call(kernel, add, 1), big)


def _with_value(kernel: DataFlowKernel, big: Big) -> AppFuture:
    return call(kernel, lambda: big)


def _with_callback(kernel: DataFlowKernel, big: Big) -> AppFuture:
    future = call(kernel, len, [big])
    future.add_done_callback(lambda _: None)
    return future


def _with_wait(kernel: DataFlowKernel, big: Big) -> AppFuture:
    future = call(kernel, len, [big])
    concurrent.futures.wait([future], LONG)
    return future


def _with_output(kernel: DataFlowKernel, big: Big) -> AppFuture:
    return call(kernel, lambda *_, outputs: 1, big, outputs=[File("x")])


def _with_join(kernel: DataFlowKernel, big: Big) -> AppFuture:
    return join(kernel, lambda big: [call(kernel, lambda b: b, big)], big)


def _in_a_block(kernel: DataFlowKernel, big: Big) -> AppFuture:
    with kernel.superstep():
        return call(kernel, len, [big])


@pytest.mark.parametrize(
    "start",
    [
        _plain,
        _with_dependency,
        _with_value,
        _with_callback,
        _with_wait,
        _with_output,
        _with_join,
        _in_a_block,
    ],
)
def test_a_finished_task_goes_with_its_future(
    busy: DataFlowKernel, start: Callable[[DataFlowKernel, Big], AppFuture]
) -> None:
    """Without the garbage collector, which a script with millions of objects may have switched off."""
    gc.collect()
    gc.disable()
    try:
        big = Big()
        future = start(busy, big)
        future.result(LONG)
        watched = weakref.ref(big), weakref.ref(future)
        del big, future
        # the threads that had a part in it let go a moment later
        assert eventually(lambda: [ref() for ref in watched] == [None, None], seconds=1.0)
    finally:
        gc.enable()


@pytest.mark.parametrize("place", [Hand(by_itself=True), ThreadPoolExecutor()], ids=["afar", "in a thread"])
def test_a_failed_task_goes_with_its_future(make: Make, place: Any) -> None:
    kernel = make(place)
    gc.collect()
    gc.disable()
    try:
        big = Big()
        future = call(kernel, fail, "x", big)
        assert future.exception(LONG) is not None
        watched = weakref.ref(big)
        del future, big
        assert eventually(lambda: watched() is None, seconds=1.0)
    finally:
        gc.enable()


def test_the_end_of_a_chain_does_not_hold_its_beginning(busy: DataFlowKernel) -> None:
    big = Big()
    first = call(busy, lambda: big)
    watched = weakref.ref(first)
    last = call(busy, add, call(busy, lambda _: 1, first), 1)
    assert last.result(LONG) == 2
    del first
    assert eventually(lambda: watched() is None, seconds=1.0)


# --- a superstep that fails --------------------------------------------------------------------------------


class Failing(Hand):
    """Fails when it is told to, in one phase or the other."""

    fails_in = ""

    def submit_bulk(self, tasks: Sequence[Submission]) -> None:
        if self.fails_in == "dispatch":
            raise OSError("no road to the workers")
        super().submit_bulk(tasks)

    def collect(self) -> list[Completion]:
        if self.fails_in == "collect":
            raise OSError("no road to the workers")
        return super().collect()


@pytest.fixture
def failing() -> Iterator[tuple[DataFlowKernel, Failing]]:
    hand = Failing()
    kernel = make_kernel(hand)
    yield kernel, hand
    if not kernel.cleanup_called:
        kernel.cleanup()


def lost(futures: Iterable[Future[Any]]) -> bool:
    return all("no road to the workers" in str(future.exception(0)) for future in futures)


@pytest.mark.parametrize("phase", ["collect", "dispatch"])
def test_who_waits_in_functions_of_others_hears_that_a_superstep_has_failed(
    failing: tuple[DataFlowKernel, Failing], phase: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel, hand = failing
    sent = call(kernel, add, 1)
    assert was_given(hand, sent)
    futures = [sent, call(kernel, add, sent), kernel.submit(time.sleep, (sent,)), sent[0]]
    heard: list[Future[Any]] = []
    for future in futures:
        future.add_done_callback(heard.append)
    hand.fails_in = phase
    futures.append(call(kernel, add, 2))
    assert concurrent.futures.wait(futures, LONG).not_done == set()
    assert set(concurrent.futures.as_completed(futures, LONG)) == set(futures)
    assert lost(futures)
    assert eventually(lambda: set(heard) == set(futures[:4]))
    assert {future.task_status() for future in futures} == {"failed"}
    assert capsys.readouterr().err == "mpiflow: a superstep has failed: OSError: no road to the workers\n"


def test_after_a_superstep_has_failed_every_call_fails_alike(failing: tuple[DataFlowKernel, Failing]) -> None:
    kernel, hand = failing
    hand.fails_in = "dispatch"
    early = call(kernel, add, 1)
    concurrent.futures.wait([early], LONG)
    hand.fails_in = ""
    late = [call(kernel, add, number) for number in range(2 * NUDGE_AT)]
    concurrent.futures.wait(late, LONG)
    assert lost([early, *late])
    assert not hand.given
    with pytest.raises(OSError, match="no road"):
        call(kernel, add).result(LONG)
    with pytest.raises(OSError, match="no road"):
        kernel.wait_for_current_tasks()
    with pytest.raises(OSError, match="no road"), kernel.superstep():
        call(kernel, add)
    assert eventually(lambda: kernel.counts().failed == kernel.counts().called == 2 * NUDGE_AT + 3)
    kernel.cleanup()


def test_what_had_ended_before_a_superstep_failed_keeps_its_outcome(failing: tuple[DataFlowKernel, Failing]) -> None:
    """In the very superstep that fails: what has been entered in the books is shown, and what is cancelled stays so."""
    kernel, hand = failing
    good, other = call(kernel, add, 1), call(kernel, add, 2)
    waits = call(kernel, add, other)
    assert was_given(hand, good, other)
    assert waits.cancel()
    hand.fails_in = "dispatch"
    with kernel.driver._lock:  # so that one superstep has both
        hand.finish(good, 1)
        late = call(kernel, add, 3)
    concurrent.futures.wait([good, other, late], LONG)
    assert good.exception(0) is None
    assert waits.cancelled()
    assert lost([other, late])


def test_a_result_that_could_not_be_entered_in_the_books_is_not_shown(make: Make) -> None:
    """It may be lost to the next run; and what is counted as done has been shown."""

    class Full(BasicMemoizer):
        def update_memo_result(self, task: Any, r: Any) -> None:
            raise OSError("no road to the disk")

    kernel = make_kernel(Hand(by_itself=True), memoizer=Full())
    futures = [kernel.call(App(add, cache=True), (1,), {}), call(kernel, add, 2)]
    assert not concurrent.futures.wait(futures, LONG).not_done
    assert "no road to the disk" in str(futures[0].exception(0))
    assert eventually(lambda: kernel.counts().failed + kernel.counts().done == 2)
    assert kernel.counts().done == sum(future.exception(0) is None for future in futures)
    kernel.cleanup()


def test_another_kernel_hears_of_the_failure_as_of_any_other(
    failing: tuple[DataFlowKernel, Failing], busy: DataFlowKernel
) -> None:
    kernel, hand = failing
    there = call(kernel, add, 1)
    here = call(busy, add, there)
    hand.fails_in = "collect"
    assert isinstance(here.exception(LONG), DependencyError)
    assert call(busy, add, 4).result(LONG) == 4
