"""Where in an argument futures are looked for, and how they are replaced by their values.

The shallow resolver sees a future that *is* the argument; the deep one also those inside lists, tuples, sets and
dicts. Both are open for types of the user's::

    @SHALLOW_DEPENDENCY_RESOLVER.traverse_to_gather.register
    def _(box: Box): return [box.future]

    @SHALLOW_DEPENDENCY_RESOLVER.traverse_to_unwrap.register
    def _(box: Box): return box.future.result()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import singledispatch
from typing import Any


@dataclass(frozen=True)
class DependencyResolver:
    """How arguments are searched for futures.

    Parameters
    ----------
    traverse_to_gather : callable
        From an argument, the futures in it.
    traverse_to_unwrap : callable
        From an argument, the same with their values; called when all have ended well.
    """

    traverse_to_gather: Callable[[Any], Sequence[Future[Any]]]
    traverse_to_unwrap: Callable[[Any], Any]

    def __post_init__(self) -> None:
        for name in ("traverse_to_gather", "traverse_to_unwrap"):
            if not callable(getattr(self, name)):
                raise TypeError(f"DependencyResolver: {name} is {getattr(self, name)!r}; legal is a function")


@singledispatch
def _gather(argument: Any) -> Sequence[Future[Any]]:
    return []


@singledispatch
def _unwrap(argument: Any) -> Any:
    return argument


@singledispatch
def _gather_deep(argument: Any) -> Sequence[Future[Any]]:
    return []


@singledispatch
def _unwrap_deep(argument: Any) -> Any:
    return argument


@_gather.register
@_gather_deep.register
def _one(future: Future) -> Sequence[Future[Any]]:  # type: ignore[type-arg]
    return [future]


@_unwrap.register
@_unwrap_deep.register
def _value(future: Future) -> Any:  # type: ignore[type-arg]
    return future.result()


@_gather_deep.register(list)
@_gather_deep.register(tuple)
@_gather_deep.register(set)
def _of_each(elements: Iterable[Any]) -> Sequence[Future[Any]]:
    return [future for element in elements for future in _gather_deep(element)]


@_unwrap_deep.register(list)
@_unwrap_deep.register(set)
def _rebuilt(elements: Any) -> Any:
    return type(elements)(_unwrap_deep(element) for element in elements)


@_unwrap_deep.register
def _tuple(elements: tuple) -> Any:  # type: ignore[type-arg]
    values = [_unwrap_deep(element) for element in elements]
    # a named one is made of its fields, not of an iterable
    return type(elements)(*values) if hasattr(elements, "_fields") else type(elements)(values)


@_gather_deep.register(dict)
def _of_items(entries: dict[Any, Any]) -> Sequence[Future[Any]]:
    return [future for entry in entries.items() for part in entry for future in _gather_deep(part)]


@_unwrap_deep.register(dict)
def _entries(entries: dict[Any, Any]) -> Any:
    return {_unwrap_deep(key): _unwrap_deep(value) for key, value in entries.items()}


#: Only futures that are arguments themselves, or elements of ``inputs``. The default.
SHALLOW_DEPENDENCY_RESOLVER = DependencyResolver(_gather, _unwrap)
#: Also those inside lists, tuples, sets and dicts, at any depth.
DEEP_DEPENDENCY_RESOLVER = DependencyResolver(_gather_deep, _unwrap_deep)

#: Types that the shallow one looks into: those of this module, and what users have registered beside them.
LOOKED_INTO = _gather.registry
#: How many of them are of this module; counted here, since users may register theirs as soon as it is imported.
OWN_TYPES = len(LOOKED_INTO)
