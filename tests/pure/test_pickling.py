"""Calls, results and failures as bytes, and back."""

from __future__ import annotations

import builtins
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpiflow.comm.pickling import (
    RemoteTraceback,
    pack,
    pack_failure,
    pack_function,
    unpack,
    unpack_failure,
)
from mpiflow.comm.wire import INLINE
from mpiflow.errors import (
    BashExitFailure,
    DependencyError,
    DeserializationError,
    MissingOutputs,
    MpiflowError,
)


def there_and_back(value: object) -> Any:
    beside: list[Any] = []
    payload = pack(value, beside)
    return unpack(memoryview(payload), [memoryview(buffer).cast("B") for buffer in beside])


# --- calls and results --------------------------------------------------------------------------------------

_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(_plain)
def test_plain_data_comes_back_equal(value: object) -> None:
    assert there_and_back(value) == value


@given(st.lists(st.integers(0, 3 * INLINE), max_size=4), st.integers(0, 2 * INLINE))
def test_buffers_of_any_size_come_back_in_order(sizes: list[int], text: int) -> None:
    buffers = [bytes([place]) * size for place, size in enumerate(sizes)]
    value = {"text": "x" * text, "buffers": [pickle.PickleBuffer(buffer) for buffer in buffers]}
    beside: list[Any] = [b"of another task"]
    payload = pack(value, beside)
    assert beside[0] == b"of another task", "what was there is left alone"
    own = [memoryview(buffer).cast("B") for buffer in beside[1:]]
    assert [len(view) for view in own if len(view) < INLINE] == []
    large = [buffer for buffer in buffers if len(buffer) >= INLINE]
    assert [bytes(view) for view in own][-len(large) or len(own) :] == large
    assert (payload == b"") == (len(own) > len(large)), "a large pickle goes before the buffers"
    back = unpack(payload, own)
    assert back["text"] == value["text"]
    assert [bytes(buffer) for buffer in back["buffers"]] == buffers


@pytest.mark.parametrize(("size", "beside"), [(INLINE - 50, 0), (INLINE, 1)])
def test_a_buffer_of_the_limit_travels_beside(size: int, beside: int) -> None:
    attachments: list[Any] = []
    payload = pack(pickle.PickleBuffer(bytes(size)), attachments)
    assert len(attachments) == beside
    assert (len(payload) > size) == (not beside)


def test_a_pickle_above_the_limit_travels_beside() -> None:
    for size in range(INLINE - 30, INLINE):
        attachments: list[Any] = []
        payload = pack(b"x" * size, attachments)
        beside = len(pickle.dumps(b"x" * size, 5)) > INLINE
        assert len(attachments) == beside
        assert (payload == b"") == beside
        assert unpack(payload, attachments) == b"x" * size


def test_arrays_are_not_copied_into_the_stream() -> None:
    numpy = pytest.importorskip("numpy")
    small, large = numpy.arange(10), numpy.arange(INLINE, dtype="f8").reshape(256, 256)
    beside: list[Any] = []
    payload = pack(([large, small], {"transposed": large.T}), beside)
    assert 0 < len(payload) < 1000
    assert [memoryview(buffer).nbytes for buffer in beside] == [large.nbytes, large.nbytes]
    args, kwargs = there_and_back(([large, small], {"transposed": large.T, "sliced": large[::2]}))
    assert numpy.array_equal(args[0], large)
    assert numpy.array_equal(args[1], small)
    assert numpy.array_equal(kwargs["transposed"], large.T)
    assert numpy.array_equal(kwargs["sliced"], large[::2])


def test_an_array_in_writable_memory_can_be_written() -> None:
    numpy = pytest.importorskip("numpy")
    beside: list[Any] = []
    payload = pack(numpy.zeros(INLINE), beside)
    array = unpack(payload, [memoryview(bytearray(memoryview(buffer).cast("B"))) for buffer in beside])
    array += 1
    assert array.sum() == INLINE


def test_two_tasks_do_not_come_to_share_a_list() -> None:
    shared: list[int] = []
    first, second = (there_and_back((shared,)) for _ in range(2))
    first[0].append(1)
    assert second == ([],)


@pytest.mark.parametrize("make", [lambda: lambda x: x + 1, lambda: _closure(1)], ids=["lambda", "closure"])
def test_what_plain_pickle_refuses_goes_by_value(make: Callable[[], Callable[[int], int]]) -> None:
    assert there_and_back(make())(2) == 3
    assert unpack(pack_function(make()))(2) == 3


