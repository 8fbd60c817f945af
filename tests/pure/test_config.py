"""Config: what is refused, and in which words."""

from __future__ import annotations

import concurrent.futures
import os
import re
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from fakes import Hand

from mpiflow.config import Config
from mpiflow.errors import ConfigurationError
from mpiflow.executors.mpi import MPIExecutor
from mpiflow.executors.options import options
from mpiflow.executors.threads import ThreadPoolExecutor
from mpiflow.kernel.dependency_resolvers import DEEP_DEPENDENCY_RESOLVER
from mpiflow.kernel.memoizer import BasicMemoizer
from mpiflow.monitor.logs import FileLogging, JSONLogging, NoopLogging

WHOLE = "a whole number from 0 up"
MEMOIZER = "None or a Memoizer (with start, check_memo, update_memo_result, update_memo_exception, close)"
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
    ("initialize_logging", 1, "True, False or a LogConfig"),
    ("initialize_logging", None, "True, False or a LogConfig"),
    ("initialize_logging", FileLogging, "True, False or a LogConfig"),
    ("memoizer", 3, MEMOIZER),
    ("memoizer", BasicMemoizer, MEMOIZER),
    ("dependency_resolver", "deep", "None or a DependencyResolver"),
    ("garbage_collect", None, "True or False"),
    ("std_autopath", "x", "None or a function of (task_record, 'stdout' or 'stderr')"),
    ("strategy", "htex", "None, 'none', 'simple' or 'htex_auto_scale'"),
    ("strategy", ["simple"], "None, 'none', 'simple' or 'htex_auto_scale'"),
    ("strategy_period", -1, "a number of seconds from 0 up"),
    ("max_idletime", "120", "a number of seconds from 0 up"),
    ("max_idletime", float("nan"), "a number of seconds from 0 up"),
    ("usage_tracking", 4, "0, 1, 2 or 3"),
    ("usage_tracking", "1", "0, 1, 2 or 3"),
    ("project_name", 3, "None or a text"),
    ("max_pending", 0, "None or a whole number from 1 up"),
    ("max_pending", 2.5, "None or a whole number from 1 up"),
    ("task_dir", "own", "'shared', 'task' or a function of (task_record)"),
    ("task_dir", None, "'shared', 'task' or a function of (task_record)"),
    ("app_cache", 1, "True or False"),
    ("checkpoint_files", "runinfo", "None or a list of directories"),
    ("checkpoint_files", [3], "None or a list of directories"),
    ("seed", -1, "None or a whole number from 0 up"),
    ("seed", "x", "None or a whole number from 0 up"),
    ("seed", False, "None or a whole number from 0 up"),
    ("stall_warning", -1, "None or a number of seconds from 0 up"),
    ("stall_warning", float("nan"), "None or a number of seconds from 0 up"),
    ("stall_warning", "5 min", "None or a number of seconds from 0 up"),
    ("stall_warning", True, "None or a number of seconds from 0 up"),
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


@pytest.mark.parametrize(
    "executors", ["mpi", [Hand(), "threads"], [Hand], [None]], ids=["a text", "a text in it", "a class", "None"]
)
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


def handler(error: Exception, record: Any) -> float:
    """For a repr that is pasted back: functions are shown by name."""
    return 1


def test_its_repr_can_be_pasted_back() -> None:
    config = Config(
        executors=[ThreadPoolExecutor(label="here", max_threads=3)],
        retries=2,
        retry_handler=handler,
        initialize_logging=JSONLogging(level=20),
        run_dir="a place",
        strategy="none",
        max_pending=7,
        task_dir="task",
        checkpoint_mode="periodic",
        checkpoint_period="00:30:00",
        checkpoint_files=["x"],
    )
    names = {"Config": Config, "ThreadPoolExecutor": ThreadPoolExecutor, "JSONLogging": JSONLogging, "handler": handler}
    pasted = eval(repr(config), names)
    assert repr(pasted) == repr(config)
    assert (pasted.retries, pasted.retry_handler, pasted.checkpoint_files) == (2, handler, ["x"])
    assert pasted.executors[0].max_threads == 3


