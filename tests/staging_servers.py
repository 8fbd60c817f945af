"""Web and FTP servers for tests: on loopback, in threads, with files that come whole and files that do not."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: More than is read at once.
LARGE = bytes(range(256)) * 10_000
#: Seconds for which `/silent` says nothing.
SILENT = 1.0


class Web(BaseHTTPRequestHandler):
    """Answers by the name that is asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        if name in ("whole", "whole.txt"):
            self._send(200, b"all of it\n")
        elif name == "large":
            self._send(200, LARGE)
        elif name == "empty":
            self._send(200, b"")
        elif name == "moved":
            self._send(302, b"", Location="/elsewhere/whole")
        elif name == "short":
            self._send(200, b"all of", length=1000)
        elif name == "chunked":
            self._chunks(b"5\r\nfirst\r\n7\r\n second\r\n0\r\n\r\n")
        elif name == "chunked-short":
            self._chunks(b"5\r\nfirst\r\nff\r\n sec")
        elif name == "garbage":
            self.wfile.write(b"good morning\r\n\r\n")
            self.close_connection = True
        elif name == "silent":
            time.sleep(SILENT)
        elif name == "broken":
            self._send(500, b"oh no")
        else:
            self._send(404, b"<html>not here</html>")

    def _send(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        if length is not None:
            self.close_connection = True

    def _chunks(self, stream: bytes) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(stream)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Ftp(socketserver.StreamRequestHandler):
    """As much of RFC 959 as it takes to fetch a file."""

    server: FtpServer

    def handle(self) -> None:
        self.directory = ""
        self.data: socket.socket | None = None
        self._say("220 ready")
        while line := self.rfile.readline().decode().rstrip("\r\n"):
            self.server.said.append(line)
            command, _, argument = line.partition(" ")
            if command.upper() == "QUIT":
                self._say("221 bye")
                return
            method = getattr(self, f"_{command.lower()}", None)
            if method is None:
                self._say("502 what?")
            else:
                method(argument)

    def _say(self, answer: str) -> None:
        self.wfile.write(f"{answer}\r\n".encode())

    def _user(self, _: str) -> None:
        self._say("331 password, please")

    def _pass(self, word: str) -> None:
        self._say("530 no" if word == "wrong" else "230 welcome")

    def _type(self, _: str) -> None:
        self._say("200 fine")

    def _cwd(self, directory: str) -> None:
        self.directory = directory.rstrip("/")
        known = any(path.startswith(f"{self.directory}/") for path in self.server.files)
        self._say("250 fine" if known else "550 no such directory")

    def _size(self, name: str) -> None:
        content = self.server.files.get(f"{self.directory}/{name}")
        if not self.server.knows_sizes:
            self._say("502 what?")
        elif content is None:
            self._say("550 no such file")
        else:
            self._say(f"213 {len(content)}")

    def _pasv(self, _: str) -> None:
        self.data = socket.create_server(("127.0.0.1", 0))
        high, low = divmod(self.data.getsockname()[1], 256)
        self._say(f"227 entering passive mode (127,0,0,1,{high},{low})")

    def _retr(self, name: str) -> None:
        assert self.data is not None
        content = self.server.files.get(f"{self.directory}/{name}")
        if content is None:
            self._say("550 no such file")
            self.data.close()
            return
        self._say("150 here it comes")
        connection, _ = self.data.accept()
        with connection, self.data:
            connection.sendall(content[: self.server.most])
        self._say("226 done")


class FtpServer(socketserver.ThreadingTCPServer):
    """Files by path, and what to do wrong with them."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Ftp)
        self.files = files
        #: Bytes that are sent of a file, however long it is.
        self.most = 1 << 40
        self.knows_sizes = True
        self.said: list[str] = []


@contextmanager
def _served(server: socketserver.BaseServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]  # type: ignore[index,misc]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def web() -> Iterator[str]:
    """A web server; the URL of its root."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    with _served(server) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def ftp(files: dict[str, bytes]) -> Iterator[tuple[str, FtpServer]]:
    """An FTP server; ``host:port``, and the server itself."""
    server = FtpServer(files)
    with _served(server) as port:
        yield f"127.0.0.1:{port}", server


def closed_port() -> int:
    """A port of this host where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
