"""What a kernel says it waits for."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from fakes import Hand, call, eventually
from test_fleet import Paper

from mpiflow.comm import wire
from mpiflow.comm.wire import record
from mpiflow.executors.fleet import LOOK_WITHIN, Fleet, install
from mpiflow.executors.mpi import MPIExecutor
from mpiflow.executors.threads import ThreadPoolExecutor
from mpiflow.kernel.app import App
from mpiflow.kernel.dataflow import DataFlowKernel
from mpiflow.kernel.stall import MOST_RANKS, _ranks, progress_mark, waited_for

Make = Callable[..., DataFlowKernel]


def add(*numbers: int) -> int:
    return sum(numbers)


def said(kernel: DataFlowKernel, ages: dict[int, float] | None = None) -> list[str]:
    """What it says when tasks were given out so long ago, by number, and all others this moment.

    Without where the script is: that is a line of these tests' runner.
    """
    now = 1e6
    for task in kernel.unended.values():
        task.launched = now - (ages or {}).get(task.id, 0.0)
    return [line for line in waited_for(kernel, now) if not line.startswith("the script is at")]


class Ranks:
    """A fleet of ranks on paper, which a kernel of these tests runs on."""

    def __init__(self, peers: int) -> None:
        self.comm = Paper(peers)
        self.fleet = Fleet(self.comm, {"directory": "/", "path": [], "in_rank": False}, print)
        install(self.fleet)

    def report(self, *peers: int) -> None:
        for peer in peers:
            self.comm.arriving.append((peer, bytearray(record(wire.HELLO, pickle.dumps({"host": f"n{peer}"}))), []))
        self.fleet.pump()


@pytest.fixture
def ranks() -> Iterator[Callable[[int], Ranks]]:
    yield Ranks
    install(None)


def test_nothing_unended_is_nothing_to_wait_for(make: Make) -> None:
    kernel = make()
    assert call(kernel, add, 1).result(10) == 1
    assert eventually(lambda: progress_mark(kernel, 0) is None)


def test_the_mark_changes_with_every_end_every_retry_and_every_worker(make: Make) -> None:
    hand = Hand()
    kernel = make(hand)
    first, _ = call(kernel, add, 1), call(kernel, add, 2)
    assert eventually(lambda: len(hand.given) == 2)
    marks = [progress_mark(kernel, 0), progress_mark(kernel, 1)]
    hand.finish(first, 1)
    assert first.result(10) == 1
    marks.append(progress_mark(kernel, 1))
    assert None not in marks
    assert len(set(marks)) == 3
    assert progress_mark(kernel, 1) == marks[-1], "and with nothing else"


def test_ranks_are_named_with_what_they_have_the_oldest_first(make: Make, ranks: Callable[[int], Ranks]) -> None:
    farm = ranks(2)
    farm.report(1, 2)
    kernel = make(MPIExecutor())
    futures = [call(kernel, add, number) for number in range(4)]
    assert eventually(lambda: all(future.task.tries for future in futures) and len(farm.fleet.held()) == 2)
    held = farm.fleet.held()
    (second,), (first,) = held[1], held[2]
    lines = said(kernel, {second.id: 50.0, first.id: 7200.0})
    assert lines[:2] == [
        f"rank 2 on n2 has task {first.id} (add), for 2 h 00 min",
        f"rank 1 on n1 has task {second.id} (add), for 50 s",
    ]
    assert lines[2].endswith("(add) and 1 more in the queue of executor 'mpi': no worker of it has room, for 0 s")


def test_no_more_than_some_ranks_are_named(make: Make, ranks: Callable[[int], Ranks]) -> None:
    farm = ranks(MOST_RANKS + 5)
    farm.report(*farm.comm.peers)
    kernel = make(MPIExecutor())
    for number in range(MOST_RANKS + 5):
        call(kernel, add, number)
    assert eventually(lambda: len(farm.fleet.held()) == MOST_RANKS + 5)
    lines = said(kernel)
    assert len(lines) == MOST_RANKS + 1
    assert lines[-1] == "and 5 ranks more have tasks, given out later"


def test_workers_that_have_never_reported_are_named(make: Make, ranks: Callable[[int], Ranks]) -> None:
    farm = ranks(3)
    kernel = make(MPIExecutor())
    future = call(kernel, add, 1)
    assert eventually(lambda: future.task.tries)
    assert said(kernel) == [
        "task 0 (add) in the queue of executor 'mpi': no worker has reported yet, for 0 s",
        "ranks 1-3 have not reported since the start",
    ]
    before = progress_mark(kernel, 0)
    farm.report(2)
    assert progress_mark(kernel, 0) != before
    assert said(kernel)[-1] == "ranks 1, 3 have not reported since the start"


def test_rank_0_inside_mpi_is_said_and_not_waited_for(make: Make, ranks: Callable[[int], Ranks]) -> None:
    farm = ranks(1)
    farm.report(1)
    kernel = make(MPIExecutor())
    future = call(kernel, add, 1)
    assert eventually(lambda: future.task.tries)
    with farm.fleet._lock:
        lines = said(kernel)
    assert lines == [f"rank 0 has been inside MPI, or a plan, for more than {LOOK_WITHIN:g} s"]


def test_tasks_of_another_executor_are_counted_with_the_oldest(make: Make) -> None:
    kernel = make(Hand())
    futures = [call(kernel, add, 1), call(kernel, add, 2)]
    assert eventually(lambda: all(future.task.tries for future in futures))
    assert said(kernel, {0: 200.0}) == ["executor 'hand' has task 0 (add) and 1 more, for 3 min 20 s"]


def test_what_waits_for_others_and_for_futures_from_elsewhere(make: Make) -> None:
    kernel = make(Hand())
    running = call(kernel, add, 1)
    outside = [Future[int]() for _ in range(4)]
    for future in outside:
        call(kernel, add, running, future)
    call(kernel, add, running)
    assert eventually(lambda: running.task.tries)
    lines = said(kernel)
    assert lines[:2] == [
        "executor 'hand' has task 0 (add), for 0 s",
        "5 tasks waiting for other tasks, or futures, among their arguments",
    ]
    assert [line.partition(":")[0] for line in lines[2:]] == [
        *(f"task {n} (add) waits for a future that is no task of this run" for n in (1, 2, 3)),
        "and 1 such futures more",
    ]
    for future in outside:
        future.set_result(1)


def test_what_joins(make: Make) -> None:
    never: Future[int] = Future()
    kernel = make(ThreadPoolExecutor())
    joining = kernel.call(App(lambda: never, join=True), (), {})
    assert eventually(lambda: joining.task.state.name == "joining")
    lines = said(kernel)
    assert lines[0] == "1 task waiting for the futures that their bodies returned"
    assert "waits for a future that is no task of this run: <Future" in lines[1]
    never.set_result(1)


def test_a_stall_of_a_kernel_is_said_by_itself(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """With nobody waiting in a function of ours, and the kernel's helper thread at rest."""
    kernel = make(Hand(), stall_warning=0.05)
    errors: list[str] = []
    call(kernel, add, Future())

    def heard() -> bool:
        errors.append(capsys.readouterr().err)
        return "waits for a future that is no task of this run" in "".join(errors)

    assert eventually(heard)
    kernel.cleanup()
    assert not [thread for thread in threading.enumerate() if thread.name == "mpiflow-watchdog"]


@pytest.mark.parametrize("stall_warning", [0, 0.0])
def test_a_kernel_that_is_not_to_warn_has_nobody_who_would(make: Make, stall_warning: Any) -> None:
    before = threading.active_count()
    kernel = make(stall_warning=stall_warning, helped=False)
    assert threading.active_count() == before
    kernel.cleanup()


@pytest.mark.parametrize(
    ("numbers", "words"),
    [([1], "rank 1"), ([1, 2], "ranks 1-2"), ([1, 3, 4, 5, 9], "ranks 1, 3-5, 9")],
)
def test_ranks_in_words(numbers: list[int], words: str) -> None:
    assert _ranks(numbers) == words


def test_many_ranks_in_words_are_cut() -> None:
    assert _ranks(range(1, 1000, 2)).endswith(", 39, …")
