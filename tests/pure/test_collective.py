"""Whether a frame is inside an MPI collective, told from its source and the objects it names."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any, TypeVar

import pytest

from mpiflow.monitor.collective import collective_of, collective_words

Found = TypeVar("Found")
#: Where the line is all that is known, two calls in one line cannot be told apart.
EXACTLY = pytest.mark.skipif(sys.version_info < (3, 11), reason="Python knows columns from 3.11 on")
CALLS = ("Barrier", "bcast", "gather", "allreduce", "reduce", "Split", "recv")


@pytest.fixture
def mpi(monkeypatch: pytest.MonkeyPatch) -> Any:
    """mpi4py.MPI as far as it is looked at; the real one would start MPI in the process of the tests."""
    module: Any = ModuleType("mpi4py.MPI")
    module.Intracomm = type("Intracomm", (), {})
    module.COMM_SELF = module.Intracomm()
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", module)
    script = ModuleType("__main__")
    script.__file__ = "<script>"
    monkeypatch.setitem(sys.modules, "__main__", script)
    return module


def at_call(mpi: Any, source: str, look: Callable[[FrameType], Found]) -> Found:
    """What a look at the frame of a script gives while it is inside the one call of this source."""
    found: list[Found] = []

    def call(*args: object, **kwargs: object) -> int:
        found.append(look(sys._getframe(1)))
        return 0

    class Communicator(mpi.Intracomm):  # type: ignore[misc]
        def __init__(self) -> None:
            vars(self).update(dict.fromkeys(CALLS, call))

    vars(mpi.COMM_SELF).update(dict.fromkeys(CALLS, call))
    world, other = Communicator(), SimpleNamespace(**dict.fromkeys(CALLS, call))
    script = sys.modules["__main__"]
    names: dict[str, object] = {
        "MPI": SimpleNamespace(COMM_WORLD=world),
        "world": world,
        "self": SimpleNamespace(comm=world),
        "other": other,
        "alone": mpi.COMM_SELF,
        "get_comm": lambda: world,
        "get_other": lambda: other,
        "call": call,
    }
    vars(script).update(names)
    linecache.cache["<script>"] = (len(source), None, source.splitlines(True), "<script>")
    try:
        exec(compile(source, "<script>", "exec"), vars(script))
    finally:
        del linecache.cache["<script>"]
    (only,) = found
    return only


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("MPI.COMM_WORLD.Barrier()", "MPI.COMM_WORLD.Barrier"),
        ("x = 1\nworld.bcast(\n    x,\n    root=0,\n)", "world.bcast"),
        ("def settle(comm):\n    total = 1 + comm.allreduce(3)\nsettle(world)", "comm.allreduce"),
        ("self.comm.gather(1)", "self.comm.gather"),
        ("world.reduce(1)", "world.reduce"),
        ("world.Split(1)", "world.Split"),
        ("get_comm().Barrier()", "get_comm().Barrier"),
    ],
)
def test_a_collective_is_recognised(mpi: Any, source: str, call: str) -> None:
    assert at_call(mpi, source, collective_of) == call


@pytest.mark.parametrize(
    "source",
    [
        "other.gather(1)",
        "other.Barrier()",
        "alone.Barrier()",
        "alone.bcast(1)",
        "get_other().gather(1)",
        "get_other().reduce(1)",
        "call()",
        "world.recv()",
        "# world.Barrier()\ncall()",
        "name = 'world.Barrier()'; call()",
        pytest.param("call(); len([]) and world.Barrier()", marks=EXACTLY),
        pytest.param("call(world.Barrier) or 1 and len([]) and world.Barrier()", marks=EXACTLY),
    ],
)
def test_another_wait_is_not_taken_for_one(mpi: Any, source: str) -> None:
    assert at_call(mpi, source, collective_of) is None


def test_without_mpi_nothing_is(mpi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mpi4py.MPI")
    assert at_call(mpi, "world.Barrier()", collective_of) is None


@pytest.mark.parametrize("lines", [[], ["this is (no python\n"]])
def test_source_that_cannot_be_had_is_nothing(mpi: Any, lines: list[str]) -> None:
    def look(frame: FrameType) -> str | None:
        linecache.cache["<script>"] = (1, None, lines, "<script>")
        return collective_of(frame)

    assert at_call(mpi, "world.Barrier()", look) is None


def test_the_words_name_the_line_and_what_to_do(mpi: Any) -> None:
    words = at_call(mpi, "x = 1\nworld.Barrier()", collective_words)
    assert words[0] == "the script is inside MPI: world.Barrier(), at <script>:2: world.Barrier()"
    assert "COMM_SELF" in words[-1]
    assert "@mpi_app" in words[-1]
    assert collective_words(None) == []
