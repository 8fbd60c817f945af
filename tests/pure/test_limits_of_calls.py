"""``walltime`` and ``memory`` on decorators and in calls: who gets them, and what is legal."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import LONG, Hand, eventually

import mpiflow
from mpiflow.errors import AppTimeout, UnsupportedFeatureError
from mpiflow.executors.threads import ThreadPoolExecutor
from mpiflow.kernel.dataflow import DataFlowKernel
from mpiflow.kernel.task import Task

Make = Callable[..., DataFlowKernel]


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def kernel(make: Make, hand: Hand) -> DataFlowKernel:
    return make(hand)


@pytest.fixture
def given(hand: Hand, kernel: DataFlowKernel) -> Callable[..., tuple[Task, dict[str, Any]]]:
    """Call an app; the task as its executor has it, and its keyword arguments."""

    def one(app: Any, *args: Any, **kwargs: Any) -> tuple[Task, dict[str, Any]]:
        future = app(*args, **kwargs)
        assert eventually(lambda: future.tid in hand.given)
        task, _, kwargs = hand.given[future.tid]
        hand.finish(future)
        return task, kwargs

    return one


def free(x: int = 0) -> int:
    return x


def has_both(x: int = 0, walltime: float = 9.0, memory: object = "mine") -> int:
    return x


def takes_any(**kwargs: Any) -> int:
    return len(kwargs)


PLAIN: list[Any] = [mpiflow.python_app, mpiflow.bash_app]


@pytest.mark.parametrize("decorator", PLAIN)
def test_limits_of_the_decorator_hold_for_each_call(decorator: Any, kernel: DataFlowKernel, given: Any) -> None:
    app = decorator(data_flow_kernel=kernel, walltime=2, memory="1KiB")(free)
    task, kwargs = given(app, 3)
    assert (task.walltime, task.memory, kwargs.keys() & {"walltime", "memory"}) == (2.0, 1024, set())


@pytest.mark.parametrize("decorator", PLAIN)
def test_a_call_may_say_otherwise(decorator: Any, kernel: DataFlowKernel, given: Any) -> None:
    app = decorator(data_flow_kernel=kernel, walltime=2, memory="1KiB")(free)
    task, kwargs = given(app, 3, walltime=0.5, memory=10**9)
    assert (task.walltime, task.memory) == (0.5, 10**9)
    assert kwargs.keys() & {"walltime", "memory"} == set(), "the function has no place for them"


def test_none_is_no_limit_and_changes_none(kernel: DataFlowKernel, given: Any) -> None:
    limited = mpiflow.python_app(data_flow_kernel=kernel, walltime=2, memory="1KiB")(free)
    unlimited = mpiflow.python_app(data_flow_kernel=kernel)(free)
    assert [(given(app, walltime=None, memory=None)[0].walltime) for app in (limited, unlimited)] == [2.0, 0.0]
    assert [(given(app, memory=None)[0].memory) for app in (limited, unlimited)] == [1024, 0]


def test_a_function_gets_its_walltime_where_it_has_a_place_for_it(kernel: DataFlowKernel, given: Any) -> None:
    app = mpiflow.python_app(data_flow_kernel=kernel)(has_both)
    task, kwargs = given(app, walltime=3)
    assert (task.walltime, kwargs["walltime"]) == (3.0, 3)
    assert given(app)[0].walltime == 9.0, "its default is that of its calls"


@pytest.mark.parametrize("value", [16, "4GB", [1, 2], None])
@pytest.mark.parametrize("func", [has_both, takes_any])
def test_a_parameter_of_its_own_named_memory_is_the_functions(
    kernel: DataFlowKernel, given: Any, func: Callable[..., int], value: object
) -> None:
    app = mpiflow.python_app(data_flow_kernel=kernel, memory="1MiB")(func)
    task, kwargs = given(app, memory=value)
    assert (task.memory, kwargs["memory"]) == (1 << 20, value)


_SIZES = "a whole number of bytes above 0, or a text like '4GB' (powers of 1000), '512MiB' or '4G' (powers of 1024)"


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "", "4 apples", "-4GB", [4], b"4GB"])
@pytest.mark.parametrize("decorator", PLAIN)
def test_memory_that_is_none(decorator: Any, kernel: DataFlowKernel, value: object) -> None:
    words = re.escape(f"free: memory is {value!r}; legal is {_SIZES}")
    with pytest.raises(TypeError, match=f"^{words}$"):
        decorator(data_flow_kernel=kernel, memory=value)(free)
    with pytest.raises(TypeError, match=f"^{words}$"):
        decorator(data_flow_kernel=kernel)(free)(memory=value)


@pytest.mark.parametrize("value", [0, -1, "2", True, float("nan")])
@pytest.mark.parametrize("decorator", PLAIN)
def test_walltime_that_is_none(decorator: Any, kernel: DataFlowKernel, value: Any) -> None:
    words = re.escape(f"free: walltime is {value!r}; legal is a number of seconds above 0")
    with pytest.raises(TypeError, match=f"^{words}$"):
        decorator(data_flow_kernel=kernel, walltime=value)(free)
    with pytest.raises(TypeError, match=f"^{words}$"):
        decorator(data_flow_kernel=kernel)(free)(walltime=value)


def test_a_command_in_a_thread_is_ended_at_the_walltime_of_its_decorator(make: Make, tmp_path: Path) -> None:
    kernel = make(ThreadPoolExecutor())
    late = tmp_path / "late"

    @mpiflow.bash_app(data_flow_kernel=kernel, walltime=0.3)
    def slow() -> str:
        return f"(sleep 1; touch {late}) & wait"

    assert isinstance(slow().exception(LONG), AppTimeout)
    assert isinstance(slow(walltime=0.2).exception(LONG), AppTimeout)
    time.sleep(1.5)
    assert not late.exists()


def test_threads_refuse_a_limit_of_memory(make: Make) -> None:
    kernel = make(ThreadPoolExecutor("t"))
    error = mpiflow.python_app(data_flow_kernel=kernel)(free)(memory=7).exception(LONG)
    assert isinstance(error, UnsupportedFeatureError)
    assert str(error) == (
        "task 0 (free): executor 't' cannot hold memory=7 bytes: its tasks run in threads of one process; "
        "use an MPIExecutor with isolation 'runner' or 'task'"
    )
    assert mpiflow.python_app(data_flow_kernel=kernel)(free)(4).result(LONG) == 4
