"""The run directory: a place of its own for each run, and the log in it."""

from __future__ import annotations

import logging
import os
import sys
import time

import mpiflow

#: The log of what mpiflow does; a script may add handlers of its own.
logger = logging.getLogger("mpiflow")

_FORMAT = "%(asctime)s %(levelname)s: %(message)s"


class RunDirectory:
    """Directory ``NNN`` under the one for all runs, with ``mpiflow.log``.

    Parameters
    ----------
    parent : str
        Directory of all runs; made if it is not there.
    enabled : bool
        Without it nothing is written, and the path is the parent's.
    exactly : str, optional
        The directory itself, instead of a numbered one.
    """

    def __init__(self, parent: str | os.PathLike[str], enabled: bool, exactly: str | None = None) -> None:
        self._handler: logging.Handler | None = None
        self._began = time.monotonic()
        if not enabled:
            self.path = os.path.abspath(parent)
            return
        if exactly is not None:
            os.makedirs(exactly, exist_ok=True)
            self.path = os.path.abspath(exactly)
        else:
            self.path = _next_free(os.path.abspath(parent))
        self._handler = logging.FileHandler(os.path.join(self.path, "mpiflow.log"))
        self._handler.setFormatter(logging.Formatter(_FORMAT))
        self._handler.addFilter(lambda record: getattr(record, "run", self.path) == self.path)
        logger.addHandler(self._handler)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False  # the log is a file's; a script's own logging is not to be flooded
        logger.info("mpiflow %s, Python %s, pid %d", mpiflow.__version__, sys.version.split()[0], os.getpid())
        logger.info("command: %s", " ".join(sys.argv))

    def log(self, words: str, *values: object) -> None:
        """Write a line."""
        if self._handler is not None:
            logger.info(words, *values, extra={"run": self.path})

    def close(self) -> None:
        """End the log."""
        if self._handler is not None:
            logger.info("ended after %.1f s", time.monotonic() - self._began)
            logger.removeHandler(self._handler)
            self._handler.close()
            self._handler = None


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
