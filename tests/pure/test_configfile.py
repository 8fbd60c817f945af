"""A Config from TOML: what each key becomes, and what is refused where."""

from __future__ import annotations

import re
import sys
from inspect import signature
from pathlib import Path
from types import ModuleType

import pytest

import mpiflow
from mpiflow.config import Config
from mpiflow.configfile import read_config
from mpiflow.errors import ConfigurationError, OptionalModuleMissing
from mpiflow.executors.base import Executor
from mpiflow.executors.mpi import MPIExecutor
from mpiflow.executors.options import options
from mpiflow.executors.threads import ThreadPoolExecutor
from mpiflow.kernel.dependency_resolvers import DEEP_DEPENDENCY_RESOLVER
from mpiflow.kernel.memoizer import BasicMemoizer
from mpiflow.monitor.logs import FileLogging, JSONLogging, NoopLogging


def written(directory: Path, text: str) -> Path:
    path = directory / "mpiflow.toml"
    path.write_text(text)
    return path


def refused(directory: Path, text: str) -> str:
    """The words of the refusal, after the file's name."""
    path = written(directory, text)
    with pytest.raises(ConfigurationError) as error:
        read_config(path)
    words = str(error.value)
    assert words.startswith(str(path))
    return words.removeprefix(str(path))


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert repr(read_config(written(tmp_path, ""))) == repr(Config())


def test_fields_tables_and_named_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "class Costs:\n    @staticmethod\n    def of(e, r):\n        return 0\n"
    (tmp_path / "handlers_of_mine.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    config = Config.from_file(
        written(
            tmp_path,
            """
            retries = 3
            exit_mode = "wait"
            retry_handler = "handlers_of_mine:Costs.of"
            dependency_resolver = "deep"
            task_dir = "task"
            max_pending = 10_000

            [executors.mpi]
            label = "cpu"
            runners_per_rank = 2

            [[executors.threads]]
            label = "io"
            max_threads = 4

            [[executors.threads]]
            label = "more"

            [memoizer]
            checkpoint_mode = "task_exit"

            [initialize_logging]
            kind = "json"
            level = "warning"
            """,
        )
    )
    import handlers_of_mine

    assert (config.retries, config.exit_mode, config.max_pending, config.task_dir) == (3, "wait", 10_000, "task")
    assert config.retry_handler is handlers_of_mine.Costs.of
    assert config.dependency_resolver is DEEP_DEPENDENCY_RESOLVER
    assert isinstance(config.memoizer, BasicMemoizer)
    assert config.memoizer.checkpoint_mode == "task_exit"
    cpu, io, more = config.places()
    assert isinstance(cpu, MPIExecutor)
    assert (cpu.label, cpu.runners_per_rank) == ("cpu", 2)
    assert isinstance(io, ThreadPoolExecutor)
    assert isinstance(more, ThreadPoolExecutor)
    assert (io.label, io.max_threads, more.label) == ("io", 4, "more")
    assert isinstance(config.initialize_logging, JSONLogging)
    assert config.initialize_logging.level == 30


@pytest.mark.parametrize(
    ("text", "kind"),
    [('kind = "file"\nlevel = 10', FileLogging), ("level = 20", FileLogging), ('kind = "none"', NoopLogging)],
)
def test_kinds_of_logging(tmp_path: Path, text: str, kind: type) -> None:
    assert type(read_config(written(tmp_path, f"[initialize_logging]\n{text}")).initialize_logging) is kind


def test_an_unknown_key_is_named_with_its_line_and_the_legal_ones(tmp_path: Path) -> None:
    words = refused(tmp_path, 'run_dir = "x"\n# retires = 2\nretires = 3\n')
    assert words.startswith(", line 3: retires: there is no such key; legal are app_cache, checkpoint_files, ")
    assert " retries, retry_handler, " in words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n[executors.threads]\nlabel = 'a'\nmax_treads = 3", r", line 4: executors.threads.max_treads: there is no"),
        ("[executors.htex]\n", r", line 1: executors.htex: there is no such key; legal are mpi, threads"),
        ("[memoizer]\nmode = 'x'", r", line 2: memoizer.mode: there is no such key; legal are checkpoint_files, "),
        ("[initialize_logging]\nformat = 'x'\n", r", line 2: initialize_logging.format: there is no such key; legal"),
        ("[initialize_logging]\nkind = 'xml'\n", r", line 2: initialize_logging.kind: is 'xml'; legal are 'file'"),
        ("[initialize_logging]\nlevel = 'LOUD'", r", line 2: initialize_logging.level: is 'LOUD'; legal is a level"),
        ("executors = 'mpi'", r", line 1: executors: is 'mpi'; legal are tables \[executors.mpi\]"),
        ("executors.mpi = 4", r", line 1: executors.mpi: is 4; legal is a table \[executors.mpi\]"),
        ("[executors.threads]\nmax_threads = 0", r", line 1: executors.threads: .*max_threads is 0; legal is"),
        ("[memoizer]\ncheckpoint_mode = 'often'", r", line 1: memoizer: checkpoint_mode is 'often'; legal is"),
        ("retries = -1", r": Config: retries is -1; legal is a whole number from 0 up"),
        ("retries = '3'", r": Config: retries is '3'; legal is"),
        ("retry_handler = 'no_such_module:f'", r", line 1: retry_handler: 'no_such_module:f' names nothing that can"),
        ("retry_handler = 'os:nothing'", r", line 1: retry_handler: 'os:nothing' names nothing that can be imported"),
        ("retry_handler = ':'", r", line 1: retry_handler: ':' names nothing"),
        ("retry_handler = 'handler'", r": Config: retry_handler is 'handler'; legal is None or a function"),
        ("dependency_resolver = 'flat'", r": Config: dependency_resolver is 'flat'; legal is"),
        ("retries = \n", r": is not TOML: .*line 1"),
        ("retries = 1\nretries = 2", r": is not TOML: "),
    ],
)
def test_what_is_refused_is_named_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    assert re.match(words, refused(tmp_path, text)), refused(tmp_path, text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no\.toml: the file of --config cannot be read: No such file"):
        read_config(tmp_path / "no.toml")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        read_config(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"run_dir = '\xe4'")
    with pytest.raises(ConfigurationError, match=r"latin.toml: is no text in UTF-8"):
        read_config(tmp_path / "latin.toml")


def test_the_command_lines_file_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "config_file", None)
    assert Config.default().retries == 0
    monkeypatch.setattr(options, "config_file", str(written(tmp_path, "retries = 9")))
    assert Config.default().retries == 9
    assert Config().retries == 0, "a Config that a script makes is the script's"


def test_without_a_reader_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", None)
    with pytest.raises(OptionalModuleMissing, match="pip install tomli"):
        read_config(written(tmp_path, ""))


def test_the_files_of_the_documentation_are_legal_and_every_field_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(mpiflow.__file__).parent.parent / "docs" / "configuration.md").read_text()
    policies = ModuleType("policies")
    policies.cost_of = policies.log_path = print  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "policies", policies)
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    config = read_config(written(tmp_path, example))
    assert [place.label for place in config.places() if isinstance(place, Executor)] == ["cpu", "io", "here"]
    assert [field for field in signature(Config).parameters if f"`{field}`" not in page] == []
