"""How a script ends is how the job ends: its exit code, its traceback, and nothing of the launcher's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Form, Jobs

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("launcher")]

FORMS = ["mpiexec", "own", "lone"]


@pytest.mark.parametrize("form", FORMS)
def test_exit_code_is_the_scripts(jobs: Jobs, form: Form) -> None:
    """After a task has run, so that workers are there to be let go."""
    script = """
        import sys, mpiflow
        assert mpiflow.python_app(abs)(-1).result() == 1
        print("before")
        sys.exit(3)
    """
    ended = jobs.run(script, form=form)
    assert ended.failed(3) == ""
    assert ended.out == "before\n"


def test_exit_with_words_prints_them_and_ends_with_1(jobs: Jobs) -> None:
    """``sys.exit("text")``, as Python does it."""
    assert jobs.run('import sys\nsys.exit("that is all")\n').failed(1) == "that is all\n"


@pytest.mark.parametrize("form", [*FORMS, "plain"])
def test_uncaught_exception_shows_one_traceback_of_the_script_alone(jobs: Jobs, form: Form) -> None:
    """Frame for frame what Python itself shows."""
    script = """
        import mpiflow

        mpiflow.load()

        def fail(x):
            raise ValueError(f"no {x}")

        assert mpiflow.python_app(abs)(-1).result() == 1
        fail("way")
    """
    err = jobs.run(script, form=form).failed(1)
    lines = err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: no way"
    assert err.count("Traceback") == 1
    assert [line.split(", ")[1:] for line in lines if line.startswith("  File")] == [
        ["line 10", "in <module>"],
        ["line 7", "in fail"],
    ]
    assert all("script.py" in line for line in lines if line.startswith("  File"))
    assert '    raise ValueError(f"no {x}")' in lines


@pytest.mark.parametrize("isolation", ["runner", "rank"])
def test_failed_task_shows_the_line_in_the_task(jobs: Jobs, isolation: str) -> None:
    """The remote traceback is a cause of the exception, so whatever prints the one prints the other."""
    script = """
        import mpiflow

        @mpiflow.python_app
        def divide(a, b):
            return a / b

        divide(1, 0).result()
    """
    err = jobs.run(script, options=["--isolation", isolation]).failed(1)
    assert err.count("In task 0 (divide):") == 1
    assert err.splitlines()[-1] == "ZeroDivisionError: division by zero"
    remote = err.partition("In task 0 (divide):")[2].partition("The above exception")[0]
    assert "line 6, in divide" in remote
    assert "    return a / b" in remote, "the source line is shown, as the script's file is there"


@pytest.mark.parametrize("form", ["mpiexec", "lone", "plain"])
def test_tasks_that_have_not_ended_are_given_up_with_a_word(jobs: Jobs, form: Form) -> None:
    """A script that ends does not wait for them, and says so; a runner's sleep of ten minutes does not matter."""
    script = """
        import time, mpiflow
        mpiflow.load()
        sleep = mpiflow.python_app(time.sleep)
        futures = [sleep(600) for _ in range(5)]
        time.sleep(0.3)
        print(sum(future.done() for future in futures))
    """
    ended = jobs.run(script, form=form)
    assert ended.code == 0, str(ended)
    assert ended.err == (
        "mpiflow: the script has ended, but 5 of its tasks have not; they are given up. "
        "Wait for them with mpiflow.wait_for_current_tasks().\n"
    )
    assert ended.out == "0\n"
    assert ended.seconds < 15


@pytest.mark.parametrize("form", ["mpiexec", "lone", "plain"])
def test_script_that_ends_while_its_first_tasks_are_sent(jobs: Jobs, form: Form) -> None:
    """Runners that are just being started go as well, and without a word."""
    script = """
        import mpiflow
        mpiflow.load()
        app = mpiflow.python_app(abs)
        futures = [app(number) for number in range(300)]
    """
    ended = jobs.run(script, form=form)
    assert ended.code == 0, str(ended)
    assert all(line.startswith("mpiflow: ") for line in ended.err.splitlines()), str(ended)


