"""One logger under two names: a script that asks `logging` for ``"parsl"`` gets the one that mpiflow writes to."""

from __future__ import annotations

import sys


def share_logger() -> None:
    """Make ``logging.getLogger("parsl")`` the logger of mpiflow, with the handlers that the script has given it.

    A process that has not loaded `logging`, such as a runner, has no handlers either, and is left alone.
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
