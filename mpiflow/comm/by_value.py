"""Pickles that hold functions and classes themselves, where a name would mean nothing to the reader.

cloudpickle does it, apart from one thing: a class with ``__slots__`` comes out without them (its 3.1 still
makes such a class anew from its name, bases and dictionary alone), and instances made elsewhere then have no
place for their values. So the slots are put back among the arguments that make the class.

A module of its own, because it imports cloudpickle: only processes that need it do.
"""

from __future__ import annotations

import io

import cloudpickle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's, with the slots of classes."""

    def reducer_override(self, obj: Any) -> Any:
        reduced = super().reducer_override(obj)
        # a NamedTuple has the empty ones, and its maker would not take them
        if isinstance(obj, type) and isinstance(reduced, tuple) and vars(obj).get("__slots__"):
            make, (kind, name, bases, extra, *rest), *state = reduced
            reduced = (make, (kind, name, bases, {**extra, "__slots__": vars(obj)["__slots__"]}, *rest), *state)
        return reduced


def dumps_by_value(value: object, buffer_callback: Callable[[Any], object] | None = None) -> bytes:
    """Pickle an object with what it refers to in ``__main__``, or has no name for.

    Parameters
    ----------
    value : object
        What to pickle.
    buffer_callback : callable, optional
        As for `pickle.dumps`, protocol 5.
    """
    with io.BytesIO() as file:
        _Pickler(file, 5, buffer_callback=buffer_callback).dump(value)
        return file.getvalue()
