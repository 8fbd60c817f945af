"""BasicMemoizer: what is computed once, what the next run takes up, and what goes wrong on the way."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from mpiflow.errors import BadCheckpoint, ConfigurationError
from mpiflow.executors.options import options
from mpiflow.kernel.journal import LARGE
from mpiflow.kernel.memoizer import BasicMemoizer, Memoizer

WRITING = ("task_exit", "dfk_exit", "manual", "superstep")


def double(x: int) -> int:
    return 2 * x


class Run:
    """One run of a kernel that has a memoizer: calls go through it in the kernel's order."""

    def __init__(self, parent: Path, number: int, **parameters: Any) -> None:
        self.memoizer = BasicMemoizer(**parameters)
        self.run_dir = parent / f"{number:03}"
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.memoizer.start(run_dir=str(self.run_dir), config_run_dir=str(parent))
        self.computed: list[Any] = []
        self.calls = 0

    def task(self, x: Any, **more: Any) -> dict[str, Any]:
        self.calls += 1
        record = {"id": self.calls - 1, "func": double, "func_name": "double", "memoize": True, "args": (x,)}
        return {**record, "kwargs": {}, "ignore_for_cache": [], "app_fu": Future(), "packed": None, **more}

    def end(self, task: dict[str, Any], result: Any) -> None:
        self.memoizer.update_memo_result(task, result)
        self.memoizer.commit()
        task["app_fu"].set_result(result)

    def fail(self, task: dict[str, Any], error: Exception) -> None:
        self.memoizer.update_memo_exception(task, error)
        self.memoizer.commit()
        task["app_fu"].set_exception(error)

    def __call__(self, x: Any, result: Any = None, **more: Any) -> Any:
        """Call double(x): its result, from the memoizer or computed."""
        task = self.task(x, **more)
        known = self.memoizer.check_memo(task)
        task["from_memo"] = known is not None
        if known is None:
            self.computed.append(x)
            value = double(x) if result is None else result
        else:
            value = known.result(timeout=0)
        self.end(task, value)
        return value

    def close(self) -> Run:
        self.memoizer.close()
        return self


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged, whether or not another test has had a run directory, which ends the propagation."""
    logger = logging.getLogger("mpiflow")
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.DEBUG, logger="mpiflow")
    yield caplog
    logger.removeHandler(caplog.handler)


# --- in one run --------------------------------------------------------------------------------------------


def test_a_call_is_computed_once(tmp_path: Path) -> None:
    run = Run(tmp_path, 0)
    assert [run(1), run(1), run(2), run(1)] == [2, 2, 4, 2]
    assert run.computed == [1, 2]
    assert list(run.run_dir.iterdir()) == []


def test_a_call_in_flight_is_shared(tmp_path: Path) -> None:
    run = Run(tmp_path, 0)
    first, second = run.task(1), run.task(1)
    assert run.memoizer.check_memo(first) is None
    future = run.memoizer.check_memo(second)
    assert future is first["app_fu"]
    assert not future.done()
    assert first["hashsum"] == second["hashsum"]
    run.end(first, 2)
    assert future.result(timeout=0) == 2


def test_a_second_try_does_not_wait_for_itself(tmp_path: Path) -> None:
    run = Run(tmp_path, 0)
    task = run.task(1)
    assert run.memoizer.check_memo(task) is None
    assert run.memoizer.check_memo(task) is None


def test_failures_are_shared_in_a_run_and_never_written(tmp_path: Path) -> None:
    for mode in WRITING:
        parent = tmp_path / mode
        run = Run(parent, 0, checkpoint_mode=mode)
        task = run.task(1)
        run.memoizer.check_memo(task)
        run.fail(task, ZeroDivisionError("once"))
        again = run.memoizer.check_memo(run.task(1))
        assert again is task["app_fu"]
        run.close()
        later = Run(parent, 1, checkpoint_mode=mode)
        assert later.memoizer.check_memo(later.task(1)) is None
        later.close()


def test_what_is_forgotten_is_computed_again(tmp_path: Path) -> None:
    run = Run(tmp_path, 0)
    task = run.task(1)
    run.memoizer.check_memo(task)
    run.memoizer.forget(task["hashsum"])
    run.memoizer.forget("0" * 32)
    assert run.memoizer.check_memo(run.task(1)) is None


def test_apps_without_cache_are_let_be(tmp_path: Path) -> None:
    run = Run(tmp_path, 0, checkpoint_mode="task_exit")
    assert [run(1, memoize=False), run(1, memoize=False)] == [2, 2]
    assert run.computed == [1, 1]
    assert run.close().memoizer.checkpointed_tasks == 0


def test_memoize_switches_all_off(tmp_path: Path) -> None:
    run = Run(tmp_path, 0, memoize=False, checkpoint_mode="superstep")
    run(1)
    run(1)
    assert run.computed == [1, 1]
    assert run.close().memoizer.checkpointed_tasks == 0


def test_a_task_that_never_was_ready_is_let_be(tmp_path: Path) -> None:
    run = Run(tmp_path, 0, checkpoint_mode="task_exit")
    run.fail(run.task(1), RuntimeError("a dependency"))
    run.memoizer.update_memo_exception(run.task(1, hashsum=None), RuntimeError())
    assert run(1) == 2
    run.close()


def test_a_key_by_name_ignores_the_body(tmp_path: Path) -> None:
    def double(x: int) -> int:
        return 3 * x

    double.__module__ = __name__
    by_name, by_code = Run(tmp_path, 0, key="name"), Run(tmp_path, 1)
    for run in by_name, by_code:
        run(1)
        run(1, func=double)
    assert (by_name.computed, by_code.computed) == ([1], [1, 1])


def test_an_unknown_type_raises_and_enters_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, 0)
    with pytest.raises(ValueError, match="unknown type for memoization: <class 'object'>"):
        run(object())
    with pytest.raises(KeyError, match="ignore_for_cache names 'y'"):
        run(1, ignore_for_cache=["y"])
    run(1)
    assert run.computed == [1]


# --- from run to run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", WRITING)
def test_the_next_run_takes_up_what_was_written(mode: str, tmp_path: Path) -> None:
    first = Run(tmp_path, 0, checkpoint_mode=mode)
    values = [first(x) for x in (1, 2)] + [first(3, result=b"x" * (LARGE + 1)), first(4, result=(lambda: 8))]
    first.close()
    assert first.memoizer.checkpointed_tasks == 4
    second = Run(tmp_path, 1, checkpoint_mode=mode)
    found = [second(x) for x in (4, 3, 2, 1)]
    assert found[1:] == values[2::-1]
    assert found[0]() == 8
    assert second.computed == []
    assert second.memoizer.restored_tasks == 4
    second.close()


@pytest.mark.parametrize("mode", [None, *WRITING])
def test_a_run_that_is_given_files_reads_those_and_only_those(mode: str | None, tmp_path: Path) -> None:
    Run(tmp_path, 0, checkpoint_mode="task_exit")(1)
    Run(tmp_path, 1, checkpoint_mode="superstep", checkpoint_files=[])(2)
    given = Run(tmp_path, 2, checkpoint_mode=mode, checkpoint_files=[tmp_path / "000" / "checkpoint"])
    given(1), given(2)
    assert given.computed == [2]
    both = Run(tmp_path, 3, checkpoint_mode=mode, checkpoint_files=[str(tmp_path / n) for n in ("000", "001")])
    both(1), both(2)
    assert both.computed == []


def test_without_a_mode_nothing_is_read_nor_written(tmp_path: Path) -> None:
    Run(tmp_path, 0, checkpoint_mode="task_exit")(1)
    run = Run(tmp_path, 1)
    run(1)
    assert run.computed == [1]
    run.close()
    assert list(run.run_dir.iterdir()) == []


@pytest.mark.parametrize("mode", WRITING)
def test_a_run_that_was_given_files_keeps_what_it_took_from_them(mode: str, tmp_path: Path) -> None:
    """So the last run's files are enough, however many runs ago something was computed."""
    large = b"x" * (LARGE + 1)
    first = Run(tmp_path, 0, checkpoint_mode=mode, checkpoint_files=[])
    first(1)
    first(2, result=large)
    first.close()
    for number in (1, 2):
        run = Run(tmp_path, number, checkpoint_mode=mode, checkpoint_files=[tmp_path / f"{number - 1:03}"])
        assert [run(1), run(2), run(1)] == [2, large, 2]
        assert run.computed == []
        run.close()
    beside = [tmp_path / n / "journal" / "0000-000001.result" for n in ("000", "001", "002")]
    if mode == "superstep":
        assert len({path.stat().st_ino for path in beside}) == 1, "one file under three names"


