"""What is done with the log: which file, in which form, and for how long.

mpiflow logs through `logging.getLogger("mpiflow")`, as a library should, and a `LogConfig` decides where the lines go
while a DataFlowKernel is there. Lines go on to the script's own handlers as well: whoever sets up logging wants to
see them. Errors that callbacks of futures raise are logged by `concurrent.futures`; they go to the same place, for
nobody else would ever see them.

Whatever a handler of ours writes goes through `monitor.redaction` as a whole line, tracebacks and all: what is logged
is written in many places, and a password in one of them is enough.
"""

from __future__ import annotations

import functools
import json
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar, overload

from mpiflow.monitor.logfile import LogFile
from mpiflow.monitor.redaction import without_secrets
from mpiflow.representation import RepresentationMixin

#: The log of what mpiflow does.
logger = logging.getLogger("mpiflow")
logger.addHandler(logging.NullHandler())  # without a handler Python would print warnings by itself

DEFAULT_FORMAT = (
    "%(created)f %(asctime)s %(processName)s-%(process)d %(threadName)s-%(thread)d "
    "%(name)s:%(lineno)d %(funcName)s %(levelname)s: %(message)s"
)
_STREAM_FORMAT = "%(asctime)s %(name)s:%(lineno)d [%(levelname)s]  %(message)s"
_TIME_FORMAT = "%Y-%m-%d %H:%M:%S"

_Function = TypeVar("_Function", bound=Callable[..., Any])


class LogConfig(ABC):
    """How a run logs; write a subclass to have it otherwise.

    Examples
    --------
    >>> class Nowhere(LogConfig):
    ...     def initialize_logging(self, *, log_dir, log_name):
    ...         return lambda: None
    """

    @abstractmethod
    def initialize_logging(self, *, log_dir: Path, log_name: str) -> Callable[[], None]:
        """Begin to log.

        Parameters
        ----------
        log_dir : pathlib.Path
            Directory of the run.
        log_name : str
            Name of the log file, without an ending.

        Returns
        -------
        callable
            Called without arguments when the run ends: undoes what was done here.
        """


class FileLogging(LogConfig, RepresentationMixin):
    """Lines of text in ``mpiflow.log``; what ``initialize_logging=True`` means.

    Parameters
    ----------
    format_string : str
        As for `logging.Formatter`.
    level : int
        The least level that is written.
    """

    def __init__(self, *, format_string: str = DEFAULT_FORMAT, level: int = logging.DEBUG) -> None:
        _check(type(self).__name__, "mpiflow", level, format_string)
        self.format_string = format_string
        self.level = level

    def initialize_logging(self, *, log_dir: Path, log_name: str) -> Callable[[], None]:
        """Begin to write ``<log_dir>/<log_name>.log``; see `LogConfig.initialize_logging`."""
        log_dir.mkdir(parents=True, exist_ok=True)
        handler = LogFile(log_dir / f"{log_name}.log")
        handler.setFormatter(_Formatter(self.format_string, datefmt=_TIME_FORMAT))
        return _attach(handler, self.level, "mpiflow")


class JSONLogging(LogConfig, RepresentationMixin):
    """One JSON object a line in ``mpiflow.jsonlog``, with the fields that mpiflow's lines carry.

    Parameters
    ----------
    level : int
        The least level that is written.
    """

    def __init__(self, *, level: int = logging.DEBUG) -> None:
        _check(type(self).__name__, "mpiflow", level, "")
        self.level = level

    def initialize_logging(self, *, log_dir: Path, log_name: str) -> Callable[[], None]:
        """Begin to write ``<log_dir>/<log_name>.jsonlog``; see `LogConfig.initialize_logging`."""
        log_dir.mkdir(parents=True, exist_ok=True)
        handler = LogFile(log_dir / f"{log_name}.jsonlog")
        handler.setFormatter(_JSONFormatter())
        return _attach(handler, self.level, "mpiflow")


class NoopLogging(LogConfig, RepresentationMixin):
    """No log at all."""

    def initialize_logging(self, *, log_dir: Path, log_name: str) -> Callable[[], None]:
        """Do nothing; see `LogConfig.initialize_logging`."""
        return _nothing


def _nothing() -> None:
    """What there is to undo where nothing was done."""


class _Formatter(logging.Formatter):
    """A record as text, without what looks like a secret."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


class _JSONFormatter(_Formatter):
    """A record as one line of JSON: the keys that Parsl writes, and every extra field ``mpiflow.*``."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "created": record.created,
            "process": record.process,
            "processName": record.processName,
            "threadName": record.threadName,
            "thread": record.thread,
            "name": record.name,
            "lineno": record.lineno,
            "funcname": record.funcName,
            "levelname": record.levelname,
            "msg": without_secrets(str(record.msg)),
            "formatted": super().format(record),
        }
        # parsl.*: the same once more, where a program that was written for Parsl looks for them
        of_ours = [key for key in vars(record) if key.startswith(("mpiflow.", "parsl."))]
        fields |= {key: without_secrets(_in_words(vars(record)[key])) for key in of_ours}
        return json.dumps(fields)