def test_task_in_the_rank_that_does_not_end_is_ended_by_force(jobs: Jobs) -> None:
    """Where the rank itself sleeps nobody can tell it to leave: it is killed, and the exit code is the script's."""
    script = """
        import time, mpiflow
        mpiflow.python_app(time.sleep)(600)
        time.sleep(0.3)
    """
    ended = jobs.run(script, ranks=2, options=["--isolation", "rank"])
    assert ended.code == 0, str(ended)
    assert "1 of its tasks have not" in ended.err
    assert "rank 1 did not leave within 10 s" in ended.err
    assert ended.seconds < 30


def test_script_waits_for_its_threads_and_runs_what_it_registered(jobs: Jobs) -> None:
    """As Python does before it exits; a thread may go on calling apps."""
    script = """
        import atexit, threading, time, mpiflow

        atexit.register(print, "registered")

        def later():
            time.sleep(0.3)
            print(mpiflow.python_app(abs)(-7).result())

        threading.Thread(target=later).start()
        print("main ends")
    """
    assert jobs.run(script).well() == "main ends\n7\nregistered\n"


@pytest.mark.parametrize("form", ["mpiexec", "plain"])
def test_thread_pools_do_not_hold_up_the_end(jobs: Jobs, form: Form) -> None:
    """Idle ones: of the script's own, of an executor, of join_apps."""
    script = """
        import concurrent.futures, mpiflow
        from mpiflow import Config, MPIExecutor, ThreadPoolExecutor

        mpiflow.load(Config(executors=[MPIExecutor("far"), ThreadPoolExecutor("near", 2)]))

        @mpiflow.join_app
        def join():
            return mpiflow.python_app(abs, executors=["near"])(-1)

        pool = concurrent.futures.ThreadPoolExecutor(2)
        print(pool.submit(abs, -2).result(), join().result())
    """
    assert jobs.run(script, form=form, limit=20).well() == "2 1\n"


def test_task_in_a_thread_of_rank_0_does_not_hold_up_the_end(jobs: Jobs) -> None:
    """Given up like any other, although nobody can end a thread."""
    script = """
        import time, mpiflow
        from mpiflow import Config, MPIExecutor, ThreadPoolExecutor

        mpiflow.load(Config(executors=[MPIExecutor("far"), ThreadPoolExecutor("near", 2)]))
        app = mpiflow.python_app(time.sleep, executors=["near"])
        join = mpiflow.join_app(time.sleep)
        futures = app(600), join(600)
        time.sleep(0.3)
        print("end")
    """
    ended = jobs.run(script, ranks=2, limit=20)
    assert ended.code == 0, str(ended)
    assert ended.out == "end\n"
    assert "2 of its tasks have not" in ended.err


def test_thread_left_in_a_rank_does_not_hold_up_the_end(jobs: Jobs) -> None:
    """One that a task started where tasks run in the rank itself, and that Python would wait for."""
    script = """
        import threading, time, mpiflow

        @mpiflow.python_app
        def leave():
            threading.Thread(target=time.sleep, args=(600,)).start()

        leave().result()
        print("end")
    """
    assert jobs.run(script, ranks=2, options=["--isolation", "rank"], limit=20).well() == "end\n"


def test_no_word_of_the_launcher_on_failure(jobs: Jobs) -> None:
    """With more ranks than cores, and all of them busy: still the script's own code, and our words only."""
    script = """
        import time, mpiflow
        sleep = mpiflow.python_app(time.sleep)
        running = [sleep(600) for _ in range(10)]
        time.sleep(0.2)
        raise SystemExit(77)
    """
    err = jobs.run(script, ranks=6).failed(77)
    assert all(line.startswith("mpiflow: ") for line in err.splitlines()), err
