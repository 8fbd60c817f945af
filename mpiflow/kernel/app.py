"""What the kernel knows of an app: what to call, by which name, and where it may run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import hashlib

_numbers = count()


class KnownFunction(NamedTuple):
    """What the keys of an app's calls know of its function."""

    id: bytes
    #: The md5 of a call without keyword arguments, as far as it is the same for all arguments: a function may be
    #: kilobytes, and need not be gone through with each call.
    begun: hashlib._Hash


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
    kind : {"python", "bash", "join", "mpi"}
        What it was decorated as.
    join : bool
        Whether the body runs on rank 0 and returns futures.
    executors : "all" or list of str
        Labels of the executors it may run on.
    cache : bool
        Whether a call that was made before is answered with the result it had.
    ignore_for_cache : tuple of str
        Keyword arguments that make no difference to that.
    number : int
        Its own, among all apps of this process.
    priority : int
        Of its tasks when the call gives none; lower goes first.
    walltime : float
        Seconds that its tasks may take when the call does not say; 0 for no limit.
    memory : int
        Bytes of memory that its tasks may use when the call does not say; 0 for no limit.
    known_function : KnownFunction or None
        What the keys of its calls know of its function, once the memoizer has been asked about one.
    """

    __slots__ = (
        "__weakref__", "cache", "executors", "func", "ignore_for_cache", "join", "kind", "known_function", "memory",
        "name", "number", "priority", "remote", "walltime",
    )  # fmt: skip

    def __init__(
        self,
        func: Callable[..., Any],
        remote: Callable[..., Any] | None = None,
        *,
        kind: str = "python",
        join: bool = False,
        executors: str | Sequence[str] = "all",
        cache: bool = False,
        ignore_for_cache: Sequence[str] = (),
        priority: int = 0,
        walltime: float = 0.0,
        memory: int = 0,
    ) -> None:
        self.func = func
        self.remote = func if remote is None else remote
        self.name: str = getattr(func, "__name__", type(func).__name__)
        self.kind = "join" if join else kind
        self.join = join
        self.executors = executors
        self.cache = cache
        self.ignore_for_cache = tuple(ignore_for_cache)
        self.priority = priority
        self.walltime = walltime
        self.memory = memory
        self.number = next(_numbers)
        self.known_function: KnownFunction | None = None

    def running(self, remote: Callable[..., Any]) -> App:
        """The same app with something else to call in the runner."""
        return App(
            self.func,
            remote,
            kind=self.kind,
            join=self.join,
            executors=self.executors,
            cache=self.cache,
            ignore_for_cache=self.ignore_for_cache,
            priority=self.priority,
            walltime=self.walltime,
            memory=self.memory,
        )