def iter_of_nothing() -> Iterator[int]:
    yield from ()


def _closure(added: int) -> Callable[[int], int]:
    def add(value: int) -> int:
        return value + added

    return add


def test_a_class_made_inside_a_function_goes_by_value_and_buffers_still_beside() -> None:
    class Inner:
        def __init__(self, data: Any) -> None:
            self.data = data

    beside: list[Any] = []
    payload = pack(Inner(pickle.PickleBuffer(bytes(INLINE))), beside)
    assert len(beside) == 1, "once, though it was tried twice"
    back = unpack(payload, beside)
    assert type(back) is Inner, "it is this process's own class again"
    assert bytes(back.data) == bytes(INLINE)


def test_what_nobody_can_pickle_is_an_error_of_cloudpickle() -> None:
    with pytest.raises((TypeError, pickle.PicklingError), match="generator"):
        pack(iter_of_nothing(), [])
    with pytest.raises((TypeError, pickle.PicklingError)):
        pack_function(_Refusing())  # type: ignore[arg-type]


class _Refusing:
    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("not this one")


def test_an_importable_function_goes_by_its_name() -> None:
    data = pack_function(traceback.format_exception)
    assert b"format_exception" in data
    assert len(data) < 100


# --- the script's own classes -------------------------------------------------------------------------------

_SCRIPT = """
class Point:
    def __init__(self, x):
        self.x = x

def double(point):
    return Point(2 * point.x)

class Mishap(Exception):
    def __init__(self, where, why):
        super().__init__(where, why)
        self.where = where
"""

