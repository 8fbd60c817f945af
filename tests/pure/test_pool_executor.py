"""ParslPoolExecutor: Python's interface of pools over a DataFlowKernel."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mpiflow
from mpiflow.concurrent import ParslPoolExecutor
from mpiflow.config import Config
from mpiflow.errors import ConfigurationError, NoDataFlowKernelError
from mpiflow.executors.threads import ThreadPoolExecutor
from mpiflow.kernel.futures import AppFuture

LONG = 10.0


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    yield Config(
        executors=[ThreadPoolExecutor("one"), ThreadPoolExecutor("two")], run_dir=tmp_path, initialize_logging=False
    )
    mpiflow.clear()


def double(x: Any, plus: int = 0) -> Any:
    return 2 * x + plus


def where() -> str:
    return threading.current_thread().name


def test_it_loads_and_cleans_up(config: Config) -> None:
    with ParslPoolExecutor(config) as pool:
        assert isinstance(pool, concurrent.futures.Executor)
        kernel = mpiflow.dfk()
        future = pool.submit(double, 3, plus=1)
        assert isinstance(future, AppFuture)
        assert future.result(LONG) == 7
        assert pool.submit(double, future).result(LONG) == 14, "a future is waited for"
    assert kernel.cleanup_called
    with pytest.raises(NoDataFlowKernelError):
        mpiflow.dfk()
    with pytest.raises(RuntimeError, match=r"^Executor has been shut down\.$"):
        pool.submit(double, 1)
    with pytest.raises(RuntimeError, match=r"^Executor has been shut down\.$"):
        pool.map(double, [1])
    pool.shutdown()


def test_leaving_waits_for_what_was_submitted(config: Config) -> None:
    ended: list[int] = []
    with ParslPoolExecutor(config) as pool:
        pool.submit(lambda: (time.sleep(0.05), ended.append(1)))
    assert ended == [1]


def test_somebody_elses_kernel_goes_on(config: Config) -> None:
    with mpiflow.load(config) as kernel:
        with ParslPoolExecutor(dfk=kernel, executors=["two"]) as pool:
            assert "two" in pool.submit(where).result(LONG)
        assert not kernel.cleanup_called
        assert pool.submit(double, 2).result(LONG) == 4, "Parsl's own goes on as well"
        pool.shutdown()
        with pytest.raises(RuntimeError, match="shut down"):
            pool.submit(double, 2)
        assert not kernel.cleanup_called


def test_map_keeps_the_order_and_raises_at_its_turn(config: Config) -> None:
    def backwards(x: int, y: int) -> int:
        time.sleep((3 - x) / 100)
        return x // y

    with ParslPoolExecutor(config) as pool:
        assert list(pool.map(backwards, range(4), [1, 1, 1, 1, 1], chunksize=3)) == [0, 1, 2, 3]
        results = pool.map(backwards, [1, 1], [1, 0])
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_map_has_a_time_limit_for_all_together(config: Config) -> None:
    end = threading.Event()
    with ParslPoolExecutor(config) as pool:
        results = pool.map(end.wait, [LONG], timeout=0.05)
        with pytest.raises(concurrent.futures.TimeoutError):
            next(results)
        end.set()


def test_a_function_is_made_an_app_once(config: Config) -> None:
    with ParslPoolExecutor(config) as pool:
        assert pool.app_count == 0
        assert pool.get_app(double) is pool.get_app(double)
        pool.submit(double, 1)
        list(pool.map(double, [1, 2]))
        pool.submit(where)
        assert pool.app_count == 2


def test_cancelling_at_the_end_is_not_done_and_said(config: Config) -> None:
    pool = ParslPoolExecutor(config)
    future = pool.submit(double, 4)
    with pytest.warns(UserWarning, match="cancel_futures has no effect"):
        pool.shutdown(cancel_futures=True)
    assert future.result(0) == 8


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({}, ValueError, "Must specify one of config or dfk"),
        ({"config": Config(), "dfk": 3}, ValueError, "Specify only one of config or dfk"),
        ({"config": 3}, ConfigurationError, "takes a Config, not int"),
        ({"dfk": 3}, ConfigurationError, "dfk is 3; legal is a DataFlowKernel"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        ParslPoolExecutor(**arguments)
