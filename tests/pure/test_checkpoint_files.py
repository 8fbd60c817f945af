"""Parsl's checkpoint file: Parsl can read ours, and what is wrong with one is said with its place."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from mpiflow.errors import BadCheckpoint
from mpiflow.kernel.checkpoint import append_records, dumps_record, read_checkpoint, read_result
from mpiflow.kernel.earlier_runs import EarlierResults, all_for_a_run, get_all_checkpoints, get_last_checkpoint
from mpiflow.kernel.journal import JournalWriter
from mpiflow.kernel.ownership import open_own


def md5(number: int) -> str:
    return f"{number:032x}"


def write(directory: Path, results: list[Any]) -> Path:
    append_records(str(directory), [dumps_record(md5(number), result) for number, result in enumerate(results)])
    return directory / "tasks.pkl"


def read(path: Path, trust: bool = False) -> dict[int, Any]:
    places = read_checkpoint(str(path), trust)
    with open_own(str(path), trust) as file:
        return {int.from_bytes(key, "big"): read_result(file, offset) for key, offset in places}


RESULTS = [1, None, "words", {"a": [1, 2]}, b"x" * 3_000_000, list(range(1000))]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read(write(tmp_path, RESULTS)) == dict(enumerate(RESULTS))


@pytest.mark.parametrize("unpickler", [pickle.Unpickler, pickle._Unpickler])
def test_any_pickle_reads_parsls_records(unpickler: Any, tmp_path: Path) -> None:
    with write(tmp_path, RESULTS).open("rb") as file:
        for number, result in enumerate(RESULTS):
            assert unpickler(file).load() == {"hash": md5(number), "exception": None, "result": result}
        with pytest.raises(EOFError):
            unpickler(file).load()


def test_what_parsl_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tasks.pkl"
    with path.open("ab") as file:
        for number, result in enumerate(RESULTS):
            pickle.dump({"hash": md5(number), "exception": None, "result": result}, file)
    path.chmod(0o644)
    append_records(str(tmp_path), [dumps_record(md5(99), "ours behind Parsl's")])
    assert read(path) == {**dict(enumerate(RESULTS)), 99: "ours behind Parsl's"}


def test_an_empty_file_has_no_results(tmp_path: Path) -> None:
    assert read(write(tmp_path, [])) == {}


def test_a_file_that_ends_within_a_record_is_refused_with_the_place(tmp_path: Path) -> None:
    path = write(tmp_path, ["first", "second"])
    whole = path.read_bytes()
    second = [offset for _, offset in read_checkpoint(str(path), False)][1]
    for end in range(second + 1, len(whole)):
        path.write_bytes(whole[:end])
        words = rf"{re.escape(str(path))}: record 2, at byte {second} of {end}: .*truncate -s {second} "
        with pytest.raises(BadCheckpoint, match=words):
            read(path)
    subprocess.run(["truncate", "-s", str(second), str(path)], check=True)
    assert read(path) == {0: "first"}


def test_a_flip_of_any_bit_never_gives_another_result(tmp_path: Path) -> None:
    """Of the few bytes that mark a record as one with a CRC, a flip may go unseen; the result is right then."""
    path = write(tmp_path, ["first", [2, "second"]])
    whole = path.read_bytes()
    unseen = 0
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = read(path)
        except BadCheckpoint:
            continue
        assert found == {0: "first", 1: [2, "second"]}
        unseen += 1
    assert unseen < 2 * 8 * 16


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ([1], "a list stands where a dict of hash, exception and result should"),
        ({"hash": md5(1), "result": 1}, "a dict stands where"),
        ({"hash": md5(1), "exception": ValueError(), "result": None}, "it holds an exception"),
        ({"hash": "abc", "exception": None, "result": 1}, "its hash 'abc' is no md5"),
        ({"hash": "z" * 32, "exception": None, "result": 1}, "ValueError"),
    ],
)
def test_what_is_no_record_is_refused(record: object, words: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.pkl"
    path.write_bytes(pickle.dumps(record))
    path.chmod(0o644)
    with pytest.raises(BadCheckpoint, match=f"record 1, at byte 0 of .*{words}"):
        read(path)


def test_what_others_may_write_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [1])
    path.chmod(0o664)
    with pytest.raises(BadCheckpoint, match=r"tasks.pkl is refused: it can be written by its group \(mode 0664\)"):
        read(path)
    assert read(path, trust=True) == {0: 1}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_what_is_somebody_elses_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [1])
    os.chown(path, 12345, -1)
    with pytest.raises(BadCheckpoint, match=r"tasks.pkl is refused: it belongs to user 12345, and you are 0"):
        read(path)


def test_a_directory_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tasks.pkl").mkdir()
    with pytest.raises(BadCheckpoint, match=r"tasks.pkl cannot be opened: Is a directory"):
        read(tmp_path / "tasks.pkl")


def test_a_large_file_is_read_in_little_memory(tmp_path: Path) -> None:
    record = dumps_record(md5(1), b"x" * 1_000_000)
    for _ in range(200):
        append_records(str(tmp_path), [record])
    tracemalloc.start()
    number = sum(1 for _ in read_checkpoint(str(tmp_path / "tasks.pkl"), False))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (tmp_path / "tasks.pkl").unlink()
    assert number == 200
    assert peak < 8_000_000


# --- which there are ---------------------------------------------------------------------------------------


def runs(parent: Path, **kept: str) -> None:
    """Runs with what they have kept: c a checkpoint, j a journal, each with the run's number as its result."""
    for number, what in kept.items():
        run = parent / number.removeprefix("n")
        run.mkdir(parents=True)
        if "c" in what:
            append_records(str(run / "checkpoint"), [dumps_record(md5(int(run.name)), f"c{run.name}")])
        if "j" in what:
            writer = JournalWriter(str(run / "journal"))
            writer.add(md5(10000 + int(run.name)), pickle.dumps(f"j{run.name}"))
            writer.close()


