"""Cached calls: who is answered from memory, who waits for an equal one, and who is told of the end."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fakes import LONG, Hand, call, eventually

from mpiflow.comm.by_value import dumps_by_value
from mpiflow.errors import BadCheckpoint, DependencyError, TaskKilled
from mpiflow.executors.options import options
from mpiflow.kernel.app import App
from mpiflow.kernel.dataflow import DataFlowKernel
from mpiflow.kernel.journal import LARGE, Beside, load_beside, read_journal, read_result
from mpiflow.kernel.memoizer import BasicMemoizer
from mpiflow.kernel.ownership import open_own

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


# --- with records and without --------------------------------------------------------------------------------


class Told(BasicMemoizer):
    """One that is given records, as any of the user's is."""


def keep(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return args, sorted(kwargs.items())


@dataclass
class Mesh:
    size: int


def calls_of_every_kind(kernel: DataFlowKernel, ignored: int) -> list[Any]:
    """Futures of remembered calls with all kinds of arguments."""
    app, ignoring = cached(kernel, keep), cached(kernel, keep, ignore_for_cache=["z"])
    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
        (app, (), {}),
        (app, (1, "a", 2.5, None, True), {}),
        (app, ([1, (2,)], {"k": {3}}), {"y": Mesh(1)}),
        (app, (2,), {"x": 1}),
        (app, (call(kernel, add, 1, 2),), {}),
        (ignoring, (4,), {"z": ignored}),
    ]
    return [one(*args, **kwargs) for one, args, kwargs in calls]


@pytest.mark.parametrize(("first", "second"), [(BasicMemoizer, Told), (Told, BasicMemoizer)])
def test_keys_are_the_same_with_records_and_without(
    first: type[BasicMemoizer], second: type[BasicMemoizer], make: Make, tmp_path: Path
) -> None:
    results, statuses = [], []
    for run, kind in enumerate((first, second)):
        kernel = make(memoizer=kind(checkpoint_mode="superstep"), run_dir=str(tmp_path))
        for _ in range(2):
            futures = calls_of_every_kind(kernel, run)
            results.append([future.result(LONG) for future in futures])
            statuses.append({future.task_status() for future in futures})
        kernel.cleanup()
    assert results == [results[0]] * 4
    assert statuses == [{"exec_done"}, {"memo_done"}, {"memo_done"}, {"memo_done"}]


@pytest.mark.parametrize(("first", "second"), [(BasicMemoizer, Told), (Told, BasicMemoizer)])
def test_calls_are_numbered_alike_with_records_and_without(
    first: type[BasicMemoizer], second: type[BasicMemoizer], make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "checkpoint_all", True)
    statuses = []
    for kind in (first, second):
        kernel = make(memoizer=kind(checkpoint_mode="superstep"), run_dir=str(tmp_path))
        futures = [call(kernel, add, *args) for args in ((1, 2), (1, 2), (1, 2), (2, 1))]
        unknown = call(kernel, keep, object())
        assert [future.result(LONG) for future in futures] == [3] * 4
        assert unknown.result(LONG)
        statuses.append([future.task_status() for future in (*futures, unknown)])
        kernel.cleanup()
    assert statuses == [["exec_done"] * 5, [*["memo_done"] * 4, "exec_done"]]


@pytest.mark.parametrize("kind", [BasicMemoizer, Told])
def test_a_result_is_in_the_journal_before_its_future_shows_it(
    kind: type[BasicMemoizer], make: Make, tmp_path: Path
) -> None:
    hand = Hand()
    kernel = make(hand, memoizer=kind(checkpoint_mode="superstep"), run_dir=str(tmp_path))
    app = cached(kernel)
    found: list[int] = []

    def look(_: Future[Any]) -> None:
        (journal,) = tmp_path.glob("*/journal/*.journal")
        try:
            found.append(sum(1 for _ in read_journal(str(journal), True, print)))
        except BadCheckpoint:
            found.append(-1)

    futures = [app(number) for number in range(6)]
    for future in futures:
        future.add_done_callback(look)
    assert eventually(lambda: len(hand.given) == 6)
    hand.finish(futures[0], 0)
    assert futures[0].result(LONG) == 0
    assert eventually(lambda: found == [1])
    hand.finish_together(*futures[1:])
    for future in futures:
        future.result(LONG)
    assert eventually(lambda: found == [1, 6, 6, 6, 6, 6])


