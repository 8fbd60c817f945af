"""A chunk of a bulk call, where it runs. Here and not in `apps`: a runner that gets one imports nothing more."""

from __future__ import annotations

import time

from mpiflow import context
from mpiflow.comm.pickling import pack_failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Chunk:
    """What a runner calls for a chunk: the function on each item.

    Parameters
    ----------
    func : callable
        The function.
    many : bool
        Whether an item is a tuple of several arguments.
    """

    def __init__(self, func: Callable[..., Any], many: bool) -> None:
        self.func = func
        self.many = many
        self.__name__: str = getattr(func, "__name__", type(func).__name__)

    def __call__(self, items: list[Any], first: int) -> tuple[list[Any], bytes | None, float]:
        """Results up to the first failure, that failure packed or None, and the seconds all of it took."""
        func = self.func
        results: list[Any] = []
        append = results.append
        started = time.perf_counter()
        try:
            # the loop's own variable tells `rng` which item it is: nothing else is as cheap
            if self.many:
                for context.item, item in enumerate(items, first):
                    append(func(*item))
            else:
                for context.item, item in enumerate(items, first):
                    append(func(item))
        except Exception as error:
            return results, pack_failure(error), time.perf_counter() - started
        return results, None, time.perf_counter() - started
