"""The guardian beside a process that plays a rank, and a socket that plays the launcher."""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mpiflow.exitcodes import NOT_STARTED, RELAUNCH
from mpiflow.worker import guardian
from mpiflow.worker.guardian import Guardian, fork_guardian

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a guardian stands beside ranks of hydra on Linux")

#: By which hydra's environment is known, and Slurm's.
HYDRA, SLURM = {"MPI_LOCALNRANKS": "4"}, {"SLURM_STEP_ID": "0"}
#: Seconds for whatever a guardian does at once.
SOON = 20.0


class Launched(NamedTuple):
    """A guardian with its rank."""

    pid: int
    launcher: socket.socket

    def code(self) -> int:
        """The exit code that the launcher would see."""
        end = time.monotonic() + SOON
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            self.answer()
            time.sleep(0.005)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError("the guardian does not end")

    def answer(self) -> None:
        """Answer whatever it says, as the launcher does, and keep it."""
        try:
            said = self.launcher.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if said:
            heard.append(said.decode())
            self.launcher.send(b"cmd=done\n")


heard: list[str] = []


@pytest.fixture
def launch() -> Iterator[Callable[..., Launched]]:
    """Starts a guardian whose rank does what a test says."""
    heard.clear()
    started: list[Launched] = []

    def start(rank: int, act: Callable[[Guardian], None], environ: dict[str, str] = HYDRA) -> Launched:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            try:
                ours.close()
                act(fork_guardian({**environ, "PMI_FD": str(theirs.fileno()), "PMI_RANK": str(rank)}))
                os._exit(0)
            except BaseException:
                os._exit(99)
        theirs.close()
        started.append(Launched(pid, ours))
        return started[-1]

    yield start
    for launched in started:
        launched.launcher.close()


def test_without_the_launchers_descriptor_there_is_none() -> None:
    there = fork_guardian({"OMPI_COMM_WORLD_RANK": "0"})
    assert not there.there
    there.tell("started")
    assert there.inside[0] == 0


@pytest.mark.parametrize("code", [0, 3])
def test_a_rank_that_finalizes_speaks_for_itself(launch: Callable[..., Launched], code: int) -> None:
    def act(own: Guardian) -> None:
        own.tell("started")
        own.tell(f"finalized {code}")
        os._exit(code)

    assert launch(0, act).code() == code
    assert heard == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_leaves_a_note_and_the_job_lives_on(
    launch: Callable[..., Launched], tmp_path: Path, number: signal.Signals
) -> None:
    def act(own: Guardian) -> None:
        own.tell("started")
        own.tell(f"report {tmp_path}/requests")
        faulthandler.disable()  # that of the tests would show a stack
        os.kill(os.getpid(), number)

    assert launch(7, act).code() == 0
    assert heard == ["cmd=finalize\n"]
    assert [path.name for path in (tmp_path / "requests").iterdir()] == ["lost-rank-7.note"]


def test_rank_0_that_dies_ends_the_job_with_the_code_to_start_it_again(launch: Callable[..., Launched]) -> None:
    def act(own: Guardian) -> None:
        own.tell("started")
        os.kill(os.getpid(), signal.SIGKILL)

    assert launch(0, act).code() == RELAUNCH
    assert heard == [f"cmd=abort exitcode={RELAUNCH}\n"]


def test_a_rank_that_dies_before_mpi_has_started_ends_the_job(launch: Callable[..., Launched]) -> None:
    assert launch(2, lambda own: os._exit(1)).code() == NOT_STARTED
    assert heard == [f"cmd=abort exitcode={NOT_STARTED}\n"]


@pytest.mark.parametrize(("rank", "word", "said"), [(3, "leave", "finalize"), (0, "abort", "abort exitcode=4")])
def test_a_rank_that_leaves_without_mpi_finalize(
    launch: Callable[..., Launched], rank: int, word: str, said: str
) -> None:
    def act(own: Guardian) -> None:
        own.tell("started")
        own.tell(f"{word} 4")
        os._exit(4)

    assert launch(rank, act).code() == 4
    assert heard == [f"cmd={said}\n"]


@pytest.mark.parametrize("word", ["abort 4", "finalized 4", ""])
def test_under_srun_the_exit_code_alone_ends_the_job(launch: Callable[..., Launched], word: str) -> None:
    """It makes 137 of an abort."""

    def act(own: Guardian) -> None:
        own.tell("started")
        if word:
            own.tell(word)
        os._exit(4)

    assert launch(0, act, SLURM).code() == (4 if word else RELAUNCH)
    assert heard == ([] if word.startswith("finalized") else ["cmd=finalize\n"])


