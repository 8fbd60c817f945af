"""The key under which a call's result is remembered: an md5 of its function and arguments.

Two calls have the same key when they are the same call: in this process, in the next run, and in a process
whose strings hash to other numbers. So nothing here depends on the order in which a set or a dictionary happens
to be walked, nor on the identity of objects.

A general pickle would not do: it writes sets in the order of the hash seed, and an object met twice otherwise than
two equal ones. What is written here is by `tagged`: parts with their lengths, under a name for their kind. Only
strings, numbers and None are pickles, Parsl's bytes, which each of them has but one of.

Parsl's own keys (`parsl_key`, for ``BasicMemoizer(key="name")``) differ in the function, which counts by name, and in
lists, tuples and dictionaries, which Parsl does not tell apart: ``[2, 1]``, ``(2, 1)`` and ``{2: 1}`` are one argument.
With them a checkpoint that Parsl wrote is found again.

The cost is that of walking the arguments: two or three microseconds for a few numbers and strings, and for arrays
one pass over their memory. A `singledispatch` costs one for each value, so types that are registered themselves,
and not by a base, are looked up past it (`_id`), and of those the plainest are pickled on the spot.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import os
import pickle
import stat
import sys
from functools import lru_cache, partial, singledispatch
from pathlib import Path, PurePath
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from mpiflow.data.files import File
from mpiflow.kernel.app import App, KnownFunction

if TYPE_CHECKING:
    from collections.abc import Collection

#: Parsl's, on every Python it has been used with so far: a newer default must not change the keys.
_PROTOCOL = 4
#: Bytes above this go into a key by their digest, which is not copied again at each level of nesting.
_LARGE = 4096


class _ArgumentId(Protocol):
    def __call__(self, obj: Any, output_ref: bool = False) -> bytes: ...


def code_key(task: dict[str, Any]) -> str:
    """Key of a call by the code of its function.

    Parameters
    ----------
    task : dict
        The task's record, with resolved ``args`` and ``kwargs``.

    Returns
    -------
    str
        An md5 in hexadecimal.

    Raises
    ------
    KeyError
        ``ignore_for_cache`` names an argument that the call does not have.
    ValueError
        An argument is of a type that `id_for_memo` does not know.

    Examples
    --------
    >>> len(code_key({"func": len, "args": ("abc",), "kwargs": {}, "ignore_for_cache": []}))
    32
    """
    return _key(task, _function_id(task.get("app_type", "python"), task["func"]), _id)


def code_hash(app: App, args: tuple[Any, ...], kwargs: dict[str, Any], ignored: Collection[str]) -> hashlib._Hash:
    """The hash of which `code_key` gives the digits, for a call that has no record.

    Parameters
    ----------
    app : App
        What is called.
    args, kwargs
        With which arguments.
    ignored : collection of str
        Keyword arguments that make no difference.

    Raises
    ------
    KeyError, ValueError
        As for `code_key`.

    Examples
    --------
    >>> from mpiflow.kernel.app import App
    >>> record = {"func": len, "args": ["abc"], "kwargs": {}, "ignore_for_cache": []}
    >>> code_hash(App(len), ("abc",), {}, []).hexdigest() == code_key(record)
    True
    """
    function = app.known_function
    if function is None:
        function = _known(app)
    if kwargs or ignored or _registry[dict] is not _dict:  # it is registered anew
        return _md5(_call(function.id, list(args), kwargs, ignored, _id, app.name))
    call = function.begun.copy()
    call.update(_id(list(args)))  # a list, as in a record: a tuple counts otherwise
    return call


def numbered(call: hashlib._Hash, occurrence: int) -> str:
    """The key of the how-many-th call of its kind, from its hash, which is of no use any more."""
    call.update(_occurrence(occurrence))
    return call.hexdigest()


@lru_cache(maxsize=256)
def _occurrence(number: int) -> bytes:
    return tagged("occurrence", number)


def _known(app: App) -> KnownFunction:
    function = _function_id(app.kind, app.func)
    known = KnownFunction(function, _md5(_DICT + function))
    if type(app.func) is FunctionType:  # another callable may change, and equal another then
        app.known_function = known
    return known


def _md5(data: bytes) -> hashlib._Hash:
    return hashlib.md5(data, usedforsecurity=False)


def _function_id(kind: str, function: Any) -> bytes:
    return tagged(kind, _known_function_key(function))  # it may be a bash_app here and a python_app there


#: Keys of functions as they were when first called: a global that a task changes, a counter of calls say, does not
#: make another function of it.
_function_keys: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()


def _known_function_key(function: Any) -> bytes:
    from mpiflow.kernel.function_key import function_key  # which needs this module for its constants

    try:
        known = _function_keys.get(function)
        if known is None:
            known = _function_keys[function] = function_key(function)
    except TypeError:  # neither to be hashed nor to be referred to weakly
        return function_key(function)
    return known


def parsl_key(task: dict[str, Any]) -> str:
    """Key of a call as Parsl makes it: editing the function does not change it.

    Parameters, result and errors are those of `code_key`.
    """
    function = task["func"]
    name = getattr(function, "__name__", type(function).__qualname__)
    module = getattr(function, "__module__", None)
    return _key(task, pickle.dumps(["types.FunctionType", name, module], _PROTOCOL), _parsl_id)


def _key(task: dict[str, Any], function: bytes, id_of: _ArgumentId) -> str:
    ignored = task.get("ignore_for_cache") or ()
    call = _md5(_call(function, task["args"], task["kwargs"], ignored, id_of, task.get("func_name", "the app")))
    occurrence = task.get("occurrence")
    return call.hexdigest() if occurrence is None else numbered(call, occurrence)


def _call(
    function: bytes, args: Any, kwargs: dict[str, Any], ignored: Collection[str], id_of: _ArgumentId, name: str
) -> bytes:
    """What the key of a call is made of. `name` is for words."""
    for ignoring in sorted(set(ignored)):
        if ignoring not in kwargs:
            words = f"ignore_for_cache names {ignoring!r}, which this call of {name} lacks"
            raise KeyError(f"{words}; it has the keyword arguments {sorted(kwargs)}")
    counted = {keyword: value for keyword, value in kwargs.items() if keyword not in ignored}
    outputs = id_of(counted.pop("outputs"), output_ref=True) if "outputs" in counted else b""
    return b"".join((outputs, id_of(counted), function, id_of(args)))


def tagged(kind: str, *parts: bytes | str | int) -> bytes:
    """Bytes that no other kind and no other parts give: each part with its length before it."""
    raw = [kind.encode(), *[part if isinstance(part, bytes) else str(part).encode() for part in parts]]
    return b"mpiflow:" + _with_lengths(raw)


def _with_lengths(parts: list[bytes]) -> bytes:
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])


@singledispatch
def id_for_memo(obj: object, output_ref: bool = False) -> bytes:
    """Bytes that are the same for the same value, and different for different ones.

    Register a function for a type of your own; what it returns is what the key of a call knows of the value.

    Parameters
    ----------
    obj : object
        An argument of a call.
    output_ref : bool
        Whether it stands in ``outputs``: of a file that is yet to be written only the name counts.

    Returns
    -------
    bytes

    Raises
    ------
    ValueError
        The type is not known. The task fails with it.

    Examples
    --------
    >>> class Point:
    ...     def __init__(self, x, y):
    ...         self.x, self.y = x, y
    >>> @id_for_memo.register(Point)
    ... def point_id(point, output_ref=False):
    ...     return id_for_memo([point.x, point.y])
    >>> id_for_memo(Point(1, 2)) == id_for_memo(Point(1, 2))
    True
    """
    if _learn_numpy(obj):
        return id_for_memo(obj, output_ref=output_ref)
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        values = [getattr(obj, field.name) for field in dataclasses.fields(obj)]
        return tagged("dataclass", _class_name(obj), *(id_for_memo(value, output_ref=output_ref) for value in values))
    raise ValueError(f"unknown type for memoization: {type(obj)}")


#: Function by type, as far as types are registered themselves; a live view.
_registry = id_for_memo.registry


def _id(obj: Any, output_ref: bool = False) -> bytes:
    """`id_for_memo`, faster for what is registered by its own type."""
    made_by = _registry.get(type(obj))
    if made_by is _plain:
        return pickle.dumps(obj, _PROTOCOL)
    if made_by is None:
        return id_for_memo(obj, output_ref=output_ref)
    return made_by(obj, output_ref=output_ref)


# --- plain values ------------------------------------------------------------------------------------------


@id_for_memo.register(str)
@id_for_memo.register(int)
@id_for_memo.register(float)
@id_for_memo.register(type(None))
def _plain(obj: Any, output_ref: bool = False) -> bytes:
    if type(obj) in (str, int, float, bool, type(None)):
        return pickle.dumps(obj, _PROTOCOL)
    if isinstance(obj, enum.Enum):
        return _enum(obj)
    if _learn_numpy(obj):  # numpy.float64 is a float, numpy.str_ a str
        return id_for_memo(obj, output_ref=output_ref)
    base = next(kind for kind in (str, int, float) if isinstance(obj, kind))
    # The base's own method: the subclass may have another idea of how it looks.
    value = base.__str__(obj) if base is str else base.__repr__(obj)
    return tagged("subclass", _class_name(obj), base.__name__, value.encode("utf-8", "surrogatepass"))


@id_for_memo.register(list)
@id_for_memo.register(tuple)
def _sequence(obj: list[Any] | tuple[Any, ...], output_ref: bool = False) -> bytes:
    _exactly(obj, list, tuple)
    parts = [_LIST if type(obj) is list else _TUPLE]
    for item in obj:
        # The first line of `_id`, without the call.
        plain = _registry.get(type(item)) is _plain
        part = pickle.dumps(item, _PROTOCOL) if plain else _id(item, output_ref)
        parts.append(b"%d:%b" % (len(part), part))
    return b"".join(parts)


@id_for_memo.register(dict)
def _dict(obj: dict[Any, Any], output_ref: bool = False) -> bytes:
    _exactly(obj, dict)
    if not obj:
        return _DICT
    items = [(_id(k) if type(k) is str else id_for_memo(k), _id(value, output_ref)) for k, value in obj.items()]
    items.sort()
    return _DICT + _with_lengths([part for item in items for part in item])


#: What `tagged` begins with for these.
_LIST, _TUPLE, _DICT = tagged("list"), tagged("tuple"), tagged("dict")


def _exactly(obj: object, *kinds: type) -> None:
    """Refuse subclasses of containers: they may hold more than their items."""
    if type(obj) not in kinds:
        base = next(kind for kind in kinds if isinstance(obj, kind))
        words = f"id_for_memo cannot work on subclasses of {base.__name__} such as {type(obj)}"
        raise ValueError(f"{words}; give it a function with @id_for_memo.register")


def _parsl_id(obj: Any, output_ref: bool = False) -> bytes:
    """`id_for_memo`, with Parsl's bytes for lists, tuples and dictionaries (unless they are registered anew)."""
    made_by = id_for_memo.dispatch(type(obj))
    if made_by is _sequence:
        _exactly(obj, list, tuple)
        parts = [_parsl_id(item, output_ref) for item in obj]
    elif made_by is _dict:
        _exactly(obj, dict)
        parts = [part for key in sorted(obj) for part in (_parsl_id(key), _parsl_id(obj[key], output_ref))]
    else:
        return id_for_memo(obj, output_ref=output_ref)
    # Each an object of its own: pickle writes one that it meets again otherwise.
    return pickle.dumps([bytes(bytearray(part)) for part in parts], _PROTOCOL)


