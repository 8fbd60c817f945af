"""Who takes the supersteps: whoever waits, and a helper thread when nobody does."""

from __future__ import annotations

import concurrent.futures
import logging
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from fakes import LONG, eventually, in_thread

from mpiflow.kernel import driver as module
from mpiflow.kernel import interrupts
from mpiflow.kernel.driver import Driver
from mpiflow.kernel.task_log import TaskLog


class Job:
    """Something to wait for."""

    def __init__(self, *callbacks: Callable[[Job], object]) -> None:
        self.callbacks = callbacks
        self.ended = False
        self.heard_by: list[int] = []

    def done(self) -> bool:
        return self.ended

    def run_callbacks(self) -> None:
        self.heard_by.append(threading.get_ident())
        for callback in self.callbacks:
            callback(self)


class Kernel:
    """What a driver drives: a superstep takes what is in `finishing`, the announcement after it ends that."""

    def __init__(self) -> None:
        self.unfinished: set[Job] = set()
        self.finishing: list[Job] = []
        self.taken: list[Job] = []
        self.steps: list[int] = []  # who took each
        self.sleeps = 0
        self.inside = 0
        self.on_step: Callable[[], object] | None = None
        self.on_sleep: Callable[[], object] | None = None
        self.given_up: list[tuple[Job, BaseException]] = []
        self.driver = Driver(self.superstep, self.announce, self.sleep, lambda: bool(self.unfinished), self.fail_rest)

    def called(self, *callbacks: Callable[[Job], object]) -> Job:
        job = Job(*callbacks)
        self.unfinished.add(job)
        self.driver.notice()
        return job

    def superstep(self) -> bool:
        self.inside += 1
        try:
            assert self.inside == 1, "two supersteps at once"
            self.steps.append(threading.get_ident())
            if self.on_step is not None:
                self.on_step()
            taken, self.finishing = self.finishing, []
            self.taken += taken
        finally:
            self.inside -= 1  # the helper may take another after one that failed
        return bool(taken)

    def announce(self) -> bool:
        announced, self.taken = self.taken, []
        callbacks = False
        for job in announced:
            job.ended = True
            self.unfinished.discard(job)
            if job.callbacks:
                self.driver.defer(job)
                callbacks = True
        return callbacks

    def fail_rest(self, error: BaseException) -> None:
        self.given_up += [(job, error) for job in self.unfinished]
        self.taken += self.unfinished
        self.announce()

    def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        if self.on_sleep is not None:
            self.on_sleep()
        time.sleep(seconds)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """A kernel whose helper thread has not been started."""
    made = Kernel()
    yield made
    made.driver.close()
    helper = made.driver._helper
    assert helper is None or not helper.is_alive(), "the helper thread goes on after close()"


@pytest.fixture
def helped(kernel: Kernel) -> Kernel:
    """A kernel with its helper thread."""
    kernel.driver.start()
    return kernel


def helper_of(kernel: Kernel) -> int | None:
    assert kernel.driver._helper is not None
    return kernel.driver._helper.ident


# --- the caller that waits -----------------------------------------------------------------------------


def test_whoever_waits_takes_the_supersteps_itself(helped: Kernel) -> None:
    job = helped.called()
    helped.on_step = lambda: helped.finishing.extend([job] if len(helped.steps) == 5 else [])
    assert helped.driver.wait_until(job.done)
    assert set(helped.steps[-3:]) == {threading.get_ident()}


def test_what_is_done_is_not_waited_for(kernel: Kernel) -> None:
    assert kernel.driver.wait_until(lambda: True)
    assert kernel.driver.wait_until(lambda: True, timeout=0)
    assert kernel.steps == []


@pytest.mark.parametrize("timeout", [0.0, 0.01])
def test_a_timeout_ends_the_wait_and_not_the_job(kernel: Kernel, timeout: float) -> None:
    job = kernel.called()
    started = time.monotonic()
    assert not kernel.driver.wait_until(job.done, timeout)
    assert timeout <= time.monotonic() - started < LONG
    kernel.finishing.append(job)
    assert kernel.driver.wait_until(job.done, LONG)


