"""A process that commits to a journal as fast as it can is killed, again and again, at moments of nobody's choosing.

After each time: what it had acknowledged is there, and nothing is there that it did not write. Twenty times here;
``-m chaos`` has the two hundred.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpiflow.kernel import journal
from mpiflow.kernel.journal import LARGE, read_journal, read_result
from mpiflow.kernel.ownership import open_own

pytestmark = pytest.mark.timeout(600)

#: Commits of one to seven results, of some bytes to more than a megabyte; a number is acknowledged once it is in.
WRITER = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_killed_commits import key, result
from mpiflow.kernel.journal import JournalWriter, pickled

writer = JournalWriter(sys.argv[1])
number = 0
while True:
    for _ in range(1 + number % 7):
        writer.add(key(number), pickled(result(number), None))
        number += 1
    writer.commit()
    os.write(1, number.to_bytes(8, "little"))
"""


def key(number: int) -> str:
    return hashlib.md5(str(number).encode()).hexdigest()


def result(number: int) -> tuple[int, bytes]:
    """What is kept under a number: mostly small, now and then in a file of its own."""
    size = LARGE + number if number % 97 == 96 else number * 7919 % 5000
    return number, number.to_bytes(8, "little") * (size // 8)


def kept_in(path: str, complaints: list[str]) -> dict[str, object]:
    """Every result of a journal, by key."""
    found: dict[str, object] = {}
    places = list(read_journal(path, False, complaints.append))
    with open_own(path, False) as file:
        for name, offset in places:
            kept = read_result(file, offset)
            beside = isinstance(kept, journal.Beside)
            found[name.hex()] = journal.load_beside(kept, False) if beside else pickle.loads(kept)
    return found


def write_until_killed(directory: Path, after: float) -> int:
    """Have a process write for so many seconds from its first acknowledgement on; the last number acknowledged."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        said = os.read(writer.stdout.fileno(), 8)
        end = time.monotonic() + after
        while (left := end - time.monotonic()) > 0:  # a full pipe would hold it up
            if select.select([writer.stdout], [], [], left)[0]:
                said += os.read(writer.stdout.fileno(), 1 << 16)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    said += writer.stdout.read()
    writer.stdout.close()
    assert len(said) % 8 == 0
    return int.from_bytes(said[-8:], "little")


def killed(times: int, seed: int, place: Path) -> tuple[int, int]:
    """Kill so many; how many journals had a torn tail, and how many had more than was acknowledged."""
    moments = random.Random(seed)
    torn = ahead = 0
    for number in range(times):
        directory = place / str(number)
        acknowledged = write_until_killed(directory, moments.uniform(0.0, 0.03))
        complaints: list[str] = []
        found = kept_in(str(directory / "0000.journal"), complaints)
        assert acknowledged > 0
        missing = [n for n in range(acknowledged) if found.get(key(n)) != result(n)]
        assert missing == [], f"round {number} of seed {seed}: {missing[:5]} of {acknowledged} are lost"
        written = {key(n): n for n in range(acknowledged + 7)}
        wrong = [name for name, value in found.items() if name not in written or value != result(written[name])]
        assert wrong == [], f"round {number} of seed {seed}: {wrong[:5]} were never written so"
        torn += bool(complaints)
        ahead += len(found) > acknowledged
        for path in directory.iterdir():
            path.unlink()
    return torn, ahead


def test_kill_during_commit_twenty_times(tmp_path: Path) -> None:
    killed(20, 1, tmp_path)


@pytest.mark.chaos
def test_kill_during_commit_two_hundred_times(tmp_path: Path) -> None:
    torn, ahead = killed(200, random.SystemRandom().randrange(1 << 32), tmp_path)
    print(f"200 killed: {torn} journals with a torn tail, {ahead} with more than was acknowledged, 0 results lost")