# --- what Parsl does not know ------------------------------------------------------------------------------


@id_for_memo.register(bytes)
@id_for_memo.register(bytearray)
def _bytes(obj: bytes | bytearray, output_ref: bool = False) -> bytes:
    return tagged(_class_name(obj), len(obj), bytes(obj) if len(obj) <= _LARGE else hashlib.sha256(obj).digest())


@id_for_memo.register(complex)
def _complex(obj: complex, output_ref: bool = False) -> bytes:
    if _learn_numpy(obj):
        return id_for_memo(obj)
    return tagged(_class_name(obj), repr(obj.real), repr(obj.imag))


@id_for_memo.register(set)
@id_for_memo.register(frozenset)
def _set(obj: set[Any] | frozenset[Any], output_ref: bool = False) -> bytes:
    _exactly(obj, set, frozenset)
    return tagged(type(obj).__name__, *sorted([_id(item, output_ref) for item in obj]))


@id_for_memo.register(range)
def _range(obj: range, output_ref: bool = False) -> bytes:
    return tagged("range", obj.start, obj.stop, obj.step)


@id_for_memo.register(enum.Enum)
def _enum(obj: enum.Enum, output_ref: bool = False) -> bytes:
    # The value as well: flags joined to one have no name of their own.
    return tagged("enum", _class_name(obj), str(obj.name), id_for_memo(obj.value))


