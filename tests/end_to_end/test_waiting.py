"""Whoever waits, in whatever function, drives the farm: no way of waiting hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Form, Jobs

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("launcher")]


@pytest.mark.parametrize("form", ["mpiexec", "plain"])
def test_waits_of_the_standard_library_drive(jobs: Jobs, form: Form) -> None:
    """wait, as_completed, an event set by a callback, and an event loop."""
    script = """
        import asyncio, concurrent.futures as cf, threading, time, mpiflow

        mpiflow.load()

        @mpiflow.python_app
        def after(seconds, value=None):
            time.sleep(seconds)
            return value

        done, not_done = cf.wait([after(0.1, n) for n in range(4)])
        assert {future.result() for future in done} == {0, 1, 2, 3} and not not_done
        done, not_done = cf.wait([after(0.1), after(5)], return_when=cf.FIRST_COMPLETED)
        assert len(done) == len(not_done) == 1
        done, not_done = cf.wait([after(30)], timeout=0.3)
        assert not done and len(not_done) == 1
        mpiflow.dfk().cleanup()
        mpiflow.load()

        assert sorted(f.result() for f in cf.as_completed([after(0.1 * n, n) for n in range(4)])) == [0, 1, 2, 3]

        event = threading.Event()
        after(0.1).add_done_callback(lambda future: event.set())
        assert event.wait(10)

        async def main():
            values = await asyncio.gather(*[asyncio.wrap_future(after(0.1, n)) for n in range(4)])
            assert values == [0, 1, 2, 3]
            assert await asyncio.wait_for(asyncio.wrap_future(after(after(0.1, 0.1), "chained")), 10) == "chained"

        asyncio.run(main())

        began = time.monotonic()
        future = after(0.2, "polled")
        while not future.done():
            time.sleep(0.005)
        assert time.monotonic() - began < 5

        computing = [after(0.001, n) for n in range(30)]
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            sum(range(1000))
        assert all(future.done() for future in computing), "a script that computes is helped"
        print("fine")
    """
    assert jobs.run(script, form=form).well() == "fine\n"


def test_time_limits_of_waiting(jobs: Jobs) -> None:
    """TimeoutError after the time and not much later; the future may be waited for again."""
    script = """
        import concurrent.futures, time, mpiflow

        @mpiflow.python_app
        def after(seconds):
            time.sleep(seconds)
            return seconds

        after(0).result()
        slow = after(3)
        for wait in (slow.result, slow.exception):
            began = time.monotonic()
            try:
                wait(timeout=0.2)
            except concurrent.futures.TimeoutError as error:
                assert "is not done after 0.2 s" in str(error), error
            else:
                raise AssertionError("no TimeoutError")
            assert 0.19 < time.monotonic() - began < 1.4
        try:
            slow.result(timeout=0)
        except TimeoutError:
            pass
        assert not slow.done() and slow.running()
        assert slow.result(timeout=30) == 3
        assert slow.result(timeout=0) == 3
        try:
            slow.cancel()
        except NotImplementedError as error:
            assert str(error) == "Cancel not implemented"
        print("fine")
    """
    assert jobs.run(script, ranks=2).well() == "fine\n"


@pytest.mark.parametrize("form", ["mpiexec", "plain"])
def test_callbacks_may_call_and_wait(jobs: Jobs, form: Form) -> None:
    """``result()`` inside a callback, of a task called inside it, two deep; a failing callback is logged."""
    script = """
        import logging, threading, mpiflow

        mpiflow.load()
        logging.getLogger("concurrent.futures").setLevel(logging.CRITICAL + 1)

        @mpiflow.python_app
        def add(a, b):
            return a + b

        seen = []
        ended = threading.Event()

        def inner(future):
            seen.append(("inner", future.result()))
            ended.set()

        def outer(future):
            seen.append(("outer", future.result()))
            value = add(future.result(), 10).result()
            seen.append(("waited", value))
            add(value, 100).add_done_callback(inner)

        def broken(future):
            raise ValueError("in a callback")

        first = add(1, 1)
        first.add_done_callback(broken)
        first.add_done_callback(outer)
        assert first.result() == 2
        assert ended.wait(10)
        assert seen == [("outer", 2), ("waited", 12), ("inner", 112)], seen

        first.add_done_callback(lambda future: seen.append("at once"))
        assert seen[-1] == "at once"

        count = []
        futures = [add(n, n) for n in range(500)]
        for future in futures:
            future.add_done_callback(lambda future: count.append(add(future.result(), 1).result()))
        [future.result() for future in futures]
        mpiflow.wait_for_current_tasks()
        end = threading.Event()
        while len(count) < 500 and not end.wait(0.01):
            pass
        assert sorted(count) == [2 * n + 1 for n in range(500)]
        print("fine")
    """
    assert jobs.run(script, form=form).well() == "fine\n"


def test_apps_may_be_called_and_awaited_from_threads(jobs: Jobs) -> None:
    """Eight threads, each with its own tasks, chains, supersteps and waits."""
    script = """
        import concurrent.futures, threading, mpiflow

        @mpiflow.python_app
        def add(a, b):
            return a + b

        def work(number):
            futures = [add(number, i) for i in range(100)]
            assert [future.result() for future in futures] == [number + i for i in range(100)]
            chain = 0
            for _ in range(50):
                chain = add(chain, number)
            assert chain.result() == 50 * number
            with mpiflow.superstep():
                inside = [add(i, number) for i in range(20)]
            assert all(future.done() for future in inside)
            assert list(mpiflow.map(abs, range(-50, 0))) == list(range(50, 0, -1))
            return number

        mpiflow.load()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == list(range(8))
        print("fine")
    """
    assert jobs.run(script).well() == "fine\n"


def test_script_may_use_mpi_and_start_programs_that_do(jobs: Jobs) -> None:
    """mpi4py in the script, in a Python that it starts, and mpiexec from the script."""
    script = """
        import json, subprocess, sys, mpiflow

        assert mpiflow.python_app(abs)(-1).result() == 1
        code = "from mpi4py import MPI; print(MPI.COMM_WORLD.size)"
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
        assert (child.returncode, child.stdout, child.stderr) == (0, "1\\n", ""), child
        line = [*json.loads(sys.argv[1]), sys.executable, "-c", code]
        child = subprocess.run(line, capture_output=True, text=True, timeout=30)
        assert (child.returncode, sorted("".join(child.stdout.split())), child.stderr) == (0, ["2", "2"], ""), child

        from mpi4py import MPI
        assert MPI.COMM_SELF.allreduce(3) == 3
        assert MPI.COMM_WORLD.rank == 0 and MPI.COMM_WORLD.size == 3
        request = MPI.COMM_SELF.isend("mine", 0, tag=1)
        assert mpiflow.python_app(abs)(-2).result() == 2
        assert MPI.COMM_SELF.recv(source=0, tag=1) == "mine"
        request.wait()
        print("fine")
    """
    import json

    from launching import our_mpiexec

    found = our_mpiexec()
    assert found is not None
    assert jobs.run(script, json.dumps(found.line(2))).well() == "fine\n"
