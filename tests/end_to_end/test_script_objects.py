"""Classes, enums and functions of the script itself: ``__main__`` on rank 0, and something else in a runner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Form, Jobs

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("launcher")]

SCRIPT = """
    import dataclasses
    import enum
    import functools
    import sys
    import typing

    import mpiflow

    class Plain:
        registry = []

        def __init__(self, value):
            self.value = value

        def __eq__(self, other):
            return type(other) is type(self) and self.value == other.value

    class Child(Plain):
        def doubled(self):
            return Child(2 * self.value)

    @dataclasses.dataclass(frozen=True)
    class Point:
        x: float
        y: float = 0.0
        more: list = dataclasses.field(default_factory=list)

    class Colour(enum.Enum):
        RED = 1
        BLUE = 2

    class Flags(enum.IntFlag):
        A = 1
        B = 2

    class Pair(typing.NamedTuple):
        first: int
        second: str

    class Trouble(Exception):
        def __init__(self, code):
            super().__init__(code)
            self.code = code

    CONSTANT = {"answer": 42}
    lambda_of_the_script = lambda x: x + CONSTANT["answer"]

    def add(a, b):
        return a + b

    class Callable:
        def __call__(self, x):
            return x * 3

        def method(self, x):
            return x * 4

        @staticmethod
        def static(x):
            return x * 5

        @classmethod
        def of_class(cls, x):
            return cls().method(x)

    @mpiflow.python_app
    def same(x):
        return x

    @mpiflow.python_app
    def kind(x):
        return type(x)

    @mpiflow.python_app
    def call(function, *args):
        return function(*args)

    @mpiflow.python_app
    def raises(code):
        raise Trouble(code)

    @mpiflow.python_app
    def judge(thing):
        checks = (
            isinstance(thing, (Plain, Point, Colour, Flags, Pair, Trouble)),
            thing is Colour.RED if isinstance(thing, Colour) else True,
            thing == Point(1.0, 2.0) if isinstance(thing, Point) else True,
        )
        return checks

    def main():
        if "load" in sys.argv:
            mpiflow.load()
        things = [
            Plain(3), Child(3), Point(1.0, 2.0), Colour.RED, Flags.A | Flags.B, Pair(1, "one"), Trouble(4),
        ]
        for thing in things:
            back = same(thing).result()
            assert type(back) is type(thing), (type(back), type(thing))
            if not isinstance(thing, Trouble):
                assert back == thing, back
            assert kind(thing).result() is type(thing)
            assert judge(thing).result() == (True, True, True), thing
        assert same(Colour.BLUE).result() is Colour.BLUE
        assert same([Child(1), {"deep": (Colour.RED, Plain(2))}]).result()[1]["deep"] == (Colour.RED, Plain(2))
        assert isinstance(same(Child(3)).result().doubled(), Child)
        assert same(Trouble(4)).result().code == 4

        assert call(functools.partial(add, 1), 2).result() == 3
        assert call(add, 1, 2).result() == 3
        assert call(lambda_of_the_script, 1).result() == 43
        assert call(Callable(), 1).result() == 3
        assert call(Callable().method, 1).result() == 4
        assert call(Callable.static, 1).result() == 5
        assert call(Callable.of_class, 1).result() == 4
        assert mpiflow.python_app(functools.partial(add, 1))(2).result() == 3
        assert mpiflow.python_app(Callable())(2).result() == 6
        assert same(Point).result() is Point
        assert same(add).result()(1, 2) == 3

        error = raises(7).exception()
        assert type(error) is Trouble and error.code == 7, error
        try:
            raises(8).result()
        except Trouble as caught:
            assert caught.code == 8
        assert all(type(child) is Child for child in mpiflow.map(Child, range(10)))
        assert list(mpiflow.map(lambda c: c.doubled().value, [Child(1), Child(2)])) == [2, 4]
        print("fine")

    if __name__ == "__main__":
        main()
"""


@pytest.mark.parametrize(("form", "isolation"), [("mpiexec", "runner"), ("mpiexec", "rank"), ("plain", "")])
def test_what_the_script_defines_goes_there_and_back(jobs: Jobs, form: Form, isolation: str) -> None:
    """What comes back is of the script's own class, not of a copy of it."""
    if form == "plain":
        assert jobs.run(SCRIPT, "load", form=form).well() == "fine\n"
    else:
        assert jobs.run(SCRIPT, form=form, options=["--isolation", isolation]).well() == "fine\n"


def test_classes_with_slots(jobs: Jobs) -> None:
    """A class that is sent by value keeps its slots, so that its instances find the way back."""
    script = """
        import dataclasses, mpiflow

        class Slotted:
            __slots__ = ("value", "unset")

            def __init__(self, value):
                self.value = value

        class Child(Slotted):
            __slots__ = "other"

            def __init__(self, value):
                super().__init__(value)
                self.other = -value

        @dataclasses.dataclass(slots=True)
        class Point:
            x: float
            more: list = dataclasses.field(default_factory=list)

        @mpiflow.python_app
        def same(x):
            return x, hasattr(x, "__dict__")

        for thing in (Slotted(5), Child(6), Point(7.0)):
            back, has_dict = same(thing).result()
            assert type(back) is type(thing) and not has_dict, (back, has_dict)
        assert same(Slotted(5)).result()[0].value == 5
        assert same(Child(6)).result()[0].other == -6
        assert same(Point(7.0)).result()[0] == Point(7.0)
        print("fine")
    """
    assert jobs.run(script, ranks=2).well() == "fine\n"


def test_two_tasks_of_one_message_do_not_share_an_object(jobs: Jobs) -> None:
    """Each task gets its own copy of a list that the script passed to all."""
    script = """
        import mpiflow

        @mpiflow.python_app
        def append(to, value, more=[]):
            to.append(value)
            return to

        with mpiflow.load():
            mine = [0]
            with mpiflow.superstep():
                futures = [append(mine, number) for number in range(1, 50)]
            assert [future.result() for future in futures] == [[0, number] for number in range(1, 50)]
            assert mine == [0]
        print("fine")
    """
    assert jobs.run(script, ranks=2, options=["--isolation", "rank"]).well() == "fine\n"
    assert jobs.run(script, form="plain").well() == "fine\n"


def test_module_beside_the_script_is_not_pickled_by_value(jobs: Jobs) -> None:
    """Its class keeps its identity, its state is each process's own."""
    jobs.write(
        "lib.py",
        """
        class Thing:
            def __init__(self, x):
                self.x = x

        def make(x):
            return Thing(x)
        """,
    )
    script = """
        import lib, mpiflow
        things = [future.result() for future in [mpiflow.python_app(lib.make)(i) for i in range(5)]]
        assert all(type(thing) is lib.Thing for thing in things)
        assert [thing.x for thing in mpiflow.map(lib.make, range(100))] == list(range(100))
        print("fine")
    """
    assert jobs.run(script).well() == "fine\n"
