"""The calls that only Linux has: what they promise, seen from another process."""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable

import pytest
from fakes import LONG, eventually

from mpiflow import linux
from mpiflow.linux import Watch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what these calls do, they do on Linux")


def forked(work: Callable[[], object]) -> int:
    """Process id of a child that does this and ends, with 0 if nothing was raised."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def code_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def ends_within(read: int, seconds: float) -> bool:
    """Whether all who hold the other end of a pipe are gone by then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([read], [], [], 0.01)[0] and os.read(read, 100) == b"":
            return True
    return False


def test_a_process_dies_with_its_parent() -> None:
    read, write = os.pipe()
    ready_read, ready_write = os.pipe()

    def parent() -> None:
        me = os.getpid()

        def child() -> None:
            linux.die_with_parent(signal.SIGKILL, me)
            os.write(ready_write, b"x")
            time.sleep(LONG)

        forked(child)
        os.read(ready_read, 1)

    pid = forked(parent)
    os.close(write)
    assert code_of(pid) == 0
    assert ends_within(read, LONG / 2)
    for fd in (read, ready_read, ready_write):
        os.close(fd)


def test_a_process_whose_parent_has_gone_already_ends_at_once() -> None:
    stranger = os.getppid()
    assert code_of(forked(lambda: linux.die_with_parent(signal.SIGKILL, stranger))) == 1
    me = os.getpid()
    assert code_of(forked(lambda: linux.die_with_parent(signal.SIGKILL, me))) == 0


def test_orphans_are_adopted() -> None:
    read, write = os.pipe()

    def reaper() -> None:
        linux.adopt_orphans()

        def parent() -> None:
            mother = os.getpid()

            def orphan() -> None:
                eventually(lambda: os.getppid() != mother)
                os.write(write, str(os.getppid()).encode())

            forked(orphan)

        os.waitpid(forked(parent), 0)
        os.wait()  # the orphan is a child of this one now

    pid = forked(reaper)
    assert code_of(pid) == 0
    assert os.read(read, 100) == str(pid).encode()
    os.close(read)
    os.close(write)


def test_children_are_known_until_they_are_waited_for() -> None:
    pid = forked(lambda: None)
    assert pid in linux.children()
    os.waitpid(pid, 0)
    assert pid not in linux.children()


def test_the_kernel_is_offered_a_process_when_memory_runs_out() -> None:
    def offer() -> None:
        linux.offer_to_out_of_memory_killer()
        with open("/proc/self/oom_score_adj") as score:
            assert score.read() == "1000\n"

    assert code_of(forked(offer)) == 0


def test_short_sleeps_are_short() -> None:
    def sleep() -> None:
        linux.sleep_exactly()
        with open("/proc/self/timerslack_ns") as slack:
            assert slack.read() == "1\n"

    assert code_of(forked(sleep)) == 0


@pytest.mark.parametrize("size", [0, 1, 1_000_000])
@pytest.mark.parametrize("kind", ["without a name", "an unlinked file"])
def test_memory_can_be_written_and_is_not_inherited_over_exec(
    size: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "an unlinked file":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    fd = linux.memory_file(size)
    try:
        assert os.fstat(fd).st_size == size
        assert os.fstat(fd).st_nlink == 0
        assert not os.get_inheritable(fd)
        assert os.pwrite(fd, b"x", 0) == 1
    finally:
        os.close(fd)


def test_open_descriptors_are_those_that_are_open() -> None:
    os.dup2(0, 500)  # a number that listing them will not use for itself
    assert 500 in linux.open_descriptors()
    os.close(500)
    assert 500 not in linux.open_descriptors()


def test_loaded_libraries_are_named_once_by_their_paths() -> None:
    found = linux.loaded_libraries("libc")
    assert found
    assert len(found) == len(set(found))
    assert all(os.path.isabs(path) and "libc" in os.path.basename(path) for path in found)
    assert linux.loaded_libraries("no such library") == []


def test_without_proc_less_is_known_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", absent)
    monkeypatch.setattr(os, "listdir", absent)
    assert linux.children() == []
    assert linux.loaded_libraries("libc") == []
    assert linux.open_descriptors() == list(range(1024))
    linux.offer_to_out_of_memory_killer()


# --- waiting on many descriptors -----------------------------------------------------------------------


@pytest.fixture(params=["epoll", "select"])
def watch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Watch:
    if request.param == "select":
        monkeypatch.delattr(select, "epoll", raising=False)
    return Watch()


def test_it_names_the_descriptors_with_something_to_read(watch: Watch) -> None:
    pipes = [os.pipe() for _ in range(3)]
    for read, _ in pipes:
        watch.add(read)
    assert watch.wait(0.0) == []
    os.write(pipes[2][1], b"x")
    os.write(pipes[0][1], b"x")
    assert sorted(watch.wait(LONG)) == sorted([pipes[0][0], pipes[2][0]])
    assert len(watch.wait(0.0)) == 2, "until it is read"
    watch.remove(pipes[0][0])
    assert watch.wait(0.0) == [pipes[2][0]]
    watch.close()
    for read, write in pipes:
        os.close(read)
        os.close(write)


def test_an_end_that_has_gone_is_something_to_read(watch: Watch) -> None:
    read, write = os.pipe()
    watch.add(read)
    os.close(write)
    assert watch.wait(LONG) == [read]
    watch.remove(read)
    os.close(read)
    watch.close()


def test_it_waits_as_long_as_it_is_told_and_microseconds_too(watch: Watch) -> None:
    read, write = os.pipe()
    watch.add(read)
    started = time.perf_counter()
    assert watch.wait(0.02) == []
    assert time.perf_counter() - started >= 0.019
    short = []
    for _ in range(200):
        started = time.perf_counter()
        watch.wait(50e-6)
        short.append(time.perf_counter() - started)
    assert 40e-6 < min(short) < 900e-6, "an epoll by itself would count a whole millisecond"
    os.close(write)
    os.close(read)
    watch.close()


def test_it_takes_descriptors_above_1023() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2100:
        if hard != resource.RLIM_INFINITY and hard < 2100:
            pytest.skip("this machine allows no such descriptors")
        resource.setrlimit(resource.RLIMIT_NOFILE, (2100, hard))
    watch = Watch()
    read, write = os.pipe()
    os.dup2(read, 2000)
    try:
        watch.add(2000)
        os.write(write, b"x")
        assert watch.wait(LONG) == [2000]
        watch.remove(2000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in (read, write, 2000):
            os.close(fd)
        watch.close()
