"""What tells functions from each other: all that their results can depend on, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import lru_cache, partial, wraps
from typing import Any

import pytest

from mpiflow.kernel.function_key import function_key


def defined(source: str, name: str = "f", **namespace: Any) -> Any:
    """What a script of this source defines under a name."""
    namespace["__name__"] = "script"
    exec(compile(source, "script.py", "exec", dont_inherit=True), namespace)
    return namespace[name]


SAME = [
    ("def f(x): return x + 1", "\n\n\ndef f(x):\n    # moved, and with a remark\n    return x + 1"),
    ("def g(): return 1\ndef f(x): return g()", "def f(x): return g()\n\ndef g(): return 1"),
    ("N = 1\ndef f(x): return N", "M = 2\nN = 1\ndef f(x): return N"),
    ("import os\ndef f(x): return os.getpid()", "import os, sys\ndef f(x): return os.getpid()"),
]
DIFFERENT = [
    ("def f(x): return x + 1", "def f(x): return x + 2"),
    ("def f(x): return x + 1", "def f(x): return x - 1"),
    ("def f(x): return x.a", "def f(x): return x.b"),
    ("def f(x): return 1", "def f(x): return 1.0"),
    ("def f(x): return 1", "def f(x): return True"),
    ("def f(x): return 0.0", "def f(x): return -0.0"),
    ("def f(x): return x in {1, 2}", "def f(x): return x in {1, 3}"),
    ("def f(x): return x in {1, 2}", "def f(x): return x in (1, 2)"),
    ("def f(x, y=1): return y", "def f(x, y=2): return y"),
    ("def f(x, *, y=1): return y", "def f(x, *, y=2): return y"),
    ("def f(x, y=[1]): return y", "def f(x, y=[2]): return y"),
    ("def f(x, y): return x", "def f(x, *y): return x"),
    ("def f(x): return (lambda: 1)()", "def f(x): return (lambda: 2)()"),
    ("def f(x): return [i for i in x]", "def f(x): return [-i for i in x]"),
    ("N = 1\ndef f(x): return N", "N = 2\ndef f(x): return N"),
    ("N = [1]\ndef f(x): return N", "N = [2]\ndef f(x): return N"),
    ("def f(x): return N", "N = 2\ndef f(x): return N"),
    ("def g(): return 1\ndef f(x): return g()", "def g(): return 2\ndef f(x): return g()"),
    ("def h(): return 1\ndef g(): return h()\ndef f(x): return g()",
     "def h(): return 2\ndef g(): return h()\ndef f(x): return g()"),
    ("def g(): return 1\ndef f(x): return [g() for i in x]", "def g(): return 2\ndef f(x): return [g() for i in x]"),
    ("class C:\n def m(self): return 1\ndef f(x): return C().m()",
     "class C:\n def m(self): return 2\ndef f(x): return C().m()"),
    ("class B:\n v = 1\nclass C(B): pass\ndef f(x): return C.v",
     "class B:\n v = 2\nclass C(B): pass\ndef f(x): return C.v"),
    ("import os\ndef f(x): return os.getpid()", "import sys as os\ndef f(x): return os.getpid()"),
    ("def f(x):\n try: return x()\n except ValueError: return 1",
     "def f(x):\n try: return x()\n except KeyError: return 1"),
    ("def f(n): return f(n - 1)", "def f(n): return f(n - 2)"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_does_nothing_does_not_count(one: str, other: str) -> None:
    assert function_key(defined(one)) == function_key(defined(other))


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_is_done_counts(one: str, other: str) -> None:
    assert function_key(defined(one)) != function_key(defined(other))


def test_two_lambdas_on_one_line_differ() -> None:
    one, other = (lambda x: x + 1), (lambda x: x + 2)
    assert function_key(one) != function_key(other)


def test_name_and_module_count() -> None:
    one, other = defined("def f(x): return x"), defined("def g(x): return x", "g")
    assert function_key(one) != function_key(other)
    moved = defined("def f(x): return x")
    moved.__module__ = "elsewhere"
    assert function_key(one) != function_key(moved)


def closing_over(value: Any) -> Callable[[], Any]:
    return lambda: value


class Model:
    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)


class WithLock(Model):
    def __init__(self, **state: Any) -> None:
        super().__init__(**state)
        self.lock = threading.Lock()


def test_the_values_in_a_closure_count() -> None:
    values = [1, 2, "a", [1], {"a": 1}, {1, 2}, Model(a=1), Model(a=2), Model(b=1), len, Model, Model(a=Model(a=1))]
    keys = [function_key(closing_over(value)) for value in values]
    assert len(set(keys)) == len(values)
    assert keys == [function_key(closing_over(value)) for value in values]


def test_what_cannot_be_pickled_counts_by_its_type() -> None:
    locks = [function_key(closing_over(threading.Lock())) for _ in range(2)]
    assert locks[0] == locks[1]
    holders = [function_key(closing_over(WithLock(count=i))) for i in range(2)]
    assert holders[0] == holders[1] != locks[0]
    futures: list[Future[int]] = [Future(), Future()]
    futures[0].set_result(1)
    assert function_key(closing_over(futures[0])) == function_key(closing_over(futures[1]))


def test_objects_that_hold_each_other_end() -> None:
    one, other = Model(), Model(n=1)
    one.other, other.other = other, one  # type: ignore[attr-defined]
    assert function_key(closing_over(one)) != function_key(closing_over(other))
    rounded: list[Any] = [1]
    rounded.append(rounded)
    assert function_key(closing_over(rounded)) == function_key(closing_over(rounded))


def test_a_closure_that_is_not_filled_yet() -> None:
    def made() -> Callable[[], Any]:
        def f() -> Any:
            return later

        key = function_key(f)
        later = 1
        assert key != function_key(f)
        return f

    made()


def test_what_is_no_plain_function() -> None:
    keys = [
        function_key(partial(closing_over, 1)),
        function_key(partial(closing_over, 2)),
        function_key(partial(closing_over, value=2)),
        function_key(len),
        function_key(abs),
        function_key(Model(a=1).__init__),
        function_key(Model),
        function_key(str.upper),
        function_key(Model(a=1)),
        function_key(lru_cache(closing_over)),
    ]
    assert len(set(keys)) == len(keys)


def test_of_what_wraps_a_function_the_function_counts() -> None:
    def wrapped(value: int) -> Callable[[], Any]:
        @wraps(closing_over)
        def wrapper() -> Any:
            return value

        return wrapper

    assert function_key(closing_over(lru_cache(wrapped(1)))) != function_key(closing_over(lru_cache(wrapped(2))))


def test_a_key_is_kept_while_the_globals_are_the_same_and_no_longer() -> None:
    f = defined("N = 1\ndef g(): return N\ndef f(x): return g()")
    first = function_key(f)
    assert function_key(f) is first
    f.__globals__["N"] = 2
    second = function_key(f)
    assert second != first
    f.__globals__["N"] = 1
    assert function_key(f) == first
    f.__globals__["g"] = defined("def g(): return 7", "g")
    assert function_key(f) != first


def test_a_global_that_changes_in_place_is_seen() -> None:
    f = defined("N = [1]\ndef f(x): return N")
    first = function_key(f)
    f.__globals__["N"].append(2)
    assert function_key(f) != first


def test_functions_of_other_modules_count_by_name() -> None:
    other = defined("def g(): return 1", "g")
    other.__module__ = "library"
    newer = defined("def g(): return 2", "g")
    newer.__module__ = "library"
    source = "def f(x): return g()"
    assert function_key(defined(source, g=other)) == function_key(defined(source, g=newer))


def test_using_a_class_does_not_change_it() -> None:
    f = defined("class C:\n def m(self): return 1\ndef f(): return C()")
    before = function_key(f)
    f().__reduce_ex__(2)  # which leaves its mark
    assert "__slotnames__" in vars(f.__globals__["C"])
    assert function_key(f) == before


def test_how_a_file_was_compiled_does_not_count() -> None:
    plain, with_future = "def f(x): return x", "from __future__ import annotations\ndef f(x): return x"
    assert function_key(defined(plain)) == function_key(defined(with_future))
