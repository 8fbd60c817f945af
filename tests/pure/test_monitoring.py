"""The monitoring database: its tables, the rows of a run, and what may be wrong with its file."""

from __future__ import annotations

import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fakes import LONG, Hand, call, eventually

import mpiflow
from mpiflow.comm.wire import USAGE
from mpiflow.config import Config
from mpiflow.data.files import File
from mpiflow.errors import ConfigurationError
from mpiflow.executors.base import Executor
from mpiflow.executors.threads import ThreadPoolExecutor
from mpiflow.kernel.app import App
from mpiflow.kernel.dataflow import DataFlowKernel
from mpiflow.kernel.monitoring import MOST_TEXT, _ranks
from mpiflow.monitor import database as module
from mpiflow.monitor.database import Database
from mpiflow.monitor.hub import MonitoringHub
from mpiflow.monitor.schema import INDEX, TABLES, columns

Make = Callable[..., DataFlowKernel]

#: What Parsl's tools expect: name, type, whether NULL is forbidden, and the place in the primary key.
EXPECTED = {
    "workflow": [
        ("run_id", "TEXT", 1, 1), ("workflow_name", "TEXT", 0, 0), ("workflow_version", "TEXT", 0, 0),
        ("time_began", "DATETIME", 1, 0), ("time_completed", "DATETIME", 0, 0), ("host", "TEXT", 1, 0),
        ("user", "TEXT", 1, 0), ("rundir", "TEXT", 1, 0), ("tasks_failed_count", "INTEGER", 1, 0),
        ("tasks_completed_count", "INTEGER", 1, 0),
    ],
    "status": [
        ("task_id", "INTEGER", 1, 1), ("task_status_name", "TEXT", 1, 3), ("timestamp", "DATETIME", 1, 4),
        ("run_id", "TEXT", 1, 2), ("try_id", "INTEGER", 1, 0),
    ],
    "task": [
        ("task_id", "INTEGER", 1, 1), ("run_id", "TEXT", 1, 2), ("task_depends", "TEXT", 0, 0),
        ("task_func_name", "TEXT", 1, 0), ("task_memoize", "TEXT", 1, 0), ("task_hashsum", "TEXT", 0, 0),
        ("task_inputs", "TEXT", 0, 0), ("task_outputs", "TEXT", 0, 0), ("task_stdin", "TEXT", 0, 0),
        ("task_stdout", "TEXT", 0, 0), ("task_stderr", "TEXT", 0, 0), ("task_time_invoked", "DATETIME", 0, 0),
        ("task_time_returned", "DATETIME", 0, 0), ("task_fail_count", "INTEGER", 1, 0),
        ("task_fail_cost", "FLOAT", 1, 0),
    ],
    "try": [
        ("try_id", "INTEGER", 1, 1), ("task_id", "INTEGER", 1, 2), ("run_id", "TEXT", 1, 3), ("block_id", "TEXT", 0, 0),
        ("hostname", "TEXT", 0, 0), ("task_executor", "TEXT", 1, 0), ("task_try_time_launched", "DATETIME", 0, 0),
        ("task_try_time_running", "DATETIME", 0, 0), ("task_try_time_returned", "DATETIME", 0, 0),
        ("task_fail_history", "TEXT", 0, 0), ("task_joins", "TEXT", 0, 0),
    ],
    "node": [
        ("id", "INTEGER", 1, 1), ("run_id", "TEXT", 1, 0), ("hostname", "TEXT", 1, 0), ("uid", "TEXT", 1, 0),
        ("block_id", "TEXT", 1, 0), ("cpu_count", "INTEGER", 1, 0), ("total_memory", "BIGINT", 1, 0),
        ("active", "BOOLEAN", 1, 0), ("worker_count", "INTEGER", 1, 0), ("python_v", "TEXT", 1, 0),
        ("timestamp", "DATETIME", 1, 0), ("last_heartbeat", "DATETIME", 1, 0),
    ],
    "block": [
        ("run_id", "TEXT", 1, 1), ("executor_label", "TEXT", 1, 3), ("block_id", "TEXT", 1, 2),
        ("job_id", "TEXT", 0, 0),
        ("timestamp", "DATETIME", 1, 4), ("status", "TEXT", 1, 0),
    ],
    "resource": [
        ("try_id", "INTEGER", 1, 1), ("task_id", "INTEGER", 1, 2), ("run_id", "TEXT", 1, 3),
        ("timestamp", "DATETIME", 1, 4), ("resource_monitoring_interval", "FLOAT", 0, 0),
        ("psutil_process_pid", "INTEGER", 0, 0), ("psutil_process_memory_percent", "FLOAT", 0, 0),
        ("psutil_process_children_count", "FLOAT", 0, 0), ("psutil_process_time_user", "FLOAT", 0, 0),
        ("psutil_process_time_system", "FLOAT", 0, 0), ("psutil_process_memory_virtual", "FLOAT", 0, 0),
        ("psutil_process_memory_resident", "FLOAT", 0, 0), ("psutil_process_disk_read", "FLOAT", 0, 0),
        ("psutil_process_disk_write", "FLOAT", 0, 0), ("psutil_process_status", "TEXT", 0, 0),
        ("psutil_cpu_num", "TEXT", 0, 0), ("psutil_process_num_ctx_switches_voluntary", "FLOAT", 0, 0),
        ("psutil_process_num_ctx_switches_involuntary", "FLOAT", 0, 0),
    ],
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "monitoring.db"


@pytest.fixture
def kernel(make: Make, path: Path) -> Callable[..., DataFlowKernel]:
    """Makes kernels with a database at `path`."""

    def one(*executors: Any, hub: dict[str, Any] | None = None, **fields: Any) -> DataFlowKernel:
        monitoring = MonitoringHub(logging_endpoint=f"sqlite:///{path}", **(hub or {}))
        return make(*executors, monitoring=monitoring, run_dir=path.parent / "runs", **fields)

    return one


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=LONG)) as file:
        return [row[0] if len(row) == 1 else row for row in file.execute(query)]


