"""Pools of ranks, priorities, ends by force, time limits and bounded submission, on real ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Form, Jobs

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("launcher")]


def test_executors_take_their_ranks(jobs: Jobs) -> None:
    """By text, by list, by share and by host; each task runs on a rank of its executor's."""
    script = """
        import os, time, mpiflow
        from mpiflow import Config, MPIExecutor

        def ranks_of(config, **calls):
            with mpiflow.load(config):
                def where():
                    time.sleep(0.02)
                    return int(os.environ["PARSL_WORKER_RANK"]) + 1
                seen = {}
                for label in [e.label for e in config.executors]:
                    app = mpiflow.python_app(where, executors=[label])
                    seen[label] = {f.result() for f in [app() for _ in range(12)]}
                return seen

        gpu = {"available_accelerators": 1}  # so that tasks are told where they are
        host = os.uname().nodename
        for ranks, expected in [
            ("1-2", {1, 2}), ("3", {3}), ([2], {2}), ("2-", {2, 3}), (None, {1, 2, 3}), (host[:3] + "*", {1, 2, 3}),
        ]:
            seen = ranks_of(Config([MPIExecutor("one", ranks=ranks, **gpu)]))["one"]
            assert seen == expected, (ranks, seen)
        seen = ranks_of(Config([MPIExecutor("cpu", ranks=2 / 3, **gpu), MPIExecutor("io", ranks=1 / 3, **gpu)]))
        assert seen == {"cpu": {1, 2}, "io": {3}}, seen

        for ranks, words in [("0-1", "names rank 0"), ("9", "names rank 9"), ("nowhere*", "no worker's host")]:
            try:
                mpiflow.load(Config([MPIExecutor(ranks=ranks)]))
            except mpiflow.errors.ConfigurationError as error:
                assert words in str(error), error
            else:
                raise AssertionError(ranks)
        with mpiflow.load():
            assert mpiflow.python_app(abs)(-1).result() == 1
        print("fine")
    """
    assert jobs.run(script, ranks=4).well() == "fine\n"


def test_a_pool_whose_workers_are_busy_does_not_hold_up_another(jobs: Jobs) -> None:
    script = """
        import time, mpiflow
        from mpiflow import Config, MPIExecutor

        @mpiflow.python_app(executors=["slow"])
        def slow():
            time.sleep(20)

        @mpiflow.python_app(executors=["quick"])
        def quick(x):
            return x

        with mpiflow.load(Config([MPIExecutor("slow", ranks="1"), MPIExecutor("quick", ranks="2")])):
            quick(0).result()
            busy = [slow() for _ in range(20)]
            assert [quick(i).result() for i in range(200)] == list(range(200))
            assert not any(future.done() for future in busy)
            for task in list(mpiflow.dfk().tasks.values()):
                task.future.kill()
        print("fine")
    """
    assert jobs.run(script).well() == "fine\n"


def test_without_prefetch_a_worker_has_no_more_than_it_runs(jobs: Jobs) -> None:
    """What waits on rank 0 can be cancelled; nothing waits behind another on a worker."""
    script = """
        import time, mpiflow
        from mpiflow import Config, MPIExecutor

        @mpiflow.python_app
        def tiny(seconds=0):
            time.sleep(seconds)

        with mpiflow.load(Config([MPIExecutor(prefetch=0)])):
            [f.result() for f in [tiny() for _ in range(100)]]  # known to be short
            futures = [tiny(0.5) for _ in range(10)]
            time.sleep(0.2)
            cancelled = [f.cancel() for f in futures]
            assert cancelled == [False] * 2 + [True] * 8, cancelled
            assert [f.result() for f in futures[:2]] == [None, None]
        print("fine")
    """
    assert jobs.run(script).well() == "fine\n"


def test_bindings_are_told_and_kept(jobs: Jobs) -> None:
    script = """
        import os, time, mpiflow
        from mpiflow import Config, MPIExecutor

        @mpiflow.python_app
        def look():
            time.sleep(0.05)
            return dict(os.environ), sorted(os.sched_getaffinity(0))

        cpus = sorted(os.sched_getaffinity(0))
        config = Config([MPIExecutor(
            runners_per_rank=2, cpu_affinity=f"list:{cpus[0]}:{cpus[-1]}", available_accelerators=["a", "b", "c", "d"],
        )])
        with mpiflow.load(config):
            seen = [f.result() for f in [look() for _ in range(16)]]
        places = {e["PARSL_WORKER_RANK"]: (e, bound) for e, bound in seen}
        assert len(places) == 4, sorted(places)
        for place, (environment, bound) in places.items():
            assert environment["PARSL_WORKER_COUNT"] == "4"
            assert bound == [cpus[-1] if int(place) % 2 else cpus[0]], (place, bound)
            assert environment["OMP_NUM_THREADS"] == "1"
        devices = {place: e["CUDA_VISIBLE_DEVICES"] for place, (e, _) in places.items()}
        assert sorted(devices.values()) == ["a", "b", "c", "d"], devices
        with mpiflow.load():
            environment, bound = look().result()
            assert "CUDA_VISIBLE_DEVICES" not in environment and bound == cpus
        print("fine")
    """
    assert jobs.run(script).well() == "fine\n"


