"""The repr that is a call."""

from __future__ import annotations

from typing import Any

import pytest

from mpiflow.representation import RepresentationMixin


class Some(RepresentationMixin):
    def __init__(self, first: Any, second: Any, third: Any = "three", *, fourth: Any = 4) -> None:
        self.first, self.second, self.third, self.fourth = first, second, third, fourth


class Forgetful(RepresentationMixin):
    def __init__(self, kept: Any, lost: Any, *args: Any, **kwargs: Any) -> None:
        self.kept = kept


class Own:
    def method(self) -> None: ...


def test_every_parameter_is_said_defaults_too() -> None:
    assert repr(Some(1, "two")) == "Some(1, 'two', third='three', fourth=4)"


def test_it_can_be_pasted_back() -> None:
    some = Some(Some(1, ["x"]), Own, third=Own.method, fourth=len)
    pasted = eval(repr(some))
    assert repr(pasted) == repr(some)
    assert (pasted.second, pasted.third, pasted.fourth) == (Own, Own.method, len)


def test_what_is_too_wide_or_has_lines_gets_a_line_for_each() -> None:
    wide = Some("x" * 50, "y" * 50)
    assert repr(wide) == f"Some(\n    '{'x' * 50}',\n    '{'y' * 50}',\n    third='three',\n    fourth=4\n)"
    assert repr(Some(wide, 1)).splitlines()[1:3] == ["    Some(", f"        '{'x' * 50}',"]
    assert repr(eval(repr(Some(wide, 1)))) == repr(Some(wide, 1))


def test_the_width_is_the_classs() -> None:
    class Narrow(Some):
        __max_width__ = 10

    assert "\n" in repr(Narrow(1, 2))


def test_a_parameter_that_is_no_attribute_shows_as_unrecorded_or_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert repr(Forgetful(1, 2)) == "Forgetful(1, '<unrecorded>')"
    monkeypatch.setattr(RepresentationMixin, "_validate_repr", True)
    with pytest.raises(AttributeError, match="Forgetful takes 'lost', but has no attribute of that name"):
        repr(Forgetful(1, 2))


def test_a_function_without_a_name_to_write_is_shown_as_python_does() -> None:
    assert "<lambda> at" in repr(Some(lambda: 1, 2))