def states(path: Path, task: int) -> list[str]:
    return rows(path, f"SELECT task_status_name FROM status WHERE task_id = {task} ORDER BY timestamp")


@contextmanager
def at(monkeypatch: pytest.MonkeyPatch, **values: float) -> Iterator[None]:
    for name, value in values.items():
        monkeypatch.setattr(module, name, value)
    yield


# --- the tables ---------------------------------------------------------------------------------------------------


def test_the_tables_are_parsls_column_by_column() -> None:
    assert TABLES.keys() == EXPECTED.keys()
    with closing(sqlite3.connect(":memory:")) as file:
        for table, expected in EXPECTED.items():
            file.execute(TABLES[table])
            found = [(name, kind, forbidden, key) for _, name, kind, forbidden, _, key in
                     file.execute(f"PRAGMA table_info({table})")]  # fmt: skip
            assert found == expected, table
            assert columns(table) == [(name, kind) for name, kind, _, _ in expected]
        file.execute(INDEX)
        assert "ix_task_task_hashsum" in [row[1] for row in file.execute("PRAGMA index_list(task)")]


def test_the_tables_are_those_that_parsl_makes() -> None:
    """Where Parsl is installed with what its monitoring needs."""
    pytest.importorskip("sqlalchemy")
    manager = pytest.importorskip("parsl.monitoring.db_manager")
    from sqlalchemy.dialects import sqlite
    from sqlalchemy.schema import CreateTable

    tables = manager.Database.Base.metadata.tables
    assert tables.keys() == TABLES.keys()
    for name, table in tables.items():
        theirs = str(CreateTable(table).compile(dialect=sqlite.dialect()))
        ours = TABLES[name].replace(" IF NOT EXISTS", "")
        assert re.sub(r"\W+", " ", theirs).split() == re.sub(r"\W+", " ", ours).split()


