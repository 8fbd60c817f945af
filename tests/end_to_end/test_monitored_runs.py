"""The monitoring database of real jobs: what is in it, while they run and however they end."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from launching import Form, Jobs

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("launcher")]

#: Everything that can become of a task, and fifty that just run.
EVERYTHING = """
    import os, signal, sys, mpiflow

    @mpiflow.python_app
    def add(a, b=1):
        return a + b

    @mpiflow.python_app
    def fails():
        raise ValueError("no")

    @mpiflow.python_app
    def once(path):
        if not os.path.exists(path):
            open(path, "w").close()
            raise RuntimeError("the first time")
        return 1

    @mpiflow.python_app(cache=True)
    def cached(x):
        return x

    @mpiflow.join_app
    def joined():
        return [add(1), add(2)]

    @mpiflow.python_app
    def dies():
        os.kill(os.getpid(), signal.SIGKILL)

    hub = mpiflow.MonitoringHub(resource_monitoring_interval=1)
    with mpiflow.load(mpiflow.Config(monitoring=hub, retries=1, executors=[mpiflow.MPIExecutor(**{executor})])):
        many = [add(n) for n in range(50)]
        failed = fails()                       # 50
        after = add(failed)                    # 51
        retried = once(os.path.abspath("flag"))      # 52
        assert cached(1).result() == 1         # 53
        hit = cached(1)                        # 54
        both = joined()                        # 55; then 56 and 57
        assert both.result() == [2, 3]
        dead = dies() if {dies} else None      # 58
        mpiflow.wait_for_current_tasks()
        assert [future.result() for future in many] == [n + 1 for n in range(50)]
        assert retried.result() == hit.result() == 1
    print("fine")