@id_for_memo.register(File)
def _file(obj: File, output_ref: bool = False) -> bytes:
    if output_ref or obj.scheme != "file":
        return tagged("File", obj.url)
    return tagged("File", obj.url, _content(obj.path))


@id_for_memo.register(PurePath)
def _path(obj: PurePath, output_ref: bool = False) -> bytes:
    # A pure path may be of another machine: there is nothing to look at.
    content = b"" if output_ref or not isinstance(obj, Path) else _content(obj)
    return tagged("path", str(obj), content)


def _content(path: str | os.PathLike[str]) -> bytes:
    """What changes when a file is written anew. Of a directory nothing: it changes with every file in it."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return b"absent"
    if not stat.S_ISREG(found.st_mode):
        return b""
    return tagged("file", found.st_size, found.st_mtime_ns)


@id_for_memo.register(FunctionType)
@id_for_memo.register(BuiltinFunctionType)
@id_for_memo.register(MethodType)
@id_for_memo.register(partial)
def _function(obj: Any, output_ref: bool = False) -> bytes:
    from mpiflow.kernel.function_key import function_key  # which needs this module for its constants

    return function_key(obj)


def _class_name(obj: object) -> str:
    return f"{type(obj).__module__}.{type(obj).__qualname__}"


# --- numpy, once there is a value of it --------------------------------------------------------------------


def _learn_numpy(obj: object) -> bool:
    """Register numpy's types when a value is of them, and of no type that is registered; whether it was.

    A value of numpy can be there only if numpy has been imported, so this never imports it.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(obj, numpy.ndarray | numpy.generic) or numpy.generic in id_for_memo.registry:
        return False
    # The last four have a Python number or string before numpy.generic among their bases, which would be asked.
    names = ("ndarray", "generic", "float64", "complex128", "str_", "bytes_")
    for kind in [getattr(numpy, name) for name in names]:
        id_for_memo.register(kind, _array)
    return True


