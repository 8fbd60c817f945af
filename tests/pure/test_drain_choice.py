"""What a drain starts, what it holds back and takes back, and when it has the script leave."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import LONG, Hand, call, eventually

from mpiflow.errors import JobDrained
from mpiflow.executors.options import options
from mpiflow.executors.threads import ThreadPoolExecutor
from mpiflow.kernel import attention, drain, interrupts
from mpiflow.kernel.app import App
from mpiflow.kernel.dataflow import DataFlowKernel
from mpiflow.kernel.drain import LEAVE_BEFORE, LOOK_EVERY, SAME_SIGNAL, Drain, Job
from mpiflow.kernel.task import States, Task


class Farm(Hand):
    """Knows how long apps take, and gives back what it has not begun."""

    def __init__(self, label: str = "hand") -> None:
        super().__init__(label)
        self.means: dict[App, float] = {}
        self.begun: set[int] = set()

    def seconds_of(self, app: App) -> float | None:
        return self.means.get(app)

    def longest(self) -> float:
        return max(self.means.values(), default=0.0)

    def revoke(self, task: Task) -> bool:
        return task.id not in self.begun and self.given.pop(task.id, None) is not None


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Job]:
    """The job of kernels made from now on; they listen, and the script is told nothing."""
    made = Job()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "started_by_mpiflow", True)
    monkeypatch.setattr(attention, "job", made)
    monkeypatch.setattr(interrupts, "post", lambda interrupt: None)
    yield made
    interrupts.refuse_to_wait(None)


class Scene:
    """A kernel over a farm, superstep by superstep."""

    def __init__(self, make: Callable[..., DataFlowKernel], *farms: Farm) -> None:
        self.farms = farms or (Farm(),)
        self.kernel = make(*self.farms, helped=False)
        self.now = time.monotonic()

    @property
    def drain(self) -> Drain:
        assert self.kernel._attention is not None
        return self.kernel._attention.drain

    def step(self) -> list[int]:
        """Some supersteps with a look at the clock; the tasks that the farm has then."""
        for _ in range(2):
            self.kernel.driver.nudge()
            self.now += LOOK_EVERY
            self.drain.tick(self.now)
        self.kernel.driver.nudge()
        return sorted(tid for farm in self.farms for tid in farm.given)


def app(name: str = "f") -> App:
    def function(*args: object, **kwargs: object) -> None:
        """Nothing: the farm ends tasks by hand."""

    function.__name__ = name
    return App(function)


def test_without_an_end_all_is_started(job: Job, make: Callable[..., DataFlowKernel]) -> None:
    scene = Scene(make)
    for _ in range(3):
        call(scene.kernel, abs, 1)
    assert scene.step() == [0, 1, 2]
    assert (job.why, job.ended) == ("", "")


def test_request_starts_nothing_more_and_takes_back_what_waits(
    job: Job, make: Callable[..., DataFlowKernel], capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(make)
    (farm,) = scene.farms
    farm.begun = {0}
    futures = [call(scene.kernel, abs, 1) for _ in range(3)]
    assert scene.step() == [0, 1, 2]
    job.begin("asked for by me on here", nothing_new=True)
    assert scene.step() == [0]
    assert [future.task.state for future in futures] == [States.launched, States.pending, States.pending]
    assert [future.task.tries for future in futures] == [1, 0, 0]
    assert scene.kernel.places.load["hand"] == 1
    call(scene.kernel, abs, 1)
    assert scene.step() == [0]
    assert not job.ended, "one runs"
    farm.finish(futures[0], 5)
    scene.step()
    assert futures[0].result() == 5
    assert job.ended == "asked for by me on here"
    with pytest.raises(JobDrained) as told:
        futures[1].result()
    assert told.value.code == 85
    assert capsys.readouterr().err == (
        "mpiflow: draining: asked for by me on here; 0 running tasks may end, 3 wait, nothing more is started\n"
    )


def test_only_what_can_end_in_time_is_started(job: Job, make: Callable[..., DataFlowKernel]) -> None:
    """By the mean of its app, by its walltime, and by the lesser of both."""
    scene = Scene(make)
    (farm,) = scene.farms
    quick, slow, unknown = app("quick"), app("slow"), app("unknown")
    farm.means = {quick: 5.0, slow: 400.0}
    job.end_at(scene.now + 105.0, 50.0, scene.now, "test")
    calls: list[tuple[App, dict[str, Any]]] = [
        (quick, {}), (slow, {}), (unknown, {}), (unknown, {"walltime": 30}), (unknown, {"walltime": 200}),
        (quick, {"walltime": 3600}), (slow, {"walltime": 20}),
    ]  # fmt: skip
    for one, kwargs in calls:
        scene.kernel.call(one, (), kwargs)
    assert scene.step() == [0, 2, 3, 5, 6]
    assert job.why == "the time of the job is nearly over"


def test_time_grows_short(job: Job, make: Callable[..., DataFlowKernel]) -> None:
    """What could be started a minute ago cannot any more, and is taken back if no worker has it."""
    scene = Scene(make)
    (farm,) = scene.farms
    work, unknown = app(), app("unknown")
    farm.means = {work: 10.0}
    farm.begun = {0}
    job.end_at(scene.now + 100.0 + LEAVE_BEFORE, 40.0 + LEAVE_BEFORE, scene.now, "test")
    for one in (work, work, unknown):
        scene.kernel.call(one, (), {})
    assert scene.step() == [0, 1, 2]
    scene.now += 65.0  # into the margin
    assert scene.step() == [0, 1]
    scene.now += 15.0
    assert scene.step() == [0]
    assert not job.ended
    scene.now += 30.0
    scene.step()
    assert job.ended == "the time of the job is over"


def test_unknown_app_that_turns_out_to_be_quick_is_started_after_all(
    job: Job, make: Callable[..., DataFlowKernel]
) -> None:
    scene = Scene(make)
    (farm,) = scene.farms
    work = app()
    farm.begun = {0}
    job.end_at(scene.now + 100.0, 20.0, scene.now, "test")
    futures = [scene.kernel.call(work, (), {}) for _ in range(2)]
    scene.step()
    job.warn()
    assert scene.step() == [0]
    farm.means = {work: 1.0}
    assert scene.step() == [0, 1]
    farm.finish_together(*futures)
    scene.step()
    assert [future.result() for future in futures] == [None, None]
    assert not job.ended, "nothing is left: the script goes on"


def test_cancelled_while_it_is_held_back(job: Job, make: Callable[..., DataFlowKernel]) -> None:
    """Nobody waits for it: no reason to have the script leave."""
    scene = Scene(make)
    job.begin("asked", nothing_new=True)
    future = call(scene.kernel, abs, 1)
    scene.drain.tick(scene.now)
    scene.kernel.driver.nudge()
    assert future.cancel()
    scene.step()
    assert future.cancelled()
    assert not job.ended


def test_bodies_of_joins_run_and_what_they_call_is_held_back(job: Job, make: Callable[..., DataFlowKernel]) -> None:
    scene = Scene(make)
    job.begin("asked", nothing_new=True)
    inner: list[object] = []

    def body() -> object:
        inner.append(call(scene.kernel, abs, 1))
        return inner[0]

    future = scene.kernel.call(App(body, join=True), (), {})
    end = time.monotonic() + 10.0
    while future.task.state is not States.joining and time.monotonic() < end:
        scene.step()
    assert future.task.state is States.joining
    scene.step()
    assert job.ended == "asked"
    assert not scene.farms[0].given


def test_task_in_a_thread_that_waits_for_what_is_held_back(job: Job, make: Callable[..., DataFlowKernel]) -> None:
    """It would wait for ever; one that does something may end."""
    farm, threads = Farm(), ThreadPoolExecutor("threads", max_threads=2)
    kernel = make(farm, threads, helped=False)
    scene = Scene.__new__(Scene)
    scene.farms, scene.kernel, scene.now = (farm,), kernel, time.monotonic()
    goes_on, held = threading.Event(), []

    def outer() -> None:
        goes_on.wait(LONG)
        held[0].result()

    kernel.call(App(outer, executors=["threads"]), (), {})
    scene.step()
    job.begin("asked", nothing_new=True)
    held.append(kernel.call(App(abs, executors=["hand"]), (1,), {}))
    for _ in range(3):
        scene.step()
    assert not job.ended, "one runs"
    goes_on.set()
    assert eventually(lambda: kernel.driver.waiters)
    for _ in range(3):
        scene.step()
    assert job.ended == "asked"
    kernel.cleanup()


def test_other_kernel_runs_on(job: Job, make: Callable[..., DataFlowKernel]) -> None:
    """One has nothing left that runs, the other has: the script leaves when neither has."""
    idle, busy = Scene(make, Farm("a")), Scene(make, Farm("b"))
    busy.farms[0].begun = {0}
    running = call(busy.kernel, abs, 1)
    busy.step()
    job.begin("asked", nothing_new=True)
    call(idle.kernel, abs, 1)
    idle.step()
    call(busy.kernel, abs, 1)
    busy.step()
    idle.step()
    assert not job.ended
    busy.farms[0].finish(running)
    busy.step()
    idle.step()
    assert job.ended == "asked"


def test_kernel_that_waits_for_what_another_holds_back(job: Job, make: Callable[..., DataFlowKernel]) -> None:
    """It has nothing that runs and nothing to start: it keeps nobody."""
    holds, waits = Scene(make, Farm("a")), Scene(make, Farm("b"))
    waits.kernel.call(app(), (call(holds.kernel, abs, 1),), {})
    job.begin("asked", nothing_new=True)
    for scene in (waits, holds):
        scene.step()
    assert job.ended == "asked"


def test_kernel_that_was_idle_and_has_work_again(job: Job, make: Callable[..., DataFlowKernel]) -> None:
    """What it held back was cancelled, and what it runs now is not to be given up for another kernel's sake."""
    works, idles = Scene(make, Farm("a")), Scene(make, Farm("b"))
    quick = app("quick")
    works.farms[0].means = {quick: 1.0}
    works.farms[0].begun = {1}
    idles.farms[0].begun = {0}
    runs = call(idles.kernel, abs, 1)
    idles.step()
    job.end_at(works.now + 100.0, 20.0, works.now, "test")
    job.warn()
    held = call(works.kernel, abs, 1)
    works.step()
    assert works.drain.idle
    assert held.cancel()
    works.kernel.call(quick, (), {})
    assert works.step() == [1]
    call(idles.kernel, abs, 1)
    idles.step()
    idles.farms[0].finish(runs)
    idles.step()
    assert not job.ended, "one runs"


