"""A runner that dies takes one task with it; results stream, and runners run side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Form, Jobs

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("launcher")]


@pytest.mark.parametrize("isolation", ["runner", "task"])
def test_death_charges_the_task_that_ran_and_no_other(jobs: Jobs, isolation: str) -> None:
    """Three of 300 tasks in flight die: every other ran exactly once, at its first try."""
    script = """
        import collections, os, signal, mpiflow
        from mpiflow.errors import WorkerLost

        DEADLY = {40, 41, 150}

        @mpiflow.python_app
        def note(number):
            with open("ran.txt", "a") as file:
                file.write(f"{number}\\n")
            if number in DEADLY:
                os.kill(os.getpid(), signal.SIGKILL)
            return -number

        with mpiflow.superstep():
            futures = [note(number) for number in range(300)]
        lost = {n for n, future in enumerate(futures) if isinstance(future.exception(), WorkerLost)}
        assert lost == DEADLY, lost
        assert [f.result() for n, f in enumerate(futures) if n not in lost] == [
            -n for n in range(300) if n not in lost
        ]
        ran = collections.Counter(map(int, open("ran.txt")))
        assert ran == collections.Counter(range(300)), ran - collections.Counter(range(300))
        assert all(future.task_record["try_id"] == 0 for future in futures)
        assert {n: f.task_record["fail_count"] for n, f in enumerate(futures) if f.task_record["fail_count"]} == {
            n: 1 for n in DEADLY
        }
        for n in DEADLY:
            words = str(futures[n].exception())
            assert words.startswith(f"task {n} (note): the process that ran it (pid "), words
            assert "was killed by SIGKILL; its peak memory was " in words, words
        print("fine")
    """
    assert jobs.run(script, options=["--isolation", isolation]).well() == "fine\n"


def test_death_is_retried_like_any_failure(jobs: Jobs) -> None:
    """The second try runs, the tasks beside it pay nothing; a task that always dies fails in the end."""
    script = """
        import collections, os, mpiflow
        from mpiflow.errors import WorkerLost

        @mpiflow.python_app
        def dies(number, times):
            with open(f"tries.{number}", "a") as file:
                file.write(".")
            if os.path.getsize(f"tries.{number}") <= times:
                os._exit(9)
            return number

        with mpiflow.load(mpiflow.Config(retries=2)):
            futures = [dies(number, {10: 1, 20: 2, 30: 99}.get(number, 0)) for number in range(50)]
            assert isinstance(futures[30].exception(), WorkerLost)
            assert "ended with exit code 9" in str(futures[30].exception())
            assert [f.result() for f in futures if f is not futures[30]] == [n for n in range(50) if n != 30]
            tries = [os.path.getsize(f"tries.{number}") for number in range(50)]
            assert tries == [{10: 2, 20: 3, 30: 3}.get(number, 1) for number in range(50)], tries
            assert [f.task_record["try_id"] for f in futures] == [tried - 1 for tried in tries]
        print("fine")
    """
    assert jobs.run(script).well() == "fine\n"


@pytest.mark.parametrize("form", ["mpiexec", "plain"])
def test_a_hundred_deaths_in_a_row(jobs: Jobs, form: Form) -> None:
    """Runners are replaced as fast as they die, and descriptors do not run out."""
    script = """
        import os, time, mpiflow

        @mpiflow.python_app
        def dies(number):
            os._exit(1 + number % 200)

        with mpiflow.load():
            began = time.monotonic()
            codes = [str(dies(number).exception()).partition(" ended with exit code ")[2] for number in range(100)]
            assert [int(text.split(";")[0]) for text in codes] == [1 + n for n in range(100)], codes
            seconds = time.monotonic() - began
            assert seconds < 20, seconds
            assert mpiflow.python_app(abs)(-1).result() == 1
        print("fine")
    """
    assert jobs.run(script, ranks=2, form=form).well() == "fine\n"


def test_results_arrive_while_a_slow_task_behind_them_still_runs(jobs: Jobs) -> None:
    """One bulk for one runner: what is done is reported at once, not with the rest of the bulk."""
    script = """
        import time, mpiflow

        @mpiflow.python_app
        def work(seconds):
            time.sleep(seconds)
            return time.time()

        work(0).result()
        quick = [work(0) for _ in range(20)]
        slow = work(1.5)
        behind = [work(0) for _ in range(5)]
        ended = [future.result() for future in quick]
        arrived = time.time()
        assert not slow.done()
        assert arrived - ended[-1] < 1.0, arrived - ended[-1]
        assert not slow.done() and not behind[0].done()
        assert all(future.result() > slow.result() for future in behind)
        print("fine")
    """
    assert jobs.run(script, ranks=2).well() == "fine\n"


def test_runners_per_rank_run_at_once(jobs: Jobs) -> None:
    """Four sleeps on one rank: all have begun before any has ended, each in a process of its own."""
    script = """
        import os, time, mpiflow

        @mpiflow.python_app
        def sleep(seconds):
            began = time.time()
            time.sleep(seconds)
            return began, time.time(), os.getpid()

        rows = [future.result() for future in [sleep(0.6) for _ in range(4)]]
        assert max(began for began, _, _ in rows) < min(ended for _, ended, _ in rows), rows
        assert len({pid for _, _, pid in rows}) == 4
        one_by_one = [future.result() for future in [sleep(0.2) for _ in range(8)]]
        begun = sorted(one_by_one)
        at_once = max(sum(b <= row[0] < e for b, e, _ in begun) for row in begun)
        assert at_once <= 4, at_once
        print("fine")
    """
    assert jobs.run(script, ranks=2, options=["--runners-per-rank", "4"]).well() == "fine\n"


def test_work_spreads_over_all_ranks(jobs: Jobs) -> None:
    """Six sleeps on three workers take two rounds, not six."""
    script = """
        import os, time, mpiflow

        @mpiflow.python_app
        def sleep(seconds):
            time.sleep(seconds)
            return os.getpid(), os.getppid()

        [f.result() for f in [sleep(0.01) for _ in range(30)]]
        where = [future.result() for future in [sleep(0.4) for _ in range(6)]]
        assert len({parent for _, parent in where}) == 3, where
        print("fine")
    """
    assert jobs.run(script, ranks=4).well() == "fine\n"
