"""What the kernel knows of an app: what to call, by which name, and where it may run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class App:
    """A function that can be called as a task.

    Attributes
    ----------
    func : callable
        What the user decorated.
    remote : callable
        What a runner calls: `func` itself for a python_app.
    name : str
        Name in words and logs.
    join : bool
        Whether the body runs on rank 0 and returns futures.
    executors : "all" or list of str
        Labels of the executors it may run on.
    """

    __slots__ = ("__weakref__", "executors", "func", "join", "name", "remote")

    def __init__(
        self,
        func: Callable[..., Any],
        remote: Callable[..., Any] | None = None,
        *,
        join: bool = False,
        executors: str | Sequence[str] = "all",
    ) -> None:
        self.func = func
        self.remote = func if remote is None else remote
        self.name: str = getattr(func, "__name__", type(func).__name__)
        self.join = join
        self.executors = executors
