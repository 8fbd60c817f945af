"""Executors of several kinds behind one face: threads, a user's own, and those of the standard library."""

from __future__ import annotations

import concurrent.futures
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from fakes import LONG, Hand, call, eventually

import mpiflow
from mpiflow.config import Config
from mpiflow.errors import (
    AppTimeout,
    ConfigurationError,
    InvalidResourceSpecification,
    TasksAbandoned,
    UnsupportedFeatureError,
)
from mpiflow.executors.base import Executor, ParslExecutor
from mpiflow.executors.mpi import MPIExecutor
from mpiflow.executors.threads import ThreadPoolExecutor
from mpiflow.kernel.app import App
from mpiflow.kernel.dataflow import DataFlowKernel

Make = Callable[..., DataFlowKernel]




def add(*numbers: int) -> int:
    return sum(numbers)


def on(*labels: str, func: Callable[..., Any] = add) -> App:
    return App(func, executors=list(labels))


class Own(ParslExecutor):
    """Parsl's interface and no more: calls at once, in the caller's thread."""

    def __init__(self, label: str = "own") -> None:
        super().__init__()
        self.label = label
        self.said: list[str] = []
        self.specifications: list[dict[str, Any]] = []

    def start(self) -> None:
        self.said.append("start")
        assert os.path.isabs(self.run_dir)
        assert self.run_id

    def submit(self, func: Any, resource_specification: dict[str, Any], *args: Any, **kwargs: Any) -> Future[Any]:
        self.specifications.append(resource_specification)
        future: Future[Any] = Future()
        try:
            future.set_result(func(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self) -> None:
        self.said.append("shutdown")


# --- a user's own -----------------------------------------------------------------------------------------------


def test_a_users_own_is_started_given_calls_one_by_one_and_shut_down(make: Make) -> None:
    own = Own()
    kernel = make(own, retries=1)
    assert kernel.executors["own"] is own
    first = call(kernel, add, 1, 2)
    second = call(kernel, add, first, 4)
    assert second.result(LONG) == 7
    failing = call(kernel, lambda: 1 / 0)
    assert isinstance(failing.exception(LONG), ZeroDivisionError)
    assert failing.task_record["try_id"] == 1
    kernel.cleanup()
    assert own.said == ["start", "shutdown"]


def test_a_users_own_gets_the_resource_specification_of_the_call(make: Make) -> None:
    own = Own()
    kernel = make(own)
    wants = {"cores": 2, "mpi": "yes"}
    call(kernel, lambda parsl_resource_specification: 0, parsl_resource_specification=wants).result(LONG)
    call(kernel, add).result(LONG)
    assert own.specifications == [wants, {}]


class Raising(Own):
    def submit(self, *_: Any, **__: Any) -> Any:
        raise OSError("no more room")


class Odd(Own):
    def submit(self, *_: Any, **__: Any) -> Any:
        return "not a future"


def test_what_submit_raises_is_a_failed_try_of_that_task_alone(make: Make) -> None:
    kernel = make(Raising("bad"), Hand("good", by_itself=True), retries=2)
    future = kernel.call(on("bad"), (), {})
    assert str(future.exception(LONG)) == "no more room"
    assert future.task_record["fail_count"] == 3
    assert kernel.call(on("good"), (1,), {}).result(LONG) == 1


def test_what_submit_returns_has_to_be_a_future(make: Make) -> None:
    kernel = make(Odd())
    words = r"task 0 \(add\): executor 'own' returned 'not a future' from submit; legal is a Future"
    with pytest.raises(TypeError, match=words):
        call(kernel, add).result(LONG)
    assert not kernel.tasks


def test_the_interface_cannot_be_had_without_submit_and_shutdown() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Executor()  # type: ignore[abstract]


def test_an_executor_is_a_context_manager_that_shuts_down() -> None:
    with Own() as own:
        pass
    assert own.said == ["shutdown"]  # type: ignore[attr-defined]


class Unwilling(Own):
    def start(self) -> None:
        raise OSError("cannot start")


def test_one_that_does_not_start_lets_the_others_go(make: Make) -> None:
    own, hand = Own(), Hand()
    with pytest.raises(OSError, match="cannot start"):
        make(own, hand, Unwilling("third"))
    assert own.said == ["start", "shutdown"]
    assert hand.shut_down == 1


class Clinging(Own):
    def shutdown(self) -> None:
        raise OSError("cannot let go")

    def submit(self, *_: Any, **__: Any) -> Any:
        return Future()


def test_one_that_fails_to_shut_down_does_not_keep_the_others_nor_the_futures(make: Make) -> None:
    hand = Hand()
    kernel = make(Clinging("first"), hand)
    future = kernel.call(on("first"), (), {})
    assert eventually(lambda: future.task_status() == "launched")
    with pytest.raises(OSError, match="cannot let go"):
        kernel.cleanup()
    assert hand.shut_down == 1
    assert isinstance(future.exception(LONG), TasksAbandoned)
    assert kernel.cleanup_called


def test_executors_that_take_bulks_are_not_called_one_by_one() -> None:
    with pytest.raises(UnsupportedFeatureError, match=r"use DataFlowKernel\.submit"):
        MPIExecutor().submit(add, {})


# --- labels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "executors",
    [
        lambda: [Hand("a"), Hand("a")],
        lambda: [Own("a"), Hand("a")],
        lambda: [concurrent.futures.ThreadPoolExecutor(1), concurrent.futures.ThreadPoolExecutor(1)],
    ],
)
def test_a_label_twice_is_refused(executors: Callable[[], list[Any]]) -> None:
    with pytest.raises(ConfigurationError, match=r"executors: two have the label '(a|ThreadPoolExecutor)'"):
        Config(executors=executors())


