"""The executors of a kernel, and which of them a task goes to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fakes import LONG, Hand, call, eventually, make_kernel

from mpiflow.executors.base import Executor
from mpiflow.kernel.app import App
from mpiflow.kernel.dataflow import DataFlowKernel
from mpiflow.kernel.places import Places


class Wide(Hand):
    """One with so many slots."""

    def __init__(self, label: str, slots: int) -> None:
        super().__init__(label)
        self.slots = slots


@pytest.fixture
def two() -> Iterator[DataFlowKernel]:
    kernel = make_kernel(Wide("small", 1), Wide("large", 3), retries=1)
    yield kernel
    kernel.cleanup()


def add(*numbers: int) -> int:
    return sum(numbers)


def given_to(kernel: DataFlowKernel, label: str) -> Hand:
    executor = kernel.executors[label]
    assert isinstance(executor, Hand)
    return executor


def test_all_is_by_load_for_the_size_and_not_by_chance(two: DataFlowKernel) -> None:
    futures = [call(two, add) for _ in range(40)]
    assert eventually(lambda: sum(len(given_to(two, label).given) for label in ("small", "large")) == 40)
    assert len(given_to(two, "small").given) == 10
    assert len(given_to(two, "large").given) == 30
    for future in futures:
        given_to(two, future.task.executor).finish(future)
    two.wait_for_current_tasks()
    assert two.places.load == {"small": 0, "large": 0, "_parsl_internal": 0}


def test_of_the_labels_that_an_app_names_the_one_with_the_least_to_do_is_taken(two: DataFlowKernel) -> None:
    only = App(add, executors=["small"])
    first = [two.call(only, (), {}) for _ in range(5)]
    either = two.call(App(add, executors=["large", "small"]), (), {})
    assert eventually(lambda: either.tid in given_to(two, "large").given)
    assert {future.task.executor for future in first} == {"small"}


def test_bodies_of_joins_run_apart_and_do_not_count(two: DataFlowKernel) -> None:
    future = two.call(App(lambda: [], join=True), (), {})
    assert future.result(LONG) == []
    assert future.task_record["executor"] == "_parsl_internal"
    assert not given_to(two, "small").bulks
    assert not given_to(two, "large").bulks


@pytest.mark.parametrize("label", ["tiny", "", "Small", "all"])
def test_an_unknown_label_is_refused_at_the_call_with_those_there_are(two: DataFlowKernel, label: str) -> None:
    words = f"Task of app 'add' requested invalid executor {label!r}; this Config has 'small', 'large'"
    with pytest.raises(ValueError, match=words):
        two.call(App(add, executors=["small", label]), (), {})
    assert (two.task_count, two.tasks) == (0, {})


def test_a_retry_handler_may_move_a_task_and_change_what_it_is_called_with() -> None:
    def handler(error: BaseException, record: dict[str, Any]) -> float:
        record["executor"] = "large"
        record["args"][0] = 10
        record["kwargs"]["more"] = 5
        record["resource_specification"] = {"priority": 3}
        return 1

    kernel = make_kernel(Wide("small", 1), Wide("large", 3), retries=1, retry_handler=handler)
    try:
        source = kernel.call(App(add, executors=["large"]), (), {})
        assert eventually(lambda: source.tid in given_to(kernel, "large").given)
        given_to(kernel, "large").finish(source, 1)
        future = kernel.call(App(add, executors=["small"]), (source, 2), {})
        assert eventually(lambda: future.tid in given_to(kernel, "small").given)
        given_to(kernel, "small").finish(future, error=OSError("x"))
        assert eventually(lambda: future.tid in given_to(kernel, "large").given)
        assert given_to(kernel, "large").arguments(future) == ((10, 2), {"more": 5})
        assert future.task_record["resource_specification"] == {"priority": 3}
        assert kernel.places.load["small"] == 0
        given_to(kernel, "large").finish(future, 12)
        assert future.result(LONG) == 12
        assert not any(kernel.places.load.values())
    finally:
        kernel.cleanup()


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [("executor", "nowhere", ValueError), ("args", 5, TypeError), ("executor", None, ValueError)],
)
def test_a_retry_handler_that_spoils_the_record_ends_its_task_alone(
    key: str, value: Any, kind: type[Exception]
) -> None:
    def handler(error: BaseException, record: dict[str, Any]) -> float:
        record[key] = value
        return 1

    kernel = make_kernel(retries=3, retry_handler=handler)
    try:
        error = call(kernel, lambda: 1 / 0).exception(LONG)
        assert isinstance(error, kind)
        assert isinstance(error.__cause__, ZeroDivisionError)
        assert call(kernel, add, 1).result(LONG) == 1
    finally:
        kernel.cleanup()


def test_a_handler_may_move_a_task_that_could_not_be_sent() -> None:
    def handler(error: BaseException, record: dict[str, Any]) -> float:
        record["executor"], record["args"] = "b", (1,)
        return 1

    kernel = make_kernel(Hand("a", True), Hand("b", True), retries=1, retry_handler=handler)
    try:
        future = kernel.call(App(add, cache=True, executors=["a"]), (object(),), {})
        assert future.result(LONG) == 1
        assert future.task_record["executor"] == "b"
        assert not any(kernel.places.load.values())
    finally:
        kernel.cleanup()


def test_shares_of_ranks_are_counted_on_from_executor_to_executor() -> None:
    class Sharing(Hand):
        share = 0.25

    places = Places(5, "/run", "id", 1)
    first, second, third = Sharing("a"), Hand("b"), Sharing("c")
    places.add([first, second])
    places.add([third])
    assert [executor.settings.before for executor in (first, second, third)] == [0.0, 0.25, 0.25]
    assert {executor.settings.seed for executor in (first, second, third)} == {5}
    assert {(executor.run_dir, executor.run_id) for executor in (first, second)} == {("/run", "id")}
    assert places.labels == ["a", "b", "c"]
    places.shutdown()
    assert issubclass(Hand, Executor)
