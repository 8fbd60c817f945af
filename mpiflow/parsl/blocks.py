"""How Parsl picks among its blocks of workers, and what it does when they fail: accepted. A job has no blocks."""

from __future__ import annotations

from mpiflow.parsl.accepted import Accepted


class ManagerSelector(Accepted):
    """Base of what ``manager_selector`` takes."""


class RandomManagerSelector(ManagerSelector):
    """Any of them."""


class BlockIdManagerSelector(ManagerSelector):
    """Those that came first."""


def simple_error_handler(executor: object, status: object, threshold: int = 3) -> None:
    """What ``block_error_handler`` takes; never called."""


def windowed_error_handler(executor: object, status: object, threshold: int = 3) -> None:
    """What ``block_error_handler`` takes; never called."""


def noop_error_handler(executor: object, status: object, threshold: int = 3) -> None:
    """What ``block_error_handler`` takes; never called."""


#: For ``Config(usage_tracking=...)``: nobody is told anything.
DISABLED, LEVEL_1, LEVEL_2, LEVEL_3 = 0, 1, 2, 3
