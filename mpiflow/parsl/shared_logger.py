"""One logger under two names: a script that asks `logging` for ``"parsl"`` gets the one that mpiflow writes to."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging

#: Loggers whose lines have fields; a filter is asked by the logger that makes a line, and not by those above it.
_WITH_FIELDS = ("mpiflow", "mpiflow.kernel")


def share_logger() -> None:
    """Make ``logging.getLogger("parsl")`` the logger of mpiflow, with the handlers that the script has given it.

    The fields of its lines get Parsl's names as well. A process that has not loaded `logging`, such as a runner,
    has no handlers either, and is left alone.
    """
    logging = sys.modules.get("logging")
    if logging is None:
        return
    ours, before = logging.getLogger("mpiflow"), logging.getLogger("parsl")
    if before is ours:
        return
    for handler in before.handlers:
        ours.addHandler(handler)
    if before.level:
        ours.setLevel(before.level)
    logging.Logger.manager.loggerDict["parsl"] = ours
    for name in _WITH_FIELDS:
        logging.getLogger(name).addFilter(_name_as_parsl_does)


def _name_as_parsl_does(record: logging.LogRecord) -> bool:
    """Give each field ``mpiflow.x`` of a line the name ``parsl.x`` as well; no line is held back."""
    fields = vars(record)
    fields.update({f"parsl.{name[8:]}": fields[name] for name in list(fields) if name.startswith("mpiflow.")})
    return True
