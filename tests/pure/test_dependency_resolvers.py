"""Where futures are found among arguments, what takes their place, and accesses into values to come."""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
import textwrap
from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import LONG, Hand, call, eventually, make_kernel

from mpiflow.config import Config
from mpiflow.data.files import File
from mpiflow.errors import ConfigurationError, DependencyError
from mpiflow.kernel import dependency_resolvers
from mpiflow.kernel.app import App
from mpiflow.kernel.dataflow import DataFlowKernel
from mpiflow.kernel.dependency_resolvers import (
    DEEP_DEPENDENCY_RESOLVER,
    SHALLOW_DEPENDENCY_RESOLVER,
    DependencyResolver,
)

Make = Callable[..., DataFlowKernel]
Point = namedtuple("Point", "x y")




@pytest.fixture
def deep(make: Make) -> DataFlowKernel:
    return make(dependency_resolver=DEEP_DEPENDENCY_RESOLVER)


def same(value: object, *_: object, **__: object) -> object:
    return value


def fail(*_: object) -> None:
    raise ValueError("root")


def done(value: object) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


# --- deep -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        lambda f: [f(1), 2, [f(3), [f(4)]]],
        lambda f: (f(1), (2, f(3))),
        lambda f: {f(1), f(2), 3},
        lambda f: {f("key"): f("value"), "plain": [f(1)]},
        lambda f: {"deep": {"deeper": ({f(5): [f(6)]},)}},
        lambda f: Point(f(1), [f(2)]),
        lambda f: [],
        lambda f: [(), {}, set()],
    ],
)
def test_futures_at_any_depth_are_replaced_and_containers_keep_their_type(
    deep: DataFlowKernel, build: Callable[[Callable[[Any], Any]], Any]
) -> None:
    expected = build(lambda value: value)
    for future in (lambda value: call(deep, same, value), done):
        seen = call(deep, same, build(future)).result(LONG)
        assert seen == expected
        assert type(seen) is type(expected)


def test_the_callers_containers_stay_as_they_are(deep: DataFlowKernel) -> None:
    future = call(deep, same, 1)
    given = {"list": [future, {future}]}
    assert call(deep, same, given).result(LONG) == {"list": [1, {1}]}
    assert given == {"list": [future, {future}]}


def test_elements_of_inputs_and_values_of_keywords_are_searched_too(deep: DataFlowKernel) -> None:
    future = call(deep, same, 5)
    app = App(lambda inputs, word: (inputs, word))
    seen = deep.call(app, (), {"inputs": [[future], future], "word": {"a": future}})
    assert seen.result(LONG) == ([[5], 5], {"a": 5})


def test_nothing_is_sent_before_all_that_lies_deep_has_ended(make: Make) -> None:
    hand = Hand()
    kernel = make(hand, dependency_resolver=DEEP_DEPENDENCY_RESOLVER)
    first, other = call(kernel, same, 1), Future()
    last = call(kernel, same, [[first], {"x": other}])
    assert eventually(lambda: first.tid in hand.given)
    hand.finish(first, "a")
    assert first.result(LONG) == "a"
    assert not eventually(lambda: last.tid in hand.given, seconds=0.01)
    other.set_result("b")
    assert eventually(lambda: last.tid in hand.given)
    assert hand.arguments(last) == (([["a"], {"x": "b"}],), {})
    hand.finish(last)


def test_a_failure_that_lies_deep_is_a_dependency_error(deep: DataFlowKernel) -> None:
    failing = call(deep, fail)
    error = call(deep, same, [1, {"x": (failing,)}], failing).exception(LONG)
    assert isinstance(error, DependencyError)
    assert error.dependent_exceptions_tids == [(failing.exception(), "task 0")] * 2
    assert error.__cause__ is failing.exception()


def test_files_of_other_tasks_may_lie_deep(deep: DataFlowKernel, tmp_path: Path) -> None:
    writer = deep.call(App(lambda outputs: None), (), {"outputs": [File(str(tmp_path / "out"))]})
    names = call(deep, lambda files: [str(file) for file in files[0]], [[writer.outputs[0]]])
    assert names.result(LONG) == [str(tmp_path / "out")]


def test_the_shallow_one_leaves_what_is_inside_containers_alone(make: Make) -> None:
    kernel = make()
    future = call(kernel, same, 1)
    assert call(kernel, same, [future]).result(LONG) == [future]


def test_deep_joins_retries_and_lifted_accesses_still_work(make: Make) -> None:
    kernel = make(dependency_resolver=DEEP_DEPENDENCY_RESOLVER, retries=1)
    tries: list[object] = []

    def once(values: list[int]) -> int:
        tries.append(values)
        if len(tries) == 1:
            raise OSError("first")
        return values[0]

    assert call(kernel, once, [call(kernel, same, 7)]).result(LONG) == 7
    assert tries == [[7], [7]]
    joined = kernel.call(App(lambda given: [call(kernel, same, [v]) for v in given], join=True), ([done(3)],), {})
    assert joined.result(LONG) == [[3]]
    assert joined[0][0].result(LONG) == 3


