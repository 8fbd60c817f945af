"""File: a place where data is."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpiflow.data.files import File


@pytest.mark.parametrize(
    ("url", "scheme", "netloc", "path", "filename"),
    [
        ("in.txt", "file", "", "in.txt", "in.txt"),
        ("/data/in.txt", "file", "", "/data/in.txt", "in.txt"),
        ("dir/", "file", "", "dir/", ""),
        ("file:///data/in.txt", "file", "", "/data/in.txt", "in.txt"),
        ("https://host:80/a/b.dat?x=1", "https", "host:80", "/a/b.dat", "b.dat"),
        ("globus://endpoint/a/b", "globus", "endpoint", "/a/b", "b"),
        ("odd #1;2?.txt", "file", "", "odd #1;2?.txt", "odd #1;2?.txt"),
        ("/data/100%.txt", "file", "", "/data/100%.txt", "100%.txt"),
        ("/data/10:30:00.txt", "file", "", "/data/10:30:00.txt", "10:30:00.txt"),
        ("10:30.txt", "file", "", "10:30.txt", "10:30.txt"),
        ("some weird :// url", "file", "", "some weird :// url", " url"),
        ("//[a]/b.txt", "file", "", "//[a]/b.txt", "b.txt"),
        ("", "file", "", "", ""),
        ("zip:/data/all.zip/in/x.txt", "zip", "", "/data/all.zip/in/x.txt", "x.txt"),
        ("ftp://me:pw@host/a%20b", "ftp", "me:pw@host", "/a%20b", "a%20b"),
    ],
)
def test_the_parts_of_a_path_or_url(url: str, scheme: str, netloc: str, path: str, filename: str) -> None:
    file = File(url)
    assert (file.url, file.scheme, file.netloc, file.path, file.filename) == (
        url,
        scheme,
        netloc,
        path,
        filename,
    )
    assert file.local_path is None


@given(st.text(st.characters(blacklist_characters="\0:", blacklist_categories=["Cs"]), min_size=1))
def test_any_plain_path_is_the_path_to_open(path: str) -> None:
    assert File(path).filepath == str(File(path)) == os.fspath(File(path)) == path


def test_a_path_object_will_do(tmp_path: Path) -> None:
    assert File(tmp_path / "x").filepath == str(tmp_path / "x")


@pytest.mark.parametrize("url", [None, 3, b"in.txt", ["x"]])
def test_what_is_no_path_is_refused(url: Any) -> None:
    with pytest.raises(TypeError, match="File takes a str or a path, not"):
        File(url)


class _Bytes:
    def __fspath__(self) -> bytes:
        return b"in.txt"


def test_a_path_of_bytes_is_refused() -> None:
    with pytest.raises(TypeError, match="File takes a path of str, not of bytes"):
        File(_Bytes())  # type: ignore[arg-type]


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"File: 'http://\[::1/x' is no URL: Invalid IPv6 URL"):
        File("http://[::1/x")


def test_it_can_be_opened(tmp_path: Path) -> None:
    file = File(tmp_path / "x")
    with open(file, "w") as stream:
        stream.write("here")
    assert Path(file).read_text() == "here"
    assert os.path.exists(file)


def test_a_file_elsewhere_has_no_path_until_it_has_a_local_copy() -> None:
    file = File("https://host/a.dat")
    with pytest.raises(ValueError, match=r"No local_path set for <File at .* url=https://host/a.dat"):
        str(file)
    file.local_path = "/scratch/a.dat"
    assert str(file) == "/scratch/a.dat"
    assert "local_path=/scratch/a.dat" in repr(file)
    assert file.cleancopy().local_path is None
    assert file.cleancopy().url == file.url


def test_it_travels() -> None:
    file = File("file:///data/in.txt")
    file.local_path = "/scratch/in.txt"
    assert vars(pickle.loads(pickle.dumps(file))) == vars(file)


def test_it_shows_itself_though_it_is_elsewhere() -> None:
    assert "scheme=https netloc=host path=/a.dat filename=a.dat" in repr(File("https://host/a.dat"))