# --- how it is asked for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"resource_monitoring_interval": -1}, "resource_monitoring_interval is -1; legal is a number of seconds"),
        ({"resource_monitoring_interval": float("nan")}, "resource_monitoring_interval is nan; legal is a number"),
        ({"resource_monitoring_interval": "30"}, "resource_monitoring_interval is '30'; legal is a number"),
        ({"resource_monitoring_interval": True}, "resource_monitoring_interval is True; legal is a number"),
        ({"resource_monitoring_enabled": 1}, "resource_monitoring_enabled is 1; legal is True or False"),
        ({"monitoring_debug": "yes"}, "monitoring_debug is 'yes'; legal is True or False"),
        ({"workflow_name": 3}, "workflow_name is 3; legal is None or a text"),
        ({"workflow_version": 1.0}, "workflow_version is 1.0; legal is None or a text"),
        ({"logging_endpoint": "mysql://u@h/db"}, "logging_endpoint is 'mysql://u@h/db'; legal is None or 'sqlite:///PATH'"),
        ({"logging_endpoint": "m.db"}, "logging_endpoint is 'm.db'; legal is None or 'sqlite:///PATH'"),
        ({"logging_endpoint": "sqlite:///:memory:"}, "logging_endpoint is 'sqlite:///:memory:'; legal is"),
        ({"logging_endpoint": "sqlite:///"}, "logging_endpoint is 'sqlite:///'; legal is"),
        ({"logging_endpoint": Path("x.db")}, "logging_endpoint is PosixPath"),
    ],
)  # fmt: skip
def test_what_is_not_legal_is_refused_in_words(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"MonitoringHub: {words}")):
        MonitoringHub(**fields)


def test_a_misspelt_parameter_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'hub_adress'"):
        MonitoringHub(hub_adress=3)  # type: ignore[call-arg]


def test_what_was_changed_since_is_refused_when_it_is_loaded(make: Make) -> None:
    hub = MonitoringHub()
    config = Config(monitoring=hub)
    hub.resource_monitoring_interval = -2
    with pytest.raises(ConfigurationError, match="resource_monitoring_interval is -2"):
        config.frozen()
    with pytest.raises(ConfigurationError, match="monitoring is 'yes'; legal is None or a MonitoringHub"):
        Config(monitoring="yes")  # type: ignore[arg-type]


def test_what_listens_in_an_older_parsl_is_accepted_and_said() -> None:
    with pytest.warns(DeprecationWarning, match=r"MonitoringHub.hub_port has no effect; .* UDPRadio\(port=...\)"):
        assert MonitoringHub(hub_port=3).hub_port == 3


def test_where_the_database_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert MonitoringHub().path("runinfo") == str(tmp_path / "runinfo/monitoring.db")
    assert MonitoringHub(logging_endpoint="sqlite:///a/b.db").path("runinfo") == str(tmp_path / "a/b.db")
    assert MonitoringHub(logging_endpoint="sqlite:////a/b.db").path("runinfo") == "/a/b.db"