def test_a_long_wait_sleeps_more_than_it_looks(kernel: Kernel) -> None:
    job = kernel.called()
    assert not kernel.driver.wait_until(job.done, 0.1)
    assert kernel.sleeps > 10
    assert len(kernel.steps) < 5000


@pytest.mark.parametrize("waiters", [2, 5])
def test_several_waiters_share_the_driving(helped: Kernel, waiters: int) -> None:
    jobs = [helped.called() for _ in range(waiters)]
    seen: list[Job] = []

    def wait(job: Job) -> None:
        assert helped.driver.wait_until(job.done, LONG)
        seen.append(job)

    threads = [in_thread(lambda job=job: wait(job)) for job in jobs]  # type: ignore[misc]
    for job in reversed(jobs):
        helped.finishing.append(job)
        assert eventually(lambda job=job: job in seen)  # type: ignore[misc]
    for thread in threads:
        thread.join(LONG)
    assert seen == jobs[::-1]


def test_a_failing_superstep_is_told_to_every_wait(kernel: Kernel) -> None:
    job = kernel.called()
    kernel.on_step = lambda: 1 / 0
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            kernel.driver.wait_until(job.done, LONG)
    assert not kernel.driver._lock.locked()


def test_an_interrupted_sleep_leaves_a_driver_that_can_drive(kernel: Kernel) -> None:
    """Ctrl-C comes when a script waits, mostly; one that goes on afterwards must not hang."""

    def interrupt() -> None:
        kernel.on_sleep = None
        raise KeyboardInterrupt

    kernel.on_sleep = interrupt
    job = kernel.called()
    with pytest.raises(KeyboardInterrupt):
        kernel.driver.wait_until(job.done, LONG)
    kernel.finishing.append(job)
    assert kernel.driver.wait_until(job.done, LONG)


# --- the helper thread ---------------------------------------------------------------------------------


def test_the_helper_thread_drives_when_nobody_waits(helped: Kernel) -> None:
    job = helped.called()
    helped.finishing.append(job)
    assert eventually(job.done)
    assert set(helped.steps) == {helper_of(helped)}