_RUNNER = """
import pickle, sys
from mpiflow.comm.pickling import pack, pack_failure, unpack
function, payload = pickle.load(sys.stdin.buffer)
assert "Point" not in vars(sys.modules["__main__"])
(point,), kwargs = unpack(payload)
try:
    answer = pack(unpack(function)(point), [])
except Exception as error:
    answer = pack_failure(error)
sys.stdout.buffer.write(answer)
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script's ``__main__``."""
    module = ModuleType("__main__")
    exec(_SCRIPT, module.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def in_a_runner(function: Callable[..., object], *args: object) -> bytes:
    call = pickle.dumps((pack_function(function), pack((args, {}), [])))
    ended = subprocess.run([sys.executable, "-c", _RUNNER], input=call, stdout=subprocess.PIPE, check=True)
    return ended.stdout


def test_the_scripts_own_class_and_function_work_where_main_is_another(script: ModuleType) -> None:
    back = unpack(in_a_runner(script.double, script.Point(21)))
    assert back.x == 42
    assert type(back) is script.Point, "an instance that comes back is one of the script's own class"


def test_the_scripts_own_exception_comes_back_as_itself(script: ModuleType) -> None:
    exec("def fail(point):\n    raise Mishap('here', point.x)", script.__dict__)
    error = unpack_failure(in_a_runner(script.fail, script.Point(3)), "task 0 (fail)")
    assert type(error) is script.Mishap
    assert error.args == ("here", 3)


def test_a_string_that_says_main_is_a_false_alarm_and_no_more(script: ModuleType) -> None:
    assert there_and_back("__main__") == "__main__"


# --- failures -----------------------------------------------------------------------------------------------


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """The error, as a task would have raised it."""
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def failed(error: BaseException) -> BaseException:
    return unpack_failure(memoryview(pack_failure(error)), "task 7 (divide)")


def causes(error: BaseException) -> list[BaseException]:
    chain = []
    link: BaseException | None = error
    while link is not None:
        chain.append(link)
        link = link.__cause__
    return chain


def test_a_failure_comes_back_with_its_causes_and_where_it_happened() -> None:
    def divide(number: int) -> float:
        return number / 0

    try:
        try:
            divide(3)
        except ZeroDivisionError as error:
            raise ValueError("no number", 3) from error
    except ValueError as error:
        back = failed(error)
    value, division, where = causes(back)
    assert (type(value), value.args) == (ValueError, ("no number", 3))
    assert type(division) is ZeroDivisionError
    assert isinstance(where, RemoteTraceback)
    assert "return number / 0" in str(where)
    assert "raise ValueError" in str(where)
    assert "task 7 (divide)" in str(where)
    assert "In task 7 (divide)" in "".join(traceback.format_exception(back))


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        OSError(2, "No such file", "x.txt"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        KeyboardInterrupt(),
        SystemExit(3),
        BashExitFailure("app", 3),
        MissingOutputs("Missing outputs from app x", []),
        DependencyError([(ValueError("x"), "task 1")], 2),
        MpiflowError(),
    ],
    ids=repr,
)
def test_an_exception_keeps_its_type_words_and_attributes(error: BaseException) -> None:
    back = failed(raised(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert {k: str(v) for k, v in vars(back).items()} == {k: str(v) for k, v in vars(error).items()}


def test_a_cause_that_comes_round_again_ends_the_chain() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert [str(link) for link in causes(failed(first))[:2]] == ["first", "second"]
    assert len(causes(failed(first))) == 3


def test_a_chain_of_a_thousand_causes_comes_back() -> None:
    error: BaseException = ValueError(0)
    for number in range(1, 1000):
        error = raised(ValueError(number), error)
    assert [link.args[0] for link in causes(failed(error))[:-1]] == list(range(999, -1, -1))


class _WantsMore(Exception):
    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{why} in {where}")


class _HoldsAGenerator(Exception):
    def __init__(self) -> None:
        super().__init__("holds one")
        self.generator = iter_of_nothing()


class _BrokenText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class _BecomesSomethingElse(Exception):
    def __reduce__(self) -> tuple[Any, ...]:
        return str, ("not an exception",)


class _FailsWithItsOwnKind(Exception):
    def __reduce__(self) -> tuple[Any, ...]:
        raise self


@dataclass(frozen=True)
class _Frozen(Exception):
    code: int


def test_an_exception_that_cannot_be_rebuilt_is_told_in_words() -> None:
    back = failed(raised(_WantsMore("there", "mishap")))
    assert type(back) is DeserializationError
    assert str(back).startswith(
        "task 7 (divide) raised _WantsMore: mishap in there (the exception itself cannot"
    )
    assert "TypeError" in str(back)
    assert "_WantsMore: mishap in there" in str(back.__cause__)


@pytest.mark.parametrize("kind", [_HoldsAGenerator, _FailsWithItsOwnKind])
def test_an_exception_that_cannot_be_pickled_is_told_in_words(kind: type[Exception]) -> None:
    back = failed(raised(kind()))
    assert type(back) is DeserializationError
    assert f"raised {kind.__name__}" in str(back)
    assert "it could not be pickled" in str(back)


def test_an_exception_whose_text_cannot_be_made_is_still_a_failure() -> None:
    back = failed(raised(_BrokenText()))
    assert type(back) is _BrokenText
    assert isinstance(back.__cause__, RemoteTraceback)

    class Hidden(_BrokenText):
        generator: object

    hidden = Hidden()
    hidden.generator = iter_of_nothing()
    back = failed(raised(hidden))
    assert "its text cannot be made: RuntimeError" in str(back)


def test_an_exception_that_becomes_something_else_is_told_in_words() -> None:
    back = failed(raised(_BecomesSomethingElse("x")))
    assert isinstance(back, DeserializationError)
    assert "_BecomesSomethingElse" in str(back)


def test_an_exception_that_cannot_be_changed_still_comes_back() -> None:
    """A frozen dataclass lets nobody set an attribute, not even pickle: its words come instead."""
    back = failed(raised(_Frozen(3)))
    assert isinstance(back, _Frozen | DeserializationError)
    assert "3" in str(back)


def test_a_cause_that_cannot_travel_cuts_the_chain_and_not_the_words() -> None:
    back = failed(raised(ValueError("top"), raised(_HoldsAGenerator(), ValueError("root"))))
    assert [type(link) for link in causes(back)] == [ValueError, RemoteTraceback]
    assert "root" in str(causes(back)[-1])
    assert "holds one" in str(causes(back)[-1])


def test_a_class_made_inside_a_function_comes_back_as_an_exception() -> None:
    class Local(Exception):
        pass

    back = failed(raised(Local("x")))
    assert type(back) is Local


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes and groups came with 3.11")
def test_notes_and_groups_come_back() -> None:
    group_of: Any = vars(builtins)["ExceptionGroup"]
    error: Any = ValueError("x")
    error.add_note("and mind the gap")
    back: Any = failed(raised(group_of("several", [error, KeyError("y")])))
    assert isinstance(back, group_of)
    assert back.exceptions[0].__notes__ == ["and mind the gap"]


@given(st.text(), st.text())
def test_any_text_comes_back(text: str, other: str) -> None:
    assert failed(ValueError(text, other)).args == (text, other)


def test_a_text_that_is_no_unicode_comes_back() -> None:
    assert failed(OSError("\udcff")).args == ("\udcff",)
