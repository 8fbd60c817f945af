"""A directory for each task."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from mpiflow import context
from mpiflow.kernel.app import App
from mpiflow.kernel.task import Task
from mpiflow.kernel.task_directory import InGivenDirectory, InOwnDirectory, TaskDirectories


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that a task comes from and goes back to."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def where(*args: object, **kwargs: object) -> tuple[str, object, object]:
    Path("mark").touch()
    return os.getcwd(), args, kwargs


def fail() -> None:
    raise ArithmeticError


@pytest.mark.parametrize(("number", "path"), [(0, "0000/0"), (9_999, "0000/9999"), (123_456, "0012/123456")])
def test_each_task_has_its_own(home: Path, monkeypatch: pytest.MonkeyPatch, number: int, path: str) -> None:
    monkeypatch.setattr(context, "task_id", number)
    run = pickle.loads(pickle.dumps(InOwnDirectory(where, str(home / "tasks"))))
    assert run(1, x=2) == (str(home / "tasks" / path), (1,), {"x": 2})
    assert os.getcwd() == str(home)
    assert (home / "tasks" / path / "mark").exists()
    assert run()[0] == str(home / "tasks" / path), "a second try runs in the same"


def test_one_that_was_given(home: Path) -> None:
    run = pickle.loads(pickle.dumps(InGivenDirectory(where)))
    assert run("a/b", 1, directory=2) == (str(home / "a" / "b"), (1,), {"directory": 2})
    assert os.getcwd() == str(home)


def test_it_comes_back_from_a_failure(home: Path) -> None:
    with pytest.raises(ArithmeticError):
        InGivenDirectory(fail)("a")
    assert os.getcwd() == str(home)


def test_it_comes_back_though_the_task_went_on_or_removed_everything(home: Path) -> None:
    def wander() -> None:
        os.chdir("/")

    def remove() -> None:
        os.rmdir(home / "a")

    for func in (wander, remove):
        InGivenDirectory(func)("a")
        assert os.getcwd() == str(home)


def test_it_comes_back_to_a_directory_that_was_renamed(home: Path) -> None:
    (home / "old").mkdir()
    os.chdir("old")
    InGivenDirectory(lambda: os.rename(home / "old", home / "new"))(str(home / "a"))
    assert os.getcwd() == str(home / "new")


def test_no_descriptor_is_left_open(home: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(10):
        InGivenDirectory(where)("a")
    with pytest.raises(ArithmeticError):
        InGivenDirectory(fail)("a")
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_directory_that_cannot_be_made(home: Path) -> None:
    (home / "file").touch()
    with pytest.raises(OSError, match="file"):
        InGivenDirectory(where)("file/a")
    with pytest.raises(OSError, match="file"):
        InGivenDirectory(where)("file")
    assert os.getcwd() == str(home)


# --- on rank 0 --------------------------------------------------------------------------------------------


def a_task(number: int, app: App, *args: Any) -> Task:
    task = Task(number, app, args, {})
    task.dfk = None  # type: ignore[assignment]
    return task


def test_all_tasks_of_an_app_share_what_is_sent(home: Path) -> None:
    directories, app = TaskDirectories("task", str(home)), App(where)
    tasks = [a_task(number, app, 1) for number in range(3)]
    assert [directories.prepare(task, task.args) for task in tasks] == [(1,)] * 3
    assert len({task.app for task in tasks}) == 1
    first = tasks[0].app
    assert directories.prepare(tasks[0], (1,)) == (1,)
    assert tasks[0].app is first, "a second try enters once"
    assert (first.func, first.name) == (where, "where")
    assert (first.remote.func, first.remote.root) == (where, str(home / "tasks"))
    assert app.remote is where


def test_a_function_of_the_record_says_where(home: Path) -> None:
    def place(record: dict[str, Any]) -> Path:
        return Path(f"{record['func_name']}-{record['args'][0]}-{record['try_id']}")

    directories, app = TaskDirectories(place, "/elsewhere"), App(where)
    task = a_task(7, app, "x")
    task.tries = 1
    args = directories.prepare(task, ("x",))
    assert args == (str(home / "where-x-0"), "x")
    task.tries = 2
    assert directories.prepare(task, ("x",)) == (str(home / "where-x-1"), "x")
    assert task.app.remote(*args)[0] == str(home / "where-x-0")


def test_a_task_that_stages_a_file_stays_where_it_is() -> None:
    app = App(where)
    task = Task(0, app, (1,), {"_parsl_staging_inhibit": True})
    assert TaskDirectories(lambda record: "x", "/elsewhere").prepare(task, (1,)) == (1,)
    assert task.app is app


def test_a_function_that_returns_no_path(home: Path) -> None:
    directories = TaskDirectories(lambda record: None, str(home))  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match=r"task 7 \(where\): task_dir of the Config returned None, where a path was"):
        directories.prepare(a_task(7, App(where)), ())