def test_a_run_that_reads_all_earlier_journals_does_not_copy_them(tmp_path: Path) -> None:
    Run(tmp_path, 0, checkpoint_mode="superstep")(1)
    second = Run(tmp_path, 1, checkpoint_mode="superstep")
    second(1)
    second.close()
    assert not (second.run_dir / "journal").exists()


def test_a_run_directory_that_is_used_again_is_taken_up(tmp_path: Path) -> None:
    for turn in range(3):
        memoizer = Run(tmp_path / "elsewhere", 0, checkpoint_mode="superstep").close().memoizer
        memoizer.start(run_dir=str(tmp_path / "mine"), config_run_dir=str(tmp_path / "runinfo"))
        run = Run.__new__(Run)
        run.memoizer, run.computed, run.calls = memoizer, [], 0
        run(0), run(turn)
        memoizer.close()
        assert run.computed == ([0] if turn == 0 else [turn])
    assert len(list((tmp_path / "mine" / "journal").glob("*.journal"))) == 3


@pytest.mark.parametrize("mode", WRITING)
def test_two_kernels_may_share_a_run_directory(mode: str, tmp_path: Path) -> None:
    one, other = (Run(tmp_path, 0, checkpoint_mode=mode, checkpoint_files=[]) for _ in range(2))
    for x in range(20):
        one(x)
        other(100 + x, result=b"y" * 100_000)
    one.close(), other.close()
    later = Run(tmp_path, 1, checkpoint_mode=mode)
    assert [later(x) for x in range(20)] == [2 * x for x in range(20)]
    assert [later(100 + x) for x in range(20)] == [b"y" * 100_000] * 20
    assert later.computed == []
    later.close()


