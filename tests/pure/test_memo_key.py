"""Keys of calls: the same for the same call in any process, another for any other."""

from __future__ import annotations

import dataclasses
import enum
import os
import pickle
import subprocess
import sys
from collections import OrderedDict, namedtuple
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

from mpiflow.data.files import File
from mpiflow.kernel.app import App
from mpiflow.kernel.memo_key import code_hash, code_key, id_for_memo, numbered, parsl_key


def body(x: int) -> int:
    return x + 1


def task(*args: Any, **more: Any) -> dict[str, Any]:
    kwargs = more.pop("kwargs", {})
    return {"func": body, "func_name": "body", "args": args, "kwargs": kwargs, "ignore_for_cache": [], **more}


def key(*args: Any, **more: Any) -> str:
    return code_key(task(*args, **more))


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


class Bits(enum.Flag):
    A = 1
    B = 2


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0


@dataclasses.dataclass
class Other:
    x: Any
    y: Any = 0


class Metre(float):
    pass


DIFFERENT = [
    None, True, False, 0, 1, 2, 1.0, -0.0, 0.0, "1", "", b"1", b"", bytearray(b"1"), 1j, complex(0, -0.0), [], [1],
    [[1]], [1, 2], [2, 1], (), (1,), (2, 1), {}, {1: 2}, {2: 1}, {"a": 1}, {"a": "1"}, set(), {1}, {"a", "b"}, {"a"},
    frozenset(), frozenset({1}), range(3), range(0, 3, 2), Colour.RED, Colour.BLUE, Level.LOW, Bits.A, Bits.A | Bits.B,
    Point(1), Point(1, 1), Other(1), Metre(1.0), Path("/no/such"), PurePosixPath("/no/such"), File("/no/such"),
    File("http://host/x"), File("http://host/y"), b"x" * 5000, b"x" * 4999 + b"y",
    np.array([1, 2]), np.array([2, 1]), np.array([[1, 2]]), np.array([1.0, 2.0]), np.array([1, 2], dtype="int32"),
    np.int64(1), np.int32(1), np.float64(1.0), np.float32(1.0), np.str_("1"), np.bytes_(b"1"), np.bool_(True),
    np.complex128(1j), np.array(1), np.array([], dtype=float), np.array(["a", "bc"]), np.array([None, "a"]),
    np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]), np.datetime64("2026-01-01"), len, body, partial(body, 1),
    partial(body, 2),
]  # fmt: skip


def test_different_values_have_different_ids() -> None:
    ids = [id_for_memo(value) for value in DIFFERENT]
    twins = [(DIFFERENT[i], DIFFERENT[j]) for i in range(len(ids)) for j in range(i) if ids[i] == ids[j]]
    assert twins == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1: 0, "b": 2}, {"b": 2, 1: 0}),
        ({(1, 2): 0, None: 1}, {None: 1, (1, 2): 0}),
        ({frozenset("ab"): 1, frozenset("c"): 2}, {frozenset("c"): 2, frozenset("ba"): 1}),
        ({"x", "y", 3}, {3, "y", "x"}),
        (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))),
        (np.arange(10)[::2], np.array([0, 2, 4, 6, 8])),
        (Point({"a", "b"}), Point({"b", "a"})),
        ([[1, 2], [1, 2]], [[1, 2]] * 2),
    ],
)
def test_equal_values_have_one_id(one: object, other: object) -> None:
    assert id_for_memo(one) == id_for_memo(other)


def test_padding_between_fields_of_an_array_does_not_count() -> None:
    kind = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    one, other = np.zeros(3, kind), np.zeros(3, kind)
    other.view(np.uint8).reshape(3, -1)[:, 1:8] = 7
    assert id_for_memo(one) == id_for_memo(other)
    other["b"][1] = 1
    assert id_for_memo(one) != id_for_memo(other)


class Unknown:
    pass


