"""SIGKILL while a journal is written, two hundred times, at any moment of a commit."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mpiflow.kernel.journal import Beside, load_beside, read_journal, read_result
from mpiflow.kernel.ownership import open_own

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 200

# Forked, not started: two hundred interpreters would take a minute. What a commit has promised is said through a
# pipe, which outlives the child as its journal does.
_FORKS_AND_KILLS = """
import os, random, signal, sys, time
from mpiflow.kernel.journal import LARGE, JournalWriter, pickled

def write_for_ever(directory, said):
    writer = JournalWriter(directory)
    for number in range(1 << 30):
        for part in range(5):
            size = LARGE if number % 40 == 39 and not part else 7919 * number % 20000
            writer.add(f"{5 * number + part:032x}", pickled((number, part, b"x" * size), None))
        writer.commit()
        os.write(said, b"%d\\\\n" % number)

draw = random.Random(int(sys.argv[2]))
for kill in range(int(sys.argv[3])):
    directory = os.path.join(sys.argv[1], str(kill))
    heard, said = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            write_for_ever(directory, said)
        finally:
            os._exit(1)
    os.close(said)
    time.sleep(draw.uniform(0.0, 0.02))
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    with open(heard, "rb") as pipe:
        promised = pipe.read().split()
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "promised"), "wb") as file:
        file.write(promised[-1] if promised else b"-1")
"""


@pytest.mark.timeout(300)
def test_a_kill_at_any_moment_of_a_commit_costs_nothing_that_was_promised(tmp_path: Path) -> None:
    line = [sys.executable, "-c", _FORKS_AND_KILLS.replace("\\\\n", "\\n"), str(tmp_path), "1", str(KILLS)]
    subprocess.run(line, check=True, timeout=240)
    within = 0
    for kill in range(KILLS):
        promised = int((tmp_path / str(kill) / "promised").read_text())
        journal = tmp_path / str(kill) / "0000.journal"
        if not journal.exists():
            assert promised == -1
            continue
        torn: list[str] = []
        found = dict(read_journal(str(journal), True, torn.append))
        whole = {int.from_bytes(key, "big") for key in found}
        assert whole == set(range(len(whole))), "a hole in the journal"
        assert len(whole) >= 5 * (promised + 1)
        within += len(whole) > 5 * (promised + 1) or bool(torn)
        with open_own(str(journal), True) as file:
            for offset in found.values():
                kept = read_result(file, offset)
                assert not isinstance(kept, Beside) or load_beside(kept, True)
    assert within, "no kill has hit a commit"
