"""The run directory: a place of its own for each run, and the log in it."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import mpiflow
from mpiflow.errors import ConfigurationError
from mpiflow.monitor.logs import FileLogging, LogConfig, logger
from mpiflow.monitor.redaction import command_without_secrets


class RunDirectory:
    """Directory ``NNN`` under the one for all runs, with the log in it.

    Without a log the directory is made when somebody first asks for its path: a run that writes nothing leaves
    nothing behind.

    Parameters
    ----------
    parent : str
        Directory of all runs; made if it is not there.
    enabled : bool or LogConfig
        How to log: to ``mpiflow.log``, not at all, or as it says.
    exactly : str, optional
        The directory itself, instead of a numbered one.
    log_name : str
        Name of the log file, without an ending.
    """

    def __init__(
        self,
        parent: str | os.PathLike[str],
        enabled: bool | LogConfig,
        exactly: str | None = None,
        log_name: str = "mpiflow",
    ) -> None:
        self._parent = os.path.abspath(parent)
        self._exactly = os.path.abspath(exactly) if exactly is not None else None
        self._path = ""
        self._making = threading.Lock()
        self._began = time.monotonic()
        self._end_log: Callable[[], None] | None = None
        if enabled is not False:
            self._begin_log(FileLogging() if enabled is True else enabled, log_name)

    @property
    def path(self) -> str:
        """The directory, absolute; made if it is not there yet."""
        with self._making:
            if not self._path:
                try:
                    self._path = self._exactly or _next_free(self._parent)
                    os.makedirs(self._path, exist_ok=True)
                except OSError as error:
                    words = f"the run directory {error.filename} cannot be made: {error.strerror}; "
                    raise ConfigurationError(words + "name another one by --run-dir or Config(run_dir=...)") from error
            return self._path

    def _begin_log(self, config: LogConfig, log_name: str) -> None:
        path = self.path
        with _beginning:
            before = set(logger.handlers)
            self._end_log = config.initialize_logging(log_dir=Path(path), log_name=log_name)
            for handler in set(logger.handlers) - before:
                # two runs of one process share the logger, and each has its own file
                handler.addFilter(lambda record: getattr(record, "run", path) == path)
        version, here = sys.version.split()[0], os.uname().nodename
        self.log("mpiflow %s, Python %s, pid %d on %s", mpiflow.__version__, version, os.getpid(), here)
        self.log("command: %s", command_without_secrets(sys.argv))

    def log(
        self,
        words: str,
        *values: object,
        level: int = logging.INFO,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        """Write a line.

        Parameters
        ----------
        words, *values
            As for `logging.Logger.info`.
        level : int
            As for `logging.Logger.log`.
        fields : mapping, optional
            What the line is about, for logs that have room for it; keys begin with ``mpiflow.``.
        """
        if self._end_log is not None and logger.isEnabledFor(level):
            logger.log(level, words, *values, extra={"run": self._path, **(fields or {})}, stacklevel=2)

    def close(self) -> None:
        """End the log."""
        if self._end_log is not None:
            self.log("ended after %.1f s", time.monotonic() - self._began)
            end, self._end_log = self._end_log, None
            end()


#: Held while a log begins: what handlers are new is found by comparison.
_beginning = threading.Lock()


def _next_free(parent: str) -> str:
    """Make the next numbered directory. Two runs that start together get two: mkdir is exclusive."""
    os.makedirs(parent, exist_ok=True)
    number = max((int(name) for name in os.listdir(parent) if name.isdecimal()), default=-1) + 1
    while True:
        path = os.path.join(parent, f"{number:03}")
        try:
            os.mkdir(path)
        except FileExistsError:
            number += 1
        else:
            return path
