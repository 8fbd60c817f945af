"""The suite's own parts: it can tell right from wrong, and who is who."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mpiflow.kernel.journal import JournalWriter

from . import faults, model, schedule, storage, victims
from .ledger import Ledger, journals
from .table import Table

if TYPE_CHECKING:
    from pathlib import Path

KEY, OTHER = "11" * 16, "22" * 16


def _ledger(directory: Path, executions: str = "", seen: str = "", lives: dict[str, list[str]] | None = None) -> Ledger:
    (directory / "executions").write_text(executions)
    (directory / "seen").write_text(seen)
    (directory / "lives").mkdir()
    for life, keys in (lives or {}).items():
        (directory / "lives" / life).write_text(json.dumps({"began": 0.0, "pid": 1, "keys": keys}))
    return Ledger(directory)


def _journal(directory: Path, *keys: str) -> None:
    journal = JournalWriter(str(directory / "runinfo/000/journal"))
    for key in keys:
        journal.add(key, b"N.")
    journal.close()


def test_a_graph_is_the_same_for_the_same_seed_only() -> None:
    nodes = model.graph(5, 300)
    assert nodes == model.graph(5, 300)
    assert model.expected(nodes) == model.expected(model.graph(5, 300))
    assert nodes != model.graph(6, 300)
    assert {node.kind for node in nodes} == {"python", "bash", "join"}
    assert any(node.size > model.BESIDE for node in model.graph(5, 2000))


def test_one_wrong_byte_changes_the_checksum() -> None:
    """A body depends on all above it."""
    right = model.body("7", 1000, [model.fingerprint(b"a")])
    assert right != model.body("7", 1000, [model.fingerprint(b"b")])
    assert right != model.body("8", 1000, [model.fingerprint(b"a")])


def test_a_schedule_follows_from_its_seed() -> None:
    drawn = schedule.legal((), "mpich")
    first, again = (list(itertools.islice(schedule.appointments("a", drawn), 50)) for _ in range(2))
    assert first == again != list(itertools.islice(schedule.appointments("b", drawn), 50))
    assert {one.fault for one in first} <= set(drawn)


def test_open_mpi_has_no_guardians() -> None:
    assert not [fault for fault in schedule.legal((), "openmpi") if fault.target == "guardian"]


def test_a_fault_that_nobody_knows() -> None:
    with pytest.raises(ValueError, match=r"there is no fault named earthquake; legal are runner-kill, "):
        schedule.legal(["earthquake"], "mpich")


def test_a_right_ledger_has_nothing_to_complain_of(tmp_path: Path) -> None:
    _journal(tmp_path, KEY, OTHER)
    ledger = _ledger(
        tmp_path,
        "0 1 m1 \n0 2 m2 m1\n1 2 m3 m1\n",  # task 2 was under way when life 0 ended
        f"0 1 {KEY} m1\n1 1 {KEY} m1\n1 2 {OTHER} m3\n",
        {"0": [], "1": [KEY]},
    )
    assert ledger.computed_again() == ledger.used_twice(False) == ledger.lost(False) == []


def test_a_task_that_was_in_the_journal_and_ran_again(tmp_path: Path) -> None:
    ledger = _ledger(tmp_path, "0 1 m1 \n1 1 m2 \n", f"0 1 {KEY} m1\n", {"0": [], "1": [KEY]})
    assert ledger.computed_again() == ["task 1 was in the journal when life 1 began, and ran again"]


def test_two_results_of_one_task(tmp_path: Path) -> None:
    """Two below it have used different ones; after a cut that is so between two lives, never in one."""
    ledger = _ledger(tmp_path, "0 1 m1 \n0 1 m2 \n0 2 m3 m1\n0 3 m4 m2\n")
    assert ledger.used_twice(False) == ledger.used_twice(True) == ["2 results of task 1 were used"]


def test_a_result_computed_again_after_a_cut(tmp_path: Path) -> None:
    ledger = _ledger(tmp_path, "0 1 m1 \n1 1 m2 \n0 2 m3 m1\n1 3 m4 m2\n")
    assert ledger.used_twice(True) == []
    assert ledger.used_twice(False) == ["2 results of task 1 were used"]


def test_a_task_that_ends_twice(tmp_path: Path) -> None:
    ledger = _ledger(tmp_path, "0 1 m1 \n", f"0 1 {KEY} m1\n0 1 {KEY} m1\n")
    assert ledger.used_twice(False) == ["task 1 ended 2 times in life 0"]


def test_a_result_that_was_seen_and_is_in_no_journal(tmp_path: Path) -> None:
    _journal(tmp_path, KEY)
    ledger = _ledger(tmp_path, seen=f"0 1 {KEY} m1\n0 2 {OTHER} m2\n")
    assert ledger.lost(False) == ["the script saw the result of task 2, and no journal has it"]
    assert ledger.lost(True) == []


@pytest.mark.parametrize("seed", range(8))
def test_a_cut_journal_is_shorter_or_ends_in_zeros(tmp_path: Path, seed: int) -> None:
    _journal(tmp_path, KEY, OTHER)
    (newest,) = journals(tmp_path / "runinfo")
    before = newest.read_bytes()
    words = faults.cut([newest], random.Random(seed))
    after = newest.read_bytes()
    assert str(newest) in words
    assert len(after) <= len(before)
    assert before.startswith(after.rstrip(b"\0"))


def test_who_is_who_below_a_launcher() -> None:
    """A tree as a launcher's: a guardian, its rank, a zygote with a session, a runner with a group of its own."""
    script = """
import os, time
def fork(setup, inside):
    if os.fork() == 0:
        setup()
        inside()
        time.sleep(60)
runner = lambda: fork(lambda: os.setpgid(0, 0), lambda: None)
zygote = lambda: fork(os.setsid, runner)
fork(lambda: None, zygote)
print("up", flush=True)
time.sleep(60)
"""
    line = [sys.executable, "-c", _LAUNCHER, script]
    launcher = subprocess.Popen(line, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"up\n"
        found: dict[int, victims.Rank] = {}
        while not (1 in found and found[1].runners):  # forked last; pytest's time-out ends a wait in vain
            found = victims.ranks(launcher.pid)
        rank = found[1]
        assert rank.guardian is not None
        assert rank.zygote is not None
        parents = [p.parent for p in (rank.guardian, rank.rank, rank.zygote, *rank.runners)]
        assert parents == [launcher.pid, rank.guardian.pid, rank.rank.pid, rank.zygote.pid]
        assert {p.pid for p in victims.below(launcher.pid)} == {rank.guardian.pid, *parents[2:], rank.runners[0].pid}
    finally:
        for process in [*victims.below(launcher.pid), launcher]:
            os.kill(process.pid, signal.SIGKILL)
        launcher.wait()
        assert launcher.stdout is not None
        launcher.stdout.close()


_LAUNCHER = """
import os, subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1]], env={**os.environ, "PMI_RANK": "1"})
"""


def test_the_table_counts_by_fault() -> None:
    table = Table("mpich")
    for name in ("runner-kill", "runner-kill", "worker-kill"):
        table.survived(name)
    table.ended("rank0-kill")
    assert (table.injected, table.failures) == (4, 0)
    table.failed("hangs", "rank0-kill")
    assert table.failures == 1
    rows = {line.split()[0]: line.split()[1:] for line in str(table).splitlines()}
    assert rows["runner-kill"] == ["2", "2", "0", "0", "0", "0", "0", "0"]
    assert rows["rank0-kill"] == ["1", "0", "1", "0", "0", "1", "0", "0"]
    assert rows["all"] == ["4", "3", "1", "0", "0", "1", "0", "0"]


def test_only_root_gets_a_tiny_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert storage.unavailable(tmp_path) == "only root may mount a file system"