def _array(obj: Any, output_ref: bool = False) -> bytes:
    """An array or scalar: its type, shape and values, in C order."""
    import numpy

    if isinstance(obj, numpy.ndarray) and type(obj) not in (numpy.ndarray, numpy.memmap):
        raise ValueError(f"unknown type for memoization: {type(obj)}")  # a mask, units, ...: more than its values
    array = numpy.asarray(obj)
    kind = "numpy array" if isinstance(obj, numpy.ndarray) else "numpy scalar"
    # numpy takes longer to spell a type than to hash a thousand numbers. Not kept for those made of others: they may
    # be equal and spelt otherwise.
    name = _number_type(array.dtype) if array.dtype.kind in "biufc" else str(array.dtype)
    return tagged(kind, name, repr(array.shape), _values(array))


_number_type = lru_cache(maxsize=64)(str)


def _values(array: Any) -> bytes:
    """Digest of the values of an array."""
    import numpy

    if array.dtype.names is not None:  # field by field: what lies between fields is anything
        return tagged("fields", *(tagged(name, _values(array[name])) for name in array.dtype.names))
    if array.dtype.kind not in "biufcSUmMV" or array.dtype.hasobject:
        return id_for_memo(array.ravel().tolist())  # memory of pointers says nothing
    flat: Any = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8) if array.nbytes else b""
    return hashlib.sha256(flat).digest()
