"""The monitoring database: rows on their way into an SQLite file, by a thread of rank 0.

**Why a thread, and once a second.** A commit waits for the disk: a millisecond here, seconds on a file system that is
busy. A superstep must not wait for that, and a transaction for each would be hundreds of them a second. So whoever has
rows leaves them here, which takes no lock and well under a microsecond, and a thread writes all of them once a second
in one transaction. SQLite works on them without the interpreter's lock (see `monitor.schema`). A process of its own,
as in Parsl, would need everything pickled once more, and has to be ended on every way out.

**What is kept back.** Of a task or a try only the latest row is of interest, so these lie in dicts by their keys, and
one that begins and ends within a second is written once.

**What can go wrong.** Nothing here may end a run. When the file cannot be written (it is locked, the disk is full,
somebody has taken the directory away) one line says so, the rows are kept and tried again, up to `MOST_KEPT` of them;
what is lost in the end is counted and said. A run that makes rows faster than the disk takes them waits for the disk,
as long as that makes progress.

The journal is SQLite's ordinary one: a write-ahead log needs memory that all readers share, which no network file
system has. A killed job leaves such a journal beside the file, and the next one who opens it puts all right.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from mpiflow.monitor.schema import INDEX, TABLES, columns, insert, moment

Row = tuple[Any, ...]

#: Seconds between two transactions, and between two attempts where the last has failed.
WRITE_EVERY, TRY_AGAIN_EVERY = 1.0, 5.0
#: How long one waits for a lock of somebody else's, in seconds.
LOCKED_WITHIN = 5.0
#: Rows in one JSON text: its making holds the interpreter's lock, for about a millisecond.
ROWS_AT_ONCE = 2000
#: Rows that may wait; beyond that whoever makes them waits. And rows that are kept while nothing can be written.
MOST_WAITING, MOST_KEPT = 500_000, 100_000
#: Without any progress for so many seconds nobody waits for the disk any more.
PROGRESS_WITHIN = 20.0

_UPDATE_NODE = (
    "UPDATE node SET uid = :uid, cpu_count = :cpu_count, total_memory = :total_memory, active = :active, "
    f"worker_count = :worker_count, last_heartbeat = {moment(':last_heartbeat')} "
    "WHERE run_id = :run_id AND hostname = :hostname"
)


class Database:
    """Takes rows from any thread, and writes them from one of its own.

    Parameters
    ----------
    path : str
        The file; made if it is not there, added to if it is.
    news : callable
        Called by the thread before it writes, to leave what is not worth leaving at every event.
    say : callable
        Told, in one line each, what has gone wrong.
    log : callable, optional
        Told of every batch.

    Attributes
    ----------
    workflows, tasks, tries, nodes : dict
        Latest row by key: a run; a task; (task, try); a host.
    statuses, resources, blocks : deque
        Rows.
    """

    def __init__(
        self, path: str, news: Callable[[], None], say: Callable[[str], None], log: Callable[[str], None] | None = None
    ) -> None:
        self.path = path
        self.workflows: dict[str, Row] = {}
        self.tasks: dict[int, Row] = {}
        self.tries: dict[tuple[int, int], Row] = {}
        self.nodes: dict[str, Row] = {}
        self.statuses: deque[Row] = deque()
        self.resources: deque[Row] = deque()
        self.blocks: deque[Row] = deque()
        #: Rows given up.
        self.lost = 0
        #: Rows written.
        self.written = 0
        self._news = news
        self._say = say
        self._log = log
        self._file: sqlite3.Connection | None = None
        self._failing = ""
        self._ending = False
        self._wake = threading.Event()
        self._progress = time.monotonic()
        self._thread = threading.Thread(target=self._write_on, name="mpiflow-monitoring", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    # --- for those who leave rows ---------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Rows that are not in the file yet, about."""
        return len(self.statuses) + len(self.resources) + len(self.tasks) + len(self.tries)

    def make_room(self) -> None:
        """Wait until half of what waits is written; not for a disk that makes no progress."""
        self._wake.set()
        while self.waiting > MOST_WAITING // 2 and not self._failing and self._thread.is_alive():
            if time.monotonic() - self._progress > PROGRESS_WITHIN:
                self._give_up_rows(f"nothing has been written for {PROGRESS_WITHIN:g} s")
                return
            time.sleep(0.01)

    def close(self) -> None:
        """Write what is left, and end; gives up on a disk that makes no progress."""
        self._ending = True
        self._progress = time.monotonic()
        self._wake.set()
        while self._thread.is_alive() and time.monotonic() - self._progress < PROGRESS_WITHIN:
            self._thread.join(0.1)
        if self._thread.is_alive():
            self._say(f"{self.path}: its disk does not answer; the end does without it")
        if self.lost:
            self._say(f"{self.path}: {self.lost:,} rows could not be written, and are lost")

    # --- the thread -----------------------------------------------------------------------------------------

    def _write_on(self) -> None:
        try:
            while not self._ending:
                self._write()
                self._wake.wait(TRY_AGAIN_EVERY if self._failing else WRITE_EVERY)
                self._wake.clear()
            self._write()
        except Exception as error:  # ours, and no reason to end anybody's run
            self._say(f"{self.path}: the monitoring has failed: {type(error).__name__}: {error}")
            self._failing = str(error)
        finally:
            if self._failing:
                self._give_up_rows("")
            if self._file is not None:
                self._file.close()

    def _write(self) -> None:
        """All that waits, in one transaction; what cannot be written waits on."""
        self._news()
        batch = self._taken()
        count = sum(len(rows) for _, rows in batch)
        if not count:
            return
        began = time.monotonic()
        try:
            new = self._file is None
            file = self._opened()
            file.execute("BEGIN IMMEDIATE")
            if new:  # in the same transaction: nobody finds a file with half of its tables
                for statement in (*TABLES.values(), INDEX):
                    file.execute(statement)
            for table, rows in batch:
                self._write_rows(file, table, rows)
            file.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self._put_back(batch)
            self._fail(error)
            return
        self._progress = time.monotonic()
        self.written += count
        if self._failing:
            self._failing = ""
            self._say(f"{self.path}: rows are written again")
        if self._log is not None:
            self._log(f"monitoring: {count} rows written in {time.monotonic() - began:.3f} s")

    def _opened(self) -> sqlite3.Connection:
        if self._file is None:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            self._file = sqlite3.connect(self.path, timeout=LOCKED_WITHIN, isolation_level=None)
        return self._file

    def _write_rows(self, file: sqlite3.Connection, table: str, rows: list[Row]) -> None:
        if table == "node":
            for row in rows:
                _write_node(file, row)
            return
        statement = insert(table, again=table in ("workflow", "task", "try"))
        for first in range(0, len(rows), ROWS_AT_ONCE):
            file.execute(statement, (json.dumps(rows[first : first + ROWS_AT_ONCE]),))
            self._progress = time.monotonic()

    def _taken(self) -> list[tuple[str, list[Row]]]:
        """What waits at this moment, by table. Others go on leaving rows meanwhile."""
        return [
            ("workflow", _latest(self.workflows)),
            ("node", _latest(self.nodes)),
            ("block", _all(self.blocks)),
            ("task", _latest(self.tasks)),
            ("try", _latest(self.tries)),
            ("status", _all(self.statuses)),
            ("resource", _all(self.resources)),
        ]

    def _put_back(self, batch: list[tuple[str, list[Row]]]) -> None:
        """Keep rows for later; newer ones that have come meanwhile count."""
        rows = dict(batch)
        for row in rows["workflow"]:
            self.workflows.setdefault(row[0], row)
        for row in rows["node"]:
            self.nodes.setdefault(row[2], row)
        for row in rows["task"]:
            self.tasks.setdefault(row[0], row)
        for row in rows["try"]:
            self.tries.setdefault((row[1], row[0]), row)
        self.blocks.extendleft(reversed(rows["block"]))
        self.statuses.extendleft(reversed(rows["status"]))
        self.resources.extendleft(reversed(rows["resource"]))

    def _fail(self, error: sqlite3.Error | OSError) -> None:
        """Nothing can be written: say so once, and have the file opened anew next time."""
        if self._file is not None:
            self._file.close()  # which takes back what had begun
            self._file = None
        if not self._failing:
            self._say(
                f"{self.path}: the monitoring database cannot be written ({error}); the run goes on, and its rows are "
                f"tried again every {TRY_AGAIN_EVERY:g} s"
            )
        self._failing = str(error)
        if self.waiting > MOST_KEPT:
            self._give_up_rows("")

    def _give_up_rows(self, why: str) -> None:
        given_up = sum(len(rows) for _, rows in self._taken())
        self.lost += given_up
        if why and given_up:
            self._say(f"{self.path}: {why}; {given_up:,} rows are given up, and the run goes on")


def _latest(rows: dict[Any, Row]) -> list[Row]:
    taken = [rows.popitem()[1] for _ in range(len(rows))]  # a step each that no other thread can come between
    taken.reverse()
    return taken


def _all(rows: deque[Row]) -> list[Row]:
    return [rows.popleft() for _ in range(len(rows))]


def _write_node(file: sqlite3.Connection, row: Row) -> None:
    """A node by its host, for its number is the database's own to give."""
    named = dict(zip((name for name, _ in columns("node")), row, strict=True))
    if not file.execute(_UPDATE_NODE, named).rowcount:
        file.execute(insert("node", again=False), (json.dumps([row]),))
