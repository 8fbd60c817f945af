"""``mpiflow report``: what a monitoring database says of a run, as text. For where no browser is."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any, NoReturn

_DESCRIPTION = "Say what a monitoring database knows of a run: its tasks, apps, nodes and first failures."
_RUNS = """
SELECT run_id, workflow_name, time_began, time_completed,
       (julianday(coalesce(time_completed, 'now', 'localtime')) - julianday(time_began)) * 86400, rundir
FROM workflow ORDER BY time_began DESC
"""
#: The last state of each task; of one moment there is one, see `kernel.monitoring`.
_STATES = """
SELECT task_status_name, count(*) FROM status JOIN
    (SELECT task_id AS id, max(timestamp) AS latest FROM status WHERE run_id = ?1 GROUP BY task_id)
    ON task_id = id AND timestamp = latest
WHERE run_id = ?1 GROUP BY task_status_name ORDER BY count(*) DESC
"""
_APPS = """
SELECT task_func_name, count(*), sum(fails), round(avg(seconds), 3), round(max(seconds), 3), round(max(mib)) FROM
    (SELECT task_id, task_func_name, task_fail_count AS fails FROM task WHERE run_id = ?1)
    LEFT JOIN (SELECT task_id, max((julianday(task_try_time_returned) - julianday(task_try_time_running)) * 86400)
               AS seconds FROM try WHERE run_id = ?1 GROUP BY task_id) USING (task_id)
    LEFT JOIN (SELECT task_id, max(psutil_process_memory_resident) / 1048576 AS mib FROM resource WHERE run_id = ?1
               GROUP BY task_id) USING (task_id)
GROUP BY task_func_name ORDER BY count(*) DESC
"""
_NODES = "SELECT hostname, uid, worker_count, active FROM node WHERE run_id = ? ORDER BY hostname"
_FAILURES = """
SELECT task_id, task_func_name, try_id, hostname, substr(task_fail_history, 1, 100) FROM try
JOIN task USING (run_id, task_id) WHERE run_id = ? AND task_fail_history != '' ORDER BY task_id, try_id LIMIT 10
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"mpiflow report: {message}\n{self.format_usage()}", file=sys.stderr, end="")
        sys.exit(2)


def report(arguments: Sequence[str]) -> int:
    """Print what the database says of its latest run, or of the one that is named.

    Parameters
    ----------
    arguments : sequence of str
        The command line after ``report``.

    Returns
    -------
    int
        The exit code: 1 where there is no such database or run.
    """
    made = _Parser(prog="mpiflow report", description=_DESCRIPTION, allow_abbrev=False)
    made.add_argument("path", nargs="?", default="runinfo", help="the database, or its directory (default runinfo)")
    made.add_argument("--run", metavar="ID", help="the run whose id begins so (default: the latest)")
    said = made.parse_args(arguments)
    path = os.path.join(said.path, "monitoring.db") if os.path.isdir(said.path) else said.path
    if not os.path.isfile(path):
        print(f"mpiflow report: {path}: there is no such file; Config(monitoring=...) makes one", file=sys.stderr)
        return 1
    try:
        with closing(sqlite3.connect(f"file:{os.path.abspath(path)}?mode=ro", uri=True, timeout=10)) as file:
            return _report(file, path, said.run or "")
    except sqlite3.Error as error:
        print(f"mpiflow report: {path}: cannot be read as a monitoring database: {error}", file=sys.stderr)
        return 1


def _report(file: sqlite3.Connection, path: str, wanted: str) -> int:
    runs = file.execute(_RUNS).fetchall()
    run = next((run for run in runs if run[0].startswith(wanted)), None)
    if run is None:
        known = ", ".join(run[0] for run in runs) or "none"
        print(f"mpiflow report: {path}: no run {wanted!r}; there are: {known}", file=sys.stderr)
        return 1
    number, name, began, completed, seconds, directory = run
    standing = f"{seconds:,.1f} s" if completed else f"{seconds:,.1f} s so far, or killed"
    lines = [f"{name}, run {number} in {directory}", f"began {began[:19]}, {standing}; runs in {path}: {len(runs)}"]
    lines += _table(("state", "tasks"), file.execute(_STATES, (number,)))
    lines += _table(("app", "tasks", "failed tries", "mean s", "longest s", "most MiB"), file.execute(_APPS, (number,)))
    lines += _table(("node", "ranks", "tasks at once", "in service"), file.execute(_NODES, (number,)))
    lines += _table(("task", "app", "try", "node", "the first failures"), file.execute(_FAILURES, (number,)))
    print("\n".join(lines))  # in one piece: a `head` behind it may have gone after the first
    return 0


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lines of columns as wide as what is in them, an empty one before; nothing where there are no rows."""
    texts = [["-" if value is None else str(value).replace("\n", " ") for value in row] for row in rows]
    if not texts:
        return []
    widths = [max(len(row[column]) for row in [heads, *texts]) for column in range(len(heads))]
    padded = ([text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in [heads, *texts])
    return ["", *("  ".join(row).rstrip() for row in padded)]
