"""What goes first among what is ready."""

from __future__ import annotations

import pickle
import threading
from collections import deque
from typing import Any

import pytest
from fakes import LONG, call, eventually, make_kernel
from test_fleet import Paper

from mpiflow.comm import wire
from mpiflow.comm.wire import HEADER, record, records
from mpiflow.executors.fleet import Fleet, install
from mpiflow.executors.mpi import MPIExecutor
from mpiflow.executors.threads import ThreadPoolExecutor
from mpiflow.kernel.app import App
from mpiflow.kernel.dataflow import DataFlowKernel


def name(word: object, **_: object) -> object:
    return word


class OneWorker:
    """A kernel over one worker with one slot, on paper: the tasks in the order in which it is sent them."""

    def __init__(self) -> None:
        self.comm = Paper(1)
        self.fleet = Fleet(self.comm, {"directory": "/", "path": [], "in_rank": False}, lambda *_: None)
        install(self.fleet)
        try:
            self.kernel = make_kernel(MPIExecutor(), helped=False)
        finally:
            install(None)
        self._hear(record(wire.HELLO, pickle.dumps({"host": "node"})))

    def _hear(self, *parts: bytes) -> None:
        self.comm.arriving.append((1, bytearray(b"".join(parts)), []))
        self.fleet.pump()

    def order(self) -> list[int]:
        """Task numbers as they are sent, each ended before the next."""
        sent: list[int] = []
        self.kernel.driver.nudge()
        while messages := deque(self.comm.sent):
            self.comm.sent = []
            for _, head, _ in messages:
                answers = []
                for aid, tid, fid, _, kind, _, _, _ in records(head):
                    if kind == wire.TASK:
                        sent.append(tid)
                        answers.append(HEADER.pack(aid, tid, fid, len(_NONE), 1.0, wire.DONE, 0) + _NONE)
                if answers:
                    self._hear(record(wire.ACK, aid=1), *answers)
            self.kernel.driver.nudge()
        return sent


_NONE = pickle.dumps(None, 5)


@pytest.fixture
def one() -> Any:
    one = OneWorker()
    yield one
    one.kernel.cleanup()


def test_tasks_on_workers_go_by_priority_then_in_the_order_of_calls(one: OneWorker) -> None:
    app = App(name)
    with _held(one.kernel):
        for priority in (0, 5, -1, None, 0, -1, 5, 1):
            one.kernel.call(app, ("x",), {} if priority is None else {"priority": priority})
    assert one.order() == [2, 5, 0, 3, 4, 7, 1, 6]


class _held:
    """Calls made inside are sent in one bulk."""

    def __init__(self, kernel: DataFlowKernel) -> None:
        self.kernel = kernel

    def __enter__(self) -> None:
        self.kernel._blocks[threading.get_ident()] = []

    def __exit__(self, *_: object) -> None:
        self.kernel._send_block()
        del self.kernel._blocks[threading.get_ident()]


@pytest.mark.parametrize("how", ["the app", "the call", "the resource specification"])
def test_a_priority_may_be_said_in_three_ways(one: OneWorker, how: str) -> None:
    urgent = App(name, priority=-3 if how == "the app" else 0)
    given: dict[str, Any] = {}
    if how == "the call":
        given["priority"] = -3
    if how == "the resource specification":
        given["parsl_resource_specification"] = {"priority": -3}
    with _held(one.kernel):
        one.kernel.call(App(name), ("x",), {})
        one.kernel.call(urgent, ("x",), given)
    assert one.order() == [1, 0]


def test_the_call_overrules_the_app(one: OneWorker) -> None:
    app = App(name, priority=-3)
    with _held(one.kernel):
        one.kernel.call(app, ("x",), {"priority": 3})
        one.kernel.call(App(name), ("x",), {})
    assert one.order() == [1, 0]


def test_an_urgent_task_that_comes_later_overtakes_those_that_wait(one: OneWorker) -> None:
    app = App(name)
    for _ in range(3):
        one.kernel.call(app, ("x",), {})
    one.kernel.driver.nudge()  # the first is on its way
    one.kernel.call(app, ("x",), {"priority": -1})
    assert one.order() == [0, 3, 1, 2]


def test_a_resource_specification_with_what_nobody_knows_is_refused_there(one: OneWorker) -> None:
    future = one.kernel.call(App(name), ("x",), {"parsl_resource_specification": {"priority": 1, "cores": 4}})
    one.order()
    error = future.exception(LONG)
    legal = "num_nodes, num_ranks, ranks_per_node, launcher_options and priority"
    assert f"task 0 (name): an MPIExecutor takes only {legal} in a specification" in str(error)
    assert "{'cores'}" in str(error)


def test_tasks_in_threads_go_by_priority() -> None:
    kernel = make_kernel(ThreadPoolExecutor(max_threads=1))
    go, order = threading.Event(), []
    try:
        first = call(kernel, go.wait)
        assert eventually(lambda: first.task_status() == "launched")
        futures = [kernel.call(App(order.append), (p,), {"priority": p}) for p in (3, 1, -2, 1)]
        assert eventually(lambda: all(future.task_status() == "launched" for future in futures))
        go.set()
        for future in futures:
            future.result(LONG)
        assert order == [-2, 1, 1, 3]
    finally:
        go.set()
        kernel.cleanup()


@pytest.mark.parametrize("priority", [1.5, "high", None, [1]], ids=repr)
def test_what_is_no_priority_is_refused_at_the_call(priority: object) -> None:
    kernel = make_kernel()
    try:
        with pytest.raises(TypeError, match=r"priority is .*; legal is a whole number, lower goes first"):
            call(kernel, abs, 1, priority=priority)
        assert not kernel.tasks
    finally:
        kernel.cleanup()


@pytest.mark.parametrize("priority", [True, 1.5, "high"], ids=repr)
def test_what_is_no_priority_is_refused_in_a_resource_specification(priority: object) -> None:
    kernel = make_kernel()
    try:
        with pytest.raises(TypeError, match="legal is a whole number"):
            call(kernel, name, 1, parsl_resource_specification={"priority": priority})
    finally:
        kernel.cleanup()


def test_a_function_with_a_parameter_of_that_name_gets_it_and_others_do_not() -> None:
    kernel = make_kernel()
    try:
        assert call(kernel, lambda x, priority=0: priority, 1, priority=4).result(LONG) == 4
        assert call(kernel, lambda **given: given, priority=4).result(LONG) == {"priority": 4}
        assert call(kernel, lambda x: x, 1, priority=4).result(LONG) == 1
        assert call(kernel, lambda priority: priority, priority="its own").result(LONG) == "its own"
    finally:
        kernel.cleanup()