@pytest.mark.parametrize("value", [Unknown(), object(), iter([]), [1, [Unknown()]], {"a": Unknown()}, Point(Unknown())])
def test_an_unknown_type_is_an_error(value: object) -> None:
    with pytest.raises(ValueError, match="unknown type for memoization: <class"):
        id_for_memo(value)


@pytest.mark.parametrize("value", [OrderedDict(a=1), namedtuple("P", "x")(1), type("L", (list,), {})([1])])
def test_a_subclass_of_a_container_is_an_error(value: object) -> None:
    with pytest.raises(ValueError, match=r"cannot work on subclasses of (dict|tuple|list) such as"):
        id_for_memo(value)


def test_a_masked_array_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"unknown type for memoization: .*MaskedArray"):
        id_for_memo(np.ma.masked_array([1, 2], [True, False]))


def test_a_type_of_the_user_is_known_once_it_is_registered() -> None:
    class Mine:
        def __init__(self, x: int) -> None:
            self.x = x

    @id_for_memo.register(Mine)
    def _(mine: Mine, output_ref: bool = False) -> bytes:
        return pickle.dumps((mine.x, output_ref))

    assert id_for_memo([Mine(1)]) == id_for_memo([Mine(1)]) != id_for_memo([Mine(2)])
    assert id_for_memo([Mine(1)]) != id_for_memo([Mine(1)], output_ref=True)