def test_occurrences_are_kept_apart(tmp_path: Path) -> None:
    for number in range(2):
        run = Run(tmp_path, number, checkpoint_mode="superstep")
        assert [run(1, result=f"{n}", occurrence=n) for n in range(3)] == ["0", "1", "2"]
        assert len(run.computed) == (3 if number == 0 else 0)
        run.close()


# --- when it is written ------------------------------------------------------------------------------------


def results_in(run: Run) -> int:
    """Records in a run's tasks.pkl."""
    path = run.run_dir / "checkpoint" / "tasks.pkl"
    if not path.exists():
        return -1
    number = 0
    with path.open("rb") as file:
        while file.tell() < path.stat().st_size:
            pickle.load(file)
            number += 1
    return number


def test_task_exit_writes_at_each_task(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    run = Run(tmp_path, 0, checkpoint_mode="task_exit")
    for x in range(3):
        run(x)
        assert results_in(run) == x + 1
    assert log.messages.count("Done checkpointing 1 tasks") == 3
    run(1)
    run.close()
    assert results_in(run) == 3
    assert "No tasks checkpointed in this pass." in log.messages


def test_dfk_exit_writes_at_the_end(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    run = Run(tmp_path, 0, checkpoint_mode="dfk_exit")
    run(1), run(2)
    assert results_in(run) == -1
    run.close()
    assert results_in(run) == 2
    assert log.messages[-2:] == ["Making final checkpoint", "Done checkpointing 2 tasks"]


def test_manual_writes_when_it_is_told_to(tmp_path: Path) -> None:
    run = Run(tmp_path, 0, checkpoint_mode="manual")
    run(1)
    assert results_in(run) == -1
    run.memoizer.checkpoint()
    assert results_in(run) == 1
    run(2)
    run.close()
    assert results_in(run) == 2


def test_periodic_writes_now_and_then_and_stops(tmp_path: Path) -> None:
    run = Run(tmp_path, 0, checkpoint_mode="periodic", checkpoint_period="00:00:01")
    run(1)
    assert results_in(run) == -1
    deadline = time.monotonic() + 20
    while results_in(run) != 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert results_in(run) == 1
    run(2)
    run.close()
    assert results_in(run) == 2
    assert "mpiflow-checkpoint" not in {thread.name for thread in threading.enumerate()}


def test_superstep_writes_at_each_commit(tmp_path: Path) -> None:
    run = Run(tmp_path, 0, checkpoint_mode="superstep")
    tasks = [run.task(x) for x in range(3)]
    for task in tasks:
        run.memoizer.check_memo(task)
        run.memoizer.update_memo_result(task, task["args"][0])
    journal = run.run_dir / "journal" / "0000.journal"
    assert journal.stat().st_size == 0
    run.memoizer.commit()
    later = Run(tmp_path, 1, checkpoint_mode="superstep")  # while the first still runs, or has been killed
    assert [later(x) for x in range(3)] == [0, 1, 2]
    assert later.computed == []
    assert later.memoizer.reports == []


def test_a_run_without_cached_tasks_says_so_and_leaves_an_empty_file(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path, 0, checkpoint_mode="dfk_exit").close()
    assert "No tasks checkpointed so far in this run. Please ensure caching is enabled" in log.messages
    assert results_in(run) == 0
    Run(tmp_path, 1, checkpoint_files=[run.run_dir / "checkpoint"]).close()


def test_a_memoizer_can_be_used_again_and_closed_twice(tmp_path: Path) -> None:
    run = Run(tmp_path, 0, checkpoint_mode="task_exit")
    run(1)
    run.close().close()
    run.memoizer.start(run_dir=str(tmp_path / "001"), config_run_dir=str(tmp_path))
    assert run(1) == 2
    assert run.memoizer.restored_tasks == 1
    run.close()


def test_a_memoizer_that_is_started_again_without_an_end_has_one_timer(tmp_path: Path) -> None:
    run = Run(tmp_path, 0, checkpoint_mode="periodic", checkpoint_period="01:00:00")
    run.memoizer.start(run_dir=str(tmp_path / "001"), config_run_dir=str(tmp_path))
    assert [thread.name for thread in threading.enumerate()].count("mpiflow-checkpoint") == 1
    run.close()
    assert "mpiflow-checkpoint" not in {thread.name for thread in threading.enumerate()}


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"checkpoint_mode": "always"}, "checkpoint_mode is 'always'; legal is None, 'task_exit', .* or 'superstep'"),
        ({"checkpoint_mode": True}, "checkpoint_mode is True; legal is"),
        ({"key": "source"}, "key is 'source'; legal is 'code' or 'name'"),
        ({"key": None}, "key is None; legal is"),
        ({"memoize": "no"}, "memoize is 'no'; legal is True or False"),
        ({"trust": 1}, "trust is 1; legal is True or False"),
        ({"checkpoint_files": "runinfo/000"}, "checkpoint_files is 'runinfo/000'; legal is None or a list"),
        ({"checkpoint_files": [1]}, r"checkpoint_files is \[1\]; legal is None or a list of directories"),
        ({"checkpoint_mode": "periodic"}, "Checkpoint period must be specified with periodic checkpoint mode"),
        *(
            ({"checkpoint_mode": "periodic", "checkpoint_period": period}, f"invalid checkpoint_period .*{period}")
            for period in ("10", "1:2", "aa:bb:cc", "00:00:-1", "", 10, "1:2:3:4", "0:0:1.5")
        ),
        ({"checkpoint_mode": "periodic", "checkpoint_period": "00:00:00"}, "of at least a second"),
    ],
)
def test_a_parameter_that_is_not_legal_is_named(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        BasicMemoizer(**parameters)


def test_a_parameter_that_became_wrong_is_found_at_the_start(tmp_path: Path) -> None:
    memoizer = BasicMemoizer()
    memoizer.checkpoint_mode = "sometimes"
    with pytest.raises(ConfigurationError, match="checkpoint_mode is 'sometimes'"):
        memoizer.start(run_dir=str(tmp_path), config_run_dir=str(tmp_path))


def test_checkpoint_without_a_kernel() -> None:
    with pytest.raises(ConfigurationError, match="that no loaded Config holds"):
        BasicMemoizer(checkpoint_mode="manual").checkpoint()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=r"Checkpoint file was not found: .*/nowhere/tasks.pkl"):
        Run(tmp_path, 0, checkpoint_files=[tmp_path / "nowhere"])


