"""What apps promise: retries, failures passed on, joins, commands, files, time limits, bulks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Form, Jobs

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("launcher")]


def test_retries(jobs: Jobs) -> None:
    """A budget of cost for each task, a handler that may raise or lower it, and a history."""
    script = """
        import os, mpiflow

        @mpiflow.python_app
        def flaky(name, fails):
            with open(name, "a") as file:
                file.write(".")
            tries = os.path.getsize(name)
            if tries <= fails:
                raise OSError(f"try {tries}")
            return tries

        with mpiflow.load(mpiflow.Config(retries=2)):
            good, bad = flaky("a", 2), flaky("b", 3)
            assert good.result() == 3
            assert isinstance(bad.exception(), OSError) and str(bad.exception()) == "try 3"
            assert os.path.getsize("b") == 3
            assert good.task_record["try_id"] == 2 and good.task_record["fail_count"] == 2
            assert bad.task_record["fail_count"] == 3
            assert mpiflow.python_app(abs)(-1).task_record["fail_count"] == 0

        def cost(error, record):
            assert record["func_name"] == "flaky"
            return {"try 1": 0, "try 2": 0.4, "try 3": 0.4}.get(str(error), 100)

        with mpiflow.load(mpiflow.Config(retries=1, retry_handler=cost)):
            assert flaky("c", 3).result() == 4
            assert str(flaky("d", 9).exception()) == "try 4"

        def broken(error, record):
            raise LookupError("the handler itself")

        with mpiflow.load(mpiflow.Config(retries=1, retry_handler=broken)):
            assert str(flaky("e", 9).exception()) == "the handler itself"
            assert os.path.getsize("e") == 1
        print("fine")
    """
    assert jobs.run(script).well() == "fine\n"


def test_failures_reach_what_depends_on_them(jobs: Jobs) -> None:
    """As DependencyError with the way there; the tasks themselves never run."""
    script = """
        import mpiflow
        from mpiflow.errors import DependencyError

        @mpiflow.python_app
        def fail(x=None):
            raise ValueError("root")

        @mpiflow.python_app
        def add(*numbers, inputs=()):
            open("ran.txt", "a").write("ran")
            return sum(numbers) + sum(inputs)

        @mpiflow.bash_app
        def command(x):
            return "touch ran.txt"

        failing = fail()
        after = add(failing, 1)
        last = add(1, inputs=[add(1), after])
        error = last.exception()
        assert type(error) is DependencyError, error
        assert str(error) == (
            "Dependency failure for task 3. The representative cause is via task 1 <- task 0"
        ), str(error)
        assert isinstance(error.__cause__, ValueError) and error.task_id == 3
        assert last.task_status() == "dep_fail" and failing.task_status() == "failed"
        many = add(fail(), fail(), 1).exception()
        assert str(many).endswith("is via task 4 (+ others)"), str(many)
        assert len(many.dependent_exceptions_tids) == 2
        assert type(command(failing).exception()) is DependencyError
        chain = failing
        for _ in range(3000):
            chain = add(chain)
        assert type(chain.exception()) is DependencyError
        assert isinstance(chain.exception().__cause__, ValueError)
        assert open("ran.txt").read() == "ran"
        print("fine")
    """
    assert jobs.run(script).well() == "fine\n"


@pytest.mark.parametrize("form", ["mpiexec", "plain"])
def test_join_apps(jobs: Jobs, form: Form) -> None:
    """Fibonacci numbers, lists, nothing, failures inside, and bodies that return no future."""
    script = """
        import threading, mpiflow
        from mpiflow.errors import JoinError

        mpiflow.load()

        @mpiflow.python_app
        def add(*numbers):
            return sum(numbers)

        @mpiflow.python_app
        def fail(word):
            raise ValueError(word)

        @mpiflow.bash_app
        def command(code):
            return f"exit {code}"

        @mpiflow.join_app
        def fibonacci(n):
            if n < 2:
                return add(n)
            return add(fibonacci(n - 1), fibonacci(n - 2))

        @mpiflow.join_app
        def several(n):
            return [add(i, i) for i in range(n)]

        @mpiflow.join_app
        def mixed():
            return [add(1), fail("first"), several(2), command(3)]

        @mpiflow.join_app
        def no_future():
            return 7

        @mpiflow.join_app
        def raises():
            raise KeyError("body")

        assert fibonacci(11).result() == 89
        assert several(5).result() == [0, 2, 4, 6, 8]
        assert several(0).result() == []
        assert add(several(3), ).exception() is not None
        assert mpiflow.python_app(sum)(several(4)).result() == 12
        failed = mixed()
        assert type(failed.exception()) is JoinError
        assert str(failed.exception()).startswith(f"Join failure for task {failed.tid}. ")
        assert isinstance(failed.exception().__cause__, ValueError)
        assert len(failed.exception().dependent_exceptions_tids) == 2
        wrong = no_future().exception()
        assert type(wrong) is TypeError
        assert str(wrong).startswith("join_app body must return a Future or list of Futures, got 7 of type ")
        assert isinstance(raises().exception(), KeyError)
        assert threading.active_count() < 20
        print("fine")
    """
    assert jobs.run(script, form=form).well() == "fine\n"


@pytest.mark.parametrize("isolation", ["runner", "rank"])
def test_bash_apps(jobs: Jobs, isolation: str) -> None:
    """Output files, modes, exit codes, missing outputs, and bodies that give no command."""
    script = r"""
        import os, mpiflow
        from mpiflow import File
        from mpiflow.errors import (
            AppBadFormatting, BadStdStreamFile, BashAppNoReturn, BashExitFailure, MissingOutputs,
        )

        @mpiflow.bash_app
        def run(command, stdout=None, stderr=None, outputs=()):
            return command

        @mpiflow.bash_app
        def hello(name, stdout="hello.txt"):
            return f"echo hello {name}"

        @mpiflow.bash_app
        def nothing():
            pass

        @mpiflow.bash_app
        def number():
            return 5

        @mpiflow.bash_app
        def bad_format():
            return "{0} {1}".format("one")

        def text(path):
            with open(path) as file:
                return file.read()

        both = run("echo out; echo err >&2", stdout="deep/er/out.txt", stderr="err.txt")
        assert both.result() == 0
        assert both.stdout == "deep/er/out.txt" and both.stderr == "err.txt"
        assert text("deep/er/out.txt") == "out\n"
        assert text("err.txt") == (
            "--> executable follows <--\necho out; echo err >&2\n--> end executable <--\nerr\n"
        ), text("err.txt")
        run("echo more", stdout="deep/er/out.txt").result()
        assert text("deep/er/out.txt") == "out\nmore\n"
        run("echo anew", stdout=("deep/er/out.txt", "w")).result()
        assert text("deep/er/out.txt") == "anew\n"
        hello("you").result()
        assert text("hello.txt") == "hello you\n"

        failed = run("exit 37").exception()
        assert type(failed) is BashExitFailure and failed.exitcode == 37 and failed.app_name == "run"
        assert str(failed) == "bash_app run failed with unix exit code 37"
        assert run("no-such-command-here 2>/dev/null").exception().exitcode == 127
        assert run("kill -9 $$").exception().exitcode == -9
        assert run("false | true; [[ $BASH_VERSION ]]").result() == 0
        missing = run("touch here", outputs=[File("here"), File("not-here")]).exception()
        assert type(missing) is MissingOutputs and "Missing outputs from app run" in str(missing), missing
        assert [str(file) for file in missing.outputs] == ["not-here"]
        assert type(nothing().exception()) is ValueError
        assert type(number().exception()) is ValueError
        assert str(number().exception()) == "Expected a str for bash_app commandline, got <class 'int'>"
        assert type(bad_format().exception()) is AppBadFormatting
        assert "App formatting failed for app 'bad_format' with IndexError" in str(bad_format().exception())
        assert type(run("true", stdout="/proc/no/such").exception()) is BadStdStreamFile
        assert type(run("true", stdout=("a", "b", "c")).exception()) is BadStdStreamFile
        assert run("true", outputs=[File("/")]).result() == 0
        print("fine")
    """
    assert jobs.run(script, options=["--isolation", isolation]).well() == "fine\n"


def test_files_and_futures_as_inputs(jobs: Jobs) -> None:
    """A pipeline joined by its files; futures among arguments, in inputs, and from elsewhere."""
    script = """
        import concurrent.futures, threading, mpiflow
        from mpiflow import DataFuture, File

        @mpiflow.bash_app
        def write(number, outputs=()):
            return f"sleep 0.1; echo {number} > {outputs[0]}"

        @mpiflow.bash_app
        def concatenate(inputs=(), outputs=()):
            return f"cat {' '.join(map(str, inputs))} > {outputs[0]}"

        @mpiflow.python_app
        def total(file, plus=0, inputs=()):
            return sum(map(int, open(file))) + plus + sum(inputs)

        @mpiflow.python_app
        def fail(outputs=()):
            raise ValueError("no file")

        made = [write(n, outputs=[File(f"{n}.txt")]) for n in range(10)]
        files = [future.outputs[0] for future in made]
        assert all(type(file) is DataFuture for file in files) and not files[-1].done()
        joined = concatenate(inputs=files, outputs=[File("all.txt")])
        one, two = total(joined.outputs[0]), total(files[9], plus=files and total(files[1]))
        assert two.result() == 9 + 1
        assert one.result() == 45
        assert files[3].result().filepath == "3.txt" and files[3].done() and files[3].exception() is None
        assert joined.outputs[0].tid == joined.tid

        outside = concurrent.futures.Future()
        later = total(files[2], plus=outside, inputs=[one, outside, 1])
        threading.Timer(0.2, outside.set_result, [100]).start()
        assert later.result() == 2 + 100 + 45 + 100 + 1

        broken = fail(outputs=[File("never")]).outputs[0]
        assert isinstance(broken.exception(), ValueError)
        assert "DataFuture from task" in str(total(broken).exception())
        cancelled = concurrent.futures.Future()
        cancelled.cancel()
        cancelled.set_running_or_notify_cancel()
        assert "CancelledError" in repr(total(files[2], plus=cancelled).exception().__cause__)
        mine = [File("x.txt"), one]
        assert mpiflow.python_app(lambda inputs: inputs[1])(inputs=mine).result() == 45
        assert mine[1] is one, "the caller's own list is left alone"
        print("fine")
    """
    assert jobs.run(script).well() == "fine\n"


@pytest.mark.parametrize("isolation", ["runner", "task"])
def test_walltime_ends_the_task_and_all_it_started(jobs: Jobs, isolation: str) -> None:
    """Python that does not listen, a command with children, and a shell's background job."""
    script = """
        import os, subprocess, time, mpiflow
        from mpiflow.errors import AppTimeout

        MARK = "86399.125"

        @mpiflow.python_app
        def deaf(walltime=0.5):
            import ctypes, signal
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            subprocess.Popen(["sleep", MARK])
            ctypes.PyDLL(None).sleep(600)

        @mpiflow.bash_app
        def tree(walltime=0.5):
            return f"sleep {MARK} & (sleep {MARK}; true) | cat"

        @mpiflow.python_app
        def quick(x, walltime=30):
            return x

        def sleeping():
            found = []
            for entry in filter(str.isdecimal, os.listdir("/proc")):
                try:
                    with open(f"/proc/{entry}/cmdline", "rb") as file:
                        if file.read() == f"sleep\\0{MARK}\\0".encode():
                            found.append(entry)
                except OSError:
                    continue
            return found

        began = time.monotonic()
        slow = [deaf(), tree()]
        beside = [quick(n) for n in range(50)]
        assert [future.result() for future in beside] == list(range(50))
        for future, name in zip(slow, ("deaf", "tree")):
            assert type(future.exception()) is AppTimeout, future.exception()
            assert str(future.exception()) == f"App {name} exceeded walltime: 0.5 seconds"
        seconds = time.monotonic() - began
        assert seconds < 20, seconds
        end = time.monotonic() + 3
        while sleeping() and time.monotonic() < end:
            time.sleep(0.02)
        assert not sleeping(), sleeping()
        assert quick(1, walltime=0.5).result() == 1
        time.sleep(0.6)
        assert quick(2).result() == 2, "a limit that was kept kills nothing later"
        print("fine")
    """
    assert jobs.run(script, options=["--isolation", isolation]).well() == "fine\n"


