"""Objects that Parsl is configured by and a farm has no use for: taken with their parameters, kept, never asked.

They refuse what Parsl would refuse, a misspelt parameter or a missing one, so that a Config that is tried out here
still works there. The executor or Config that such an object is given to says that it ignores it.
"""

from __future__ import annotations

from typing import Any, ClassVar


class Accepted:
    """Base of them: the parameters become attributes.

    Subclasses name their parameters in Parsl's order.
    """

    #: Parameters without a default, and those with one.
    required: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[dict[str, Any]] = {}
    #: Whether parameters may be given by name only.
    by_name: ClassVar[bool] = False

    def __init__(self, *args: object, **kwargs: object) -> None:
        of, names = type(self).__name__, [*self.required, *self.optional]
        most = 0 if self.by_name else len(names)
        if len(args) > most:
            raise TypeError(f"{of}() takes at most {most} positional arguments, {len(args)} were given")
        given = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in names:
                raise TypeError(f"{of}() got an unexpected keyword argument {name!r}")
            if name in given:
                raise TypeError(f"{of}() got multiple values for argument {name!r}")
            given[name] = value
        missing = [name for name in self.required if name not in given]
        if missing:
            raise TypeError(f"{of}() misses required arguments: {', '.join(map(repr, missing))}")
        self._names = names
        vars(self).update(self.optional | given)

    def __getattr__(self, name: str) -> Any:
        # here for type checkers, and for an error in the usual words: whatever there is lies in the instance
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={vars(self)[name]!r}" for name in self._names)
        return f"{type(self).__name__}({shown})"
