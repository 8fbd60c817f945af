"""Cached calls: who is answered from memory, who waits for an equal one, and who is told of the end."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from fakes import LONG, Hand, call, eventually

from mpiflow.errors import DependencyError
from mpiflow.kernel.app import App
from mpiflow.kernel.dataflow import DataFlowKernel
from mpiflow.kernel.memoizer import BasicMemoizer

Make = Callable[..., DataFlowKernel]




def add(*numbers: int) -> int:
    return sum(numbers)


def cached(kernel: DataFlowKernel, func: Callable[..., Any] = add, **fields: Any) -> Callable[..., Any]:
    app = App(func, cache=True, **fields)
    return lambda *args, **kwargs: kernel.call(app, args, kwargs)


def test_an_equal_call_under_way_is_not_sent_a_second_time(make: Make) -> None:
    hand = Hand()
    kernel = make(hand)
    app = cached(kernel)
    first, second, other = app(1, 2), app(1, 2), app(2, 1)
    assert eventually(lambda: {first.tid, other.tid} <= hand.given.keys())
    assert second.tid not in hand.given
    hand.finish(first, 3)
    hand.finish(other, 3)
    assert [future.result(LONG) for future in (first, second, other)] == [3, 3, 3]
    assert [f.task_status() for f in (first, second, other)] == ["exec_done", "memo_done", "exec_done"]
    assert (second.task_record["from_memo"], bool(first.task_record["from_memo"])) == (True, False)
    late = app(1, 2)
    assert (late.result(LONG), late.task_status()) == (3, "memo_done")
    assert len(hand.bulks) <= 2
    assert late.task_record["hashsum"] == first.task_record["hashsum"]


def test_whoever_waits_for_an_equal_call_fails_as_it_does_after_all_its_retries(make: Make) -> None:
    tries: list[int] = []

    def bad(_: int) -> None:
        tries.append(1)
        raise OSError("x")

    hand = Hand()
    kernel = make(hand, retries=2)
    app = cached(kernel, bad)
    first, second = app(1), app(1)
    after = call(kernel, add, second)
    while not first.done():
        assert eventually(lambda: first.tid in hand.given or first.done())
        if first.tid in hand.given:
            hand.run(first.tid)
            assert eventually(lambda: first.tid in hand.given or first.done())
    assert second.exception(LONG) is first.exception()
    assert len(tries) == 3
    assert isinstance(after.exception(LONG), DependencyError)
    third = app(1)
    assert third.exception(LONG) is first.exception(), "failures are remembered, in this run"
    assert len(tries) == 3


def test_calls_whose_dependencies_turn_out_equal_are_run_once(make: Make) -> None:
    kernel = make()
    ran: list[int] = []
    app = cached(kernel, ran.append)
    futures = [app(call(kernel, add, 1, n - n)) for n in range(20)]
    for future in futures:
        future.result(LONG)
    assert ran == [1]


def test_a_join_is_remembered_with_what_it_joined(make: Make) -> None:
    kernel = make()
    bodies: list[int] = []

    def body(n: int) -> list[Future[Any]]:
        bodies.append(n)
        return [call(kernel, add, n, i) for i in range(3)]

    app = cached(kernel, body, join=True)
    first, second = app(5), app(5)
    assert first.result(LONG) == second.result(LONG) == app(5).result(LONG) == [5, 6, 7]
    assert bodies == [5]


def test_an_argument_that_cannot_be_known_again_fails_the_task_and_is_tried_again(make: Make) -> None:
    kernel = make(retries=1)
    app = cached(kernel)
    future = app(object())
    assert "unknown type for memoization" in str(future.exception(LONG))
    assert future.task_record["fail_count"] == 2
    assert app(1).result(LONG) == 1


def test_a_name_to_ignore_that_is_not_there_is_a_key_error_of_the_task(make: Make) -> None:
    kernel = make()
    app = cached(kernel, lambda **_: 1, ignore_for_cache=["missing"])
    assert isinstance(app(x=1).exception(LONG), KeyError)
    assert app(x=1, missing=2).result(LONG) == 1
    assert app(x=1, missing=3).task_record["ignore_for_cache"] == ["missing"]


def test_lifted_accesses_are_never_remembered(make: Make) -> None:
    kernel = make()
    future = cached(kernel, lambda: {"a": [1]})()
    parts = [future["a"] for _ in range(2)]
    assert [part.result(LONG) for part in parts] == [[1], [1]]
    assert {part.task_status() for part in parts} == {"exec_done"}


def test_without_memory_every_call_runs(make: Make) -> None:
    kernel = make(memoizer=BasicMemoizer(memoize=False))
    ran: list[int] = []
    app = cached(kernel, ran.append)
    for _ in range(3):
        app(1).result(LONG)
    assert ran == [1, 1, 1]


def test_an_editing_retry_handler_and_a_cached_call_that_waits(make: Make) -> None:
    def handler(error: BaseException, record: dict[str, Any]) -> float:
        record["args"] = (*record["args"][:1], 10)
        return 1

    def picky(x: int, y: int) -> int:
        if y != 10:
            raise ValueError(y)
        return x + y

    kernel = make(retries=1, retry_handler=handler)
    app = cached(kernel, picky)
    first, second = app(1, 2), app(1, 2)
    assert first.result(LONG) == second.result(LONG) == 11


class Own(BasicMemoizer):
    """A user's own, that raises when it is asked."""

    def check_memo(self, task: Any) -> Any:
        raise LookupError("the memoizer's own")


def test_what_a_memoizer_raises_when_it_is_asked_fails_the_task(make: Make) -> None:
    kernel = make(memoizer=Own())
    assert isinstance(cached(kernel)(1).exception(LONG), LookupError)