def test_files_of_others_need_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Run(tmp_path, 0, checkpoint_mode="superstep")
    first(1)
    (first.run_dir / "journal" / "0000.journal").chmod(0o666)
    with pytest.raises(BadCheckpoint, match=r"can be written by everyone.*BasicMemoizer\(trust=True\)"):
        Run(tmp_path, 1, checkpoint_mode="superstep")
    trusting = Run(tmp_path, 2, checkpoint_mode="superstep", trust=True)
    trusting(1)
    assert trusting.computed == []
    monkeypatch.setattr(options, "trust", True, raising=False)
    by_option = Run(tmp_path, 3, checkpoint_mode="superstep")
    by_option(1)
    assert by_option.computed == []


def test_a_torn_journal_is_reported_and_the_rest_is_used(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    first = Run(tmp_path, 0, checkpoint_mode="superstep")
    first(1), first(2)
    journal = first.close().run_dir / "journal" / "0000.journal"
    os.truncate(journal, journal.stat().st_size - 1)
    second = Run(tmp_path, 1, checkpoint_mode="superstep")
    assert [second(1), second(2)] == [2, 4]
    assert second.computed == [2]
    (words,) = second.memoizer.reports
    assert f"{journal} ends within record 2" in words
    assert words in log.messages


def test_a_damaged_journal_is_an_error_at_the_start(tmp_path: Path) -> None:
    first = Run(tmp_path, 0, checkpoint_mode="superstep")
    first(1), first(2)
    journal = first.close().run_dir / "journal" / "0000.journal"
    content = bytearray(journal.read_bytes())
    content[30] ^= 4
    journal.write_bytes(content)
    with pytest.raises(BadCheckpoint, match=r"0000.journal is damaged at byte 18.*; --fresh, or checkpoint_files=\[\]"):
        Run(tmp_path, 1, checkpoint_mode="superstep")


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("not for pickle")


class Vanishes:
    """Its pickle cannot be opened in the process that has `gone` set."""

    gone = False

    def __reduce__(self) -> Any:
        return _appear, ()


def _appear() -> Vanishes:
    if Vanishes.gone:
        raise ImportError("no such class any more")
    return Vanishes()


@pytest.mark.parametrize("mode", WRITING)
def test_a_result_that_cannot_be_pickled_is_reported_and_nothing_else(mode: str, tmp_path: Path) -> None:
    run = Run(tmp_path, 0, checkpoint_mode=mode)
    value = Unpicklable()
    assert [run(1, result=value), run(2), run(1)] == [value, 4, value]
    (words,) = run.close().memoizer.reports
    assert words.startswith("the result of task 0 (double), of type Unpicklable, is not checkpointed: it cannot be")
    assert "not for pickle" in words
    later = Run(tmp_path, 1, checkpoint_mode=mode)
    later(1), later(2)
    assert later.computed == [1]
    later.close()


def test_a_result_that_cannot_be_opened_any_more_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Run(tmp_path, 0, checkpoint_mode="superstep")
    first(1, result=Vanishes())
    first.close()
    monkeypatch.setattr(Vanishes, "gone", True)
    second = Run(tmp_path, 1, checkpoint_mode="superstep")
    assert second(1) == 2
    (words,) = second.memoizer.reports
    assert words.startswith("task 0 (double) is computed again; its result of an earlier run is of no use: ImportError")
    second.close()
    third = Run(tmp_path, 2, checkpoint_mode="superstep")
    assert third(1) == 2
    assert third.computed == []


@pytest.mark.parametrize("change", ["damaged", "gone"])
def test_a_large_result_that_is_damaged_or_gone_is_computed_again(change: str, tmp_path: Path) -> None:
    first = Run(tmp_path, 0, checkpoint_mode="superstep")
    first(1, result=b"x" * (LARGE + 1))
    beside = first.close().run_dir / "journal" / "0000-000001.result"
    if change == "gone":
        beside.unlink()
    else:
        beside.write_bytes(beside.read_bytes()[:-2] + b"?.")
    second = Run(tmp_path, 1, checkpoint_mode="superstep")
    assert second(1) == 2
    assert second.computed == [1]
    assert str(beside) in second.memoizer.reports[0]


@pytest.mark.parametrize("mode", WRITING)
def test_a_full_disk_ends_the_writing_in_words_and_not_the_run(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, 0, checkpoint_mode=mode)
    run(1)
    if mode in ("manual", "dfk_exit"):
        run.memoizer.checkpoint()
    real_write = os.write

    def half(fd: int, data: Any) -> int:
        if len(data) < 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(fd, bytes(data[: len(data) // 2]))

    monkeypatch.setattr(os, "write", half)
    assert run(2) == 4
    if mode in ("manual", "dfk_exit"):
        run.memoizer.checkpoint()
    monkeypatch.setattr(os, "write", real_write)
    assert run(3) == 6
    (words,) = run.close().memoizer.reports
    assert "results cannot be written: No space left on device; the run goes on" in words
    later = Run(tmp_path, 1, checkpoint_mode=mode)
    assert [later(x) for x in (1, 2, 3)] == [2, 4, 6]
    assert later.computed == [2, 3]
    assert later.memoizer.reports == [], "no half record was left"
    later.close()


# --- of the user's own -------------------------------------------------------------------------------------


def test_a_memoizer_of_the_users_needs_parsls_five_methods_only(tmp_path: Path) -> None:
    class Mine(Memoizer):
        def start(self, *, run_dir: str, config_run_dir: str) -> None: ...

        def check_memo(self, task: dict[str, Any]) -> Future[Any] | None: ...

        def update_memo_result(self, task: dict[str, Any], r: Any) -> None: ...

        def update_memo_exception(self, task: dict[str, Any], e: BaseException) -> None: ...

        def close(self) -> None: ...

    mine = Mine()
    mine.commit()
    mine.forget("0" * 32)
    with pytest.raises(TypeError, match="abstract"):
        Memoizer()  # type: ignore[abstract]
