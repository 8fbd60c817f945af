"""The timeout decorator, in the main thread and in others."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fakes import LONG, eventually, in_thread

from mpiflow.errors import AppTimeout
from mpiflow.parsl.timeouts import timeout


def spin(seconds: float) -> str:
    """Run bytecode for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "through"


def test_a_function_in_time_is_itself() -> None:
    def add(a: int, b: int = 0) -> int:
        """Add."""
        return a + b

    limited = timeout(add, 10)
    assert (limited(2, b=3), limited.__name__, limited.__doc__) == (5, "add", "Add.")


@pytest.mark.parametrize("work", [time.sleep, spin], ids=["sleep", "bytecode"])
def test_the_main_thread_is_stopped_in_whatever_it_does(work: Callable[[float], object]) -> None:
    began = time.monotonic()
    with pytest.raises(AppTimeout, match=f"^App {work.__name__} exceeded walltime: 0.05 seconds$"):
        timeout(work, 0.05)(LONG)
    assert time.monotonic() - began < LONG / 2


def test_waiting_for_a_lock_is_stopped() -> None:
    lock = threading.Lock()
    lock.acquire()
    with pytest.raises(AppTimeout):
        timeout(lock.acquire, 0.05)()


def test_another_thread_is_stopped_at_its_next_bytecode() -> None:
    caught: list[BaseException] = []

    def work() -> None:
        try:
            timeout(spin, 0.05)(LONG)
        except AppTimeout as error:
            caught.append(error)

    in_thread(work).join(LONG)
    assert [str(error) for error in caught] == ["App spin exceeded walltime: 0.05 seconds"]


@pytest.mark.parametrize("in_main", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_nothing_rings_after_the_end(in_main: bool, fails: bool) -> None:
    ended: list[str] = []

    def work() -> None:
        try:
            timeout(lambda: {}["gone"] if fails else None, 0.3)()  # type: ignore[index]
        except KeyError:
            ended.append("failed by itself")
        spin(0.4)
        ended.append("through")

    if in_main:
        work()
    else:
        in_thread(work).join(LONG)
    assert ended == (["failed by itself"] if fails else []) + ["through"]


def test_the_exception_of_a_nested_limit_is_told_from_the_outer_ones() -> None:
    caught: list[str] = []

    def inner() -> None:
        timeout(spin, 0.03)(LONG)

    def work() -> None:
        try:
            timeout(inner, LONG)()
        except AppTimeout as error:
            caught.append(str(error))

    in_thread(work).join(LONG)
    work()
    assert caught == ["App spin exceeded walltime: 0.03 seconds"] * 2


def test_a_timer_of_somebody_else_goes_on() -> None:
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, LONG)
        timeout(spin, 2 * LONG)(0.01)
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= LONG - 0.01, "what was left of it"
        assert rung == []
        signal.setitimer(signal.ITIMER_REAL, 0.06)
        timeout(spin, LONG)(0.01)
        assert eventually(lambda: rung == [signal.SIGALRM])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((3, 1), "timeout takes a function, not int: 3"),
        ((spin, 0), "timeout: seconds is 0; legal is a number above 0"),
        ((spin, -1.0), "seconds is -1.0"),
        ((spin, "1"), "seconds is '1'"),
        ((spin, float("nan")), "seconds is nan"),
        ((spin, True), "seconds is True"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[Any, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        timeout(*arguments)