class Packing(Hand):
    """Ends tasks with the pickle of their result, as an executor with workers does."""

    def __init__(self, pickles: dict[Any, bytes]) -> None:
        super().__init__(by_itself=True)
        self.pickles = pickles

    def run(self, tid: int) -> None:
        task = self.given[tid][0]
        if task.hashsum is not None and task.args[0] in self.pickles:
            task.packed = self.pickles[task.args[0]]
        super().run(tid)


@pytest.mark.parametrize("kind", [BasicMemoizer, Told])
def test_the_pickle_of_a_worker_is_written_as_it_is_unless_it_is_large_or_by_value(
    kind: type[BasicMemoizer], make: Make, tmp_path: Path
) -> None:
    large = "x" * (LARGE + 1)
    pickles = {1: pickle.dumps(1, 2), "by value": dumps_by_value(lambda: 1), large: pickle.dumps(large)}
    kernel = make(Packing(pickles), memoizer=kind(checkpoint_mode="superstep"), run_dir=str(tmp_path))
    app = cached(kernel, lambda x: x)
    futures = [app(x) for x in (1, 2, "by value", large)]
    for future in futures:
        future.result(LONG)
    kernel.cleanup()
    (path,) = map(str, tmp_path.glob("*/journal/*.journal"))
    places = [offset for _, offset in read_journal(path, True, print)]
    with open_own(path, True) as file:
        kept = [read_result(file, place) for place in places]
    beside = [one for one in kept if isinstance(one, Beside)]
    assert [load_beside(one, True) for one in beside] == [large]
    inline = {one for one in kept if isinstance(one, bytes)}
    assert inline == {pickles[1], pickle.dumps(2, 5), pickle.dumps("by value", 5)}
    assert kernel.memoizer.checkpointed_tasks == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [BasicMemoizer, Told])
def test_what_has_failed_is_shared_and_what_was_taken_back_is_not(
    kind: type[BasicMemoizer], make: Make, tmp_path: Path
) -> None:
    hand = Hand()
    kernel = make(hand, memoizer=kind(checkpoint_mode="superstep"), run_dir=str(tmp_path))
    app = cached(kernel)
    failed, taken_back = app(1), app(2)
    assert eventually(lambda: len(hand.given) == 2)
    hand.finish(failed, error=OSError("x"))
    hand.finish(taken_back, error=TaskKilled("x"))
    assert isinstance(failed.exception(LONG), OSError)
    assert isinstance(taken_back.exception(LONG), TaskKilled)
    assert app(1).exception(LONG) is failed.exception()
    again = app(2)
    assert eventually(lambda: again.tid in hand.given)
    hand.finish(again, 2)
    assert again.result(LONG) == 2
    kernel.cleanup()
    (path,) = map(str, tmp_path.glob("*/journal/*.journal"))
    assert sum(1 for _ in read_journal(path, True, print)) == 1


def test_a_result_that_was_taken_up_does_not_keep_the_arguments_of_whoever_asked(make: Make, tmp_path: Path) -> None:
    def asked(kernel: DataFlowKernel) -> tuple[str, weakref.ref[Mesh]]:
        mesh = Mesh(1)
        future = cached(kernel, keep)(1, mesh=mesh)
        future.result(LONG)
        return future.task_status(), weakref.ref(mesh)

    for status in ("exec_done", "memo_done"):
        kernel = make(memoizer=BasicMemoizer(checkpoint_mode="superstep"), run_dir=str(tmp_path))
        found, mesh = asked(kernel)
        assert found == status
        assert cached(kernel, keep)(1, mesh=Mesh(1)).result(LONG) == ((1,), [("mesh", Mesh(1))])
    gc.collect()
    assert mesh() is None
