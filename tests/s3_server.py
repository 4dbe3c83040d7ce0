"""An S3-compatible server as a child process: moto's, which keeps objects in memory. And one that only refuses."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from consumers.supervisor import free_ports
from streams.children import Child
from streams.state_url import masked

START_S = 60.0  # 2 s; on a busy machine in much more
SECRET = "a-secret-that-nobody-shows"  # noqa: S105 - moto takes any
REFUSAL = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


def url_of(port: int, path: str) -> str:
    """The URL of a bucket and prefix on a server of this machine."""
    return f"s3://ann:{SECRET}@{path}?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"


class S3Server:
    """A running server. Everything it holds is gone when it stops."""

    def __init__(self, directory: Path) -> None:
        (self.port,) = free_ports(1)
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._child = Child("S3", command, log_path=directory / "s3.log")

    def __enter__(self) -> Self:
        self._child.start()
        self._child.wait_ready(self._answers, START_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._child.stop()

    def bucket(self) -> str:
        """Make a bucket and give its name."""
        name = f"b{uuid.uuid4().hex[:12]}"
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{name}", method="PUT")
        urllib.request.urlopen(request).close()  # noqa: S310 - our own server
        return name

    def url(self, bucket: str | None = None) -> str:
        """The URL of a prefix in a bucket, a new one if none is given."""
        return url_of(self.port, f"{bucket or self.bucket()}/pre/fix")

    def requests(self, bucket: str) -> list[tuple[str, str]]:
        """What was asked of a bucket so far, in order: method and key (with what follows it)."""
        lines = [line.partition('] "')[2].split() for line in self._child.log_path.read_text().splitlines()]
        asked = [(words[0].rpartition("m")[2], words[1]) for words in lines if len(words) > 2]
        return [(how, what.removeprefix(f"/{bucket}/")) for how, what in asked if what.startswith(f"/{bucket}/")]

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
        except OSError:
            return False
        return True


@contextlib.contextmanager
def refusing_server() -> Iterator[int]:
    """Answer every request with "access denied", as S3 says it; gives the port."""

    class Handler(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(403)
            self.send_header("Content-Length", str(len(REFUSAL)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(REFUSAL)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = refuse

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def is_shown_safely(text: str, url: str) -> bool:
    """Whether a text is one line without the URL's secret."""
    assert SECRET not in masked(url)
    return SECRET not in text and "\n" not in text
