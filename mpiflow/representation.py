"""A repr that is the call which makes the object again: for what people write into a Config."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from inspect import Parameter


class RepresentationMixin:
    """Gives a class a ``__repr__`` that reads as the call of its constructor, every default said.

    Each parameter of ``__init__`` has to be an attribute of the same name. Functions and classes among the
    values are shown by their names, so that the text can be pasted back.

    Attributes
    ----------
    __max_width__ : int
        A longer text gets one line for each parameter.

    Examples
    --------
    >>> class Point(RepresentationMixin):
    ...     def __init__(self, x, y=0):
    ...         self.x, self.y = x, y
    >>> Point(1)
    Point(1, y=0)
    """

    __max_width__ = 80
    #: Whether a parameter that is no attribute is an error; otherwise it is shown as unrecorded.
    _validate_repr = False

    def __repr__(self) -> str:
        from inspect import signature

        parts = [self._part(parameter) for parameter in signature(type(self)).parameters.values()]
        parts = [part for part in parts if part]
        name = type(self).__name__
        line = f"{name}({', '.join(parts)})"
        if len(line) <= self.__max_width__ and "\n" not in line:
            return line
        indented = [part.replace("\n", "\n    ") for part in parts]
        return f"{name}(\n    " + ",\n    ".join(indented) + "\n)"

    def _part(self, parameter: Parameter) -> str:
        """One parameter with its value; nothing for ``*args`` and ``**kwargs``, which are no attributes."""
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return ""
        if self._validate_repr and not hasattr(self, parameter.name):
            words = f"{type(self).__name__} takes {parameter.name!r}, but has no attribute of that name"
            raise AttributeError(words)
        shown = _shown(getattr(self, parameter.name, "<unrecorded>"))
        by_position = parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY
        return shown if by_position else f"{parameter.name}={shown}"


def _shown(value: object) -> str:
    """The value as it would be written; functions and classes by name."""
    from inspect import isclass, isroutine

    if (isclass(value) or isroutine(value)) and "<" not in value.__qualname__:
        return value.__qualname__
    return repr(value)


def in_words(value: object) -> str:
    """A value's repr; its type's name when even that fails, as in classes of users it may."""
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