def test_executors_may_be_added_and_those_of_a_refused_addition_are_gone(make: Make) -> None:
    kernel = make(Hand("a", by_itself=True))
    with pytest.raises(ConfigurationError, match="two have the label 'a'"):
        kernel.add_executors([later := Hand("b", by_itself=True), Hand("a")])
    assert later.shut_down == 1
    assert set(kernel.executors) == {"a", "_parsl_internal"}
    with pytest.raises(ValueError, match="requested invalid executor 'b'; this Config has 'a'"):
        kernel.call(on("b"), (), {})
    assert [call(kernel, add, i).result(LONG) for i in range(10)] == list(range(10))
    kernel.add_executors([Hand("c", by_itself=True)])
    assert kernel.call(on("c"), (4,), {}).result(LONG) == 4


def test_the_label_of_the_internal_one_is_taken(make: Make) -> None:
    with pytest.raises(ConfigurationError, match="_parsl_internal"):
        make(Hand("_parsl_internal"))


@pytest.mark.parametrize(
    "value", ["a text", 5, object(), MPIExecutor], ids=["a text", "a number", "an object", "a class"]
)
def test_what_is_no_executor_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Config: executors is .*; legal is an iterable of Executor"):
        Config(executors=value if isinstance(value, str | int) else [value])


# --- threads ----------------------------------------------------------------------------------------------------


def test_threads_share_the_process_and_are_no_more_than_said(make: Make) -> None:
    kernel = make(ThreadPoolExecutor(max_threads=3, thread_name_prefix="mine"))
    together = threading.Barrier(3)
    names = {future.result(LONG) for future in [call(kernel, _meet, together) for _ in range(3)]}
    assert len(names) == 3
    assert all(name.startswith("mine") for name in names)
    made: list[int] = []
    call(kernel, made.append, 5).result(LONG)
    assert made == [5], "the very same list"


def _meet(together: threading.Barrier) -> str:
    together.wait(LONG)
    return threading.current_thread().name


def test_threads_take_no_resource_specification(make: Make) -> None:
    kernel = make(ThreadPoolExecutor("pool"), retries=1)
    future = call(kernel, add, parsl_resource_specification={"cores": 1})
    error = future.exception(LONG)
    assert isinstance(error, InvalidResourceSpecification)
    assert error.invalid_keys == {"cores"}
    assert "task 0 (add): executor 'pool' takes no resource specification" in str(error)
    assert call(kernel, lambda parsl_resource_specification: 1, parsl_resource_specification={}).result(LONG) == 1
    with pytest.raises(InvalidResourceSpecification):
        ThreadPoolExecutor().submit(add, {"cores": 1})


