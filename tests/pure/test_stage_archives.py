"""Unpacking an archive of `mpiflow stage`: nothing outside, nothing damaged, and what is packed comes out again."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpiflow.cli.stage import MARK, StageError, is_there, stage, unpack


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", link: str = "", mode: int = 0o644) -> bytes:
    """Header and content of a member, as an attacker writes them."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode, info.mtime = kind, len(data), link, mode, 1_600_000_000
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def archive(*members: bytes) -> bytes:
    return b"".join(members) + bytes(1024)


def unpacked(data: bytes, directory: Path) -> tuple[int, int]:
    """Unpack bytes that come as from a network: once, forwards, in odd pieces."""

    class Stream(io.RawIOBase):
        left = memoryview(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            length = min(len(buffer), len(self.left), 777)
            buffer[:length] = self.left[:length]
            self.left = self.left[length:]
            return length

    directory.mkdir(exist_ok=True)
    return unpack(Stream(), "env.tar", str(directory))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory to unpack into, with something beside it that has to stay as it is."""
    (tmp_path / "victim").write_text("as it was")
    return tmp_path / "place"


WHOLE = archive(
    member("bin", tarfile.DIRTYPE, mode=0o755),
    member("bin/python", tarfile.SYMTYPE, link="/usr/bin/python3"),
    member("bin/run", data=b"#!/bin/sh\n", mode=0o755),
    member("lib/a.py", data=b"x = 1\n" * 200),
    member("lib/b.py", tarfile.LNKTYPE, link="lib/a.py"),
    member("lib64", tarfile.SYMTYPE, link="lib"),
)
PACKED = {
    "plain": WHOLE,
    "gzip": gzip.compress(WHOLE, mtime=0),
    "bzip2": bz2.compress(WHOLE),
    "xz": lzma.compress(WHOLE),
}


@pytest.mark.parametrize("form", PACKED)
def test_an_environment_is_unpacked(place: Path, form: str) -> None:
    assert unpacked(PACKED[form], place) == (2, 10 + 1200)
    assert os.readlink(place / "bin/python") == "/usr/bin/python3"
    assert os.readlink(place / "lib64") == "lib"
    assert (place / "lib64/a.py").read_bytes() == b"x = 1\n" * 200
    assert (place / "lib/a.py").stat().st_ino == (place / "lib/b.py").stat().st_ino
    assert os.access(place / "bin/run", os.X_OK)
    assert (place / "lib/a.py").stat().st_mtime == 1_600_000_000, "or Python compiles every module again"


OUTSIDE = {
    "above": [member("../victim", data=b"evil")],
    "above, later": [member("a/../../victim", data=b"evil")],
    "absolute": [member("/tmp/victim-of-a-test", data=b"evil")],
    "a directory above": [member("../place2", tarfile.DIRTYPE)],
    "through a link": [member("l", tarfile.SYMTYPE, link=".."), member("l/victim", data=b"evil")],
    "through two links": [
        member("a", tarfile.DIRTYPE),
        member("a/up", tarfile.SYMTYPE, link=".."),
        member("a/up/l", tarfile.SYMTYPE, link=".."),
        member("a/up/l/victim", data=b"evil"),
    ],
    "through a link, a directory": [member("l", tarfile.SYMTYPE, link=".."), member("l/new", tarfile.DIRTYPE)],
    "a hard link above": [member("h", tarfile.LNKTYPE, link="../victim"), member("h", data=b"evil")],
    "a hard link through a link": [
        member("l", tarfile.SYMTYPE, link=".."),
        member("h", tarfile.LNKTYPE, link="l/victim"),
    ],
    "a device": [member("null", tarfile.CHRTYPE)],
    "a pipe": [member("pipe", tarfile.FIFOTYPE)],
    "a file for a directory": [member("a", tarfile.DIRTYPE), member("a", data=b"evil")],
    "a directory for a file": [member("a", data=b"x"), member("a/b", data=b"evil")],
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_what_leads_outside_is_refused(place: Path, case: str) -> None:
    with pytest.raises(StageError, match=r"env.tar is refused: its member '.*' is not to be unpacked: "):
        unpacked(archive(*OUTSIDE[case]), place)
    assert (place.parent / "victim").read_text() == "as it was"
    assert sorted(path.name for path in place.parent.iterdir()) == ["place", "victim"]
    assert not Path("/tmp/victim-of-a-test").exists()


def test_nothing_is_written_through_a_link_of_the_same_name(place: Path) -> None:
    """Nor is the mark: it is ours alone."""
    links = [member(name, tarfile.SYMTYPE, link="../victim") for name in ("twice", MARK)]
    unpacked(archive(*links, member("twice", data=b"new")), place)
    assert (place.parent / "victim").read_text() == "as it was"
    assert (place / "twice").read_text() == "new"
    assert not os.path.lexists(place / MARK)


def test_rights_that_are_nobodys_to_give_are_not_taken_over(place: Path) -> None:
    unpacked(archive(member("root", data=b"x", mode=0o6755), member("d", tarfile.DIRTYPE, mode=0o1000)), place)
    assert stat.S_IMODE((place / "root").stat().st_mode) == 0o755
    assert stat.S_IMODE((place / "d").stat().st_mode) == 0o700
    assert (place / "root").stat().st_uid == os.geteuid()


@pytest.mark.parametrize("form", PACKED)
def test_an_archive_that_is_cut_anywhere_is_damaged(tmp_path: Path, form: str) -> None:
    data = PACKED[form]
    cuts = range(0, len(data), 512) if form == "plain" else range(0, len(data), 7)
    for number, cut in enumerate(cuts):
        with pytest.raises(StageError, match=r"env\.tar is damaged"):
            unpacked(data[:cut], tmp_path / str(number))


@pytest.mark.parametrize("form", ["gzip", "bzip2", "xz"])
def test_an_archive_with_a_flipped_bit_is_damaged_or_the_same(tmp_path: Path, form: str) -> None:
    """The same where the bit means nothing: a time or a flag in gzip's header."""
    data = PACKED[form]
    damaged = 0
    for at in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[at] ^= 0x10
        place = tmp_path / str(at)
        try:
            unpacked(bytes(flipped), place)
        except StageError:
            damaged += 1
        else:
            assert (place / "lib/a.py").read_bytes() == b"x = 1\n" * 200
    assert damaged > len(data) / 3 * 0.9


@pytest.mark.parametrize("data", [b"", b"hello", b"\x1f\x8b", b"BZh", b"PK\3\4" + bytes(3000), zlib.compress(WHOLE)])
def test_what_is_no_archive_is_said(place: Path, data: bytes) -> None:
    with pytest.raises(StageError, match=r"env\.tar is damaged"):
        unpacked(data, place)


@settings(max_examples=200)
@given(st.binary(max_size=1500), st.integers(0, len(WHOLE)))
def test_nonsense_is_refused_or_stays_inside(
    tmp_path_factory: pytest.TempPathFactory, nonsense: bytes, at: int
) -> None:
    place = tmp_path_factory.mktemp("nonsense")
    try:
        unpacked(WHOLE[:at] + nonsense + WHOLE[at + len(nonsense) :], place / "in")
    except (StageError, OSError) as error:
        assert isinstance(error, StageError) or error.errno  # noqa: PT017, either is right
    assert [path.name for path in place.iterdir()] == ["in"]


# --- packing ------------------------------------------------------------------------------------------------


def test_a_venv_is_packed_and_runs_where_it_is_unpacked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    venv, packed = tmp_path / "venv", tmp_path / "env.tar.gz"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=60)
    site = next(venv.glob("lib/python*/site-packages"))
    (site / "one_of_ours.py").write_text("print('ours', __file__)\n")
    assert stage(["--create", str(venv), str(packed)]) == 0
    assert "env.tar.gz: " in capsys.readouterr().out
    assert subprocess.run(["sha256sum", "-c", "env.tar.gz.sha256"], cwd=tmp_path, capture_output=True).returncode == 0
    unpacked(packed.read_bytes(), tmp_path / "there")
    ended = subprocess.run(
        [str(tmp_path / "there/bin/python"), "-c", "import one_of_ours"], capture_output=True, text=True, timeout=30
    )
    assert ended.stdout == f"ours {tmp_path}/there/{site.relative_to(venv)}/one_of_ours.py\n"


