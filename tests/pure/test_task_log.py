"""What the log says of tasks: words and fields."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fakes import LONG, Hand, call, make_kernel

from mpiflow.data.files import File
from mpiflow.kernel import task_log as module
from mpiflow.kernel.app import App
from mpiflow.kernel.dataflow import DataFlowKernel
from mpiflow.kernel.reserved import AUTO_LOGNAME
from mpiflow.monitor.hub import MonitoringHub


class Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.records]

    def fields(self, start: str) -> list[dict[str, Any]]:
        """The extra fields of each line that begins so."""
        found = [record for record in self.records if record.getMessage().startswith(start)]
        return [{k[8:]: v for k, v in vars(record).items() if k.startswith("mpiflow.")} for record in found]


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler, logger = Heard(), logging.getLogger("mpiflow")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture
def kernel(heard: Heard) -> Iterator[DataFlowKernel]:
    kernel = make_kernel(Hand(by_itself=True), retries=1)
    yield kernel
    kernel.cleanup()


def add(*numbers: int, **_: object) -> int:
    return sum(numbers)


def fail() -> None:
    raise ValueError("x")


def test_a_task_is_told_of_from_call_to_end(kernel: DataFlowKernel, heard: Heard) -> None:
    first = call(kernel, add, 1)
    assert call(kernel, add, first).result(LONG) == 1
    lines = heard.lines()
    assert "Task 0 submitted for App add, not waiting on any dependency" in lines
    assert "Task 1 submitted for App add, waiting on task 0" in lines
    assert "Task 0 changing state from pending to launched" in lines
    assert "Task 0 changing state from launched to exec_done" in lines
    (ended,) = heard.fields("Task 0 changing state from launched")
    assert (ended["dfk"], ended["task"], ended["try"]) == (kernel.run_id, 0, 0)
    assert str(ended["task_state"]).endswith("exec_done")


def test_dependencies_are_named_by_number_or_repr(kernel: DataFlowKernel, heard: Heard) -> None:
    other: Future[int] = Future()
    other.set_result(1)
    first = call(kernel, add, 1)
    call(kernel, add, first, other).result(LONG)
    said = heard.fields("Task 1 has dependency")
    assert [fields.get("dependency_task") for fields in said] == [0, None]
    assert said[1]["dependency_object"] == repr(other)


def test_each_try_is_told_of_with_its_number(kernel: DataFlowKernel, heard: Heard) -> None:
    assert call(kernel, fail).exception(LONG) is not None
    changes = [line for line in heard.lines() if "changing state" in line]
    assert changes == [
        "Task 0 changing state from pending to launched",
        "Task 0 changing state from launched to fail_retryable",
        "Task 0 changing state from fail_retryable to launched",
        "Task 0 changing state from launched to failed",
    ]
    assert [fields["try"] for fields in heard.fields("Task 0 changing state from launched")] == [0, 1]


def test_joins_and_failed_dependencies(kernel: DataFlowKernel, heard: Heard) -> None:
    failing = call(kernel, fail)
    call(kernel, add, failing).exception(LONG)
    kernel.call(App(lambda: call(kernel, add), join=True), (), {}).result(LONG)
    lines = heard.lines()
    assert "Task 1 changing state from pending to dep_fail" in lines
    assert "Task 2 changing state from launched to joining" in lines
    assert "Task 2 changing state from joining to exec_done" in lines


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (None, "will not be redirected"),
        ("out.txt", "will be redirected to out.txt"),
        (("out.txt", "w"), "will be redirected to out.txt with mode w"),
        (File("out.txt").filepath, "will be redirected to out.txt"),
        (5, "has unknown specification: 5"),
    ],
    ids=repr,
)
def test_streams_are_told_of(kernel: DataFlowKernel, heard: Heard, target: Any, words: str) -> None:
    call(kernel, add, stdout=target, stderr=target).result(LONG)
    assert f"Standard out for task 0 {words}" in heard.lines()
    assert f"Standard error for task 0 {words}" in heard.lines()


@pytest.mark.parametrize(
    "target", ["x/out", ("x/out", "w"), Path("x/out")], ids=lambda target: type(target).__name__
)
def test_a_path_that_std_autopath_chose_is_what_the_task_gets(heard: Heard, target: Any) -> None:
    asked: list[tuple[int, str]] = []

    def autopath(record: dict[str, Any], stream: str) -> Any:
        asked.append((record["id"], stream))
        return target

    kernel = make_kernel(Hand(by_itself=True), std_autopath=autopath)
    try:
        future = call(kernel, lambda stdout, stderr=None: stdout, stdout=AUTO_LOGNAME)
        assert future.result(LONG) == target == future.stdout
        assert asked == [(0, "stdout")]
        assert any("Standard out for task 0 will be redirected to x/out" in line for line in heard.lines())
    finally:
        kernel.cleanup()


def test_after_so_many_tasks_one_line_says_that_the_rest_is_not_told(
    kernel: DataFlowKernel, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.task_log._left = 3
    monkeypatch.setattr(module, "TOLD_OF", 3)
    for number in range(6):
        call(kernel, add, number).result(LONG)
    lines = heard.lines()
    assert [n for n in range(6) if f"Task {n} has state pending" in lines] == [0, 1, 2]
    assert sum("the first 3 tasks were told of" in line for line in lines) == 1
    assert not kernel.task_log.tells


def test_a_result_that_is_remembered_is_told_of_among_the_first_tasks_only(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that takes up a million results the lines would cost more than all the rest."""
    monkeypatch.setattr(module, "TOLD_OF", 3)
    kernel = make_kernel(Hand(by_itself=True))
    app = App(add, cache=True)
    for _ in range(5):
        assert kernel.call(app, (1,), {}).result(LONG) == 1
    kernel.cleanup()
    from_cache = [line for line in heard.lines() if "from cache" in line]
    assert from_cache == [f"Task {number} using result from cache" for number in (1, 2)]
    assert heard.fields("Task 1 using")[0]["task"] == 1
    assert kernel.counts().done == 5


