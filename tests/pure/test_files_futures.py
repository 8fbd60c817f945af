"""DataFuture: a file that will have been written."""

from __future__ import annotations

import re
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import pytest

from mpiflow.data.files import File
from mpiflow.data.futures import DataFuture


@pytest.fixture
def task() -> Future[Any]:
    return Future()


def test_it_ends_with_its_task_and_holds_the_file(task: Future[Any]) -> None:
    file = File("/data/out.txt")
    future = DataFuture(task, file, tid=7)
    assert (future.tid, future.filepath, future.filename) == (7, "/data/out.txt", "/data/out.txt")
    assert future.file_obj is file
    assert not future.done()
    assert not future.running()
    task.set_running_or_notify_cancel()
    assert future.running()
    task.set_result("something else")
    assert future.result(0) is file
    assert future.done()
    assert not future.running()


def test_it_takes_the_failure_as_it_is(task: Future[Any]) -> None:
    future = DataFuture(DataFuture(task, File("a"), 1), File("b"), 2)
    error = OSError("disk full")
    task.set_exception(error)
    assert future.exception(0) is error
    with pytest.raises(OSError, match="disk full"):
        future.result(0)


def test_a_task_that_has_ended_already(task: Future[Any]) -> None:
    task.set_result(None)
    assert DataFuture(task, File("a"), 1).result(0).url == "a"


def test_a_cancelled_task(task: Future[Any]) -> None:
    before = DataFuture(task, File("a"), 1)
    task.cancel()
    for future in (before, DataFuture(task, File("a"), 1)):
        assert isinstance(future.exception(0), CancelledError)
        with pytest.raises(CancelledError):
            future.result(0)


def test_waiting_has_an_end(task: Future[Any]) -> None:
    with pytest.raises(FutureTimeoutError):
        DataFuture(task, File("a"), 1).result(0.01)


def test_it_cannot_be_cancelled(task: Future[Any]) -> None:
    future = DataFuture(task, File("a"), 1)
    with pytest.raises(NotImplementedError, match="Cancel not implemented"):
        future.cancel()
    assert not future.cancelled()


def test_its_words(task: Future[Any]) -> None:
    future = DataFuture(task, File("a"), 1)
    words = r"<mpiflow\.data\.futures\.DataFuture object at 0x[0-9a-f]+ representing <File at .* url=a .*> not done>"
    assert re.fullmatch(words, repr(future))
    task.set_result(None)
    assert repr(future).endswith("> done>")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"fut": None}, "DataFuture: fut is a Future, not NoneType: None"),
        ({"file_obj": "out.txt"}, "DataFuture: file_obj is a File, not str: 'out.txt'"),
        ({"tid": "1"}, "DataFuture: tid is a int, not str: '1'"),
    ],
)
def test_what_is_no_file_of_a_task_is_refused(task: Future[Any], wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        DataFuture(**{"fut": task, "file_obj": File("x"), "tid": 1, **wrong})