# --- a user's own -------------------------------------------------------------------------------------------------


def test_types_registered_with_the_shallow_one_are_looked_into() -> None:
    """In a process of its own: a registration is for good."""
    script = """
        from dataclasses import dataclass
        import mpiflow
        from mpiflow import SHALLOW_DEPENDENCY_RESOLVER as shallow

        @dataclass
        class Box:
            content: object

        @shallow.traverse_to_gather.register
        def _(box: Box):
            return [box.content]

        @shallow.traverse_to_unwrap.register
        def _(box: Box):
            return Box(box.content.result())

        @mpiflow.python_app
        def same(value):
            return value

        @mpiflow.python_app
        def fail():
            raise ValueError("root")

        config = mpiflow.Config([mpiflow.ThreadPoolExecutor()], retries=1, initialize_logging=False)
        with mpiflow.load(config):
            assert same(Box(same(4))).result() == Box(4)
            assert same(same(5)).result() == 5, "futures themselves as before"
            error = same(Box(fail())).exception()
            assert isinstance(error, mpiflow.errors.DependencyError), error
            assert isinstance(error.__cause__, ValueError)
            assert same(3).result() == 3
    """
    line = [sys.executable, "-c", textwrap.dedent(script)]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=LONG, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def resolver(gather: Callable[[Any], Any] | None = None, unwrap: Callable[[Any], Any] | None = None) -> Any:
    plain = SHALLOW_DEPENDENCY_RESOLVER
    return DependencyResolver(gather or plain.traverse_to_gather, unwrap or plain.traverse_to_unwrap)


def unruly(value: object) -> Any:
    if value == "bad":
        raise LookupError("the resolver's own")
    return SHALLOW_DEPENDENCY_RESOLVER.traverse_to_gather(value)


def test_what_gathering_raises_is_raised_by_the_call_and_nothing_is_left(make: Make) -> None:
    kernel = make(dependency_resolver=resolver(gather=unruly))
    with pytest.raises(LookupError, match="the resolver's own"):
        call(kernel, same, "bad")
    assert not kernel.tasks
    assert call(kernel, same, call(kernel, same, 1)).result(LONG) == 1
    kernel.wait_for_current_tasks()


def test_what_unwrapping_raises_fails_the_task_as_what_it_depends_on_would(make: Make) -> None:
    def unwrap(value: Any) -> Any:
        if value == "bad":
            raise LookupError("the resolver's own")
        return value.result() if isinstance(value, Future) else value

    kernel = make(dependency_resolver=resolver(unwrap=unwrap), retries=3)
    ran: list[object] = []
    future = call(kernel, ran.append, "bad")
    after = call(kernel, same, future)
    error = future.exception(LONG)
    assert isinstance(error, DependencyError)
    assert isinstance(error.__cause__, LookupError)
    assert future.task_status() == "dep_fail"
    assert isinstance(after.exception(LONG), DependencyError)
    assert ran == []
    assert call(kernel, same, call(kernel, same, 1)).result(LONG) == 1


def test_a_resolver_that_gathers_what_is_no_future_is_refused_at_the_call(make: Make) -> None:
    kernel = make(dependency_resolver=resolver(gather=lambda value: [value]))
    with pytest.raises(TypeError):
        call(kernel, same, 5)
    assert not kernel.tasks


@pytest.mark.parametrize("value", ["deep", 5, DependencyResolver], ids=repr)
def test_what_is_no_resolver_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"dependency_resolver is .*; legal is None or a DependencyResolver"):
        Config(dependency_resolver=value)
    with pytest.raises(TypeError, match="DependencyResolver: traverse_to_gather is 5; legal is a function"):
        DependencyResolver(5, dependency_resolvers._unwrap)  # type: ignore[arg-type]


# --- futures from elsewhere ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolver", [SHALLOW_DEPENDENCY_RESOLVER, DEEP_DEPENDENCY_RESOLVER])
def test_futures_of_any_kind_in_any_state_can_be_depended_on(make: Make, resolver: DependencyResolver) -> None:
    kernel, other = make(dependency_resolver=resolver), make()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert call(kernel, same, pool.submit(same, 1)).result(LONG) == 1
    assert call(kernel, same, call(other, same, 2)).result(LONG) == 2
    cancelled: Future[Any] = Future()
    cancelled.cancel()
    for bad, cause in ((cancelled, concurrent.futures.CancelledError), (call(other, fail), ValueError)):
        error = call(kernel, same, bad).exception(LONG)
        assert isinstance(error, DependencyError)
        assert isinstance(error.__cause__, cause)
        assert error.dependent_exceptions_tids[0][1] == repr(bad), "of another kernel: by its repr, not its number"