def test_walltime_in_the_rank(jobs: Jobs) -> None:
    """Only what Python or the kernel can interrupt; the rank goes on."""
    script = """
        import time, mpiflow
        from mpiflow.errors import AppTimeout

        @mpiflow.python_app
        def sleep(seconds, walltime=0.3):
            time.sleep(seconds)
            return seconds

        error = sleep(600).exception()
        assert type(error) is AppTimeout and str(error) == "App sleep exceeded walltime: 0.3 seconds", error
        assert sleep(0.01).result() == 0.01
        time.sleep(0.5)
        assert sleep(0.02).result() == 0.02
        print("fine")
    """
    assert jobs.run(script, options=["--isolation", "rank"], ranks=2).well() == "fine\n"


def test_superstep_is_one_bulk_and_a_barrier(jobs: Jobs) -> None:
    """Nothing runs before its end, everything has run after it, failures stay in their futures."""
    script = """
        import os, time, mpiflow
        from mpiflow.errors import MpiflowError

        @mpiflow.python_app
        def note(number):
            open(f"ran.{number}", "w").close()
            if number == 3:
                raise ValueError("three")
            return number

        note(1000).result()
        with mpiflow.superstep():
            futures = [note(number) for number in range(20)]
            time.sleep(0.3)
            assert not any(os.path.exists(f"ran.{number}") for number in range(20))
        assert all(future.done() for future in futures)
        assert isinstance(futures[3].exception(), ValueError)
        assert [f.result() for f in futures if f is not futures[3]] == [n for n in range(20) if n != 3]

        with mpiflow.superstep():
            inside = note(50)
            assert inside.result() == 50, "waiting inside sends what is held back"
            dependent = note(inside)
        assert dependent.done()
        try:
            with mpiflow.superstep():
                left = note(60)
                raise KeyError("block")
        except KeyError:
            pass
        assert left.result() == 60
        with mpiflow.superstep():
            try:
                with mpiflow.superstep():
                    pass
            except MpiflowError as error:
                assert "a superstep() inside a superstep()" in str(error)
            else:
                raise AssertionError("nested")
        slow = [mpiflow.python_app(time.sleep)(0.2) for _ in range(4)]
        mpiflow.wait_for_current_tasks()
        assert all(future.done() for future in slow)
        print("fine")
    """
    assert jobs.run(script).well() == "fine\n"


@pytest.mark.parametrize("isolation", ["runner", "rank"])
def test_map(jobs: Jobs, isolation: str) -> None:
    """In order, lazily, over endless input, with failures at their turn."""
    script = """
        import itertools, mpiflow

        @mpiflow.python_app
        def square(x):
            if x == 777:
                raise ValueError("unlucky")
            return x * x

        assert list(square.map(range(700))) == [x * x for x in range(700)]
        assert list(mpiflow.map(pow, [2, 3], [5, 2, 9])) == [32, 9]
        assert list(square.map([])) == []
        assert list(square.map(range(10), chunksize=3)) == [x * x for x in range(10)]
        endless = square.map(x % 700 for x in itertools.count())
        assert list(itertools.islice(endless, 5)) == [0, 1, 4, 9, 16]
        del endless
        got = []
        try:
            for value in square.map(range(2000)):
                got.append(value)
        except ValueError as error:
            assert "item 777" in str(error.__cause__), error.__cause__
        assert got == [x * x for x in range(777)], len(got)
        assert sum(mpiflow.map(abs, range(-200_000, 0))) == sum(range(200_001))
        print("fine")
    """
    assert jobs.run(script, options=["--isolation", isolation]).well() == "fine\n"