def _in_words(value: object) -> str:
    """The value's text; the reason where it has none, for a log that breaks off helps nobody."""
    try:
        return str(value)
    except Exception as error:
        return f"UNREPRESENTABLE: {error!r}"


def _check(who: str, name: object, level: object, format_string: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{who}: name is {name!r}; legal is the name of a logger")
    if isinstance(level, bool) or not isinstance(level, int):
        raise TypeError(f"{who}: level is {level!r}; legal is a whole number, such as logging.DEBUG")
    if not isinstance(format_string, str):
        raise TypeError(f"{who}: format_string is {format_string!r}; legal is a format of the logging module")
    logging.Formatter(format_string or None)  # ValueError for one without any field


def set_stream_logger(
    name: str = "mpiflow",
    level: int = logging.DEBUG,
    format_string: str | None = None,
    stream: IO[str] | None = None,
) -> Callable[[], None]:
    """Write the log to a stream as well.

    Parameters
    ----------
    name : str
        Of the logger.
    level : int
        The least level that is written.
    format_string : str, optional
        As for `logging.Formatter`.
    stream : file, optional
        Default: standard error.

    Returns
    -------
    callable
        Called without arguments: ends it.

    Examples
    --------
    >>> import io
    >>> lines = io.StringIO()
    >>> end = set_stream_logger(stream=lines, format_string="%(message)s")
    >>> logger.info("so it is")
    >>> end()
    >>> lines.getvalue()
    'so it is\\n'
    """
    _check("set_stream_logger", name, level, format_string or "")
    if stream is not None and not callable(getattr(stream, "write", None)):
        raise TypeError(f"set_stream_logger: stream is {stream!r}; legal is an open text file")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Formatter(format_string or _STREAM_FORMAT, datefmt=_TIME_FORMAT))
    return _attach(handler, level, name)


def set_file_logger(
    filename: str, name: str = "mpiflow", level: int = logging.DEBUG, format_string: str | None = None
) -> Callable[[], None]:
    """Write the log to a file as well; for what is not named here see `set_stream_logger`.

    Parameters
    ----------
    filename : str
        The file; what it has is kept.
    name, level, format_string
        As for `set_stream_logger`.

    Returns
    -------
    callable
        Called without arguments: ends it.
    """
    _check("set_file_logger", name, level, format_string or "")
    handler = LogFile(filename)
    handler.setFormatter(_Formatter(format_string or DEFAULT_FORMAT, datefmt=_TIME_FORMAT))
    return _attach(handler, level, name)


#: Loggers that handlers are attached to are shared by every run of the process.
_attaching = threading.Lock()


def _attach(handler: logging.Handler, level: int, name: str) -> Callable[[], None]:
    """Have a handler hear mpiflow's logger and that of futures; gives what undoes it."""
    handler.setLevel(level)
    heard = (logging.getLogger(name), logging.getLogger("concurrent.futures"))
    with _attaching:
        for one in heard:
            one.setLevel(max(1, min(one.level or level, level)))  # 0 would mean: as the root logger
            one.addHandler(handler)

    def detach() -> None:
        for one in heard:
            one.removeHandler(handler)
        if isinstance(handler, logging.FileHandler):  # a stream is its owner's to close
            handler.close()

    return detach


@overload
def wrap_with_logs(fn: _Function, target: str = ...) -> _Function: ...
@overload
def wrap_with_logs(fn: None = ..., target: str = ...) -> Callable[[_Function], _Function]: ...
def wrap_with_logs(fn: Any = None, target: str = "mpiflow") -> Any:
    """Decorate a function, such as a thread's, so that the log says how it ended.

    Parameters
    ----------
    fn : callable, optional
        Left out when the decorator is written with arguments.
    target : str
        Name of the logger.

    Examples
    --------
    >>> @wrap_with_logs
    ... def five():
    ...     return 5
    >>> five()
    5
    """
    if fn is None:
        return functools.partial(wrap_with_logs, target=target)
    if not callable(fn):
        raise TypeError(f"wrap_with_logs takes a function, not {type(fn).__name__}: {fn!r}")

    @functools.wraps(fn)
    def logged(*args: Any, **kwargs: Any) -> Any:
        name = f"{getattr(fn, '__name__', fn)} on thread {threading.current_thread().name}"
        log = logging.getLogger(target)
        try:
            result = fn(*args, **kwargs)
        except Exception:
            log.exception("Exceptional ending for %s", name)
            raise
        log.debug("Normal ending for %s", name)
        return result

    return logged
