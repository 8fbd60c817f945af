"""Requests to a run through files: who asks, who answers, and everything that can be wrong with the place."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from mpiflow.errors import RequestError
from mpiflow.monitor import requests
from mpiflow.monitor.requests import LOOK_EVERY, Request, Requests, ask, wait_for_answer


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory."""
    path = tmp_path / "000"
    path.mkdir()
    return path


def files(run: Path) -> list[str]:
    return sorted(os.listdir(run / "requests"))


def test_a_request_and_its_answer(run: Path) -> None:
    listening = Requests(run)
    asked = ask(run, "drain")
    name = f"drain-{os.uname().nodename}-{os.getpid()}"
    assert asked == run / "requests" / f"{name}.request"
    (request,) = listening.poll(10.0)
    assert request.name == "drain"
    assert request.by.endswith(f" on {os.uname().nodename}")
    assert files(run) == [f"{name}.taken", "open"]
    request.answer("yes\n")
    assert files(run) == [f"{name}.answer", "open"]
    assert wait_for_answer(asked, 5.0) == "yes\n"
    assert files(run) == ["open"]


def test_rank_0_looks_once_a_second_and_sees_each_request_once(run: Path) -> None:
    listening = Requests(run)
    assert listening.poll(10.0) == []
    ask(run, "drain")
    assert listening.poll(10.0 + 0.9 * LOOK_EVERY) == []
    assert len(listening.poll(10.0 + LOOK_EVERY)) == 1
    assert listening.poll(10.0 + 3 * LOOK_EVERY) == []


def test_two_kernels_in_one_directory_answer_once(run: Path) -> None:
    first, second = Requests(run), Requests(run)
    ask(run, "drain")
    assert len(first.poll(10.0) + second.poll(10.0)) == 1


def test_an_answer_may_come_later_and_from_another_thread(run: Path) -> None:
    listening = Requests(run)
    asked = ask(run, "stacks")
    (request,) = listening.poll(10.0)
    later = threading.Timer(0.2, request.answer, ["late"])
    later.start()
    assert wait_for_answer(asked, 10.0) == "late"
    later.join()


def test_names_are_answered_by_those_who_can(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(request: Request) -> None:
        raise ValueError("no idea")

    monkeypatch.setattr(requests, "answers", {"greet": lambda request: request.answer("hello"), "fail": fail})
    listening, said = Requests(run), []
    for number, name in enumerate(["greet", "fail", "unheard"], 1):
        asked = ask(run, name)
        listening.serve(number * 10.0)
        said.append(wait_for_answer(asked, 5.0))
    assert said == [
        "hello",
        "this failed: ValueError: no idea\n",
        "this run has no answer to 'unheard'; it has to fail, greet\n",
    ]


def test_newest_run_stands_for_a_directory_of_runs(run: Path) -> None:
    newest = run.with_name("010")
    newest.mkdir()
    run.with_name("notes").mkdir()
    (first, second) = Requests(run), Requests(newest)
    ask(run.parent, "drain")
    assert (len(first.poll(10.0)), len(second.poll(10.0))) == (0, 1)


def test_run_that_has_ended(run: Path) -> None:
    listening = Requests(run)
    asked = ask(run, "drain")
    listening.close()
    assert wait_for_answer(asked, 5.0) == "the run has ended\n"
    with pytest.raises(RequestError, match=f"^the run in {run} has ended$"):
        ask(run, "drain")


def test_run_that_was_killed(run: Path) -> None:
    """Its word that it listens is still there; on its own host one can see better."""
    Requests(run)
    gone = subprocess.Popen(["true"])
    gone.wait()
    (run / "requests" / "open").write_text(f"{os.uname().nodename} {gone.pid}")
    with pytest.raises(RequestError, match=f"has died: its rank 0, process {gone.pid}, is not there any more"):
        ask(run, "drain")


def test_no_answer_takes_the_request_back(run: Path) -> None:
    Requests(run)
    asked = ask(run, "drain")
    with pytest.raises(RequestError, match=r"has not answered within 0\.2 s: rank 0 does not look"):
        wait_for_answer(asked, 0.2)
    assert files(run) == ["open"]


def test_no_answer_to_what_was_seen(run: Path) -> None:
    listening = Requests(run)
    asked = ask(run, "drain")
    listening.poll(10.0)
    with pytest.raises(RequestError, match="it has seen the request, and has not answered it"):
        wait_for_answer(asked, 0.2)


def test_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=f"^{tmp_path}/none: there is no such directory"):
        ask(tmp_path / "none", "drain")


def test_no_run_directory(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=f"^{tmp_path} is no run directory: there is no requests/ in it"):
        ask(tmp_path, "drain")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_directory_of_somebody_else(run: Path) -> None:
    Requests(run)
    (run / "requests").chmod(0o555)
    with pytest.raises(RequestError, match="a request cannot be written there: Permission denied"):
        ask(run, "drain")


def test_directory_that_went_away_is_no_reason_to_end(run: Path) -> None:
    listening = Requests(run)
    for entry in (run / "requests").iterdir():
        entry.unlink()
    (run / "requests").rmdir()
    assert listening.poll(10.0) == []
    listening.close()


@pytest.mark.parametrize("what", [b"\xff\xfe", None])
def test_request_that_cannot_be_read_costs_the_others_nothing(run: Path, what: bytes | None) -> None:
    """Whoever may write there may write anything: what is no request of `ask` is left out, and the run goes on."""
    listening = Requests(run)
    odd = run / "requests" / "drain-here-1.request"
    odd.mkdir() if what is None else odd.write_bytes(what)
    ask(run, "stop")
    assert "stop" in [request.name for request in listening.poll(10.0)]
    assert [request.name for request in listening.poll(20.0)] == []


def test_run_goes_on_when_another_kernel_in_its_directory_ends(run: Path) -> None:
    """With --run-dir all kernels of a script share one."""
    first, second = Requests(run), Requests(run)
    second.close()
    ask(run, "drain")
    assert [request.name for request in first.poll(10.0)] == ["drain"]
    first.close()
    with pytest.raises(RequestError, match="has ended"):
        ask(run, "drain")
