"""A web server on loopback that can be told to misbehave, for tests of fetching."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote


class Loopback(ThreadingHTTPServer):
    """Serves `files` (path without slash -> bytes), with pages of links for folders.

    Attributes:
        gives_ranges: whether parts of files can be asked for.
        answers: path -> statuses to give to its next requests of a body before the file itself.
        drops: path -> how many of its next bodies break off half-way.
        pause_s: path -> seconds to wait in the middle of its bodies.
        bodies: how many bodies of each path were begun.
        num_bytes: sent in bodies.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.gives_ranges = True
        self.answers: dict[str, list[int]] = {}
        self.drops: Counter[str] = Counter()
        self.pause_s: dict[str, float] = {}
        self.bodies: Counter[str] = Counter()
        self.num_bytes = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Loopback

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        server, path = self.server, unquote(self.path.partition("?")[0]).strip("/")
        statuses = server.answers.get(path)
        if statuses and body:
            self._head(statuses.pop(0), 0)
            return
        content = server.files.get(path)
        if content is None:
            self._folder(path, body)
            return
        first, last, status = 0, len(content) - 1, 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and server.gives_ranges:
            first, last, status = int(wanted[1]), min(last, int(wanted[2] or last)), 206
        part = content[first : last + 1]
        self.send_response(status)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", hashlib.md5(content).hexdigest())
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        if body:
            self._send(path, part)

    def _send(self, path: str, part: bytes) -> None:
        server = self.server
        server.bodies[path] += 1
        if server.drops[path] > 0 and len(part) > 1:
            server.drops[path] -= 1
            part = part[: len(part) // 2]
            self.close_connection = True
        half = len(part) // 2
        for piece in (part[:half], part[half:]):
            self.wfile.write(piece)
            self.wfile.flush()
            server.num_bytes += len(piece)
            time.sleep(server.pause_s.get(path, 0.0))

    def _folder(self, path: str, body: bool) -> None:
        prefix = f"{path}/" if path else ""
        below = [name.removeprefix(prefix) for name in self.server.files if name.startswith(prefix)]
        if not below:
            self._head(404, 0)
            return
        names = {name.partition("/")[0] + ("/" if "/" in name else "") for name in below}
        page = "".join(f'<a href="{quote(name)}">{name}</a>' for name in sorted(names)).encode()
        self._head(200, len(page), "text/html")
        if body:
            self.wfile.write(page)

    def _head(self, status: int, length: int, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Content-Type", kind)
        self.end_headers()


@contextmanager
def serving() -> Iterator[Loopback]:
    """A server in a thread of its own."""
    server = Loopback()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