def test_a_last_word_that_comes_together_with_the_end_is_heard(launch: Callable[..., Launched]) -> None:
    def act(own: Guardian) -> None:
        own.tell("started\nfinalized 0")
        os._exit(0)

    for _ in range(20):
        assert launch(1, act).code() == 0
    assert heard == []


def test_a_rank_that_does_not_end_after_its_word_is_ended(
    launch: Callable[..., Launched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guardian, "ENDS_WITHIN", 0.3)

    def act(own: Guardian) -> None:
        own.tell("started")
        own.tell("finalized 5")
        time.sleep(600)

    assert launch(0, act).code() == 5
    assert heard == ["cmd=abort exitcode=5\n"], "MPI_Finalize hangs, and the job's result is known"


@pytest.mark.parametrize(("rank", "said"), [(0, "abort exitcode=5"), (1, "finalize")])
def test_a_rank_that_is_killed_in_mpi_finalize_is_spoken_for(
    launch: Callable[..., Launched], rank: int, said: str
) -> None:
    def act(own: Guardian) -> None:
        own.tell("started")
        own.tell("finalized 5")
        os.kill(os.getpid(), signal.SIGKILL)

    assert launch(rank, act).code() == 5
    assert heard == [f"cmd={said}\n"]


def test_rank_0_inside_one_mpi_call_for_too_long_is_ended(
    launch: Callable[..., Launched], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guardian, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(guardian, "INSIDE_AT_MOST", 0.5)

    def act(own: Guardian) -> None:
        own.tell("started")
        end = time.monotonic() + 1.5
        while time.monotonic() < end:  # many short calls: all is well
            own.inside[0] = 1
            time.sleep(0.02)
            own.inside[0] = 0
        own.inside[0] = 1
        time.sleep(600)

    began = time.monotonic()
    assert launch(0, act).code() == RELAUNCH
    assert time.monotonic() - began > 1.5
    assert heard == [f"cmd=abort exitcode={RELAUNCH}\n"]
    assert re.search(r"rank 0 has been inside one MPI call for 0\.5\d* s", capfd.readouterr().err)


def test_rank_0_that_is_stopped_is_ended(
    launch: Callable[..., Launched], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guardian, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(guardian, "STOPPED_AT_MOST", 0.2)

    def act(own: Guardian) -> None:
        own.tell("started")
        os.kill(os.getpid(), signal.SIGSTOP)

    assert launch(0, act).code() == RELAUNCH
    assert re.search(r"rank 0 has been stopped by a signal for 0\.2\d* s", capfd.readouterr().err)


def test_signals_to_the_group_do_not_end_the_guardian(launch: Callable[..., Launched]) -> None:
    def act(own: Guardian) -> None:
        own.tell("started")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGQUIT):
            time.sleep(0.02)
            os.kill(os.getppid(), number)
        own.tell("finalized 0")
        os._exit(0)

    assert launch(1, act).code() == 0


def test_when_the_launcher_has_gone_the_rank_goes_too(launch: Callable[..., Launched], tmp_path: Path) -> None:
    def act(own: Guardian) -> None:
        own.tell("started")
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(600)

    launched = launch(1, act)
    end = time.monotonic() + SOON
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    launched.launcher.shutdown(socket.SHUT_RDWR)
    _, status = os.waitpid(launched.pid, 0)
    assert os.waitstatus_to_exitcode(status) == RELAUNCH
    while Path("/proc", (tmp_path / "pid").read_text()).exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_rank_dies_with_its_guardian(launch: Callable[..., Launched], tmp_path: Path) -> None:
    def act(own: Guardian) -> None:
        own.tell("started")
        (tmp_path / "pid").write_text(str(os.getpid()))
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)

    assert launch(1, act).code() == -signal.SIGKILL
    end = time.monotonic() + SOON
    while Path("/proc", (tmp_path / "pid").read_text()).exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_stopped_guardian_is_woken_by_the_last_word(launch: Callable[..., Launched]) -> None:
    def act(own: Guardian) -> None:
        own.tell("started")
        os.kill(os.getppid(), signal.SIGSTOP)
        own.tell("finalized 0")
        os._exit(0)

    assert launch(1, act).code() == 0