def test_what_cannot_be_packed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stage(["--create", str(tmp_path / "none"), str(tmp_path / "a")]) == 1
    assert "there is no such directory" in capsys.readouterr().err
    assert stage(["--create", str(tmp_path), str(tmp_path / "a")]) == 1
    assert "would be packed into itself" in capsys.readouterr().err
    (tmp_path / "env").mkdir()
    assert stage(["--create", str(tmp_path / "env"), str(tmp_path / "none" / "a")]) == 1
    assert "No such file or directory" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["env"]


def test_the_command_line_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["a"], ["a", "b", "c"], ["--force", "b"], ["a", ""], ["--create", "a"]):
        assert stage(words) == 2
        assert "it takes an archive and a directory" in capsys.readouterr().err
    assert stage(["--help"]) == 0
    assert "--create ENVIRONMENT ARCHIVE" in capsys.readouterr().out


def test_what_another_node_puts_there_in_this_moment_is_taken_as_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes, or two jobs of one, may have the target on the same file system."""
    target = tmp_path / "env"
    lstat = os.lstat

    def just_before(path: str) -> os.stat_result:
        """What was there a moment ago: nothing."""
        monkeypatch.setattr(os, "lstat", lstat)
        target.mkdir()
        (target / MARK).write_text("this one")
        raise FileNotFoundError(2, os.strerror(2), path)

    monkeypatch.setattr(os, "lstat", just_before)
    assert is_there(str(target), "this one")


def test_what_somebody_else_has_made_is_not_replaced(tmp_path: Path) -> None:
    assert not is_there(str(tmp_path / "none"), "this one")
    (tmp_path / "empty").mkdir()
    assert not is_there(str(tmp_path / "empty"), "this one")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1").touch()
    with pytest.raises(StageError, match="thesis is there, and was not made by `mpiflow stage`: it is left as it is"):
        is_there(str(tmp_path / "thesis"), "this one")