def test_all_and_the_last_are_found(tmp_path: Path) -> None:
    runs(tmp_path, n998="c", n999="j", n1000="cj", n1001="")
    (tmp_path / "monitoring.db").touch()
    everything = ["998/checkpoint", "999/journal", "1000/checkpoint", "1000/journal"]
    assert get_all_checkpoints(str(tmp_path)) == [str(tmp_path / path) for path in everything]
    assert get_last_checkpoint(tmp_path) == [str(tmp_path / "1000")]


def test_the_last_is_by_number_not_by_alphabet(tmp_path: Path) -> None:
    runs(tmp_path, n999="c", n1000="c")
    (tmp_path / "X").touch()
    assert get_last_checkpoint(str(tmp_path)) == [str(tmp_path / "1000" / "checkpoint")]


def test_without_runs_there_are_none(tmp_path: Path) -> None:
    assert get_all_checkpoints(str(tmp_path / "nowhere")) == get_last_checkpoint(str(tmp_path / "nowhere")) == []
    assert get_all_checkpoints(tmp_path) == get_last_checkpoint(tmp_path) == []


def test_both_kinds_are_read_from_wherever_they_are_named(tmp_path: Path) -> None:
    runs(tmp_path, n0="c", n1="j", n2="cj", n3="c")
    named = [tmp_path / "0" / "checkpoint", tmp_path / "1" / "journal", str(tmp_path / "2"), tmp_path / "3"]
    earlier = EarlierResults(named, False, print)
    keys = [0, 10001, 2, 10002, 3]
    assert len(earlier) == 5
    assert [earlier.take(md5(key))[0] for key in keys] == ["c0", "j1", "c2", "j2", "c3"]
    assert len(earlier) == 0
    assert md5(0) not in earlier


def test_of_all_files_one_at_most_is_open_and_none_after_the_end(tmp_path: Path) -> None:
    runs(tmp_path, n0="c", n1="j", n2="j")
    earlier = EarlierResults([tmp_path / "0", tmp_path / "1", tmp_path / "2"], False, print)
    opened = [open_below(tmp_path)]
    for key in (0, 10001, 10002):
        earlier.take(md5(key))
        opened.append(open_below(tmp_path))
    earlier.close()
    earlier.close()
    opened.append(open_below(tmp_path))
    names = ["0/checkpoint/tasks.pkl", "1/journal/0000.journal", "2/journal/0000.journal"]
    assert opened == [[], *([str(tmp_path / name)] for name in names), []]


def open_below(directory: Path) -> list[str]:
    """Files below a directory that this process has open."""
    links = [os.readlink(fd) for fd in Path("/proc/self/fd").iterdir() if os.path.lexists(fd)]
    return [path for path in links if path.startswith(f"{directory}/")]


@pytest.mark.parametrize("there", [False, True])
def test_a_named_directory_without_results_is_an_error(there: bool, tmp_path: Path) -> None:
    directory = tmp_path / "000" / "checkpoint"
    if there:
        directory.mkdir(parents=True)
    with pytest.raises(BadCheckpoint, match=f"Checkpoint file was not found: {re.escape(str(directory))}/tasks.pkl"):
        EarlierResults([directory], False, print)


def test_what_is_found_without_being_named_may_be_empty(tmp_path: Path) -> None:
    runs(tmp_path / "runinfo", n0="c")
    (tmp_path / "runinfo" / "1" / "journal").mkdir(parents=True)
    runs(tmp_path, n7="j")
    found = all_for_a_run(str(tmp_path / "7"), str(tmp_path / "runinfo"))
    assert found == [str(tmp_path / "runinfo" / "0" / "checkpoint"), str(tmp_path / "7" / "journal")]
    assert all_for_a_run(str(tmp_path / "runinfo" / "0"), str(tmp_path / "runinfo")) == found[:1]
