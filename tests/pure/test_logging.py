"""Logs: which lines go where, in which form, and when it ends."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpiflow.monitor.logs import (
    FileLogging,
    JSONLogging,
    LogConfig,
    NoopLogging,
    logger,
    set_file_logger,
    set_stream_logger,
    wrap_with_logs,
)
from mpiflow.monitor.rundir import RunDirectory


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Any:
    heard = [logger, logging.getLogger("concurrent.futures")]
    before = [(one.level, list(one.handlers)) for one in heard]
    yield
    for one, (level, handlers) in zip(heard, before, strict=True):
        assert one.handlers == handlers, "a handler was left behind"
        one.setLevel(level)


def test_a_stream_hears_until_it_is_ended() -> None:
    first, second = io.StringIO(), io.StringIO()
    end = set_stream_logger(stream=first)
    logger.info("AAA")
    end()
    end = set_stream_logger(stream=second, level=logging.WARNING, format_string="%(levelname)s %(message)s")
    logger.info("BBB")
    logger.warning("CCC")
    end()
    end()
    logger.warning("DDD")
    assert first.getvalue().endswith("[INFO]  AAA\n")
    assert second.getvalue() == "WARNING CCC\n"
    assert not second.closed


def test_a_file_hears_until_it_is_ended_and_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("old\n")
    end = set_file_logger(str(path))
    logger.debug("AAA")
    end()
    logger.debug("BBB")
    old, line = path.read_text().splitlines()
    assert old == "old"
    assert line.endswith("DEBUG: AAA")


def test_what_callbacks_of_futures_raise_is_heard() -> None:
    lines = io.StringIO()
    end = set_stream_logger(stream=lines)
    logging.getLogger("concurrent.futures").error("exception calling callback")
    end()
    assert "exception calling callback" in lines.getvalue()


def test_another_logger_may_be_named() -> None:
    lines = io.StringIO()
    end = set_stream_logger("my.own", stream=lines)
    logging.getLogger("my.own.part").info("mine")
    logger.error("not mine")
    end()
    assert "mine" in lines.getvalue()
    assert "not" not in lines.getvalue()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: set_stream_logger(stream="stderr"), "set_stream_logger: stream is 'stderr'"),  # type: ignore[arg-type]
        (lambda: set_stream_logger(name=3), "set_stream_logger: name is 3"),  # type: ignore[arg-type]
        (lambda: set_stream_logger(level="INFO"), "set_stream_logger: level is 'INFO'"),  # type: ignore[arg-type]
        (lambda: set_file_logger("x", level=True), "set_file_logger: level is True"),
        (lambda: FileLogging(format_string=3), "FileLogging: format_string is 3"),  # type: ignore[arg-type]
        (lambda: JSONLogging(level=None), "JSONLogging: level is None"),  # type: ignore[arg-type]
        (lambda: wrap_with_logs(3), "wrap_with_logs takes a function, not int: 3"),  # type: ignore[call-overload]
        (lambda: LogConfig(), "abstract"),  # type: ignore[abstract]
    ],
)
def test_bad_arguments_are_named(call: Callable[[], object], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        call()


def test_a_format_without_any_field_is_refused() -> None:
    with pytest.raises(ValueError, match="Invalid format"):
        FileLogging(format_string="nothing")


# --- a run's log ---------------------------------------------------------------------------------------


def test_a_json_log_has_an_object_a_line_with_the_fields_of_mpiflow(tmp_path: Path) -> None:
    class Mute:
        def __str__(self) -> str:
            raise ValueError("no text")

    run = RunDirectory(tmp_path, JSONLogging())
    fields = {"mpiflow.task": 7, "mpiflow.task_state": "pending", "mpiflow.odd": Mute()}
    run.log("Task %d\nis pending", 7, fields=fields)
    run.close()
    assert not Path(run.path, "mpiflow.log").exists()
    lines = [json.loads(line) for line in Path(run.path, "mpiflow.jsonlog").read_text().splitlines()]
    (line,) = [line for line in lines if "mpiflow.task" in line]
    assert (line["formatted"], line["msg"]) == ("Task 7\nis pending", "Task %d\nis pending")
    assert (line["mpiflow.task"], line["mpiflow.task_state"]) == ("7", "pending")
    assert line["mpiflow.odd"] == "UNREPRESENTABLE: ValueError('no text')"
    assert {"created", "process", "processName", "threadName", "thread", "name", "lineno", "funcname"} <= line.keys()
    assert line["levelname"] == "INFO"
    assert line["funcname"].startswith("test_a_json_log_has"), "the line is the caller's, not RunDirectory's"


def test_a_json_log_keeps_the_traceback(tmp_path: Path) -> None:
    end = JSONLogging().initialize_logging(log_dir=tmp_path / "new", log_name="x")
    try:
        raise KeyError("gone")
    except KeyError:
        logger.exception("it failed")
    end()
    (line,) = (tmp_path / "new" / "x.jsonlog").read_text().splitlines()
    assert "KeyError: 'gone'" in json.loads(line)["formatted"]


def test_a_level_leaves_out_what_is_below(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path, FileLogging(level=logging.WARNING, format_string="%(message)s"))
    run.log("quiet")
    run.log("loud", level=logging.ERROR)
    run.close()
    assert Path(run.path, "mpiflow.log").read_text() == "loud\n"


def test_without_a_log_no_file_is_written_but_the_directory_is_the_runs_own(tmp_path: Path) -> None:
    runs = [RunDirectory(tmp_path, NoopLogging()), RunDirectory(tmp_path, False)]
    assert [Path(run.path).name for run in runs] == ["000", "001"]
    assert [list(Path(run.path).iterdir()) for run in runs] == [[], []]


def test_a_log_may_have_another_name(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path, True, log_name="parsl")
    run.close()
    assert [path.name for path in Path(run.path).iterdir()] == ["parsl.log"]


def test_a_users_own_way_is_told_where_and_undone_at_the_end(tmp_path: Path) -> None:
    told: list[object] = []

    class Own(LogConfig):
        def initialize_logging(self, *, log_dir: Path, log_name: str) -> Callable[[], None]:
            told.append((log_dir.exists(), log_dir.name, log_name))
            return lambda: told.append("undone")

    run = RunDirectory(tmp_path, Own())
    run.close()
    run.close()
    assert told == [(True, "000", "mpiflow"), "undone"]


def test_two_runs_with_json_logs_are_kept_apart(tmp_path: Path) -> None:
    runs = [RunDirectory(tmp_path, JSONLogging()) for _ in range(2)]
    runs[0].log("said by the first")
    for run in runs:
        run.close()
    said = ["said by the first" in Path(run.path, "mpiflow.jsonlog").read_text() for run in runs]
    assert said == [True, False]


# --- wrap_with_logs ------------------------------------------------------------------------------------


def test_how_a_function_ended_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    @wrap_with_logs
    def five() -> int:
        """The docstring."""
        return 5

    @wrap_with_logs(target="my.log")
    def fails() -> None:
        raise RuntimeError("deliberate")

    caplog.set_level(logging.DEBUG, "mpiflow")
    caplog.set_level(logging.DEBUG, "my.log")
    assert five() == 5
    assert five.__doc__ == "The docstring."
    assert "Normal ending for five on thread MainThread" in caplog.text
    with pytest.raises(RuntimeError, match="deliberate"):
        fails()
    assert caplog.records[-1].name == "my.log"
    assert "Exceptional ending for fails" in caplog.text
    assert "RuntimeError: deliberate" in caplog.text