def test_calls_go_on_while_it_looks(job: Job, make: Callable[..., DataFlowKernel]) -> None:
    """The script calls apps without the driver's lock, and it may be the helper thread that looks."""
    scene = Scene(make)
    later = app()
    before = call(scene.kernel, abs, 1)
    for _ in range(2000):
        scene.kernel.call(later, (before,), {})
    before.task.state = States.launched
    job.why = "asked"
    stop = threading.Event()

    def keep_calling() -> None:
        while not stop.is_set():
            scene.kernel.call(later, (before,), {})

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    caller = threading.Thread(target=keep_calling)
    caller.start()
    try:
        for _ in range(30):
            scene.drain._begin_to_choose()
            scene.drain._is_idle()
    finally:
        stop.set()
        caller.join()
        sys.setswitchinterval(interval)


def test_first_signal_twice_and_second_signal(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some launchers pass on what every process gets anyway."""
    now = [100.0]
    monkeypatch.setattr(drain, "time", SimpleNamespace(monotonic=lambda: now[0]))
    job.warn()
    now[0] += 0.9 * SAME_SIGNAL
    job.warn()
    assert (job.why, job.nothing_new, job.ended) == ("SIGUSR1", True, "")
    now[0] += SAME_SIGNAL
    job.warn()
    assert job.ended == "a second SIGUSR1"


@pytest.mark.parametrize(("seconds", "before", "margin"), [(7200, None, 120), (300, None, 30), (7200, 600, 600)])
def test_margin(seconds: float, before: float | None, margin: float) -> None:
    job = Job()
    job.end_at(1000.0 + seconds, before, 1000.0, "test")
    assert job.limit == 1000.0 + seconds - LEAVE_BEFORE
    assert job.limit - job.margin == pytest.approx(1000.0 + seconds - margin)


def test_end_that_is_learnt_after_the_warning_does_not_widen_the_margin() -> None:
    job = Job()
    job.warn()
    job.end_at(time.monotonic() + 500.0, None, time.monotonic(), "test")
    assert job.margin == inf
