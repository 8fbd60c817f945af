"""Fetching files from web and FTP servers: whole or not at all, and with words that say why not."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from staging_servers import LARGE, SILENT, FtpServer, closed_port, ftp, web

from mpiflow.data.staging import ftp as ftp_module
from mpiflow.data.staging import http as http_module
from mpiflow.data.staging.ftp import fetch_ftp
from mpiflow.data.staging.http import fetch_http
from mpiflow.data.staging.places import arriving


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with web() as root:
        yield root


FILES = {"/data/in.txt": b"by ftp\n", "/data/a b#1": b"odd", "/large": LARGE, "/data/empty": b""}


@pytest.fixture
def server() -> Iterator[tuple[str, FtpServer]]:
    with ftp(FILES) as (where, server):
        yield where, server


# --- a file that arrives ----------------------------------------------------------------------------------


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with arriving(str(path)) as file:
        file.write(b"some")
        assert not path.exists()
    assert path.read_bytes() == b"some"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_breaks_off_leaves_the_older_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write() -> None:
        with arriving(str(path)) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_as_long_as_names_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with arriving("x" * 255) as file:
        file.write(b"1")
    assert (tmp_path / ("x" * 255)).read_text() == "1"


# --- http -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("whole", b"all of it\n"),
        ("large", LARGE),
        ("empty", b""),
        ("moved", b"all of it\n"),
        ("chunked", b"first second"),
    ],
)
def test_a_file_from_the_web(site: str, tmp_path: Path, name: str, content: bytes) -> None:
    fetch_http(f"{site}/{name}", str(tmp_path / "new" / "file"))
    assert (tmp_path / "new" / "file").read_bytes() == content


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "the server answers 404 Not Found"),
        ("broken", "the server answers 500 Internal Server Error"),
        ("short", r"the connection ended after 6 of 1000 bytes"),
        ("chunked-short", "IncompleteRead"),
        ("garbage", "BadStatusLine: good morning"),
    ],
)
def test_a_file_the_web_does_not_give(site: str, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "file").write_text("an older one")
    with pytest.raises(OSError, match=f"{site}/{name} cannot be fetched.*{words}"):
        fetch_http(f"{site}/{name}", str(tmp_path / "file"))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "an older one")]


def test_nobody_listens(tmp_path: Path) -> None:
    port = closed_port()
    for fetch, scheme in ((fetch_http, "http"), (fetch_ftp, "ftp")):
        with pytest.raises(OSError, match=f"{scheme}://127.0.0.1:{port}/x cannot be fetched .*Connection refused"):
            fetch(f"{scheme}://127.0.0.1:{port}/x", str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_says_nothing_is_given_up(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_module, "SILENCE", 0.05)
    began = time.monotonic()
    with pytest.raises(OSError, match=r"/silent cannot be fetched .*timed out"):
        fetch_http(f"{site}/silent", str(tmp_path / "x"))
    assert time.monotonic() - began < SILENT


def test_a_disk_that_does_not_take_it(site: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(OSError, match=r"/whole cannot be fetched to .*/file/x: .*(Not a directory|File exists)"):
        fetch_http(f"{site}/whole", str(tmp_path / "file" / "x"))


# --- ftp --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "content"),
    [("/data/in.txt", b"by ftp\n"), ("/data/a%20b%231", b"odd"), ("/large", LARGE), ("/data/empty", b"")],
)
def test_a_file_by_ftp(server: tuple[str, FtpServer], tmp_path: Path, path: str, content: bytes) -> None:
    where, ftp_server = server
    fetch_ftp(f"ftp://{where}{path}", str(tmp_path / "new" / "file"))
    assert (tmp_path / "new" / "file").read_bytes() == content
    assert "USER anonymous" in ftp_server.said


def test_a_user_and_a_password(server: tuple[str, FtpServer], tmp_path: Path) -> None:
    where, ftp_server = server
    fetch_ftp(f"ftp://me:p%40ss@{where}/data/in.txt", str(tmp_path / "x"))
    assert ftp_server.said[:2] == ["USER me", "PASS p@ss"]


def test_a_password_is_not_told(server: tuple[str, FtpServer], tmp_path: Path) -> None:
    where, _ = server
    with pytest.raises(OSError, match=r"ftp://me:\*\*\*@.* cannot be fetched .*530 no") as refused:
        fetch_ftp(f"ftp://me:wrong@{where}/data/in.txt", str(tmp_path / "x"))
    assert "wrong" not in str(refused.value)


@pytest.mark.parametrize(
    ("path", "words"),
    [("/data/nothing", "550 no such file"), ("/nowhere/x", "550 no such directory"), ("/data/a%0D%0AQUIT", "newline")],
)
def test_a_file_ftp_does_not_give(
    server: tuple[str, FtpServer], tmp_path: Path, path: str, words: str
) -> None:
    where, _ = server
    with pytest.raises(OSError, match=f"ftp://{where}{path} cannot be fetched to .*{words}"):
        fetch_ftp(f"ftp://{where}{path}", str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []


def test_a_transfer_that_breaks_off(server: tuple[str, FtpServer], tmp_path: Path) -> None:
    where, ftp_server = server
    ftp_server.most = 3
    with pytest.raises(OSError, match="the transfer ended after 3 of 7 bytes"):
        fetch_ftp(f"ftp://{where}/data/in.txt", str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_knows_no_sizes(server: tuple[str, FtpServer], tmp_path: Path) -> None:
    where, ftp_server = server
    ftp_server.knows_sizes = False
    fetch_ftp(f"ftp://{where}/data/in.txt", str(tmp_path / "x"))
    assert (tmp_path / "x").read_bytes() == b"by ftp\n"


def test_an_ftp_server_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ftp_module, "SILENCE", 0.05)
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        pytest.raises(OSError, match=r"cannot be fetched .*timed out"),
    ):
        fetch_ftp(f"ftp://127.0.0.1:{mute.getsockname()[1]}/x", str(tmp_path / "x"))


@pytest.mark.parametrize("fetch", [fetch_http, fetch_ftp])
def test_a_port_that_is_none(tmp_path: Path, fetch: Callable[[str, str], None]) -> None:
    url = f"{fetch.__name__[6:]}://host:port/x"
    with pytest.raises(OSError, match=f"{url} cannot be fetched.*port"):
        fetch(url, str(tmp_path / "x"))
