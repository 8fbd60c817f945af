"""What the processes of a job say they are at: asked by rank 0, answered by workers, put together."""

from __future__ import annotations

import os
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from fakes import LONG, eventually, in_thread
from test_fleet import Play

from mpiflow.comm import wire
from mpiflow.comm.wire import record, records
from mpiflow.executors.fleet import install
from mpiflow.executors.stacks import answer_stacks, stacks_of_workers
from mpiflow.stacks import line_of_script, main_frame, own_stacks
from mpiflow.worker.worker import Worker
from mpiflow.worker.zygote import Zygote


@pytest.fixture
def worker() -> Iterator[Worker]:
    read, write = os.pipe()
    yield Worker(cast(Zygote, SimpleNamespace(fd=read)), 1)
    os.close(read)
    os.close(write)


def answer_of(worker: Worker) -> bytes:
    """What a real worker answers to the question."""
    worker.receive(bytearray(record(wire.STACKS)), [])
    return worker.take(acknowledge=False)[0]


def test_a_thread_is_shown_with_its_name_and_where_it_is() -> None:
    leave = threading.Event()

    def waits_here() -> None:
        leave.wait(LONG)

    thread = in_thread(waits_here)
    thread.name = "waiting-one"
    assert eventually(lambda: "in waits_here\n    leave.wait(LONG)" in own_stacks())
    text = own_stacks()
    assert text.startswith("thread MainThread:\n")
    assert "thread waiting-one:\n" in text
    leave.set()
    thread.join()


def test_the_thread_that_asks_is_left_out_unless_it_is_the_main_one() -> None:
    texts: list[str] = []

    def asks() -> None:
        texts.append(own_stacks())

    in_thread(asks).join()
    asks()
    assert ["in asks" in text for text in texts] == [False, True]
    assert all(text.startswith("thread MainThread:") for text in texts)


def test_where_the_script_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its own innermost line, though it has gone elsewhere, and a call of it into other code is what goes on."""
    script = ModuleType("__main__")
    path = tmp_path / "script.py"
    path.write_text("def deep():\n    return look()\nfound = list(map(lambda _: deep(), [0]))\n")
    script.__file__ = str(path)
    frames: list[Any] = []
    vars(script)["look"] = lambda: frames.append(line_of_script(sys._getframe()))
    monkeypatch.setitem(sys.modules, "__main__", script)
    exec(compile(path.read_text(), "script.py", "exec"), vars(script))
    assert frames == ["script.py:2: return look()"]
    assert line_of_script(None) == ""
    assert main_frame() is not None


def test_a_worker_answers_with_its_own_stacks(worker: Worker) -> None:
    ((_, _, _, _, kind, _, start, end),) = records(answer := answer_of(worker))
    assert kind == wire.STACK_TEXT
    ((what, text),) = pickle.loads(answer[start:end])
    assert what == ""
    assert "in receive" in text


def test_answers_are_put_together_and_those_who_say_nothing_are_named(worker: Worker) -> None:
    play = Play(peers=3)
    task: Any = SimpleNamespace(words="task 7 (simulate)", id=7)
    for delivery in play.deliveries("a", "b", "c"):
        delivery.task = task
        play.fleet.submit([delivery])
    play.sent()
    said = pickle.dumps([("", "its own"), ("runner 0, pid 5", "what runs")], 5)
    real = answer_of(worker)

    def hear() -> bool:
        return [kind for _, kind, _ in play.sent()].count(wire.STACKS) == 3

    texts: list[str] = []
    asking = in_thread(lambda: texts.append(stacks_of_workers(play.fleet, 0.5)))
    assert eventually(hear)
    play.comm.arriving += [(1, bytearray(real), []), (2, bytearray(record(wire.STACK_TEXT, said)), [])]
    asking.join(LONG)
    (text,) = texts
    assert "--- rank 1 on node1 ---" in text
    assert "--- rank 2 on node2: runner 0, pid 5 ---" in text
    assert "\nwhat runs\n" in text
    silent = text.partition("--- rank 3 on node3 ")[2]
    assert "It has not answered within 0.5 s" in silent
    assert "It has task 7 (simulate)." in silent


def test_a_dead_worker_is_said_to_be_dead() -> None:
    play = Play(peers=1)
    play.fleet.losses = cast(Any, SimpleNamespace(dead={1}, look=lambda now: None))
    play.fleet._farm.on_lost(1)
    assert "It is lost: it has died." in stacks_of_workers(play.fleet, 1000.0)


def test_with_all_answers_there_nobody_waits() -> None:
    play = Play(peers=1)
    texts: list[str] = []
    asking = in_thread(lambda: texts.append(stacks_of_workers(play.fleet, 1000.0)))
    assert eventually(lambda: bool(play.comm.sent))
    play.comm.arriving.append((1, bytearray(record(wire.STACK_TEXT, pickle.dumps([("", "its own")], 5))), []))
    asking.join(LONG)
    assert not asking.is_alive()


def test_rank_0_inside_mpi_is_said() -> None:
    play = Play(peers=1)
    with play.fleet._lock:
        assert "They were not asked: rank 0 has been inside MPI" in stacks_of_workers(play.fleet)
    play.end()


def test_an_answer_comes_without_workers_and_whatever_they_raise() -> None:
    class Fails:
        def ask_stacks(self) -> list[int]:
            raise RuntimeError("a rank is lost")

    for fleet in (None, cast(Any, Fails())):
        answers: list[str] = []
        install(fleet)
        try:
            answer_stacks(cast(Any, SimpleNamespace(answer=answers.append)))
            assert eventually(lambda answers=answers: answers)
        finally:
            install(None)
        assert answers[0].startswith("\n--- rank 0, pid ")
        assert ("They could not be asked: RuntimeError('a rank is lost')" in answers[0]) == (fleet is not None)
