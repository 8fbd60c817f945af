"""The tables of the monitoring database: Parsl's, column by column, so that its tools read ours.

Each table is one CREATE statement, in the words that Parsl's own make. What is written is made of the same text, so
that a column cannot be in one and not in the other.

Rows go in as one JSON text for many of them, which SQLite takes apart itself (`insert`). With a parameter for each
value, as usual, Python's sqlite3 lets go of the interpreter's lock for each row and has to get it back; beside a rank 0
that is at work that took 120 µs a row, and this takes 10. Moments travel as microseconds since the epoch and become the
text that SQLAlchemy reads, local time as in Parsl, in SQLite too.
"""

from __future__ import annotations

import re

#: In the order in which they are written: what is referred to comes first.
TABLES = {
    "workflow": """CREATE TABLE IF NOT EXISTS workflow (
        run_id TEXT NOT NULL,
        workflow_name TEXT,
        workflow_version TEXT,
        time_began DATETIME NOT NULL,
        time_completed DATETIME,
        host TEXT NOT NULL,
        user TEXT NOT NULL,
        rundir TEXT NOT NULL,
        tasks_failed_count INTEGER NOT NULL,
        tasks_completed_count INTEGER NOT NULL,
        PRIMARY KEY (run_id)
    )""",
    "node": """CREATE TABLE IF NOT EXISTS node (
        id INTEGER NOT NULL,
        run_id TEXT NOT NULL,
        hostname TEXT NOT NULL,
        uid TEXT NOT NULL,
        block_id TEXT NOT NULL,
        cpu_count INTEGER NOT NULL,
        total_memory BIGINT NOT NULL,
        active BOOLEAN NOT NULL,
        worker_count INTEGER NOT NULL,
        python_v TEXT NOT NULL,
        timestamp DATETIME NOT NULL,
        last_heartbeat DATETIME NOT NULL,
        PRIMARY KEY (id)
    )""",
    "block": """CREATE TABLE IF NOT EXISTS block (
        run_id TEXT NOT NULL,
        executor_label TEXT NOT NULL,
        block_id TEXT NOT NULL,
        job_id TEXT,
        timestamp DATETIME NOT NULL,
        status TEXT NOT NULL,
        PRIMARY KEY (run_id, block_id, executor_label, timestamp)
    )""",
    "task": """CREATE TABLE IF NOT EXISTS task (
        task_id INTEGER NOT NULL,
        run_id TEXT NOT NULL,
        task_depends TEXT,
        task_func_name TEXT NOT NULL,
        task_memoize TEXT NOT NULL,
        task_hashsum TEXT,
        task_inputs TEXT,
        task_outputs TEXT,
        task_stdin TEXT,
        task_stdout TEXT,
        task_stderr TEXT,
        task_time_invoked DATETIME,
        task_time_returned DATETIME,
        task_fail_count INTEGER NOT NULL,
        task_fail_cost FLOAT NOT NULL,
        PRIMARY KEY (task_id, run_id)
    )""",
    "try": """CREATE TABLE IF NOT EXISTS try (
        try_id INTEGER NOT NULL,
        task_id INTEGER NOT NULL,
        run_id TEXT NOT NULL,
        block_id TEXT,
        hostname TEXT,
        task_executor TEXT NOT NULL,
        task_try_time_launched DATETIME,
        task_try_time_running DATETIME,
        task_try_time_returned DATETIME,
        task_fail_history TEXT,
        task_joins TEXT,
        PRIMARY KEY (try_id, task_id, run_id)
    )""",
    "status": """CREATE TABLE IF NOT EXISTS status (
        task_id INTEGER NOT NULL,
        task_status_name TEXT NOT NULL,
        timestamp DATETIME NOT NULL,
        run_id TEXT NOT NULL,
        try_id INTEGER NOT NULL,
        PRIMARY KEY (task_id, run_id, task_status_name, timestamp),
        FOREIGN KEY(run_id) REFERENCES workflow (run_id)
    )""",
    "resource": """CREATE TABLE IF NOT EXISTS resource (
        try_id INTEGER NOT NULL,
        task_id INTEGER NOT NULL,
        run_id TEXT NOT NULL,
        timestamp DATETIME NOT NULL,
        resource_monitoring_interval FLOAT,
        psutil_process_pid INTEGER,
        psutil_process_memory_percent FLOAT,
        psutil_process_children_count FLOAT,
        psutil_process_time_user FLOAT,
        psutil_process_time_system FLOAT,
        psutil_process_memory_virtual FLOAT,
        psutil_process_memory_resident FLOAT,
        psutil_process_disk_read FLOAT,
        psutil_process_disk_write FLOAT,
        psutil_process_status TEXT,
        psutil_cpu_num TEXT,
        psutil_process_num_ctx_switches_voluntary FLOAT,
        psutil_process_num_ctx_switches_involuntary FLOAT,
        PRIMARY KEY (try_id, task_id, run_id, timestamp),
        FOREIGN KEY(run_id) REFERENCES workflow (run_id)
    )""",
}
INDEX = "CREATE INDEX IF NOT EXISTS ix_task_task_hashsum ON task (task_hashsum)"

_COLUMN = re.compile(r"^ +(\w+) (TEXT|INTEGER|BIGINT|FLOAT|BOOLEAN|DATETIME)", re.MULTILINE)


def columns(table: str) -> list[tuple[str, str]]:
    """Names and types of a table's columns, in their order.

    Examples
    --------
    >>> columns("status")[2]
    ('timestamp', 'DATETIME')
    """
    return [(name, kind) for name, kind in _COLUMN.findall(TABLES[table])]


def insert(table: str, again: bool) -> str:
    """The statement that takes many rows, as the text of one JSON list of lists.

    Parameters
    ----------
    table : str
        Where they go; a row has a value for each column, moments in microseconds since the epoch.
    again : bool
        Whether a row replaces an earlier one of the same key; else it is left out where there is one.

    Examples
    --------
    >>> insert("block", again=False)[:28]
    'INSERT OR IGNORE INTO block '
    """
    values = ", ".join(_value(place, kind) for place, (_, kind) in enumerate(columns(table)))
    names = ", ".join(name for name, _ in columns(table))
    verb = "REPLACE" if again else "IGNORE"
    return f"INSERT OR {verb} INTO {table} ({names}) SELECT {values} FROM json_each(?)"


def _value(place: int, kind: str) -> str:
    value = f"json_extract(value, '$[{place}]')"
    return moment(value) if kind == "DATETIME" else value


def moment(microseconds: str) -> str:
    """What makes of microseconds since the epoch the text of a moment; of NULL, NULL."""
    return f"datetime({microseconds} / 1000000, 'unixepoch', 'localtime') || printf('.%06d', {microseconds} % 1000000)"