def test_it_goes_on_until_all_has_ended_and_then_rests(
    helped: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REST_AFTER", 0.005)
    jobs = [helped.called() for _ in range(3)]
    for job in jobs:
        helped.finishing.append(job)
        assert eventually(job.done)
    assert eventually(lambda: helped.driver._resting)
    steps = len(helped.steps)
    time.sleep(0.02)
    assert len(helped.steps) == steps, "a helper with nothing to do takes no supersteps"
    late = helped.called()
    helped.finishing.append(late)
    assert eventually(late.done), "a call wakes it again"


def test_it_makes_room_for_a_caller_that_comes_to_wait(helped: Kernel) -> None:
    job = helped.called()
    assert eventually(lambda: len(helped.steps) > 3)
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        helped.driver.wait_until(job.done, LONG)

    thread = in_thread(wait)
    assert eventually(lambda: helped.steps[-1] == thread.ident)
    before = len(helped.steps)
    assert eventually(lambda: len(helped.steps) > before + 3)
    assert set(helped.steps[before:]) == {thread.ident}
    helped.finishing.append(job)
    thread.join(LONG)
    assert job.ended


def test_what_fails_in_it_is_told_to_whoever_waits_next(helped: Kernel) -> None:
    job = helped.called()
    helped.on_step = lambda: 1 / 0
    assert eventually(lambda: helped.driver.failure is not None)
    with pytest.raises(ZeroDivisionError):
        helped.driver.wait_until(job.done, LONG)


def test_the_first_failure_is_the_one_that_is_told(helped: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    """What comes after it is its consequence. The console hears of it too: not everybody looks at a future."""
    job = helped.called()
    failures = 0

    def fail() -> None:
        nonlocal failures
        failures += 1
        raise RuntimeError(f"failure {failures}")

    helped.on_step = fail
    assert eventually(job.done)
    late = helped.called()
    assert eventually(late.done)
    assert [str(error) for _, error in helped.given_up] == ["failure 1", "failure 1"]
    with pytest.raises(RuntimeError, match="failure 1"):
        helped.driver.wait_until(lambda: False, LONG)
    assert capsys.readouterr().err == "mpiflow: a superstep has failed: RuntimeError: failure 1\n"
    assert failures == 1, "a superstep after the one that has failed"


def test_what_fails_in_a_callers_hands_ends_what_others_wait_for(helped: Kernel) -> None:
    """The caller is told by what it called, all others by their futures, with callbacks that may wait themselves."""
    heard: list[Job] = []
    mine, others = helped.called(), helped.called(heard.append)
    other_waits = helped.called(lambda _: helped.driver.wait_until(mine.done, LONG))

    def fail() -> None:
        if threading.current_thread() is threading.main_thread():
            raise RuntimeError("mine")

    helped.on_step = fail
    with pytest.raises(RuntimeError, match="mine"):
        helped.driver.wait_until(mine.done, LONG)
    assert eventually(lambda: mine.done() and others.done() and other_waits.heard_by and heard == [others])
    assert {job for job, _ in helped.given_up} == {mine, others, other_waits}
    helped.driver.nudge()
    assert helped.driver.exclusively(lambda: True)
    steps = len(helped.steps)
    helped.called()
    assert eventually(lambda: len(helped.given_up) == 4)
    assert len(helped.steps) == steps


def test_what_is_to_end_the_script_does_not_end_the_helper_alone(
    helped: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    """A retry handler may call sys.exit(): a thread that dies of it in silence would leave others waiting."""
    helped.on_step = lambda: sys.exit(3)
    job = helped.called()
    assert eventually(job.done)
    assert helped.driver._helper is not None
    assert helped.driver._helper.is_alive()
    assert capsys.readouterr().err == "mpiflow: a superstep has failed: SystemExit: 3\n"


def test_an_interrupt_in_a_superstep_ends_nothing_that_can_go_on(helped: Kernel) -> None:
    """Of a script with a handler of its own for Ctrl-C, which knows nothing of what we hold back."""
    job = helped.called()

    def interrupt() -> None:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    helped.on_step = interrupt
    with pytest.raises(KeyboardInterrupt):
        helped.driver.wait_until(job.done, LONG)
    steps = len(helped.steps)
    assert eventually(lambda: len(helped.steps) > steps)
    assert not helped.given_up
    helped.finishing.append(job)
    assert eventually(job.done)


def test_threads_are_switched_more_often_while_it_drives_and_as_before_afterwards(helped: Kernel) -> None:
    usual = sys.getswitchinterval()
    seen: list[float] = []
    helped.on_step = lambda: seen.append(sys.getswitchinterval())
    job = helped.called()
    helped.finishing.append(job)
    assert eventually(job.done)
    assert seen[0] == pytest.approx(module.SWITCH)
    assert eventually(lambda: sys.getswitchinterval() == usual)


def test_two_helper_threads_leave_the_switch_interval_as_it_was() -> None:
    """Two kernels, whose helpers drive at the same time and end in the order in which they began."""
    usual = sys.getswitchinterval()
    kernels = Kernel(), Kernel()
    try:
        jobs = []
        for kernel in kernels:
            kernel.driver.start()
            jobs.append(kernel.called())
            assert eventually(lambda kernel=kernel: kernel.driver._helping)  # type: ignore[misc]
        for kernel, job in zip(kernels, jobs, strict=True):
            kernel.finishing.append(job)
            assert eventually(lambda kernel=kernel: not kernel.driver._helping)  # type: ignore[misc]
        assert eventually(lambda: sys.getswitchinterval() == usual)
    finally:
        for kernel in kernels:
            kernel.driver.close()
        sys.setswitchinterval(usual)


def test_close_ends_it_though_jobs_are_left(helped: Kernel) -> None:
    helped.called()
    assert eventually(lambda: helped.steps)
    helped.driver.close()
    assert helped.driver._helper is not None
    assert not helped.driver._helper.is_alive()
    steps = len(helped.steps)
    time.sleep(0.005)
    assert len(helped.steps) == steps


def test_close_from_a_callback_that_it_runs_ends_it(helped: Kernel) -> None:
    job = helped.called(lambda _: helped.driver.close())
    helped.finishing.append(job)
    assert eventually(lambda: not helped.driver._helper.is_alive())  # type: ignore[union-attr]


# --- callbacks -----------------------------------------------------------------------------------------


def test_callbacks_are_run_by_who_drives_and_outside_the_lock(kernel: Kernel) -> None:
    locked: list[bool] = []
    job = kernel.called(lambda _: locked.append(kernel.driver._lock.locked()))
    kernel.finishing.append(job)
    assert kernel.driver.wait_until(job.done, LONG)
    assert (locked, job.heard_by) == ([False], [threading.get_ident()])


@pytest.mark.parametrize("driven_by", ["the caller", "the helper thread"])
def test_a_callback_may_call_and_wait(helped: Kernel, driven_by: str) -> None:
    heard: list[bool] = []

    def call_and_wait(_: Job) -> None:
        inner = helped.called()
        helped.finishing.append(inner)
        heard.append(helped.driver.wait_until(inner.done, LONG))

    job = helped.called(call_and_wait)
    helped.finishing.append(job)
    if driven_by == "the caller":
        assert helped.driver.wait_until(job.done, LONG)
    assert eventually(lambda: heard == [True])


def test_a_callback_that_waits_empties_the_queue_of_callbacks(kernel: Kernel) -> None:
    """Two end in one superstep, and the callback of the first waits for what that of the second does."""
    second_heard = threading.Event()
    order: list[str] = []

    def first(_: Job) -> None:
        inner = kernel.called(lambda _: order.append("inner"))
        kernel.finishing.append(inner)
        assert kernel.driver.wait_until(inner.done, LONG)
        order.append(f"first, second heard: {second_heard.is_set()}")

    jobs = kernel.called(first), kernel.called(lambda _: second_heard.set())
    kernel.finishing += jobs
    assert kernel.driver.wait_until(jobs[0].done, LONG)
    assert order == ["inner", "first, second heard: True"]


def test_a_wait_in_a_callback_of_the_helper_thread_sleeps_too(helped: Kernel) -> None:
    """It waits for a long task there: that must not cost a whole core."""
    looked: list[tuple[int, int]] = []

    def wait_long(_: Job) -> None:
        inner = helped.called()
        steps, sleeps = len(helped.steps), helped.sleeps
        helped.driver.wait_until(inner.done, 0.1)
        looked.append((len(helped.steps) - steps, helped.sleeps - sleeps))

    job = helped.called(wait_long)
    helped.finishing.append(job)
    assert eventually(lambda: looked)
    steps, sleeps = looked[0]
    assert sleeps > 10, f"{steps} supersteps, {sleeps} sleeps"


def test_a_wait_beside_a_long_callback_of_the_helper_thread_sleeps_too(helped: Kernel) -> None:
    in_callback, leave = threading.Event(), threading.Event()

    def stay(_: Job) -> None:
        in_callback.set()
        leave.wait(LONG)

    job = helped.called(stay)
    helped.finishing.append(job)
    assert in_callback.wait(LONG)
    sleeps = helped.sleeps
    try:
        assert not helped.driver.wait_until(lambda: False, 0.1)
        assert helped.sleeps - sleeps > 10
    finally:
        leave.set()


# --- from inside a call --------------------------------------------------------------------------------


def test_a_nudge_takes_one_superstep_and_runs_no_callbacks_itself(helped: Kernel) -> None:
    job = helped.called(lambda _: None)
    with helped.driver._lock:  # the helper must not come first
        helped.finishing.append(job)
    helped.driver.nudge()
    assert eventually(lambda: job.heard_by)
    assert job.heard_by == [helper_of(helped)]


def test_a_nudge_while_somebody_drives_is_nothing(kernel: Kernel) -> None:
    with kernel.driver._lock:
        kernel.driver.nudge()
    assert kernel.steps == []


def test_callbacks_that_a_nudge_left_are_run_though_somebody_waits(helped: Kernel) -> None:
    """What he waits for may be what such a callback does."""
    in_nudge, waits = threading.Event(), threading.Event()
    callback_run = threading.Event()
    job = helped.called(lambda _: callback_run.set())
    caller = in_thread(lambda: None)

    def hold() -> None:
        if threading.get_ident() == caller.ident:
            in_nudge.set()
            waits.wait(LONG)
            helped.finishing.append(job)

    helped.on_step = hold

    def nudge() -> None:
        while not in_nudge.is_set():  # the helper may be at it just now
            helped.driver.nudge()

    caller = in_thread(nudge)
    assert in_nudge.wait(LONG)
    waiter = in_thread(lambda: helped.driver.wait_until(callback_run.is_set, 2.0))
    assert eventually(lambda: helped.driver.waiters)
    waits.set()
    assert callback_run.wait(1.0), "a callback waits for a caller that waits for the callback"
    waiter.join(LONG)
    caller.join(LONG)


def test_many_threads_that_call_nudge_and_wait(helped: Kernel) -> None:
    """Nothing is missed, nothing is taken twice, and all come to their end."""
    heard: list[Job] = []

    def work() -> None:
        for _ in range(30):
            job = helped.called(heard.append)
            helped.finishing.append(job)
            helped.driver.nudge()
            assert helped.driver.wait_until(job.done, LONG)

    threads = [in_thread(work) for _ in range(4)]
    for thread in threads:
        thread.join(LONG)
    assert eventually(lambda: len(heard) == 120)
    assert len(set(heard)) == 120
    assert not helped.unfinished
    assert not any(thread.is_alive() for thread in threads)


def test_an_interrupt_at_any_moment_leaves_the_lock_free() -> None:
    """A script may catch it and wait again: a lock left taken would be a wait for ever."""
    kernel = Kernel()
    job = kernel.called()
    before = signal.signal(signal.SIGALRM, interrupts.on_interrupt)
    caught = 0
    moments = random.Random(7)
    try:
        for _ in range(1500):
            try:
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-6, 3e-4))
                kernel.driver.wait_until(job.done, 0.001)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                caught += 1
            assert not kernel.driver._lock.locked()
            assert not kernel.driver.waiters
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert caught > 100


class Interrupted(logging.Handler):
    """A handler of the log during which Ctrl-C comes, in the worst moment: its lock is taken, and nobody knows yet."""

    def acquire(self) -> None:
        super().acquire()
        interrupts.on_interrupt(signal.SIGINT, None)

    def emit(self, record: logging.LogRecord) -> None:
        """Write nothing."""


def test_an_interrupt_in_the_log_of_a_call_leaves_the_log_to_others() -> None:
    """The helper thread writes there too, and would wait for ever."""
    handler = Interrupted(logging.INFO)
    logger = logging.getLogger("mpiflow.kernel")
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    task = SimpleNamespace(id=1, kwargs={}, tries=1)
    assert handler.lock is not None
    try:
        with pytest.raises(KeyboardInterrupt):
            TaskLog("run", "/tmp", everything=True).launched(task, "here", True)  # type: ignore[arg-type]
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    with concurrent.futures.ThreadPoolExecutor() as other:
        assert other.submit(handler.lock.acquire, timeout=LONG).result(LONG)


def test_closing_does_not_wait_for_ever_for_a_superstep_that_does_not_end(
    helped: Kernel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "CLOSE_WITHIN", 0.2)
    inside, ends = threading.Event(), threading.Event()

    def hang() -> None:
        inside.set()
        ends.wait(LONG)

    helped.on_sleep = hang
    helped.called()
    assert inside.wait(LONG)
    helped.driver.close()
    assert "a superstep has not ended within 0.2 s" in capfd.readouterr().err
    ends.set()