def test_a_monitored_run_hears_of_every_task_and_its_log_of_no_more_than_others(
    tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOLD_OF", 3)
    hub = MonitoringHub(logging_endpoint=f"sqlite:///{tmp_path}/run.db", resource_monitoring_enabled=False)
    kernel = make_kernel(Hand(by_itself=True), monitoring=hub)
    app = App(add, cache=True)
    for _ in range(6):
        assert kernel.call(app, (1,), {}).result(LONG) == 1
    kernel.cleanup()
    from_cache = [line for line in heard.lines() if "from cache" in line]
    assert from_cache == [f"Task {number} using result from cache" for number in (1, 2)]
    with closing(sqlite3.connect(tmp_path / "run.db")) as file:
        assert file.execute("SELECT count(*) FROM task").fetchone() == (6,)


def test_records_and_counts_have_parsls_keys() -> None:
    kernel = make_kernel(Hand(by_itself=True), garbage_collect=False)
    try:
        future = call(kernel, add, 1, 2)
        assert future.result(LONG) == 3
        keys = {
            "id", "try_id", "func_name", "func", "args", "kwargs", "executor", "status", "depends", "fail_count",
            "fail_cost", "fail_history", "from_memo", "hashsum", "memoize", "join", "joins", "resource_specification",
            "time_invoked", "time_returned", "try_time_launched", "try_time_returned", "app_fu", "exec_fu", "dfk",
            "ignore_for_cache",
        }  # fmt: skip
        record = future.task_record
        assert keys <= set(record)
        assert (record["id"], record["func_name"], record["func"], record["args"][0]) == (0, "add", add, 1)
        assert record["time_invoked"] <= record["try_time_launched"] <= record["time_returned"]
        assert record["app_fu"] is future
        assert kernel.tasks[0]["status"].name == "exec_done", "kept: garbage_collect is False"
        counts = {state.name: number for state, number in kernel.task_state_counts.items()}
        assert counts["exec_done"] == 1
        assert sum(counts.values()) == 1
        assert {"pending", "launched", "failed", "dep_fail", "memo_done", "joining", "fail_retryable"} <= counts.keys()
    finally:
        kernel.cleanup()