def test_a_file_may_say_it(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[monitoring]\nresource_monitoring_interval = 5\n")
    hub = Config.from_file(file).monitoring
    assert hub is not None
    assert hub.resource_monitoring_interval == 5
    file.write_text("[monitoring]\ninterval = 5\n")
    with pytest.raises(ConfigurationError, match=r"c.toml, line 2: monitoring.interval: there is no such key"):
        Config.from_file(file)
    file.write_text("[monitoring]\nresource_monitoring_interval = -5\n")
    with pytest.raises(ConfigurationError, match="resource_monitoring_interval is -5"):
        Config.from_file(file)


def test_without_it_nothing_is_loaded_and_nobody_hears_of_tasks(make: Make) -> None:
    assert make().task_log.monitoring is None
    line = (
        "import sys, mpiflow; from mpiflow.kernel.dataflow import DataFlowKernel; from mpiflow.config import Config; "
        "from mpiflow.executors.threads import ThreadPoolExecutor as T; "
        "DataFlowKernel(Config(executors=[T()], initialize_logging=False)).cleanup(); "
        "print('sqlite3' in sys.modules, 'mpiflow.kernel.monitoring' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.split() == ["False", "False"]


def test_a_python_without_sqlite_is_said(tmp_path: Path) -> None:
    line = (
        "import sys; sys.modules['_sqlite3'] = None; import mpiflow; from mpiflow.executors.threads import "
        "ThreadPoolExecutor as T; mpiflow.load(mpiflow.Config([T()], monitoring=mpiflow.MonitoringHub()))"
    )
    ended = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert ended.returncode == 1
    assert "monitoring writes an SQLite database, and this Python has no SQLite" in ended.stderr.splitlines()[-1]


# --- the rows of a run --------------------------------------------------------------------------------------------


def double(x: int) -> int:
    return 2 * x


def fails(*_: object) -> None:
    raise ValueError("no")


def test_a_task_from_its_call_to_its_end(kernel: Make, path: Path) -> None:
    hand = Hand()
    run = kernel(hand, hub={"workflow_name": "w", "workflow_version": "7"})
    first = call(run, double, 1)
    second = call(run, double, first)
    assert eventually(lambda: path.exists() and path.stat().st_size and states(path, 0) == ["pending", "launched"])
    hand.finish(first, 2)
    assert eventually(lambda: second.tid in hand.given)  # which is after its state says so
    hand.finish(second, 4)
    assert second.result(LONG) == 4
    run.cleanup()
    assert states(path, 0) == states(path, 1) == ["pending", "launched", "exec_done"]
    kept = rows(path, "SELECT task_depends, task_func_name, task_memoize, task_fail_count FROM task ORDER BY task_id")
    assert kept == [("", "double", "0", 0), ("0", "double", "0", 0)]
    assert rows(path, "SELECT run_id, rundir, workflow_name, workflow_version FROM workflow") == [
        (run.run_id, run.run_dir, "w", "7")
    ]
    counts = rows(path, "SELECT tasks_completed_count, tasks_failed_count, time_completed > time_began FROM workflow")
    assert counts == [(2, 0, 1)]
    missing = "task_try_time_launched IS NULL OR task_try_time_returned IS NULL"
    assert rows(path, f"SELECT count(*) FROM try WHERE {missing}") == [0]
    # in the form that SQLAlchemy reads, of this moment and in local time
    (moment,) = rows(path, "SELECT task_time_invoked FROM task WHERE task_id = 0")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", moment)
    assert abs(time.mktime(time.strptime(moment[:19], "%Y-%m-%d %H:%M:%S")) - time.time()) < 60
    assert run.monitoring is not None


def test_a_failure_a_retry_and_who_depends_on_it(kernel: Make, path: Path) -> None:
    run = kernel(retries=1)
    failed = call(run, fails)
    follower = call(run, double, failed)
    assert follower.exception(LONG) is not None
    run.cleanup()
    tried = ["launched", "fail_retryable", "pending", "launched", "failed"]
    assert states(path, 0) == ["pending", *tried]
    assert states(path, 1) == ["pending", "dep_fail"]
    assert rows(path, "SELECT try_id, task_fail_history FROM try WHERE task_id = 0 ORDER BY try_id") == [
        (0, "ValueError('no')"), (1, "ValueError('no')"),
    ]  # fmt: skip
    by_try = rows(path, "SELECT try_id FROM status WHERE task_id = 0 ORDER BY timestamp")
    assert by_try == [0, 0, 0, 1, 1, 1]
    failures = rows(path, "SELECT task_fail_count, task_fail_cost FROM task ORDER BY task_id")
    assert failures == [(2, 2.0), (1, 1.0)]  # as Parsl counts: one that depends on a failure fails once
    (history,) = rows(path, "SELECT task_fail_history FROM try WHERE task_id = 1")
    assert history.startswith("DependencyError(")
    assert rows(path, "SELECT tasks_failed_count, tasks_completed_count FROM workflow") == [(1, 0)]


def test_what_a_retry_handler_that_raises_costs_is_a_number(kernel: Make, path: Path) -> None:
    def handler(error: Exception, record: object) -> float:
        raise KeyError("mine")

    run = kernel(retries=2, retry_handler=handler)
    assert isinstance(call(run, fails).exception(LONG), KeyError)
    run.cleanup()
    assert rows(path, "SELECT task_fail_cost FROM task") == [3.0]


def test_a_memo_hit_and_a_join(kernel: Make, path: Path) -> None:
    run = kernel()
    app = App(double, cache=True)
    assert run.call(app, (1,), {}).result(LONG) == run.call(app, (1,), {}).result(LONG) == 2

    def body() -> list[Any]:
        return [call(run, double, 5), call(run, double, 6)]

    assert run.call(App(body, join=True), (), {}).result(LONG) == [10, 12]
    run.cleanup()
    assert states(path, 1) == ["pending", "memo_done"]
    hashes = rows(path, "SELECT task_hashsum FROM task WHERE task_memoize = '1'")
    assert len(hashes) == 2
    assert len(set(hashes)) == 1
    assert states(path, 2) == ["pending", "launched", "running", "running_ended", "joining", "exec_done"]
    assert rows(path, "SELECT task_joins, task_executor, block_id FROM try WHERE task_id = 2") == [
        ("3,4", "_parsl_internal", None)
    ]
    assert rows(path, "SELECT tasks_completed_count FROM workflow") == [4]  # one of the five is a memo's


def test_a_try_that_was_never_sent_has_the_executor_it_would_have_had(kernel: Make, path: Path) -> None:
    run = kernel(Hand(label="hand"), ThreadPoolExecutor(label="other"))
    apps = [App(double, executors=["other"]), App(double, executors=["hand", "other"])]
    failed = run.call(App(fails, executors=["other"]), (), {})
    for app in apps:
        assert run.call(app, (failed,), {}).exception(LONG) is not None
    run.cleanup()
    assert rows(path, "SELECT task_executor FROM try ORDER BY task_id") == ["other", "other", ""]


def test_the_arguments_that_are_recorded(kernel: Make, path: Path, tmp_path: Path) -> None:
    def app(x: object = None, **_: object) -> None:
        return None

    class Sulks:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    run = kernel()
    out = File(str(tmp_path / "out"))
    calls: list[dict[str, Any]] = [
        {"stdin": "in.txt", "stdout": ("a.txt", "w"), "stderr": tmp_path / "b.txt", "outputs": [out]},
        {"inputs": [Sulks()]},
        {"inputs": ["x" * 2 * MOST_TEXT]},
        {"inputs": ["\udc80", "a\0b", "ü"], "stdin": "c\0d"},
        {"inputs": ["password=hunter2 --token abc"]},
    ]
    for kwargs in calls:
        call(run, app, **kwargs).result(LONG)
    run.cleanup()
    kept = "task_inputs, task_outputs, task_stdin, task_stdout, task_stderr"
    found = rows(path, f"SELECT {kept} FROM task ORDER BY task_id")
    assert found[0][0] == "None"
    assert str(tmp_path / "out") in found[0][1]
    assert found[0][2:] == ("in.txt", "a.txt", str(tmp_path / "b.txt"))
    assert found[1] == ("<list whose repr raises RuntimeError>", "None", None, "", "")
    assert len(found[2][0]) < MOST_TEXT + 50
    assert found[2][0].endswith(f"({2 * MOST_TEXT + 4:,} characters)")
    assert found[3][2] == "cd"
    assert "hunter2" not in found[4][0]


def test_moments_of_other_clocks_are_kept_in_their_order(kernel: Make, path: Path) -> None:
    """Of two workers one is an hour ahead and one behind: running comes after launched, and the end comes last."""
    hand = Hand()
    run = kernel(hand)
    monitoring = run.task_log.monitoring
    assert monitoring is not None
    for number, hours in enumerate((-1, 1)):
        future = call(run, double, 1)
        run.driver.nudge()
        assert eventually(lambda future=future: future.tid in hand.given)
        there = time.time() + 3600 * hours
        counters = 17, 2, 1, 0.5, 1.5, 0.25, 1000, 500, 7, 8, 9, 10, b"S"
        monitoring.measured(future.task, f"node{number}", USAGE.pack(there, there + 1, False, True, *counters))
        monitoring.measured(future.task, f"node{number}", USAGE.pack(there, there + 2, True, True, *counters))
        hand.finish(future, 2)
        future.result(LONG)
    run.cleanup()
    for task in (0, 1):
        assert states(path, task) == ["pending", "launched", "running", "running_ended", "exec_done"]
    assert rows(path, "SELECT hostname FROM try ORDER BY task_id") == ["node0", "node1"]
    used = (
        "psutil_process_pid, psutil_process_children_count, psutil_cpu_num, psutil_process_memory_percent, "
        "psutil_process_time_user, psutil_process_time_system, psutil_process_memory_virtual, "
        "psutil_process_memory_resident, psutil_process_disk_read, psutil_process_disk_write, "
        "psutil_process_num_ctx_switches_voluntary, psutil_process_num_ctx_switches_involuntary, psutil_process_status"
    )
    assert rows(path, f"SELECT DISTINCT {used}, resource_monitoring_interval FROM resource") == [
        (17, 2, "1", 0.5, 1.5, 0.25, 1000, 500, 7, 8, 9, 10, "sleeping", 30)
    ]
    assert rows(path, "SELECT count(*) FROM resource") == [4]


@pytest.mark.parametrize(
    ("hub", "seen"),
    [({"resource_monitoring_enabled": False}, []), ({"resource_monitoring_interval": 0}, ["running", "running_ended"])],
)
def test_what_workers_say_is_left_out_where_nobody_wants_it(
    kernel: Make, path: Path, hub: dict[str, Any], seen: list[str]
) -> None:
    """Without resources not even when a task ran, and with an interval of 0 no more than that; both as in Parsl."""
    run = kernel(Hand(by_itself=True), hub=hub)
    run.call(App(lambda: [], join=True), (), {}).result(LONG)
    run.cleanup()
    assert states(path, 0) == ["pending", "launched", *seen, "joining", "exec_done"]
    assert rows(path, "SELECT count(*) FROM resource") == [0]


def test_a_run_of_real_runners(make: Make, path: Path) -> None:
    """On local runners: where tasks ran, what they used, the node and the block; and a runner that dies."""

    def burn(seconds: float) -> bytes:
        import time

        end = time.process_time() + seconds
        kept = bytearray(50_000_000)
        while time.process_time() < end:
            sum(range(1000))
        time.sleep(0.3)
        return bytes(kept[:1])

    def die() -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    hub = MonitoringHub(logging_endpoint=f"sqlite:///{path}", resource_monitoring_interval=0.2)
    run = make(mpiflow.MPIExecutor(runners_per_rank=1), monitoring=hub, run_dir=path.parent / "runs")
    call(run, burn, 0.5).result(LONG)
    call(run, lambda: None).result(LONG)  # not of this module: a runner would have to import that
    assert call(run, die).exception(LONG) is not None
    run.cleanup()
    assert states(path, 0) == states(path, 1) == ["pending", "launched", "running", "running_ended", "exec_done"]
    assert states(path, 2) == ["pending", "launched", "running", "failed"]
    here = os.uname().nodename
    assert rows(path, "SELECT hostname, block_id FROM try") == [(here, "0")] * 3
    seconds = "psutil_process_time_user + psutil_process_time_system"
    looks = rows(path, f"SELECT {seconds} FROM resource WHERE task_id = 0 ORDER BY timestamp")
    assert len(looks) >= 2
    assert all(after > before - 0.03 for before, after in pairwise(looks))  # /proc counts in ticks
    assert 0.45 < looks[-1] < 5.0
    assert rows(path, "SELECT max(psutil_process_memory_resident) FROM resource WHERE task_id = 0")[0] > 50_000_000
    # counted from the task's begin, not from the runner's
    assert rows(path, f"SELECT max({seconds}) FROM resource WHERE task_id = 1")[0] < 0.3
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    kept = "hostname, uid, active, worker_count, total_memory, cpu_count, block_id"
    assert rows(path, f"SELECT {kept} FROM node") == [(here, "rank 0", 1, 1, memory, os.cpu_count(), "0")]
    assert rows(path, "SELECT executor_label, block_id, status FROM block ORDER BY timestamp") == [
        ("mpi", "0", "RUNNING"), ("mpi", "0", "COMPLETED"),
    ]  # fmt: skip


def test_a_further_run_adds_to_the_database(kernel: Make, path: Path) -> None:
    numbers = []
    for _ in range(2):
        run = kernel()
        call(run, double, 1).result(LONG)
        run.cleanup()
        numbers.append(run.run_id)
    assert sorted(rows(path, "SELECT run_id FROM workflow")) == sorted(numbers)
    assert rows(path, "SELECT count(*), count(DISTINCT run_id) FROM task") == [(2, 2)]


def test_a_users_own_executor_needs_to_know_nothing_of_it(kernel: Make, path: Path) -> None:
    class Own(Executor):
        label = "own"

        def submit(self, func: Any, resource_specification: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            from concurrent.futures import Future

            future: Future[Any] = Future()
            future.set_result(func(*args, **kwargs))
            return future

        def shutdown(self) -> None:
            return

    own = Own()
    assert (own.monitoring_messages, own.monitoring_receiver, own.remote_monitoring_radio) == (None, None, None)
    run = kernel(own)
    assert call(run, double, 2).result(LONG) == 4
    run.cleanup()
    assert states(path, 0) == ["pending", "launched", "exec_done"]
    assert rows(path, "SELECT task_executor, hostname FROM try") == [("own", None)]


def test_what_is_given_up_at_the_end_is_entered(kernel: Make, path: Path) -> None:
    run = kernel(Hand())
    call(run, double, 1)
    run.driver.nudge()
    run.cleanup()
    assert states(path, 0)[-1] == "failed"
    assert rows(path, "SELECT tasks_failed_count FROM workflow") == [1]


def test_the_queries_of_the_page_are_answered(make: Make, path: Path) -> None:
    page = (Path(mpiflow.__file__).parents[1] / "docs" / "monitoring.md").read_text()
    longest, most = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    hub = MonitoringHub(logging_endpoint=f"sqlite:///{path}")
    run = make(mpiflow.MPIExecutor(runners_per_rank=1), monitoring=hub, run_dir=path.parent / "runs")
    call(run, lambda: time.sleep(0.2)).result(LONG)
    run.cleanup()
    ((task, name, host, seconds),) = rows(path, longest)
    assert (task, name, host) == (0, "<lambda>", os.uname().nodename)
    assert 0.2 <= seconds < LONG
    ((name, mib),) = rows(path, most)
    assert name == "<lambda>"
    assert 1 < mib < 10_000


def test_nodes_are_named_by_their_ranks() -> None:
    assert _ranks([5, 3, 4, 9, 1]) == "rank 1,3-5,9"


# --- writing ------------------------------------------------------------------------------------------------------


def test_many_tasks_are_a_few_transactions(kernel: Make, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each leaves a journal behind and takes it away: the file's change counter tells how many there were."""
    run = kernel()
    began = time.monotonic()
    futures = [call(run, double, n) for n in range(3000)]
    for future in futures:
        future.result(LONG)
    run.cleanup()
    seconds = time.monotonic() - began
    changes = int.from_bytes(path.read_bytes()[24:28], "big")
    assert changes <= seconds + 3  # one a second, one at the begin, and one at the end
    assert rows(path, "SELECT count(*) FROM task") == [3000]
    assert rows(path, "SELECT count(*) FROM status") == [9000]


def test_who_is_faster_than_the_disk_waits_for_it(
    kernel: Make, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpiflow.kernel.monitoring.MOST_WAITING", 100)
    monkeypatch.setattr(module, "MOST_WAITING", 100)
    run = kernel()
    most = 0
    for n in range(2000):
        call(run, double, n)
        most = max(most, len(run.task_log.monitoring._statuses))  # type: ignore[union-attr]
    run.wait_for_current_tasks()
    run.cleanup()
    assert most < 1000
    assert rows(path, "SELECT count(*) FROM status") == [6000]


class Said:
    """A database and what it has said."""

    def __init__(self, path: Path) -> None:
        self.lines: list[str] = []
        self.database = Database(str(path), lambda: None, self.lines.append)

    def leave(self, *numbers: int) -> None:
        for number in numbers:
            self.database.statuses.append((number, "pending", 1_000_000 * number, "r", 0))


def test_a_locked_database_is_said_and_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with at(monkeypatch, LOCKED_WITHIN=0.02, TRY_AGAIN_EVERY=0.02, WRITE_EVERY=0.01):
        said = Said(path)
        said.leave(1)
        said.database.start()
        assert eventually(lambda: said.database.written == 1)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            said.leave(2, 3)
            assert eventually(lambda: said.lines)
            said.leave(4)
            other.execute("COMMIT")
        assert eventually(lambda: said.database.written == 4)
        said.database.close()
    assert rows(path, "SELECT task_id FROM status ORDER BY timestamp") == [1, 2, 3, 4]
    begins = f"{path}: the monitoring database cannot be written (database is locked); the run goes on"
    assert [line[: len(begins)] for line in said.lines] == [begins, f"{path}: rows are written again"]


def test_what_is_never_written_is_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        at(monkeypatch, LOCKED_WITHIN=0.02, TRY_AGAIN_EVERY=0.02, WRITE_EVERY=0.01),
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN EXCLUSIVE")
        said = Said(path)
        said.leave(1, 2, 3)
        said.database.start()
        assert eventually(lambda: said.lines)
        said.database.close()
    assert said.lines[1:] == [f"{path}: 3 rows could not be written, and are lost"]


def test_rows_that_cannot_be_written_are_not_kept_without_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.mkdir()
    with at(monkeypatch, TRY_AGAIN_EVERY=0.01, WRITE_EVERY=0.01, MOST_KEPT=10):
        said = Said(path)
        said.leave(*range(1, 51))
        said.database.start()
        assert eventually(lambda: said.database.lost == 50)
        said.database.close()
    assert said.database.waiting == 0
    assert [words.split(": ", 1)[1][:40] for words in said.lines] == [
        "the monitoring database cannot be writte", "50 rows could not be written, and are lo",
    ]  # fmt: skip


def _no_directory(path: Path) -> str:
    path.parent.rmdir()
    path.parent.touch()
    return "cannot be written ([Errno"


def _no_database(path: Path) -> str:
    path.write_bytes(b"no database, and long enough to be one: " * 100)
    return "file is not a database"


def _other_columns(path: Path) -> str:
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE task (task_id INTEGER)")
    return "no such column"


def _read_only(path: Path) -> str:
    path.mkdir()
    return "unable to open database file"


@pytest.mark.parametrize("spoil", [_no_directory, _no_database, _other_columns, _read_only])
def test_a_file_that_is_none_is_one_line_and_the_run_goes_on(
    make: Make, tmp_path: Path, spoil: Callable[[Path], str], capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "there" / "m.db"
    path.parent.mkdir()
    reason = spoil(path)
    hub = MonitoringHub(logging_endpoint=f"sqlite:///{path}")
    run = make(monitoring=hub, run_dir=tmp_path / "runs")
    assert call(run, double, 4).result(LONG) == 8
    assert call(run, fails).exception(LONG) is not None
    run.cleanup()
    first, second = [line for line in capfd.readouterr().err.splitlines() if "m.db" in line]
    assert reason in first
    assert "rows could not be written, and are lost" in second


def test_a_full_disk_is_one_line_and_what_was_written_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a limit on the size of files has it."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with at(monkeypatch, TRY_AGAIN_EVERY=0.02, WRITE_EVERY=0.01):
            said = Said(path)
            said.leave(1)
            said.database.start()
            assert eventually(lambda: said.database.written == 1)
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20_000, before[1]))
            said.leave(*range(2, 5000))
            assert eventually(lambda: said.lines)
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert eventually(lambda: said.database.written == 4999)
            said.database.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert rows(path, "PRAGMA integrity_check") == ["ok"]
    assert rows(path, "SELECT count(*) FROM status") == [4999]
    assert len(said.lines) == 2
    assert "cannot be written (" in said.lines[0]


def test_an_error_of_ours_is_a_line_and_no_more(path: Path) -> None:
    lines: list[str] = []

    def news() -> None:
        raise KeyError("a bug")

    database = Database(str(path), news, lines.append)
    database.start()
    database.close()
    assert lines == [f"{path}: the monitoring has failed: KeyError: 'a bug'"]