def test_threads_take_single_calls_too() -> None:
    with ThreadPoolExecutor() as threads:
        assert threads.submit(add, {}, 1, 2).result(LONG) == 3
        with pytest.raises(ZeroDivisionError):
            threads.submit(lambda: 1 / 0, {}).result(LONG)


def test_a_task_in_a_thread_that_leaves_ends_itself_alone(make: Make) -> None:
    kernel = make(ThreadPoolExecutor(max_threads=1))
    assert "sys.exit(3)" in str(call(kernel, exit, 3).exception(LONG))
    assert isinstance(call(kernel, _interrupt).exception(LONG), KeyboardInterrupt)
    assert call(kernel, add, 1).result(LONG) == 1


def _interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("number", [0, -1, 1.5, "2", True], ids=repr)
def test_a_number_of_threads_that_is_none_is_refused(number: Any) -> None:
    words = f"ThreadPoolExecutor: max_threads is {number!r}; legal is a whole number from 1 up"
    with pytest.raises(ConfigurationError, match=words):
        ThreadPoolExecutor(max_threads=number)


def test_shutting_down_while_threads_take_the_last_tasks_is_no_error() -> None:
    for _ in range(200):
        threads = ThreadPoolExecutor(max_threads=4)
        for _ in range(8):
            threads.submit(add, {})
        threads.shutdown()


# --- of the standard library --------------------------------------------------------------------------------------


def test_a_thread_pool_of_the_standard_library(make: Make) -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        kernel = make(pool)
        assert set(kernel.executors) == {"ThreadPoolExecutor", "_parsl_internal"}
        first = call(kernel, add, 1, 2)
        assert call(kernel, add, first, 4).result(LONG) == 7
        assert isinstance(call(kernel, lambda: 1 / 0).exception(LONG), ZeroDivisionError)
        assert kernel.slots == 2


def test_a_process_pool_of_the_standard_library(make: Make) -> None:
    import multiprocessing

    context = multiprocessing.get_context("forkserver")  # this process has threads, which a fork would not
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        kernel = make(pool, Hand("hand", by_itself=True), retries=1)
        here = App(os.getpid, executors=["ProcessPoolExecutor"])
        assert kernel.call(here, (), {}).result(LONG) != os.getpid()
        double = mpiflow.python_app(lambda x: 2 * x, data_flow_kernel=kernel, executors=["ProcessPoolExecutor"])
        assert double(double(3)).result(LONG) == 12
        lock = double(threading.Lock()).exception(LONG)
        assert "pickle" in str(lock)
        assert kernel.call(App(os._exit, executors=["ProcessPoolExecutor"]), (1,), {}).exception(LONG) is not None
        broken = double(1).exception(LONG)
        assert isinstance(broken, concurrent.futures.process.BrokenProcessPool)
        assert kernel.call(on("hand"), (1,), {}).result(LONG) == 1, "the others do not mind"


@pytest.mark.parametrize("kind", ["threads", "standard library", "own"])
def test_a_walltime_holds_in_threads_of_every_kind(make: Make, kind: str) -> None:
    pool = concurrent.futures.ThreadPoolExecutor(1)
    executor = {"threads": ThreadPoolExecutor, "standard library": lambda: pool, "own": Own}[kind]()
    kernel = make(executor)

    def slow(walltime: float) -> None:
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            time.sleep(0.005)

    began = time.monotonic()
    error = call(kernel, slow, walltime=0.1).exception(LONG)
    assert isinstance(error, AppTimeout)
    assert "slow exceeded walltime: 0.1 seconds" in str(error)
    assert time.monotonic() - began < LONG / 2
    pool.shutdown()


@pytest.mark.parametrize("kind", ["threads", "standard library"])
def test_a_command_over_its_walltime_goes_with_all_it_started(make: Make, kind: str, tmp_path: Any) -> None:
    pool = concurrent.futures.ThreadPoolExecutor(1)
    kernel = make(ThreadPoolExecutor() if kind == "threads" else pool)
    late = tmp_path / "late"

    @mpiflow.bash_app(data_flow_kernel=kernel)
    def slow(walltime: float = 0.2) -> str:
        return f"(sleep 0.6; touch {late}) & wait"

    assert isinstance(slow().exception(LONG), AppTimeout)
    time.sleep(0.7)
    assert not late.exists()
    pool.shutdown()
