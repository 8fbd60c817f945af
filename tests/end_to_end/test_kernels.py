"""DataFlowKernels come and go over the same workers: loaded, replaced, side by side, thirty times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launching import Form, Jobs

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("launcher")]


@pytest.mark.parametrize("form", ["mpiexec", "plain"])
def test_load_and_cleanup_thirty_times(jobs: Jobs, form: Form) -> None:
    """Each with a run directory of its own; threads and descriptors do not pile up, in tasks neither."""
    script = """
        import os, threading, mpiflow

        @mpiflow.python_app
        def descriptors(x):
            return len(os.listdir("/proc/self/fd"))

        counts = []
        for number in range(30):
            with mpiflow.load(mpiflow.Config(retries=number)) as dfk:
                there = max(future.result() for future in [descriptors(n) for n in range(5)])
                assert descriptors(0).tid == 5
                assert dfk.run_dir.endswith(f"{number:03}"), dfk.run_dir
                left = descriptors(1)
            assert left.done() or left.exception() is not None
            counts.append((threading.active_count(), len(os.listdir("/proc/self/fd")), there))
        assert counts[2] == counts[-1], counts
        print("fine")
    """
    assert jobs.run(script, form=form).well() == "fine\n"
    assert len(list((jobs.directory / "runinfo").iterdir())) == 30


def test_two_kernels_at_once_with_different_isolation(jobs: Jobs) -> None:
    """Each gets its own results, its own numbers of tasks, and its own way of running them."""
    script = """
        import os, mpiflow
        from mpiflow import Config, DataFlowKernel, MPIExecutor

        one = DataFlowKernel(Config(executors=[MPIExecutor(isolation="runner")], seed=1))
        two = DataFlowKernel(Config(executors=[MPIExecutor(isolation="rank")], seed=2))
        three = DataFlowKernel(Config(executors=[MPIExecutor(isolation="task")], seed=1))

        def where(x):
            return os.getpid(), os.getppid(), x

        def draw():
            return mpiflow.rng().random()

        apps = [mpiflow.python_app(where, data_flow_kernel=dfk) for dfk in (one, two, three)]
        futures = [[app(number) for number in range(40)] for app in apps]
        rows = [[future.result() for future in row] for row in futures]
        assert [[x for _, _, x in row] for row in rows] == [list(range(40))] * 3
        assert [future.tid for future in futures[1]] == list(range(40))
        pids = [{pid for pid, _, _ in row} for row in rows]
        assert len(pids[2]) == 40, "a process for each task"
        assert len(pids[0]) <= 4 and len(pids[1]) <= 2, pids
        assert not (pids[0] & pids[1] or pids[0] & pids[2] or pids[1] & pids[2])
        assert pids[1].isdisjoint({parent for _, parent, _ in rows[0]}), "the rank is not the zygote"

        drawn = [mpiflow.python_app(draw, data_flow_kernel=dfk)().result() for dfk in (one, two, three)]
        assert drawn[0] == drawn[2] != drawn[1]
        two.cleanup()
        assert apps[0](5).result()[2] == 5
        for dfk in (one, three):
            dfk.cleanup()
        print("fine")
    """
    assert jobs.run(script).well() == "fine\n"


def test_executors_side_by_side(jobs: Jobs) -> None:
    """Labels decide: threads of rank 0, workers, or whichever."""
    script = """
        import os, mpiflow
        from mpiflow import Config, MPIExecutor, ThreadPoolExecutor

        mpiflow.load(Config(executors=[MPIExecutor("far", isolation="task"), ThreadPoolExecutor("near", 2)]))

        @mpiflow.python_app(executors=["near"])
        def near(x):
            x.append(os.getpid())
            return x

        @mpiflow.python_app(executors=["far"])
        def far(x):
            x.append(os.getpid())
            return x

        @mpiflow.python_app
        def anywhere():
            return os.getpid()

        @mpiflow.python_app(executors=["nowhere"])
        def nowhere():
            pass

        mine = []
        assert near(mine).result() is mine and mine == [os.getpid()]
        assert far(mine).result()[1] != os.getpid() and len(mine) == 1
        pids = [future.result() for future in [anywhere() for _ in range(20)]]
        assert os.getpid() in pids and len(set(pids)) > 1
        try:
            error = nowhere().exception()
        except ValueError as raised:
            error = raised
        assert "'nowhere'" in str(error) and "'far', 'near'" in str(error), error
        print("fine")
    """
    assert jobs.run(script).well() == "fine\n"


def test_default_config_gives_way_to_a_later_load(jobs: Jobs) -> None:
    """A first call loads a default one; while tasks of it have not ended, no other can be loaded."""
    script = """
        import time, mpiflow
        from mpiflow.errors import ConfigurationError, NoDataFlowKernelError

        sleep = mpiflow.python_app(time.sleep)
        assert mpiflow.python_app(abs)(-1).result() == 1
        assert mpiflow.dfk().config.retries == 0
        first = mpiflow.dfk()
        slow = sleep(0.7)
        try:
            mpiflow.load(mpiflow.Config(retries=3))
        except ConfigurationError as error:
            assert str(error) == "Config has already been loaded", error
        else:
            raise AssertionError("loaded")
        slow.result()
        mpiflow.load(mpiflow.Config(retries=3))
        assert mpiflow.dfk() is not first and first.cleanup_called
        assert mpiflow.dfk().config.retries == 3
        try:
            mpiflow.load()
        except ConfigurationError:
            pass
        else:
            raise AssertionError("loaded over one that the script asked for")
        last = mpiflow.dfk()
        last.cleanup()
        try:
            mpiflow.python_app(abs, data_flow_kernel=last)(1)
        except NoDataFlowKernelError as error:
            assert str(error) == "Cannot submit to a DFK that has been cleaned up"
        else:
            raise AssertionError("called")
        assert mpiflow.python_app(abs)(-2).result() == 2, "a default one again"
        print("fine")
    """
    assert jobs.run(script).well() == "fine\n"


def test_plain_python_wants_a_load(jobs: Jobs) -> None:
    """Nothing is started behind the back of a script that ran without ``-m mpiflow``."""
    script = """
        import mpiflow
        mpiflow.python_app(abs)(-1)
    """
    err = jobs.run(script, form="plain").failed(1)
    assert err.splitlines()[-1] == "mpiflow.errors.NoDataFlowKernelError: Must first load config"


@pytest.mark.parametrize("form", ["mpiexec", "plain"])
def test_what_leaving_the_block_does(jobs: Jobs, form: Form) -> None:
    """exit_mode: give up, wait, or nothing."""
    script = """
        import time, mpiflow
        from mpiflow.errors import MpiflowError, TasksAbandoned

        sleep = mpiflow.python_app(time.sleep)

        with mpiflow.load(mpiflow.Config(exit_mode="wait")):
            waited = sleep(0.3)
        assert waited.done() and waited.exception() is None
        began = time.monotonic()
        with mpiflow.load() as dfk:
            given_up = sleep(600)
            after = mpiflow.python_app(abs)(given_up)
            time.sleep(0.2)
        assert time.monotonic() - began < 10
        for future in (given_up, after):
            assert type(future.exception()) is TasksAbandoned, future.exception()
            assert "had not ended when its DataFlowKernel was cleaned up" in str(future.exception())
        try:
            dfk.cleanup()
        except MpiflowError as error:
            assert "a second time" in str(error)
        with mpiflow.load(mpiflow.Config(exit_mode="skip")) as dfk:
            kept = sleep(0.3)
        assert kept.result() is None
        dfk.cleanup()
        mpiflow.load()
        assert mpiflow.python_app(abs)(-3).result() == 3, "the workers are free again"
        print("fine")
    """
    assert jobs.run(script, ranks=2, form=form).well() == "fine\n"


def test_runs_side_by_side_get_different_directories(jobs: Jobs) -> None:
    """Two jobs started at once in one directory; the log names the command."""
    script = """
        import mpiflow
        assert mpiflow.python_app(abs)(-1).result() == 1
        print(mpiflow.dfk().run_dir)
    """
    both = [jobs.start(script, "an argument", form="lone") for _ in range(2)]
    directories = {running.wait().well().strip() for running in both}
    assert {path.rpartition("/")[2] for path in directories} == {"000", "001"}
    for path in directories:
        with open(f"{path}/mpiflow.log") as log:
            assert "script.py an argument" in log.read()
