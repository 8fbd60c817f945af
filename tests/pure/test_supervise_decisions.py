"""What `mpiflow supervise` decides on, without a farm; and which hosts answer."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from mpiflow.cli import probe
from mpiflow.cli.attend import Outcome
from mpiflow.cli.probe import silent_hosts
from mpiflow.cli.supervise import Life, judge, kept
from mpiflow.cli.verdict import Said


def life(
    returncode: int,
    ended: int | None,
    *,
    request: int | None = None,
    warned: bool = False,
    began: bool = True,
    draining: bool = False,
) -> Life:
    said = Said()
    said.began, said.ended, said.draining = began, ended, draining
    return Life(Outcome(returncode, request, False, warned, said, False), 812.4, False)


@pytest.mark.parametrize(
    ("ended", "code", "why"),
    [
        (life(0, 0), 0, ""),
        (life(9, 0), 0, ""),  # hydra's word about a rank that was lost
        (life(-9, 3), 3, "the script ended with code 3: no relaunch"),
        (life(0, 85), 85, "the job was drained: run it again and it goes on; code 85"),
        (life(86, 86), None, "the farm asked for it after 812 s"),
        (life(0, 86), None, "the farm asked for it after 812 s"),
        (life(86, None), None, "rank 0 was lost after 812 s"),
        (life(-9, None), None, "mpiexec was killed by SIGKILL after 812 s, and rank 0 had not come to its end"),
        (life(0, None), None, "mpiexec ended with code 0 after 812 s, and rank 0 had not come to its end"),
        (life(255, None, began=False), None, "mpiexec ended with code 255 after 812 s, and rank 0 had not begun"),
        (
            life(0, None, began=False),
            0,
            "mpiexec ended with code 0, and no farm was heard of: does it pass on MPIFLOW_VERDICT?",
        ),
        (life(72, None, began=False), 72, "launcher and MPI library do not fit: no relaunch; code 72"),
        (
            life(255, None, warned=True),
            85,
            "mpiexec ended with code 255 after 812 s, and rank 0 had not come to its end; no relaunch, because its "
            "time is nearly over; code 85",
        ),
        (
            life(-9, None, draining=True),
            85,
            "mpiexec was killed by SIGKILL after 812 s, and rank 0 had not come to its end; no relaunch, because it "
            "was being drained; code 85",
        ),
        (life(0, 3, draining=True), 3, "the script ended with code 3: no relaunch"),
        (life(0, 0, warned=True), 0, ""),
        (life(0, 130, request=signal.SIGINT), 130, "ended by SIGINT; code 130"),
        (life(0, 130, request=signal.SIGTERM), 143, "ended by SIGTERM; code 143"),
        (life(-9, None, request=signal.SIGTERM), 143, "ended by SIGTERM; code 143"),
        (life(0, 5, request=signal.SIGTERM), 5, "ended by SIGTERM; code 5"),
    ],
)
def test_whether_a_life_was_the_last(ended: Life, code: int | None, why: str) -> None:
    assert judge(ended, "/opt/mpi/bin/mpiexec") == (code, why)


@pytest.mark.parametrize("words", [["--run-dir", "mine"], ["--run-dir=mine"]])
def test_what_a_life_has_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert kept(["python", "-m", "mpiflow", *words, "script.py"]) == 0
    for number, run in enumerate(["runinfo/000", "mine"], 1):
        (tmp_path / run / "journal").mkdir(parents=True)
        (tmp_path / run / "journal" / "0000.journal").write_bytes(b"x" * 100)
        assert kept(["python", "-m", "mpiflow", *words, "script.py"]) == 100 * number


def test_a_run_directory_that_is_being_removed_is_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    journals = tmp_path / "runinfo" / "000" / "journal"
    journals.mkdir(parents=True)
    (journals / "0000.journal").symlink_to(tmp_path / "gone")  # listed, and not there when it is looked at
    assert kept(["script.py"]) == 0


def asked(**commands: str) -> dict[str, list[str]]:
    return {host: ["/bin/sh", "-c", command] for host, command in commands.items()}


def wait(seconds: float) -> bool:
    time.sleep(seconds / 10)
    return False


def test_hosts_that_fail_or_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "ANSWER_WITHIN", 1.0)
    lines = asked(n1="true", n2="exit 255", n3="sleep 100", n4="true")
    assert sorted(silent_hosts(lines, wait)) == ["n2", "n3"]


def test_when_no_host_answers_it_is_the_question() -> None:
    assert silent_hosts(asked(n1="exit 1", n2="exit 1"), wait) == []


def test_more_hosts_than_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "AT_ONCE", 2)
    lines = asked(**{f"n{number}": "exit 1" if number == 3 else "true" for number in range(7)})
    assert silent_hosts(lines, wait) == ["n3"]


def test_a_signal_ends_the_search() -> None:
    began = time.monotonic()
    assert silent_hosts(asked(n1="sleep 100", n2="true"), lambda seconds: True) == []
    assert time.monotonic() - began < 15.0