def test_one_pending_future_may_hold_up_many(make: Make) -> None:
    kernel, pending = make(), Future[Any]()
    futures = [call(kernel, same, pending, [i]) for i in range(500)]
    pending.set_exception(OSError("late"))
    assert all(isinstance(future.exception(LONG), DependencyError) for future in futures)


def test_a_future_that_is_cancelled_while_it_is_waited_for(make: Make) -> None:
    kernel, pending = make(), Future[Any]()
    future = call(kernel, same, pending)
    pending.cancel()
    pending.set_running_or_notify_cancel()
    assert isinstance(future.exception(LONG).__cause__, concurrent.futures.CancelledError)


# --- into values to come --------------------------------------------------------------------------------------------


def test_parts_of_a_value_to_come_are_futures_of_tasks_on_rank_0(make: Make) -> None:
    hand = Hand()
    kernel = make(hand)
    future = call(kernel, same)
    parts = future["list"][1], future["list"][0:1], future["object"].name.upper
    assert eventually(lambda: future.tid in hand.given)
    hand.finish(future, {"list": [1, 2], "object": SimpleNamespace(name="n")})
    assert [parts[0].result(LONG), parts[1].result(LONG), parts[2].result(LONG)()] == [2, [1], "N"]
    assert len(hand.bulks) == 1, "none of them goes to an executor of the user's"
    assert {part.task_record["executor"] for part in parts} == {"_parsl_internal"}
    assert all(part.task_record["dfk"] is kernel for part in parts)


def test_a_part_that_is_not_there_is_an_error_of_its_future(make: Make) -> None:
    kernel = make()
    future = call(kernel, same, {"a": 1})
    assert isinstance(future["b"].exception(LONG), KeyError)
    assert isinstance(future.missing.exception(LONG), AttributeError)
    error = future["b"]["c"].exception(LONG)
    assert isinstance(error, DependencyError)
    assert isinstance(error.__cause__, KeyError)


def test_a_part_of_what_fails_is_a_dependency_error(make: Make) -> None:
    kernel = make()
    failing = call(kernel, fail)
    for part in (failing["x"], failing.x):
        error = part.exception(LONG)
        assert isinstance(error, DependencyError)
        assert error.__cause__ is failing.exception()


def test_private_names_are_not_looked_up(make: Make) -> None:
    kernel = make()
    future = call(kernel, same, SimpleNamespace(_x=1))
    with pytest.raises(AttributeError, match="AppFuture has no attribute '_x'"):
        _ = future._x
    assert not hasattr(future, "__len__")
    assert future.result(LONG)._x == 1
    assert kernel.task_count == 1


def test_a_part_may_be_an_argument(make: Make) -> None:
    kernel = make()
    pair = call(kernel, same, (3, 4))
    assert call(kernel, lambda x, y: x * y, pair[0], y=pair[1]).result(LONG) == 12


def test_a_part_is_found_after_cleanup_no_more(make: Make) -> None:
    kernel = make_kernel()
    future = call(kernel, same, {"a": 1})
    assert future.result(LONG) == {"a": 1}
    kernel.cleanup()
    with pytest.raises(Exception, match="Cannot submit to a DFK that has been cleaned up"):
        future["a"]


# --- long and deep ------------------------------------------------------------------------------------------------


def test_a_chain_of_accesses_keeps_the_stack_flat(make: Make) -> None:
    kernel = make()
    nested: Any = "core"
    for _ in range(900):
        nested = [nested]
    future = call(kernel, lambda: nested)
    for _ in range(900):
        future = future[0]
    assert future.result(LONG) == "core"


def test_a_deep_chain_of_ten_thousand(make: Make) -> None:
    kernel = make(dependency_resolver=DEEP_DEPENDENCY_RESOLVER)
    future: Any = call(kernel, lambda: 0)
    for _ in range(10_000):
        future = call(kernel, lambda box: box[0] + 1, [future])
    assert future.result(60) == 10_000


def test_joins_within_joins_two_hundred_deep(make: Make) -> None:
    kernel = make()

    def down(n: int) -> Any:
        return kernel.call(App(down, join=True), (n - 1,), {}) if n else call(kernel, same, "bottom")

    assert kernel.call(App(down, join=True), (200,), {}).result(60) == "bottom"


def test_a_failure_at_the_bottom_of_two_hundred_joins(make: Make) -> None:
    kernel = make()

    def down(n: int) -> Any:
        return kernel.call(App(down, join=True), (n - 1,), {}) if n else call(kernel, fail)

    error = kernel.call(App(down, join=True), (200,), {}).exception(60)
    assert str(error).count("<-") == 200
    assert isinstance(error.__cause__, ValueError)