@pytest.mark.parametrize("form", ["mpiexec", "plain"])
@pytest.mark.parametrize("isolation", ["runner", "task"])
def test_kill(jobs: Jobs, form: Form, isolation: str) -> None:
    """A task that runs, and one behind another, are ended; their neighbours go on and none of them is charged."""
    script = """
        import os, sys, threading, time, mpiflow
        from mpiflow.errors import DependencyError, TaskKilled

        @mpiflow.python_app
        def work(name, seconds):
            open(f"{name}.began", "a").write(".")
            time.sleep(seconds)
            open(f"{name}.ended", "w").close()
            return name

        def wait_for(path):
            while not os.path.exists(path):
                time.sleep(0.01)

        executor = mpiflow.MPIExecutor(isolation=sys.argv[1], runners_per_rank=1)
        with mpiflow.load(mpiflow.Config([executor], retries=3)):
            [f.result() for f in [work("warm", 0) for _ in range(60)]]  # known to be short: several are sent ahead
            stuck = work("stuck", 1000)
            after = work(stuck, 0)
            behind = [work(f"behind{i}", 0) for i in range(20)]
            wait_for("stuck.began")
            threading.Timer(0.1, stuck.kill).start()
            try:
                stuck.result(20)
            except TaskKilled as error:
                assert str(error) == "task 60 (work) was ended by kill()", error
            assert [f.result(20) for f in behind] == [f"behind{i}" for i in range(20)]
            assert all(f.task_record["fail_count"] == 0 for f in behind)
            assert isinstance(after.exception(20).__cause__, TaskKilled)
            assert isinstance(after.exception(), DependencyError)

            first = [work(f"first{i}", 0.6) for i in range(2)]
            second = [work(f"second{i}", 1000) for i in range(4)]
            third = [work(f"third{i}", 0) for i in range(4)]
            time.sleep(0.2)
            assert all(f.kill() for f in second)
            assert [f.result(20) for f in first + third] == (
                [f"first{i}" for i in range(2)] + [f"third{i}" for i in range(4)])
            assert all(f.task_record["fail_count"] == 0 for f in first + third)
            assert not stuck.kill() and not first[0].kill()
            assert not [f for f in os.listdir() if f.startswith(("stuck", "second")) and f.endswith("ended")]
        print("fine")
    """
    assert jobs.run(script, isolation, form=form).well() == "fine\n"


def test_what_a_killed_task_has_started_goes_with_it(jobs: Jobs) -> None:
    script = """
        import os, time, mpiflow

        @mpiflow.bash_app
        def command():
            return "(sleep 1; touch late) & touch began; wait"

        future = command()
        while not os.path.exists("began"):
            time.sleep(0.01)
        assert future.kill()
        time.sleep(1.2)
        assert not os.path.exists("late")
        print("fine")
    """
    assert jobs.run(script).well() == "fine\n"


def test_priorities_order_what_is_ready(jobs: Jobs) -> None:
    script = """
        import time, mpiflow
        from mpiflow import Config, MPIExecutor

        @mpiflow.python_app
        def note(word, seconds=0.05):
            with open("order", "a") as file:
                file.write(word)
            time.sleep(seconds)

        with mpiflow.load(Config([MPIExecutor(ranks="1", runners_per_rank=1, prefetch=0)])):
            note("0", 0.3)
            time.sleep(0.1)
            for word, priority in [("e", 2), ("c", 0), ("a", -5), ("f", 2), ("d", 0), ("b", -5)]:
                note(word, priority=priority)
            mpiflow.wait_for_current_tasks()
            assert open("order").read() == "0abcdef", open("order").read()
            with mpiflow.superstep():
                for word, priority in [("w", 7), ("v", 0), ("u", -7)]:
                    note(word, priority=priority)
            assert open("order").read().endswith("uvw"), open("order").read()
        print("fine")
    """
    assert jobs.run(script).well() == "fine\n"


