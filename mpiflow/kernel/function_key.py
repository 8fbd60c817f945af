"""What tells a function from others: its name, its module and its code, so that an edited one is computed anew.

Of a function count: name and module; the code, with the code of functions inside it, its names and constants;
the defaults; the values its closure holds; and the globals it reads. Where a global is a function or class of
the same module, its code counts in the same way. What belongs to another module counts by its name alone, so a
new release of a library is not seen (nor would one want to be: following every call of numpy would take seconds).
Line numbers and file names do not count: moving a function about a script changes nothing.

Pickle's bytes were rejected: a constant like ``{"a", "b"}`` in ``x in {"a", "b"}`` is a frozenset, which pickle
writes in the order of the hash seed. Here sets are sorted by what their members are.

Values that `id_for_memo` does not know (an object of the user's in a closure) are taken apart as pickle would,
and written in an order of ours. What pickle cannot take, such as a lock or a DataFlowKernel, counts by its type
alone: it cannot travel to a worker, so no result can depend on what is in it.

A key takes some tens of microseconds to make. That of a function without a closure is kept beside the globals
it was made of, and made again when one of them is another object, or is of a type that can change in place.
"""

from __future__ import annotations

import builtins
import copyreg
import dis
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from mpiflow.kernel.memo_key import id_for_memo, tagged

#: Types whose values stay what they are.
_FIXED = (str, int, float, complex, bytes, type(None), FunctionType, BuiltinFunctionType, ModuleType, type(...))
#: In the place of a global that is not there.
_MISSING = object()


class _Seen(NamedTuple):
    """A global that a key was made of."""

    namespace: dict[str, Any]
    name: str
    value: Any


class _Known(NamedTuple):
    """A key, and what it was made of."""

    key: bytes
    code: CodeType
    defaults: tuple[Any, ...] | None
    seen: list[_Seen]

    def holds(self, function: FunctionType) -> bool:
        return (
            function.__code__ is self.code
            and function.__defaults__ is self.defaults
            and all(namespace.get(name, _MISSING) is value for namespace, name, value in self.seen)
        )


_known: WeakKeyDictionary[FunctionType, _Known] = WeakKeyDictionary()


def function_key(function: Any) -> bytes:
    """Bytes that tell a function from others by its code.

    Parameters
    ----------
    function : callable
        A function, method, builtin, ``functools.partial``, class or callable object.

    Returns
    -------
    bytes

    Examples
    --------
    >>> function_key(lambda x: x + 1) == function_key(lambda x: x + 2)
    False
    """
    if not isinstance(function, FunctionType):
        return _Reading(getattr(function, "__module__", None)).value(function)
    known = _known.get(function)
    if known is not None and known.holds(function):
        return known.key
    reading = _Reading(function.__module__)
    key = reading.value(function)
    # Not for closures: what they hold may hold them, and neither would ever be freed.
    if not reading.changeable and function.__closure__ is None:
        _known[function] = _Known(key, function.__code__, function.__defaults__, reading.seen)
    return key


