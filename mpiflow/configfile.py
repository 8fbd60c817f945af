"""A Config from a TOML file: for ``--config``, and for those who keep settings apart from the script.

Keys are the fields of `Config` under their own names. Objects are tables: an executor by its kind, the memoizer, the
logging. Legal keys are read from the constructors themselves, so that a new parameter of an executor is a new key
without a word here. What only Python can say, a function or an object, is named as ``"module:name"``.

A key that is not known is refused: a misspelt setting that silently does nothing costs a day on a cluster. TOML's
reader does not tell lines; they are looked for in the text afterwards, which finds them in all files that people write.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from mpiflow.config import Config
from mpiflow.errors import ConfigurationError, OptionalModuleMissing

#: Fields whose text may name an object of Python's as ``"module:name"``.
_NAMED = (
    "dependency_resolver", "initialize_logging", "memoizer", "retry_handler", "std_autopath", "storage_access",
    "task_dir",
)  # fmt: skip
_RESOLVERS = {"shallow": "SHALLOW_DEPENDENCY_RESOLVER", "deep": "DEEP_DEPENDENCY_RESOLVER"}


def read_config(path: str | os.PathLike[str]) -> Config:
    """Make a Config of a TOML file.

    Parameters
    ----------
    path : str
        The file.

    Raises
    ------
    ConfigurationError
        Naming the file, the line and the key, and what is legal.
    """
    file = _File(os.fspath(path))
    file.refuse_unknown((), file.table, _parameters(Config))
    fields = {key: _field(file, key, value) for key, value in file.table.items()}
    try:
        return Config(**fields)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


class _File:
    """The file, what it says, and where it says so.

    Parameters
    ----------
    path : str
        The file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"{path}: the file of --config cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{path}: is no text in UTF-8: {error}") from error
        loads = _reader()
        try:
            self.table: dict[str, Any] = loads(self._text)
        except ValueError as error:  # of which TOML's own error is one
            raise ConfigurationError(f"{path}: is not TOML: {error}") from error

    def error(self, keys: tuple[str, ...], words: str) -> ConfigurationError:
        """An error about a key, with its line if that can be found."""
        return ConfigurationError(f"{self.path}{self._line(keys)}: {'.'.join(keys)}: {words}")

    def refuse_unknown(self, above: tuple[str, ...], table: dict[str, Any], legal: list[str]) -> None:
        """Refuse a key that is not among the legal ones."""
        for key in table:
            if key not in legal:
                raise self.error((*above, key), f"there is no such key; legal are {', '.join(sorted(legal))}")

    def _line(self, keys: tuple[str, ...]) -> str:
        """``", line 7"``: where a key is written under its table, or the table's own head; else nothing."""
        here: list[str] = []
        for number, line in enumerate(self._text.splitlines(), 1):
            head = re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]", line)
            if head:
                here = _parts(head[1])
                if here == list(keys):
                    return f", line {number}"
            elif (said := re.match(r"\s*([\w.\"'-]+)\s*=", line)) and [*here, *_parts(said[1])] == list(keys):
                return f", line {number}"
        return ""


def _parts(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in dotted.split(".")]


def _reader() -> Callable[[str], dict[str, Any]]:
    """The reader of TOML: Python's own, or the package that it came from."""
    for module in ("tomllib", "tomli"):
        try:
            loads: Callable[[str], dict[str, Any]] = import_module(module).loads
        except ModuleNotFoundError:
            continue
        return loads
    raise OptionalModuleMissing(["tomli"], "Python 3.10 reads TOML only with it; say `pip install tomli`")


def _parameters(made: Callable[..., Any]) -> list[str]:
    """What a constructor takes by name."""
    parameters = signature(made).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


# --- values -----------------------------------------------------------------------------------------------


def _field(file: _File, key: str, value: Any) -> Any:
    """A field of the Config as Python has it."""
    if key == "executors":
        return _executors(file, value)
    if key == "memoizer" and isinstance(value, dict):
        from mpiflow.kernel.memoizer import BasicMemoizer

        return _made(file, (key,), BasicMemoizer, value)
    if key == "monitoring" and isinstance(value, dict):
        from mpiflow.monitor.hub import MonitoringHub

        return _made(file, (key,), MonitoringHub, value)
    if key == "initialize_logging" and isinstance(value, dict):
        return _logging(file, value)
    if key == "dependency_resolver" and value in _RESOLVERS:
        from mpiflow.kernel import dependency_resolvers

        return getattr(dependency_resolvers, _RESOLVERS[value])
    return _value(file, (key,), value)


def _value(file: _File, keys: tuple[str, ...], value: Any) -> Any:
    """A value; an object of Python's where its name is given."""
    if keys[-1] not in _NAMED:
        return value
    if isinstance(value, list):
        return [_value(file, keys, one) for one in value]
    return _named(file, keys, value) if isinstance(value, str) and ":" in value else value


def _named(file: _File, keys: tuple[str, ...], text: str) -> Any:
    """What ``"module:name"`` names."""
    module, _, name = text.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise file.error(keys, f"{text!r} names nothing that can be imported: {error}") from error
    return found


def _made(file: _File, keys: tuple[str, ...], make: Callable[..., Any], table: dict[str, Any]) -> Any:
    """The object that a table describes."""
    file.refuse_unknown(keys, table, _parameters(make))
    arguments = {key: _value(file, (*keys, key), value) for key, value in table.items()}
    try:
        return make(**arguments)
    except (ConfigurationError, TypeError, ValueError) as error:
        raise file.error(keys, str(error)) from error


def _executors(file: _File, kinds: Any) -> list[Any]:
    """Executors: a table for each kind, or several in double brackets."""
    from mpiflow.executors.mpi import MPIExecutor
    from mpiflow.executors.threads import ThreadPoolExecutor

    made: dict[str, Callable[..., Any]] = {"mpi": MPIExecutor, "threads": ThreadPoolExecutor}
    if not isinstance(kinds, dict):
        raise file.error(("executors",), f"is {kinds!r}; legal are tables [executors.mpi] and [executors.threads]")
    file.refuse_unknown(("executors",), kinds, list(made))
    executors = []
    for kind, tables in kinds.items():
        keys = ("executors", kind)
        for table in tables if isinstance(tables, list) else [tables]:
            if not isinstance(table, dict):
                raise file.error(keys, f"is {table!r}; legal is a table [executors.{kind}]")
            executors.append(_made(file, keys, made[kind], table))
    return executors


def _logging(file: _File, table: dict[str, Any]) -> Any:
    """A LogConfig: its kind, and its parameters; levels may be said by name."""
    from mpiflow.monitor.logs import FileLogging, JSONLogging, NoopLogging

    kinds = {"file": FileLogging, "json": JSONLogging, "none": NoopLogging}
    keys = ("initialize_logging",)
    table = dict(table)
    kind = table.pop("kind", "file")
    if kind not in kinds:
        raise file.error((*keys, "kind"), f"is {kind!r}; legal are 'file', 'json' and 'none'")
    level = table.get("level")
    if isinstance(level, str):
        table["level"] = logging.getLevelName(level.upper())
        if not isinstance(table["level"], int):
            raise file.error((*keys, "level"), f"is {level!r}; legal is a level such as 'INFO', or its number")
    return _made(file, keys, kinds[kind], table)
