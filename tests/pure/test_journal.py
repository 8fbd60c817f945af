"""The journal: what is committed is there, what is torn is left out in words, and what is damaged is found."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from mpiflow.errors import BadCheckpoint
from mpiflow.kernel.journal import LARGE, MAGIC, Beside, JournalWriter, load_beside, pickled, read_journal, read_result
from mpiflow.kernel.ownership import open_own


def md5(number: int) -> str:
    return f"{number:032x}"


def write(directory: Path, results: list[Any], commits: int = 1) -> Path:
    """A journal with these results under the keys 0, 1, ..."""
    writer = JournalWriter(str(directory))
    for number, result in enumerate(results):
        writer.add(md5(number), pickled(result, None))
        if commits > 1:
            writer.commit()
    writer.close()
    assert writer.path is not None
    return Path(writer.path)


def read(path: Path, reports: list[str] | None = None, trust: bool = False) -> dict[int, Any]:
    """What is in a journal, by the numbers of the keys."""
    told: list[str] = [] if reports is None else reports
    found = {}
    places = list(read_journal(str(path), trust, told.append))
    with open_own(str(path), trust) as file:
        for key, offset in places:
            kept = read_result(file, offset)
            result = load_beside(kept, trust) if isinstance(kept, Beside) else pickle.loads(kept)
            found[int.from_bytes(key, "big")] = result
    assert reports is not None or not told
    return found


def test_what_is_written_is_read(tmp_path: Path) -> None:
    results = [1, None, "words", {"a": [1, 2]}, b"x" * LARGE, list(range(1000)), lambda: 7]
    found = read(write(tmp_path / "journal", results))
    assert found.pop(6)() == 7
    assert found == dict(enumerate(results[:-1]))


def test_nothing_is_made_before_the_first_result(tmp_path: Path) -> None:
    writer = JournalWriter(str(tmp_path / "journal"))
    writer.commit()
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_large_results_have_files_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "journal", [b"x" * (LARGE + 1), b"y" * (LARGE - 100)])
    beside = path.parent / "0000-000001.result"
    assert sorted(path.parent.iterdir()) == [beside, path]
    assert path.stat().st_size < 2 * LARGE
    assert read(path) == {0: b"x" * (LARGE + 1), 1: b"y" * (LARGE - 100)}


def test_what_the_worker_pickled_is_not_pickled_again() -> None:
    assert pickled(object(), pickle.dumps([1])) == pickle.dumps([1])


def test_what_the_worker_pickled_by_value_is_pickled_by_name() -> None:
    from mpiflow.comm.by_value import dumps_by_value

    by_value = dumps_by_value(lambda: 1)
    assert b"cloudpickle" in by_value
    assert pickled(Path("/x"), by_value) == pickle.dumps(Path("/x"), 5)


def test_a_commit_is_one_write_and_the_disk_is_waited_for_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    calls: list[str] = []
    real_write, real_sync = os.write, os.fdatasync
    monkeypatch.setattr(os, "write", lambda fd, data: (calls.append("write"), real_write(fd, data))[1])
    monkeypatch.setattr(os, "fdatasync", lambda fd: (calls.append("sync"), real_sync(fd))[1])
    writer = JournalWriter(str(tmp_path / "journal"), clock=lambda: now[0])
    for number in range(100):
        writer.add(md5(number), b"N.")
    assert calls == []
    writer.commit()
    assert calls == ["write", "sync"]
    for now[0] in (100.2, 100.9):
        writer.add(md5(200), b"N.")
        writer.commit()
    assert calls == ["write", "sync", "write", "write"]
    now[0] = 101.1
    writer.commit()
    writer.commit()
    assert calls[4:] == ["sync"]
    writer.add(md5(300), b"N.")
    writer.close()
    assert calls[5:] == ["write", "sync"]


#: Written by the first version of the format: three small results, and one in a file of its own.
JOURNAL_1 = """
6d7069666c6f77206a6f75726e616c20310a9e6d660101000000944e42af0500000000000000000000000000000000000000
00000000348d06bf80054b072e9e6d6601010000008ee0dcef140000000000000000000000000000000000000000000001bd
119d5680059509000000000000008c05776f726473942e9e6d660101000000c06fd81a1c0000000000000000000000000000
000000000000000002eb92087c80059511000000000000005d94284b014740040000000000004e652e9e6d660102000000a6
383f2b1e0000000000000000000000000000000000000000000003aa57eee71500000000000000c4363513303030302d3030
303030312e726573756c74
"""
BESIDE_1 = "8005950a000000000000008c06626573696465942e"


def test_a_journal_of_the_first_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "0000.journal"
    path.write_bytes(bytes.fromhex(JOURNAL_1))
    (tmp_path / "0000-000001.result").write_bytes(bytes.fromhex(BESIDE_1))
    for file in (tmp_path, *tmp_path.iterdir()):
        file.chmod(0o755 if file.is_dir() else 0o644)
    assert read(path) == {0: 7, 1: "words", 2: [1, 2.5, None], 3: "beside"}


@pytest.mark.parametrize("commits", [1, 3])
def test_what_is_written_is_still_of_the_first_version(commits: int, tmp_path: Path) -> None:
    written = write(tmp_path, [7, "words", [1, 2.5, None]], commits).read_bytes()
    assert bytes.fromhex(JOURNAL_1).startswith(written)
    assert len(written) == len(MAGIC) + 3 * 40 + 5 + 20 + 28


def test_what_was_taken_together_is_written_as_what_was_taken_one_by_one(tmp_path: Path) -> None:
    pickles = [pickled(result, None) for result in ("a", b"b" * 1000, None)]
    writer = JournalWriter(str(tmp_path / "together"))
    writer.add_small([md5(number) for number in range(3)], pickles)
    writer.close()
    assert writer.path is not None
    assert Path(writer.path).read_bytes() == write(tmp_path / "singly", ["a", b"b" * 1000, None], 3).read_bytes()


def test_a_commit_that_fails_leaves_the_file_as_the_one_before_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JournalWriter(str(tmp_path))
    for number in range(2):  # two, so that the file's size is that of more than one commit
        writer.add(md5(number), pickled(number, None))
        writer.commit()
    real_write = os.write

    def half(fd: int, data: Any) -> int:
        if len(data) < 8:
            raise OSError(28, "No space left on device")
        return real_write(fd, bytes(data[: len(data) // 2]))

    monkeypatch.setattr(os, "write", half)
    writer.add(md5(2), pickled("lost", None))
    with pytest.raises(OSError, match="No space left"):
        writer.commit()
    monkeypatch.setattr(os, "write", real_write)
    writer.close()
    assert read(tmp_path / "0000.journal") == {0: 0, 1: 1}


def test_two_writers_of_one_directory_have_a_file_each(tmp_path: Path) -> None:
    writers = [JournalWriter(str(tmp_path)) for _ in range(3)]
    for turn in range(5):
        for number, writer in enumerate(writers):
            writer.add(md5(10 * number + turn), pickled((number, turn), None))
            writer.add(md5(100 + 10 * number + turn), pickled((number, turn, b"z" * LARGE), None))
            writer.commit()
    for writer in writers:
        writer.close()
    paths = sorted(tmp_path.glob("*.journal"))
    assert [path.name for path in paths] == ["0000.journal", "0001.journal", "0002.journal"]
    assert len(list(tmp_path.glob("*.result"))) == 15
    for number, path in enumerate(paths):
        small = {key: value for key, value in read(path).items() if key < 100}
        assert small == {10 * number + turn: (number, turn) for turn in range(5)}


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_no_group_may_write_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        path = write(tmp_path / "journal", [1, b"x" * (LARGE + 1)])
    finally:
        os.umask(before)
    for made in (path, path.parent, *path.parent.iterdir()):
        assert not made.stat().st_mode & 0o022
    assert len(read(path)) == 2


# --- torn tails --------------------------------------------------------------------------------------------


def test_a_tail_torn_at_any_byte_is_left_out_in_words(tmp_path: Path) -> None:
    path = write(tmp_path, ["first", "second", "third"], commits=3)
    whole = path.read_bytes()
    offsets = [offset for _, offset in read_journal(str(path), False, print)]
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        reports: list[str] = []
        found = read(path, reports)
        complete = sum(border <= end for border in (*offsets[1:], len(whole)))
        assert found == dict(enumerate(["first", "second", "third"][:complete]))
        if end in offsets:
            assert reports == []
        elif end < len(MAGIC):
            assert reports == [f"{path} ends before its first record, after {end} bytes: nothing is taken from it"]
        else:
            (words,) = reports
            place = f"the last {end - offsets[complete]} bytes, from byte {offsets[complete]} on"
            assert f"{path} ends within record {complete + 1}: {place}, are left out; {complete} results" in words


def test_a_tail_of_zeros_is_left_out_in_words(tmp_path: Path) -> None:
    path = write(tmp_path, ["first", "second"], commits=2)
    whole = path.read_bytes()
    last = [offset for _, offset in read_journal(str(path), False, print)][-1]
    for end in range(len(whole)):
        path.write_bytes(whole[:end].rstrip(b"\0") + b"\0" * (len(whole) - end + 5000))
        reports: list[str] = []
        assert read(path, reports) == ({0: "first"} if end >= last else {}), end
        assert len(reports) == 1, end


def test_an_empty_journal_is_left_out_in_words(tmp_path: Path) -> None:
    path = tmp_path / "0000.journal"
    path.touch(mode=0o644)
    reports: list[str] = []
    assert read(path, reports) == {}
    assert "ends before its first record, after 0 bytes" in reports[0]


# --- damage ------------------------------------------------------------------------------------------------


def test_a_flip_of_any_bit_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, ["first", "second"], commits=2)
    whole = path.read_bytes()
    words = re.escape(str(path)) + " (is damaged at byte [0-9]+: its (header|payload) does not agree|is not a journal)"
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(BadCheckpoint, match=words):
            read(path)


def test_damage_says_where_it_is_and_how_to_keep_what_is_before(tmp_path: Path) -> None:
    path = write(tmp_path, ["first", "second", "third"], commits=3)
    offset = [offset for _, offset in read_journal(str(path), False, print)][1]
    damaged = bytearray(path.read_bytes())
    damaged[offset + 45] ^= 1
    path.write_bytes(damaged)
    words = rf"at byte {offset}: its payload .*The 1 results before it are whole"
    with pytest.raises(BadCheckpoint, match=words) as told:
        read(path)
    (command,) = re.findall(r"truncate -s .*", str(told.value))
    subprocess.run(command.split(), check=True)
    assert read(path) == {0: "first"}


def test_a_damaged_or_missing_file_of_a_large_result_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, [b"x" * (LARGE + 1)])
    beside = tmp_path / "0000-000001.result"
    whole = beside.read_bytes()
    for damaged in (whole[:-1], whole + b"x", whole[:7] + b"?" + whole[8:]):
        beside.write_bytes(damaged)
        with pytest.raises(BadCheckpoint, match=rf"{re.escape(str(beside))} is damaged: .* where its journal says"):
            read(path)
    beside.unlink()
    with pytest.raises(BadCheckpoint, match=rf"was not found: {re.escape(str(beside))}"):
        read(path)


def test_what_is_no_journal_is_found(tmp_path: Path) -> None:
    path = tmp_path / "0000.journal"
    for content in (b"\0" * 40 + b"x", b"PK\3\4 something else altogether", pickle.dumps({"hash": md5(1)})):
        path.write_bytes(content)
        with pytest.raises(BadCheckpoint, match="is not a journal of mpiflow"):
            read(path)


# --- whose it is -------------------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")


@pytest.mark.parametrize("what", ["journal", "0000.journal", "0000-000001.result"])
@pytest.mark.parametrize(("mode", "who"), [(0o775, "its group"), (0o757, "everyone"), (0o777, "everyone")])
def test_what_others_may_write_is_refused(what: str, mode: int, who: str, tmp_path: Path) -> None:
    path = write(tmp_path / "journal", [b"x" * (LARGE + 1)])
    (path.parent if what == "journal" else path.parent / what).chmod(mode)
    words = rf"{what} is refused: it can be written by {who} \(mode 0{mode:o}\).*--trust"
    with pytest.raises(BadCheckpoint, match=words):
        read(path)
    assert len(read(path, trust=True)) == 1


@needs_root
@pytest.mark.parametrize("what", ["journal", "0000.journal", "0000-000001.result"])
def test_what_is_somebody_elses_is_refused(what: str, tmp_path: Path) -> None:
    path = write(tmp_path / "journal", [b"x" * (LARGE + 1)])
    os.chown(path.parent if what == "journal" else path.parent / what, 12345, -1)
    with pytest.raises(BadCheckpoint, match=rf"{what} is refused: it belongs to user 12345, and you are 0.*--trust"):
        read(path)
    assert len(read(path, trust=True)) == 1


# --- size, and death ---------------------------------------------------------------------------------------


def test_a_large_journal_is_read_in_little_memory(tmp_path: Path) -> None:
    writer = JournalWriter(str(tmp_path))
    data = pickle.dumps(b"x" * (LARGE - 100))
    for number in range(200):
        writer.add(md5(number), data)
        writer.commit()
    writer.close()
    assert writer.path is not None
    assert os.path.getsize(writer.path) > 199 * LARGE
    tracemalloc.start()
    number = sum(1 for _ in read_journal(writer.path, False, print))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    os.unlink(writer.path)
    assert number == 200
    assert peak < 4 * LARGE


_WRITES_UNTIL_KILLED = """
import os, sys
from mpiflow.kernel.journal import JournalWriter, pickled
writer = JournalWriter(sys.argv[1])
for number in range(1000000):
    for part in range(7):
        writer.add(f"{7 * number + part:032x}", pickled((number, part, "x" * (7919 * number % 5000)), None))
    writer.commit()
    os.write(1, b"%d\\n" % number)
"""


@pytest.mark.parametrize("commits", [1, 20, 300])
def test_what_was_committed_outlives_a_kill(commits: int, tmp_path: Path) -> None:
    line = [sys.executable, "-c", _WRITES_UNTIL_KILLED, str(tmp_path)]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        last = -1
        while last < commits:
            last = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        last = max([last, *map(int, child.stdout.read().split())])
    found = read(tmp_path / "0000.journal", [])
    assert len(found) >= 7 * (last + 1)
    assert all(value[:2] == divmod(key, 7) for key, value in found.items())