def test_its_parameters_begin_with_parsls_in_parsls_order() -> None:
    assert list(signature(Config).parameters)[:17] == [
        "executors", "memoizer", "dependency_resolver", "exit_mode", "garbage_collect", "internal_tasks_max_threads",
        "retries", "retry_handler", "run_dir", "std_autopath", "strategy", "strategy_period", "max_idletime",
        "monitoring", "usage_tracking", "project_name", "initialize_logging",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dependency_resolver", DEEP_DEPENDENCY_RESOLVER),
        ("std_autopath", handler),
        ("strategy", None),
        ("strategy_period", 0.5),
        ("usage_tracking", True),
        ("initialize_logging", NoopLogging()),
        ("max_pending", 1),
        ("task_dir", handler),
        ("garbage_collect", False),
    ],
)
def test_what_is_legal_is_kept_as_it_is(field: str, value: Any) -> None:
    assert getattr(Config(executors=[Hand()], **{field: value}).frozen(), field) is value


# --- the memoizer --------------------------------------------------------------------------------------


def test_the_older_spellings_make_a_memoizer() -> None:
    config = Config(executors=[Hand()], app_cache=False, checkpoint_mode="task_exit", checkpoint_files=iter(["a"]))
    frozen = config.frozen()
    memoizer = frozen.memoizer
    assert isinstance(memoizer, BasicMemoizer)
    assert (memoizer.memoize, memoizer.checkpoint_mode, memoizer.checkpoint_files) == (False, "task_exit", ["a"])
    assert (config.memoizer, config.checkpoint_mode) == (None, "task_exit"), "a Config is its owner's"
    assert config.frozen().memoizer is not memoizer
    assert frozen.frozen().memoizer is memoizer


@pytest.mark.parametrize("fields", [{"app_cache": False}, {"checkpoint_mode": "manual"}, {"checkpoint_files": []}])
def test_a_memoizer_and_an_older_spelling_are_one_too_many(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(ConfigurationError, match=f"^Config: {name} is .*, and there is a memoizer; legal is one of"):
        Config(memoizer=BasicMemoizer(), **fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"checkpoint_mode": "sometimes"}, "Config: checkpoint_mode is 'sometimes'; legal is"),
        ({"checkpoint_mode": "periodic"}, "Config: Checkpoint period must be specified"),
        ({"checkpoint_mode": "periodic", "checkpoint_period": "soon"}, "Config: .*checkpoint_period.*'soon'"),
    ],
)
def test_bad_checkpoints_are_named_when_the_config_is_made(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Config(**fields)


# --- what is ignored -----------------------------------------------------------------------------------


def test_fields_without_effect_are_named_in_one_line_when_it_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(executors=[Hand()], max_idletime=77.0, project_name="p", usage_tracking=3)
    assert capsys.readouterr().err == ""
    config.frozen()
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("mpiflow: Config: ignored, ")
    assert line.rstrip().endswith(": max_idletime, usage_tracking, project_name")


def test_nothing_is_said_of_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    Config(executors=[Hand()], strategy="simple", usage_tracking=0).frozen()
    assert capsys.readouterr() == ("", "")


def test_executors_of_the_standard_library_are_taken_by_their_type_names() -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool, concurrent.futures.ThreadPoolExecutor() as other:
        assert Config(executors=[pool]).frozen().executors == [pool]
        with pytest.raises(ConfigurationError, match="two have the label 'ThreadPoolExecutor'"):
            Config(executors=[pool, other])


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


def test_the_time_of_a_stall_is_the_configs_or_else_the_command_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "stall_warning", 60.0)
    assert Config().frozen().stall_warning == 60.0
    assert Config(stall_warning=7).frozen().stall_warning == 7
    assert Config(stall_warning=0).frozen().stall_warning == 0
