"""Files in zip archives."""

from __future__ import annotations

import os
import pickle
import threading
import zipfile
from functools import partial
from pathlib import Path

import pytest

from mpiflow.data.files import File
from mpiflow.data.staging import zip as zip_module
from mpiflow.data.staging.zip import ZipAuthorityError, ZipFileStaging, zip_path_split
from mpiflow.errors import ParslError

append = partial(zip_module.append, parent_fut=None, _parsl_staging_inhibit=True)
extract = partial(zip_module.extract, parent_fut=None, _parsl_staging_inhibit=True)


@pytest.mark.parametrize(
    ("path", "archive", "member"),
    [
        ("/tmp/this.zip/inside/here.txt", "/tmp/this.zip", "inside/here.txt"),
        ("this.zip/x", "this.zip", "x"),
        ("/a.zip/b.zip/c", "/a.zip", "b.zip/c"),
        ("/a.zipper/b.zip/c", "/a.zipper/b.zip", "c"),
    ],
)
def test_a_path_is_split_after_the_first_archive(path: str, archive: str, member: str) -> None:
    assert zip_path_split(path) == (archive, member)


@pytest.mark.parametrize("path", ["", "/data/x.txt", "/data/all.zip", "/data/all.zip/"])
def test_a_path_that_names_no_member(path: str) -> None:
    with pytest.raises(ValueError, match=r"names no file in an archive; legal is /PATH/ARCHIVE.zip/PATH/IN/IT"):
        zip_path_split(path)


def test_in_and_out(tmp_path: Path) -> None:
    archive, local = tmp_path / "new" / "all.zip", tmp_path / "local"
    for name in ("a/x.txt", "a/y.txt"):
        local.write_text(name * 100)
        append(str(archive), name, str(local))
        assert not local.exists(), "the copy is removed once it is in the archive"
    extract(str(archive), "a/y.txt", str(tmp_path / "wd" / "a" / "y.txt"))
    assert (tmp_path / "wd" / "a" / "y.txt").read_text() == "a/y.txt" * 100
    with zipfile.ZipFile(archive) as opened:
        assert opened.namelist() == ["a/x.txt", "a/y.txt"]
        assert opened.infolist()[0].compress_type == zipfile.ZIP_DEFLATED


def test_many_at_once_into_one_archive(tmp_path: Path) -> None:
    archive = tmp_path / "all.zip"
    threads = []
    for number in range(12):
        local = tmp_path / str(number)
        local.write_text(str(number))
        threads.append(threading.Thread(target=append, args=(str(archive), f"in/{number}", str(local))))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    with zipfile.ZipFile(archive) as opened:
        assert {name: opened.read(name) for name in opened.namelist()} == {
            f"in/{number}": str(number).encode() for number in range(12)
        }


def test_no_such_archive_or_member(tmp_path: Path) -> None:
    archive = tmp_path / "all.zip"
    with pytest.raises(FileNotFoundError, match=r"all.zip: there is no such archive, for its member 'x'"):
        extract(str(archive), "x", str(tmp_path / "x"))
    (tmp_path / "y").write_text("y")
    append(str(archive), "y", str(tmp_path / "y"))
    with pytest.raises(FileNotFoundError, match=r"all.zip has no member 'x'"):
        extract(str(archive), "x", str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()
    with pytest.raises(FileNotFoundError, match="gone"):
        append(str(archive), "x", str(tmp_path / "gone"))


def test_an_archive_that_is_none_or_damaged(tmp_path: Path) -> None:
    archive = tmp_path / "all.zip"
    archive.write_text("no zip")
    with pytest.raises(zipfile.BadZipFile, match=r"all.zip, member 'x': File is not a zip file"):
        extract(str(archive), "x", str(tmp_path / "x"))
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("x", b"1234567890")
    content = bytearray(archive.read_bytes())
    content[content.index(b"1234567890")] ^= 1
    archive.write_bytes(content)
    with pytest.raises(zipfile.BadZipFile, match=r"all.zip, member 'x': Bad CRC-32"):
        extract(str(archive), "x", str(tmp_path / "x"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.zip", "all.zip.lock"]


def test_an_archive_where_no_lock_can_be_made_is_read_without(tmp_path: Path) -> None:
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("x", "here")
    os.mkdir(f"{archive}.lock")  # as good as a disk that is there to be read only
    extract(str(archive), "x", str(tmp_path / "x"))
    assert (tmp_path / "x").read_text() == "here"
    with pytest.raises(OSError, match=r"all.zip.lock"):
        append(str(archive), "y", str(tmp_path / "x"))


def test_a_url_with_a_host_is_refused() -> None:
    for ask in (ZipFileStaging().can_stage_in, ZipFileStaging().can_stage_out):
        assert ask(File("zip:/data/all.zip/x"))
        assert not ask(File("/data/all.zip/x"))
        with pytest.raises(ZipAuthorityError) as refused:
            ask(File("zip://host/all.zip/x"))
    again = pickle.loads(pickle.dumps(refused.value))
    assert isinstance(again, ParslError)
    assert again.file.url == "zip://host/all.zip/x"
    words = "ZipFileStaging cannot stage Files with an authority (netloc) section (host), for zip://host/all.zip/x"
    assert str(again) == words
