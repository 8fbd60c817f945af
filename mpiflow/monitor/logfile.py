"""A log file that cannot be written any more ends itself, in words, and not the run it tells of.

`logging`'s own file handler prints a traceback for each line that a full disk refuses, and raises when it is closed.
"""

from __future__ import annotations

import logging
import sys


class LogFile(logging.FileHandler):
    """A file that log lines are appended to, until that fails.

    Parameters
    ----------
    filename : str or path
        The file; what it has is kept.

    Examples
    --------
    >>> handler = LogFile("/dev/null")
    >>> handler.close()
    """

    _ended = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, unless the log has ended."""
        if not self._ended:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """End the log when its file is the reason; what else goes wrong with a line is shown as always."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self._end(error)
        else:
            super().handleError(record)

    def close(self) -> None:
        """Close the file; what is still unwritten is lost if it cannot be written."""
        try:
            super().close()
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError) -> None:
        if not self._ended:
            self._ended = True
            words = f"{self.baseFilename}: the log cannot be written: {error.strerror or error}"
            print(f"mpiflow: {words}; it ends here, and the run goes on", file=sys.stderr, flush=True)