@pytest.mark.parametrize("isolation", ["runner", "task"])
def test_walltime_stops_anything(jobs: Jobs, isolation: str) -> None:
    """Sleep, C code that never looks, a process tree below a command."""
    script = """
        import sys, time, mpiflow
        from mpiflow.errors import AppTimeout

        @mpiflow.python_app
        def sleep(walltime=0.3):
            time.sleep(60)

        @mpiflow.python_app
        def compute(walltime=0.3):
            return sum(range(10**11))

        @mpiflow.python_app
        def deaf(walltime=0.3):
            while True:
                try:
                    time.sleep(1)
                except BaseException:
                    pass

        @mpiflow.bash_app
        def tree(walltime=0.3):
            return "trap '' TERM; (trap '' TERM; sleep 1; touch late) & (setsid sleep 1) & wait"

        with mpiflow.load(mpiflow.Config([mpiflow.MPIExecutor(isolation=sys.argv[1])])):
            began = time.monotonic()
            for app in (sleep, compute, deaf, tree):
                error = app().exception(20)
                assert type(error) is AppTimeout, error
                assert str(error) == f"App {app.__name__} exceeded walltime: 0.3 seconds", error
            assert time.monotonic() - began < 20
            assert mpiflow.python_app(abs)(-2).result() == 2
            time.sleep(1.2)
        import os
        assert not os.path.exists("late")
        print("fine")
    """
    assert jobs.run(script, isolation).well() == "fine\n"


def test_a_generator_of_many_calls_runs_in_bounded_memory(jobs: Jobs) -> None:
    script = """
        import mpiflow

        def memory():
            return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])

        @mpiflow.python_app
        def same(x):
            return x

        with mpiflow.load(mpiflow.Config(max_pending=2000, initialize_logging=False)) as dfk:
            total, most, last = 0, 0, same(0)
            for i in range(100_000):
                last = same(i)
                if not i % 1000:
                    most = max(most, len(dfk.tasks))
                if i == 20_000:
                    early = memory()
            assert last.result() == 99_999
            assert most <= 2000, most
            grown = memory() - early
            assert grown < 8_000, f"{grown} KiB more"
            assert dfk.task_count == 100_001
            mpiflow.wait_for_current_tasks()
            assert dfk.task_state_counts[mpiflow.States.exec_done] == 100_001
        print("fine")
    """
    assert jobs.run(script, limit=90).well() == "fine\n"


def test_functions_that_nobody_can_call_any_more_leave_the_workers(jobs: Jobs) -> None:
    """Eight hundred apps made in a loop, each with 100 kB, do not make runners or ranks grow by 80 MB."""
    script = """
        import gc, os, mpiflow

        def memory_of(pid="self"):
            return int(next(line for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS")).split()[1])

        @mpiflow.python_app
        def runner():
            return memory_of()

        config = mpiflow.Config([mpiflow.MPIExecutor(runners_per_rank=1, ranks="1")], initialize_logging=False)
        with mpiflow.load(config) as dfk:
            def one(number):
                ballast = os.urandom(100_000)
                return mpiflow.python_app(lambda: (number, len(ballast)))().result()
            for i in range(50):
                one(i)
            executor = dfk.executors["mpi"]
            rank = executor.fleet.hosts[1]["pid"]
            before = runner().result(), memory_of(rank), memory_of()
            for i in range(800):
                assert one(i) == (i, 100_000)
            gc.collect()
            after = runner().result(), memory_of(rank), memory_of()
            assert all(late - early < 30_000 for early, late in zip(before, after)), (before, after)
            assert len(executor.fleet.seconds) < 60, len(executor.fleet.seconds)
        print("fine")
    """
    assert jobs.run(script, limit=90).well() == "fine\n"


@pytest.mark.parametrize("form", ["mpiexec", "plain"])
def test_the_end_of_a_script_with_unfinished_tasks_comes_within_seconds_with_a_message(jobs: Jobs, form: Form) -> None:
    script = """
        import time, mpiflow
        from mpiflow import Config, MPIExecutor, ThreadPoolExecutor

        mpiflow.load(Config([MPIExecutor(), ThreadPoolExecutor()]))
        for label in ("mpi", "threads"):
            app = mpiflow.python_app(time.sleep, executors=[label])
            futures = [app(1000) for _ in range(5)]
        time.sleep(0.3)
        print("end")
    """
    ended = jobs.run(script, form=form, limit=20)
    assert ended.out == "end\n"
    assert "the script has ended, but 10 of its tasks have not; they are given up" in ended.err
    assert ended.seconds < 15
    assert ended.code == 0


def test_two_kernels_in_one_run_directory_number_themselves_apart(jobs: Jobs) -> None:
    script = """
        import mpiflow
        from mpiflow import Config, DataFlowKernel, MPIExecutor

        first = DataFlowKernel(Config([MPIExecutor("a")], run_dir="runs"))
        second = DataFlowKernel(Config([MPIExecutor("b")], run_dir="runs"))
        assert first.run_dir != second.run_dir and first.run_id != second.run_id
        here = mpiflow.python_app(lambda x: x, data_flow_kernel=first)
        there = mpiflow.python_app(lambda x: x + 1, data_flow_kernel=second)
        assert there(here(there(1))).result() == 3
        failing = mpiflow.python_app(lambda: 1 / 0, data_flow_kernel=first)()
        error = there(failing).exception()
        assert repr(failing) in str(error) or "AppFuture" in str(error), error
        first.cleanup()
        assert there(1).result() == 2
        second.cleanup()
        print("fine")
    """
    assert jobs.run(script).well() == "fine\n"
