"""Config: what is refused, and in which words."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from fakes import Hand

from mpiflow.config import Config
from mpiflow.errors import ConfigurationError
from mpiflow.executors.mpi import MPIExecutor
from mpiflow.executors.options import options
from mpiflow.executors.threads import ThreadPoolExecutor

WHOLE = "a whole number from 0 up"
BAD: list[tuple[str, Any, str]] = [
    ("retries", -1, WHOLE),
    ("retries", 1.5, WHOLE),
    ("retries", "1", WHOLE),
    ("retries", True, WHOLE),
    ("retries", None, WHOLE),
    ("retry_handler", 3, "None or a function of (exception, task_record)"),
    ("run_dir", 3, "a path"),
    ("run_dir", None, "a path"),
    ("run_dir", b"runinfo", "a path"),
    ("exit_mode", "leave", "'cleanup', 'skip' or 'wait'"),
    ("exit_mode", None, "'cleanup', 'skip' or 'wait'"),
    ("exit_mode", ["wait"], "'cleanup', 'skip' or 'wait'"),
    ("internal_tasks_max_threads", 0, "a whole number from 1 up"),
    ("internal_tasks_max_threads", 2.0, "a whole number from 1 up"),
    ("internal_tasks_max_threads", True, "a whole number from 1 up"),
    ("initialize_logging", 1, "True or False"),
    ("initialize_logging", None, "True or False"),
    ("seed", -1, "None or a whole number from 0 up"),
    ("seed", "x", "None or a whole number from 0 up"),
    ("seed", False, "None or a whole number from 0 up"),
    ("executors", [], "at least one Executor"),
]


@pytest.mark.parametrize(("field", "value", "legal"), BAD, ids=[f"{f}={v!r}" for f, v, _ in BAD])
def test_a_bad_field_is_named_with_its_value_and_what_is_legal(field: str, value: Any, legal: str) -> None:
    words = re.escape(f"Config: {field} is {value!r}; legal is {legal}")
    with pytest.raises(ConfigurationError, match=f"^{words}$"):
        Config(**{field: value})


@pytest.mark.parametrize(("field", "value", "legal"), BAD, ids=[f"{f}={v!r}" for f, v, _ in BAD])
def test_a_field_that_was_spoilt_later_is_found_when_it_is_loaded(field: str, value: Any, legal: str) -> None:
    config = Config()
    setattr(config, field, value)
    with pytest.raises(ConfigurationError, match=re.escape(f"Config: {field} is")):
        config.frozen()


@pytest.mark.parametrize(
    "executors", [3, Hand(), MPIExecutor(), True], ids=lambda value: type(value).__name__
)
def test_executors_that_are_no_list_of_them_are_named(executors: Any) -> None:
    """The brackets are easily forgotten."""
    with pytest.raises(
        ConfigurationError, match=r"Config: executors is .*; legal is an iterable of Executor"
    ):
        Config(executors=executors)


@pytest.mark.parametrize("executors", ["mpi", [Hand(), "threads"], [Hand], [None]], ids=repr)
def test_an_executor_that_is_none_is_named(executors: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"Config: executors is .*; legal is an iterable of Executor"
    ):
        Config(executors=executors)


def test_two_executors_of_one_label_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="Config: executors: two have the label 'a'"):
        Config(executors=[Hand("a"), Hand("b"), Hand("a")])


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError, match="retires"):
        Config(retires=3)  # type: ignore[call-arg]


def test_defaults_are_parsls() -> None:
    config = Config()
    assert (config.retries, config.exit_mode, config.internal_tasks_max_threads) == (0, "cleanup", 10)
    assert (config.run_dir, config.initialize_logging, config.retry_handler) == ("runinfo", True, None)


def test_what_is_legal_is_taken(tmp_path: Path) -> None:
    config = Config(
        executors=iter([Hand("a"), Hand("b")]),
        retries=3,
        retry_handler=lambda error, record: 1,
        run_dir=tmp_path,  # type: ignore[arg-type]
        exit_mode="wait",
        internal_tasks_max_threads=1,
        initialize_logging=False,
        seed=0,
    )
    assert os.fspath(config.frozen().run_dir) == str(tmp_path)
    assert [executor.label for executor in config.frozen().places()] == ["a", "b"]


def test_a_frozen_copy_does_not_follow_later_changes() -> None:
    config = Config(executors=[Hand("a")], retries=1)
    frozen = config.frozen()
    config.retries = 5
    config.executors = [Hand("b")]
    assert frozen.retries == 1
    assert [executor.label for executor in frozen.places()] == ["a"]
    appended = Config(executors=[Hand("a")])
    kept = appended.frozen()
    assert appended.executors is not None
    appended.executors.append(Hand("b"))
    assert len(kept.places()) == 1


def test_without_executors_it_is_one_over_all_ranks_and_stays_that_one() -> None:
    frozen = Config().frozen()
    (place,) = frozen.places()
    assert isinstance(place, MPIExecutor)
    assert frozen.places() == [place]


def test_the_seed_is_the_configs_else_the_command_lines_else_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Config().frozen().seed == 0
    monkeypatch.setattr(options, "seed", 7)
    assert Config().frozen().seed == 7
    assert Config(seed=0).frozen().seed == 0
    assert Config(seed=3).frozen().seed == 3


def test_it_shows_its_fields() -> None:
    assert "retries=3" in repr(Config(retries=3))
    assert "exit_mode='skip'" in repr(Config(exit_mode="skip"))


# --- executors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["process", "", 3, True])
def test_a_bad_isolation_is_named(isolation: Any) -> None:
    words = re.escape(f"MPIExecutor: isolation is {isolation!r}; legal are 'runner', 'rank' and 'task'")
    with pytest.raises(ConfigurationError, match=words):
        MPIExecutor(isolation=isolation)


@pytest.mark.parametrize("runners", [0, -1, 1.5, "2", True])
def test_a_bad_number_of_runners_is_named(runners: Any) -> None:
    words = re.escape(f"MPIExecutor: runners_per_rank is {runners!r}; legal is a whole number from 1 up")
    with pytest.raises(ConfigurationError, match=words):
        MPIExecutor(runners_per_rank=runners)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2"])
def test_a_bad_number_of_threads_is_named(threads: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"max_threads is {re.escape(repr(threads))}; legal is"):
        ThreadPoolExecutor(max_threads=threads)
