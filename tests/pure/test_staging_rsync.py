"""Copying by rsync: a real one on both ends, with a shell in between that goes nowhere."""

from __future__ import annotations

import pickle
import shutil
from operator import length_hint
from pathlib import Path

import pytest

from mpiflow.data.staging.rsync import CopyIn, CopyOut, RSyncStaging, rsync

needs_rsync = pytest.mark.skipif(shutil.which("rsync") is None, reason="there is no rsync on this machine")


@pytest.fixture(autouse=True)
def remote_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What rsync takes for ssh: notes the host, and runs the command here."""
    shell, hosts = tmp_path / "shell", tmp_path / "hosts"
    shell.write_text(f'#!/bin/sh\n[ "$1" = -l ] && shift 2\necho "$1" >> {hosts}\nshift\nexec "$@"\n')
    shell.chmod(0o755)
    monkeypatch.setenv("RSYNC_RSH", str(shell))
    return hosts


@needs_rsync
def test_in_and_out(tmp_path: Path, remote_shell: Path) -> None:
    (tmp_path / "a file").write_text("there")
    here, back = tmp_path / "wd" / "copy 1", tmp_path / "back again"

    def upper(name: str, times: int) -> int:
        assert here.read_text() == "there"
        here.write_text(name.upper() * times)
        return times

    staged = CopyIn(CopyOut(upper, str(here), f"me@login:{back}"), f"login:{tmp_path}/a file", str(here))
    assert staged("x", times=3) == 3
    assert back.read_text() == "XXX"
    assert remote_shell.read_text().split() == ["login", "login"]


@needs_rsync
def test_a_name_that_looks_like_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "10:30.txt").write_text("late")
    CopyOut(abs, "10:30.txt", f"host:{tmp_path}/there:1")(-1)
    CopyIn(abs, f"host:{tmp_path}/there:1", "back:1")(-1)
    assert (tmp_path / "back:1").read_text() == "late"


def test_it_travels_to_a_worker() -> None:
    staged = pickle.loads(pickle.dumps(CopyOut(CopyIn(length_hint, "a:/b", "b"), "c", "a:/c")))
    assert (staged.source, staged.target, staged.func.source, staged.func.target) == ("c", "a:/c", "a:/b", "b")


def test_a_task_that_fails_takes_nothing_away(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        CopyOut(lambda: 1 // 0, str(tmp_path / "x"), f"host:{tmp_path}/y")()
    assert not (tmp_path / "y").exists()


@needs_rsync
def test_no_such_file(tmp_path: Path) -> None:
    words = "host:/no/such/file cannot be copied to .*/x: rsync ended with 23: .*No such file or directory"
    with pytest.raises(RuntimeError, match=f"(?s){words}"):
        rsync("host:/no/such/file", str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()


@needs_rsync
def test_a_host_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSYNC_RSH", "false")
    with pytest.raises(RuntimeError, match=r"host:/x cannot be copied to .*: rsync ended with \d+: "):
        rsync("host:/x", str(tmp_path / "x"))


def test_no_rsync_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="host:/x cannot be copied to y: there is no rsync on host"):
        rsync("host:/x", "y")


def test_it_shows_itself() -> None:
    assert repr(RSyncStaging("login1")) == "RSyncStaging(hostname='login1')"