@pytest.mark.parametrize("kind", [File, Path])
def test_a_local_file_counts_by_path_size_and_time(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    absent = id_for_memo(kind(str(path)))
    path.write_text("one")
    os.utime(path, ns=(0, 1000))
    first = id_for_memo(kind(str(path)))
    assert first != absent
    assert first == id_for_memo(kind(str(path)))
    os.utime(path, ns=(0, 1001))
    later = id_for_memo(kind(str(path)))
    path.write_text("three")
    os.utime(path, ns=(0, 1001))
    assert len({absent, first, later, id_for_memo(kind(str(path)))}) == 4


@pytest.mark.parametrize("kind", [File, Path])
def test_of_an_output_only_the_name_counts(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    before = id_for_memo([kind(str(path))], output_ref=True)
    path.write_text("written")
    assert id_for_memo([kind(str(path))], output_ref=True) == before
    assert id_for_memo([kind(str(path) + "2")], output_ref=True) != before


# --- keys of calls -----------------------------------------------------------------------------------------


def test_a_key_counts_function_arguments_outputs_and_occurrence(tmp_path: Path) -> None:
    out, other = File(str(tmp_path / "a")), File(str(tmp_path / "b"))
    keys = [
        key(1),
        key(2),
        key(1, 2),
        key(1, kwargs={"y": 1}),
        key(1, kwargs={"y": 2}),
        key(1, kwargs={"outputs": [out]}),
        key(1, kwargs={"outputs": [other]}),
        key(1, kwargs={"outputs": []}),
        key(1, occurrence=0),
        key(1, occurrence=1),
        key(1, func=id_for_memo),
    ]
    assert len(set(keys)) == len(keys)
    before = key(1, kwargs={"outputs": [out]})
    (tmp_path / "a").write_text("there")
    assert key(1, kwargs={"outputs": [out]}) == before
    assert key(1, occurrence=None) == key(1)
    assert [len(k) for k in keys] == [32] * len(keys)


#: Calls of `len`, whose key is the same under each version of Python, and the keys they had in the first journals.
KNOWN = [
    ((), {}, {}, "da9447207a809d436377ffe302c5a807"),
    ((1,), {}, {}, "6959f72f4704a2b40ba890e30a1e8e9f"),
    (("a", 2.5, None, True), {}, {}, "9122eb70cf093ee2a735e0a805c5afd6"),
    (([1, (2, "x")], {"b": 1, "a": {3}}), {}, {}, "728cc5b419e2daf024ba54edbda1641b"),
    ((1,), {"y": 2, "x": [1]}, {}, "07a3a461541a2b0e5569808724222459"),
    ((1,), {"y": 2, "outputs": ["o"]}, {}, "04a6ed6379e1a3a982925b26167f2419"),
    ((1,), {"y": 2, "z": 3}, {"ignore_for_cache": ["z"]}, "f3502abe436f328f0522374db97620b2"),
    ((1,), {}, {"occurrence": 2}, "f43cd1b9321e60b3ea7186d1dbbb3f5d"),
    ((1,), {}, {"app_type": "bash"}, "0633f218ef43e84b3fc6c8983d563d81"),
    ((b"x", range(3)), {}, {}, "8ba10921cb743283040cd15431ecf6e0"),
    ((np.arange(3, dtype="<i8"), np.float64(1)), {}, {}, "5eeeab2d2d72da8b1343877747a6dae2"),
]


@pytest.mark.parametrize(("args", "kwargs", "more", "known"), KNOWN)
def test_keys_are_those_of_journals_that_are_there_already(
    args: tuple[Any, ...], kwargs: dict[str, Any], more: dict[str, Any], known: str
) -> None:
    record = {"func": len, "args": list(args), "kwargs": kwargs, "ignore_for_cache": [], "app_type": "python", **more}
    assert code_key(record) == known


def hashed(app: App, args: tuple[Any, ...], kwargs: dict[str, Any], more: dict[str, Any]) -> str:
    """The key of a call that has no record."""
    call = code_hash(app, args, kwargs, more.get("ignore_for_cache", ()))
    return call.hexdigest() if "occurrence" not in more else numbered(call, more["occurrence"])


@pytest.mark.parametrize("function", [len, body, Point, partial(body, 1), lambda x: x])
def test_a_call_without_a_record_has_the_key_of_one_with(function: Any) -> None:
    for args, kwargs, more, _ in KNOWN:
        app = App(function, kind=more.get("app_type", "python"))
        record = {"func": function, "args": list(args), "kwargs": kwargs, "app_type": app.kind, **more}
        for _ in range(2):  # the second finds the function's part
            assert hashed(app, args, kwargs, more) == code_key(record)


def test_a_call_without_a_record_says_what_is_wrong_in_the_same_words() -> None:
    app = App(body)
    for wrong in (((Unknown(),), {}, []), ((1,), {"y": 1}, ["z"]), ((1,), {}, ["z"])):
        args, kwargs, ignored = wrong
        with pytest.raises((KeyError, ValueError)) as without:
            code_hash(app, args, kwargs, ignored)
        with pytest.raises((KeyError, ValueError)) as with_one:
            key(*args, kwargs=kwargs, ignore_for_cache=ignored)
        assert repr(without.value) == repr(with_one.value)


def test_a_callable_object_that_has_changed_is_another() -> None:
    class Model:
        __hash__ = None  # type: ignore[assignment]

        def __init__(self) -> None:
            self.weights = [1]

        def __call__(self, x: int) -> int:
            return x * self.weights[0]

    model = Model()
    app = App(model)
    before = code_hash(app, (1,), {}, ()).hexdigest()
    model.weights[0] = 2
    assert code_hash(app, (1,), {}, ()).hexdigest() != before


@pytest.mark.parametrize("kind", [int, str, list, tuple, dict])
def test_a_plain_type_that_is_registered_anew_counts_as_registered(kind: Any) -> None:
    values = [kind(), [kind()], {"k": kind()}, {"k": (kind(),)}]
    app = App(body)

    def all_ids() -> list[bytes]:
        keys = [code_hash(app, (value,), {}, ()).hexdigest().encode() for value in values]
        return [id_for_memo(value) for value in values] + keys + [code_hash(app, (), {}, ()).digest()]

    ours, before = id_for_memo.dispatch(kind), all_ids()
    id_for_memo.register(kind, lambda obj, output_ref=False: b"of the user's own")
    try:
        changed = all_ids()
    finally:
        id_for_memo.register(kind, ours)
    assert changed[0] == b"of the user's own"
    assert not set(changed[:8]) & set(before[:8])
    assert (changed[8] != before[8]) == (kind in (list, dict)), "a call's arguments are a list and a dict"
    assert all_ids() == before


def test_ignored_arguments_do_not_count() -> None:
    ignoring: dict[str, Any] = {"ignore_for_cache": ["y"]}
    assert key(1, kwargs={"y": 1}, **ignoring) == key(1, kwargs={"y": Unknown()}, **ignoring) == key(1)
    both = {"ignore_for_cache": ["y", "y", "outputs"]}
    assert key(1, kwargs={"y": 1, "outputs": [Unknown()]}, **both) == key(1)


def test_ignoring_what_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError, match=r"ignore_for_cache names 'z', which this call of body lacks.*'y'"):
        key(1, kwargs={"y": 1}, ignore_for_cache=["z"])


def test_a_key_by_name_does_not_see_the_body() -> None:
    def one() -> int:
        return 1

    def two() -> int:
        return 2

    two.__name__ = "one"
    assert parsl_key(task(func=one)) == parsl_key(task(func=two))
    assert code_key(task(func=one)) != code_key(task(func=two))


def test_a_key_by_name_is_parsls() -> None:
    """Figures from Parsl 2026.10.26 for this function of a script, so that its checkpoints are found."""

    def f() -> None: ...

    f.__module__ = "__main__"
    nested = {"b": [1, 2.5, None, True], "a": ("t",)}
    calls = [((1,), {}), (("a",), {"y": nested}), (([1, [2, (3, "x")]],), {"z": 3})]
    keys = [parsl_key(task(*args, kwargs=kwargs, func=f)) for args, kwargs in calls]
    assert keys == [
        "405937a002691b92f7aef9a658e4f3f7",
        "74c9345511ce1ee9710088a56d5c47c1",
        "cb1ab9fb359a1054fdbdc1b7b3afb788",
    ]


_IN_A_PROCESS = """
import sys
from functools import partial
from pathlib import PurePosixPath
from mpiflow.kernel.memo_key import code_key
import numpy as np
turn = (lambda items: list(items)) if sys.argv[1] == "there" else (lambda items: list(items)[::-1])
WORDS = {w for w in turn(["red", "green", "blue", "white", "black"])}
TABLE = {w: {w, w + w} for w in turn(["x", "y", "z"])}
class Model:
    kinds = {"p", "q", "r"}
    def __init__(self, names): self.names = names
    def __call__(self, x): return x in {"left", "right", "up"}
def helper(x, seen=frozenset({"a", "b", "c"})): return x in WORDS or main(x)
def main(x, *, table={"k": {"m", "n"}}): return helper(x) or x in {"one", "two", "three"} or TABLE[x] or Model
def make(model): return lambda x: model(x) if x not in {"s", "t", "u"} else [w for w in WORDS]
words = {w for w in turn(["one", "two", "three", "four"])}
for function in (main, make(Model(words)), make({w: 1 for w in turn("abc")}), partial(main, words), Model(words)):
    args = (words, {w: words for w in turn("abc")}, frozenset(words), [np.arange(3), PurePosixPath("/a")])
    record = {"func": function, "args": args, "kwargs": {w: 1 for w in turn("xyz")}, "ignore_for_cache": ["x"]}
    print(code_key(record))
"""


def test_keys_do_not_depend_on_the_hash_seed_nor_on_the_order_of_sets_and_dicts() -> None:
    answers = set()
    for seed in "0", "1", "4711":
        for order in "there", "back":
            line = [sys.executable, "-c", _IN_A_PROCESS, order]
            environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
            ended = subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=60)
            assert ended.stderr == ""
            answers.add(ended.stdout)
    (answer,) = answers
    assert len(set(answer.split())) == 5


def test_ids_do_not_import_numpy() -> None:
    script = "import sys; from mpiflow.kernel.memo_key import id_for_memo; id_for_memo([1, 'a', {2.0}]); "
    script += "print('numpy' in sys.modules)"
    line = [sys.executable, "-c", script]
    assert subprocess.run(line, capture_output=True, text=True, check=True, timeout=60).stdout == "False\n"