"""
RUN = ["pending", "launched", "running", "running_ended", "exec_done"]


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=20)) as file:
        return [row[0] if len(row) == 1 else row for row in file.execute(query)]


def states(path: Path, task: int) -> list[str]:
    return rows(path, f"SELECT task_status_name FROM status WHERE task_id = {task} ORDER BY timestamp")


def ends(path: Path) -> list[Any]:
    """The last state of each task, by its number."""
    last = "SELECT task_id, task_status_name, max(timestamp) FROM status GROUP BY task_id ORDER BY task_id"
    return [name for _, name, _ in rows(path, last)]


@pytest.mark.parametrize(
    ("form", "isolation"), [("mpiexec", "runner"), ("mpiexec", "task"), ("mpiexec", "rank"), ("plain", "runner")]
)
def test_what_becomes_of_each_task_is_there(jobs: Jobs, form: Form, isolation: str) -> None:
    dies = isolation != "rank"  # there it would take the rank along
    script = EVERYTHING.format(executor={"isolation": isolation, "runners_per_rank": 1}, dies=dies)
    assert jobs.run(script, form=form).well() == "fine\n"
    path = jobs.directory / "runinfo" / "monitoring.db"
    assert rows(path, "PRAGMA integrity_check") == ["ok"]
    assert [states(path, task) for task in range(50)] == [RUN] * 50
    running, tried = RUN[1:4], ["pending", "launched", "running", "running_ended", "fail_retryable", "pending"]
    assert states(path, 50) == [*tried, *running, "failed"]
    assert states(path, 51) == ["pending", "dep_fail"]
    assert states(path, 52) == [*tried, *running, "exec_done"]
    assert states(path, 54) == ["pending", "memo_done"]
    assert states(path, 55) == ["pending", *running, "joining", "exec_done"]
    if dies:
        dying = ["launched", "running", "fail_retryable", "pending", "launched", "running", "failed"]
        assert states(path, 58) == ["pending", *dying]
        (history,) = rows(path, "SELECT task_fail_history FROM try WHERE task_id = 58 AND try_id = 1")
        assert history.startswith("WorkerLost('task 58 (dies): the process that ran it")
    assert rows(path, "SELECT task_fail_count FROM task WHERE task_id IN (50, 52)") == [2, 1]
    assert rows(path, "SELECT task_depends FROM task WHERE task_id = 51") == ["50"]
    assert rows(path, "SELECT task_joins FROM try WHERE task_id = 55") == ["56,57"]
    here = os.uname().nodename
    assert rows(path, "SELECT DISTINCT hostname, block_id FROM try WHERE task_executor = 'mpi' AND task_id < 50") == [
        (here, "0")
    ]
    # each try that ran to its end has said what it used
    ended = len(rows(path, "SELECT * FROM status WHERE task_status_name = 'running_ended' AND task_id != 55"))
    assert len(rows(path, "SELECT DISTINCT task_id, try_id FROM resource")) == ended == 50 + 2 + 2 + 1 + 2
    assert rows(path, "SELECT count(*) FROM resource WHERE psutil_process_memory_resident < 1000000") == [0]
    slots, ranks = (2, "rank 1-2") if form == "mpiexec" else (1, "rank 0")
    assert rows(path, "SELECT hostname, uid, active, worker_count FROM node") == [(here, ranks, 1, slots)]
    assert rows(path, "SELECT status FROM block ORDER BY timestamp") == ["RUNNING", "COMPLETED"]
    counts = "workflow_name, tasks_failed_count, tasks_completed_count, time_completed IS NULL"
    assert rows(path, f"SELECT {counts} FROM workflow") == [("script.py", 1 + dies, 50 + 1 + 1 + 3, 0)]


def test_it_can_be_read_while_the_job_runs_and_a_killed_job_leaves_it_whole(jobs: Jobs) -> None:
    script = """
        import os, time, mpiflow

        @mpiflow.python_app
        def nap(seconds):
            import time
            time.sleep(seconds)

        mpiflow.load(mpiflow.Config(monitoring=mpiflow.MonitoringHub(resource_monitoring_interval=1)))
        for future in [nap(0) for _ in range(100)]:
            future.result()
        future = nap(60)
        print("begun", os.getpid(), flush=True)
        future.result()
    """
    job = jobs.start(script).shows("begun")
    path = jobs.directory / "runinfo" / "monitoring.db"
    end = time.monotonic() + 30
    while states(path, 100) != ["pending", "launched", "running"]:
        assert time.monotonic() < end, states(path, 100)
        time.sleep(0.05)
    while len(rows(path, "SELECT * FROM resource WHERE task_id = 100")) < 2:
        assert time.monotonic() < end, "the task is not looked at again"
        time.sleep(0.05)
    assert rows(path, "SELECT time_completed FROM workflow") == [None]
    os.kill(int(job.out.split("begun ")[1].split()[0]), signal.SIGKILL)
    job.wait()
    assert rows(path, "PRAGMA integrity_check") == ["ok"]
    assert ends(path) == ["exec_done"] * 100 + ["running"]
    assert rows(path, "SELECT time_completed FROM workflow") == [None]


@pytest.mark.parametrize(
    ("ending", "code"),
    [("raise KeyError('mine')", 1), ("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)", None)],
)
def test_it_is_complete_however_the_script_ends(jobs: Jobs, ending: str, code: int | None) -> None:
    script = f"""
        import os, signal, sys, time, mpiflow

        @mpiflow.python_app
        def add(a, b):
            return a + b

        mpiflow.load(mpiflow.Config(monitoring=mpiflow.MonitoringHub()))
        assert [add(n, 1).result() for n in range(10)]
        {ending}
    """
    ended = jobs.run(script)
    assert code is None or ended.code == code, str(ended)
    path = jobs.directory / "runinfo" / "monitoring.db"
    assert ends(path) == ["exec_done"] * 10
    assert rows(path, "SELECT tasks_completed_count, time_completed IS NULL FROM workflow") == [(10, 0)]


def test_it_is_complete_after_a_drain_and_the_next_run_adds_to_it(jobs: Jobs) -> None:
    script = """
        import os, signal, mpiflow

        @mpiflow.python_app(cache=True)
        def nap(n):
            import time
            time.sleep(0.5)
            return n

        mpiflow.load(mpiflow.Config(monitoring=mpiflow.MonitoringHub()))
        futures = [nap(n) for n in range(6)]
        futures[0].result()
        if not os.path.exists("again"):
            open("again", "w").close()
            os.kill(os.getpid(), signal.SIGUSR1)
        print(sum(future.result() for future in futures))
    """
    assert jobs.run(script).code == 85
    path = jobs.directory / "runinfo" / "monitoring.db"
    assert rows(path, "SELECT count(*), count(time_completed) FROM workflow") == [(1, 1)]
    assert "exec_done" in ends(path)
    ended = jobs.run(script)
    assert (ended.code, ended.out) == (0, "15\n"), str(ended)
    assert rows(path, "SELECT count(*), count(time_completed) FROM workflow") == [(2, 2)]
    done = "SELECT count(DISTINCT task_id) FROM status WHERE task_status_name IN ('exec_done', 'memo_done')"
    latest = "run_id = (SELECT run_id FROM workflow ORDER BY time_began DESC LIMIT 1)"
    assert rows(path, f"{done} AND {latest}") == [6]
    assert rows(path, f"SELECT count(*) FROM status WHERE task_status_name = 'memo_done' AND {latest}")[0] >= 1


def test_a_program_for_parsl_has_it_too_and_hears_that_radios_are_ignored(jobs: Jobs) -> None:
    script = """
        import parsl
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
        from parsl.monitoring import MonitoringHub
        from parsl.monitoring.radios.udp import UDPRadio

        radio = UDPRadio(address="127.0.0.1")
        executors = [HighThroughputExecutor(label="htex", remote_monitoring_radio=radio),
                     ThreadPoolExecutor(label="here", remote_monitoring_radio=radio)]

        @parsl.python_app(executors=["htex"])
        def add(a, b):
            return a + b

        @parsl.python_app(executors=["here"])
        def at_home():
            return 1

        with parsl.load(Config(executors=executors, monitoring=MonitoringHub(resource_monitoring_interval=3))) as dfk:
            assert dfk.monitoring.resource_monitoring_interval == 3
            print(add(1, 2).result(), at_home().result())
    """
    ended = jobs.run(script, options=["--as-parsl"])
    assert (ended.code, ended.out) == (0, "3 1\n"), str(ended)
    assert sorted(ended.err.splitlines()) == [
        f"mpiflow: {of}: ignored, for it means nothing in one MPI job: remote_monitoring_radio (UDPRadio)"
        for of in ("HighThroughputExecutor", "ThreadPoolExecutor")
    ]
    path = jobs.directory / "runinfo" / "monitoring.db"
    assert states(path, 0) == states(path, 1) == RUN
    assert rows(path, "SELECT DISTINCT task_id FROM resource") == [0]  # a thread's use cannot be told from others'
    assert rows(path, "SELECT task_executor, block_id FROM try ORDER BY task_id") == [("htex", "0"), ("here", None)]


def test_a_run_directory_that_is_named_has_the_database_in_it(jobs: Jobs) -> None:
    script = """
        import mpiflow

        @mpiflow.python_app
        def add(a, b):
            return a + b

        with mpiflow.load(mpiflow.Config(monitoring=mpiflow.MonitoringHub())):
            print(add(1, 2).result())
    """
    assert jobs.run(script, options=["--run-dir", "mine"]).well() == "3\n"
    assert ends(jobs.directory / "mine" / "monitoring.db") == ["exec_done"]
    assert not (jobs.directory / "runinfo").exists()


def test_a_rank_that_dies_is_taken_off_its_node(jobs: Jobs) -> None:
    """And the task that it had runs on another, by a further try."""
    script = """
        import os, signal, time, mpiflow

        @mpiflow.python_app
        def once():
            import os, signal, time
            with open("ranks", "a") as file:
                print(os.getpid(), file=file)
            if os.path.exists("flag"):
                return "again"
            open("flag", "w").close()
            time.sleep(1.5)
            os.kill(os.getpid(), signal.SIGKILL)  # isolation "rank": this is the rank

        hub = mpiflow.MonitoringHub()
        executor = mpiflow.MPIExecutor(isolation="rank")
        with mpiflow.load(mpiflow.Config(monitoring=hub, executors=[executor])):
            print(once().result())
            time.sleep(1.5)
    """
    ended = jobs.run(script, options=["--heartbeat-threshold", "3"])
    assert (ended.code, ended.out) == (0, "again\n"), str(ended)
    path = jobs.directory / "runinfo" / "monitoring.db"
    assert rows(path, "SELECT active, worker_count FROM node") == [(1, 1)]
    assert rows(path, "SELECT try_id FROM try ORDER BY try_id") == [0, 1]
    lost = ["pending", "launched", "fail_retryable"]
    assert states(path, 0) == [*lost, *RUN]
    assert rows(path, "SELECT task_fail_count, task_fail_cost FROM task") == [(0, 0.0)]  # it is not charged
