"""What tasks use: measured by the process that runs them, and looked at by another."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import eventually

from mpiflow.comm.wire import HEADER, USAGE, USED
from mpiflow.worker import usage
from mpiflow.worker.usage import Meter, look, only_began, spent_at_end

NAMES = (
    "began", "moment", "ending", "sampled", "pid", "children", "cpu", "percent", "user", "system", "virtual",
    "resident", "read", "written", "voluntary", "involuntary", "state",
)  # fmt: skip
NOTHING = (0.0, 0.0, 0, 0, 0, 0)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")


def taken(record: bytes) -> tuple[dict[str, float], bytes]:
    """What a record says, and its payload; its header is checked."""
    aid, tid, fid, size, _, kind, more = HEADER.unpack_from(record)
    payload = record[HEADER.size :]
    assert (aid, tid, fid, kind, more, size) == (5, 6, 7, USED, 0, len(payload))
    return dict(zip(NAMES, USAGE.unpack_from(payload), strict=True)), payload


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(1000))


def test_a_task_is_charged_with_its_own_and_not_with_what_was_before() -> None:
    burn(0.2)
    meter = Meter()
    meter.begin()
    began = time.time()
    burn(0.1)
    first, payload = taken(meter.end(5, 6, 7))
    meter.begin()
    second, _ = taken(meter.end(5, 6, 7))
    assert first["ending"]
    assert first["sampled"]
    assert first["pid"] == os.getpid()
    assert abs(first["began"] - began) < 1
    assert first["began"] <= first["moment"] <= time.time()
    assert 0.09 < first["user"] + first["system"] < 0.2
    assert second["user"] + second["system"] < 0.05
    assert spent_at_end(payload)[0] > 0.2  # of the process in all
    assert 1 << 20 < first["resident"] < first["virtual"]
    assert 0 < first["percent"] < 100
    assert 0 <= first["cpu"] < os.cpu_count()


def test_a_task_that_has_put_another_file_in_the_place_of_ours_costs_a_sample_and_no_more(tmp_path: Path) -> None:
    """``os.closerange`` and then ``open``: what is read under the number of /proc's file may be anything."""
    for words in (b"", b"one", b"a text\nof words\n" * 100, b"1 2 3", bytes(range(256)) * 9):
        meter = Meter()
        other = tmp_path / "other"
        other.write_bytes(words)
        for fd in (meter._stat, meter._io):
            replacement = os.open(other, os.O_RDONLY)
            os.dup2(replacement, fd)
            os.close(replacement)
        meter.begin()
        found, _ = taken(meter.end(5, 6, 7))
        assert (found["resident"], found["virtual"], found["read"], found["written"]) == (0, 0, 0, 0)


def test_what_happens_between_two_tasks_is_nobodys() -> None:
    """A rank does other work between its tasks."""
    meter = Meter()
    meter.begin()
    meter.end(5, 6, 7)
    burn(0.2)
    meter.begin()
    found, _ = taken(meter.end(5, 6, 7))
    assert found["user"] + found["system"] < 0.1


def test_children_count_their_time_files_and_number() -> None:
    """Those that have been waited for; and how many are there, but for those that were there before."""
    with subprocess.Popen(["sleep", "60"]) as before:
        meter = Meter()
        meter.begin()
        burning = "now = __import__('time').process_time\nwhile now() < 0.2: pass\n"
        subprocess.run([sys.executable, "-c", f"{burning}open('/dev/null', 'w').write('x' * 5000)"], check=True)
        with subprocess.Popen(["sleep", "60"]) as during:
            found, _ = taken(meter.end(5, 6, 7))
            during.kill()
        before.kill()
    assert found["user"] + found["system"] > 0.15
    assert found["written"] >= 5000
    assert found["children"] == 1


def test_a_task_that_closes_files_that_are_not_its_own_is_measured_less() -> None:
    meter = Meter()
    os.close(meter._stat)
    os.close(meter._io)
    meter.begin()
    found, _ = taken(meter.end(5, 6, 7))
    assert (found["resident"], found["read"]) == (0, 0)


def test_a_look_counts_all_that_a_runner_has_below_it() -> None:
    burning = "while True: pass"
    line = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burning!r}])"
    with subprocess.Popen([sys.executable, "-c", line], start_new_session=True) as process:
        try:
            # the one above only waits
            assert eventually(
                lambda: sum(taken(look(process.pid, 3.0, NOTHING, 5, 6, 7))[0][n] for n in ("user", "system")) > 0.1
            )
            found, _ = taken(look(process.pid, 3.0, NOTHING, 5, 6, 7))
            less, _ = taken(look(process.pid, 3.0, (0.1, 0.0, 10**12, 0, 0, 0), 5, 6, 7))
        finally:
            os.killpg(process.pid, 9)
    assert (found["pid"], found["children"], found["ending"], found["sampled"]) == (process.pid, 1, False, True)
    assert found["moment"] - found["began"] == pytest.approx(3.0)
    assert abs(time.time() - found["moment"]) < 30
    assert found["resident"] > 2 << 20
    assert less["user"] < found["user"] + 0.5
    assert less["read"] == 0  # never below zero


def test_of_one_that_has_gone_no_more_is_told_than_when_it_began() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    for record in (look(process.pid, 12.5, NOTHING, 5, 6, 7), only_began(12.5, 5, 6, 7)):
        found, _ = taken(record)
        assert found["moment"] - found["began"] == pytest.approx(12.5)
        assert (found["ending"], found["sampled"]) == (False, False)


def test_a_look_is_cheap() -> None:
    """A rank with a busy runner has a budget of 0.3 % of a processor: at one look in 30 s, 90 ms."""
    began = time.thread_time()
    for _ in range(20):
        look(os.getpid(), 0.0, NOTHING, 5, 6, 7)
    assert (time.thread_time() - began) / 20 < 0.01
    assert usage.USAGE.size < 128