class _Reading:
    """One walk through a function and all that it refers to.

    Attributes
    ----------
    seen : list of _Seen
        Globals that were looked at.
    changeable : bool
        Whether anything was met that can change and stay the same object.
    """

    def __init__(self, module: str | None) -> None:
        self._module = module
        self.seen: list[_Seen] = []
        self.changeable = False
        #: What is being walked, by id: functions call each other, and objects hold each other.
        self._open: dict[int, int] = {}
        #: How many objects are being taken apart, each inside the one before.
        self._apart = 0

    def value(self, value: Any) -> bytes:
        """Bytes of anything a function may refer to."""
        if id(value) in self._open:
            return tagged("again", self._open[id(value)])
        self._open[id(value)] = len(self._open)
        try:
            return self._read(value)
        finally:
            del self._open[id(value)]

    def _read(self, value: Any) -> bytes:
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, ModuleType):
            return tagged("module", value.__name__)
        if isinstance(value, BuiltinFunctionType):
            return tagged("builtin", str(value.__module__), value.__qualname__)
        if isinstance(value, _FIXED):
            return b"Ellipsis" if value is ... else id_for_memo(value)
        if type(value) is tuple:
            return tagged("tuple", *map(self.value, value))
        if type(value) is frozenset:
            return tagged("frozenset", *sorted(map(self.value, value)))
        inner = getattr(value, "__wrapped__", None) if callable(value) else None
        if isinstance(inner, FunctionType):  # an app, or what functools.wraps made
            return tagged("wrapper", type(value).__qualname__, self.value(inner))
        self.changeable = True
        return self._read_changeable(value)

    def _read_changeable(self, value: Any) -> bytes:
        if isinstance(value, type):
            return self._class(value)
        if type(value) is list:
            return tagged("list", *map(self.value, value))
        if type(value) is dict:
            return tagged("dict", self._mapping(value))
        if type(value) is set:
            return tagged("set", *sorted(map(self.value, value)))
        if isinstance(value, partial):
            return tagged("partial", *map(self.value, (value.func, value.args, value.keywords)))
        if isinstance(value, MethodType):
            return tagged("method", self.value(value.__func__), self.value(value.__self__))
        if isinstance(value, staticmethod | classmethod):
            return tagged(type(value).__name__, self.value(value.__func__))
        if isinstance(value, property):
            return tagged("property", *map(self.value, (value.fget, value.fset, value.fdel)))
        return self._object(value)

    def _function(self, function: FunctionType) -> bytes:
        if function.__module__ != self._module:
            return tagged("function", str(function.__module__), function.__qualname__)
        code = function.__code__
        return tagged(
            "function",
            function.__name__,
            function.__module__ or "",
            _code_key(code),
            self.value(function.__defaults__ or ()),
            self._mapping(function.__kwdefaults__ or {}),
            *(self._cell(cell) for cell in function.__closure__ or ()),
            *self._globals(code, function.__globals__),
        )

    def _cell(self, cell: Any) -> bytes:
        self.changeable = True
        try:
            return self.value(cell.cell_contents)
        except ValueError:  # nothing was bound to it yet
            return b"empty cell"

    def _globals(self, code: CodeType, namespace: dict[str, Any]) -> Iterator[bytes]:
        for name in _global_names(code):
            value = namespace.get(name, _MISSING)
            self.seen.append(_Seen(namespace, name, value))
            if value is not _MISSING:
                yield tagged("global", name, self.value(value))
            elif not hasattr(builtins, name):
                yield tagged("unbound", name)

    def _class(self, cls: type) -> bytes:
        name = f"{cls.__module__}.{cls.__qualname__}"
        if cls.__module__ != self._module:
            return tagged("class", name)
        members = {k: v for k, v in vars(cls).items() if k not in _OF_EVERY_CLASS}
        return tagged("class", name, *map(self.value, cls.__bases__), self._mapping(members))

    def _mapping(self, items: dict[Any, Any]) -> bytes:
        return tagged("items", *sorted(tagged("item", self.value(k), self.value(v)) for k, v in items.items()))

    def _object(self, value: Any) -> bytes:
        """An array, a File, ...; else the parts of which pickle would make it again, or the type alone."""
        try:
            return id_for_memo(value)
        except ValueError:
            pass  # it does not know the type, or that of something inside
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        self._apart += 1
        try:
            return tagged("object", kind, self._parts(_parts_of(value)))
        except _NotPicklableError:
            # An object with a lock in it is told by its own type: the outermost one's, as it would be refused whole.
            if self._apart > 1:
                raise
            return tagged("object", kind)
        finally:
            self._apart -= 1

    def _parts(self, parts: str | tuple[Any, ...]) -> bytes:
        if isinstance(parts, str):  # it is a global of that name
            return parts.encode()
        make, arguments, *rest = parts
        state, items, pairs = [*rest, None, None, None][:3]
        return tagged(
            "parts",
            self.value(make),
            self.value(arguments),
            self.value(state),
            self.value(list(items or ())),
            self.value([list(pair) for pair in pairs or ()]),
        )


class _NotPicklableError(Exception):
    """An object that cannot be taken apart."""


def _parts_of(value: Any) -> str | tuple[Any, ...]:
    """What pickle would ask of an object to make it again."""
    if type(value).__module__.partition(".")[0] == "mpiflow":
        raise _NotPicklableError  # a kernel, a future, ...: all that a job has would be below it
    reduce = copyreg.dispatch_table.get(type(value))
    try:
        return reduce(value) if reduce is not None else value.__reduce_ex__(4)
    except Exception as error:  # whatever the object has against being pickled
        raise _NotPicklableError from error


#: Of a class: what each has, or what says where it stands and not what it does.
_OF_EVERY_CLASS = {
    *("__dict__", "__weakref__", "__module__", "__doc__", "__firstlineno__", "__static_attributes__"),
    *("__slotnames__", "__annotations_cache__", "_abc_impl"),  # what pickle and others keep there once they came by
}


#: Flags of how a function is called; the others say how its file was compiled.
_FLAGS_OF_CALLS = 0x3FF


@lru_cache(maxsize=4096)
def _code_key(code: CodeType) -> bytes:
    """Bytes of what a code does: nothing of where it stands."""
    return tagged(
        "code",
        code.co_code,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags & _FLAGS_OF_CALLS,
        getattr(code, "co_exceptiontable", b""),
        *(tagged("names", *names) for names in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)),
        *map(_constant, code.co_consts),
    )


def _constant(value: Any) -> bytes:
    if isinstance(value, CodeType):
        return _code_key(value)
    if isinstance(value, tuple):
        return tagged("tuple", *map(_constant, value))
    if isinstance(value, frozenset):
        return tagged("frozenset", *sorted(map(_constant, value)))
    if value is ...:
        return b"Ellipsis"
    if isinstance(value, slice):  # a constant since Python 3.14
        return tagged("slice", *map(_constant, (value.start, value.stop, value.step)))
    return id_for_memo(value)


@lru_cache(maxsize=4096)
def _global_names(code: CodeType) -> tuple[str, ...]:
    """Globals that a code reads, itself or in functions inside it, in order of the alphabet."""

    def walk(code: CodeType) -> Iterable[str]:
        for instruction in dis.get_instructions(code):
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                yield instruction.argval
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from walk(constant)

    return tuple(sorted(set(walk(code))))
