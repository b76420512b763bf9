"""Servers of inputs: an HTTP server with faults to switch on, and a real S3 (SeaweedFS)."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from videoqa_worker.embedded import S3Server
from videoqa_worker.embedded.s3_server import Identity

# HTTP


@dataclass
class Route:
    """The server's behaviour for one path."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    etag: str | None = '"v1"'
    ranges: bool = True
    heeds_if_range: bool = True
    head_status: int = 200
    """Status of HEAD requests, which are not in `seen`."""
    declares_length: bool = True
    cuts: list[int] = field(default_factory=list)
    """Number of bytes after which the n-th response breaks off."""
    wait_s: float = 0.0
    """Delay before the status line."""
    drip_s: float = 0.0
    """Delay after each byte of the body."""
    on_request: Callable[[Route], None] | None = None
    on_range: Callable[[int, int], Odd | None] | None = None
    """Called with [start, end) of each range; its result is sent instead."""
    seen: list[dict[str, str]] = field(default_factory=list)
    """The headers of each request, in lower case."""
    most_at_once: int = 0
    """Highest number of requests that were answered at the same time."""
    _busy: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def busy(self) -> Iterator[None]:
        with self._lock:
            self._busy += 1
            self.most_at_once = max(self.most_at_once, self._busy)
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1

    @property
    def ranges_seen(self) -> list[str | None]:
        """The requested ranges, without the unit."""
        return [
            seen["range"].removeprefix("bytes=") if "range" in seen else None for seen in self.seen
        ]


@dataclass
class Odd:
    """A wrong response to one range."""

    status: int = 206
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class HttpServer(ThreadingHTTPServer):
    """An HTTP server; set `routes[path]` and fetch `url(path)`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._scheme, self._host = ("https", "localhost") if tls else ("http", "127.0.0.1")
        if tls is not None:
            # The connection's own thread shakes hands, at its first read.
            self.socket = tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        self.routes: dict[str, Route] = {}
        self.connections = 0
        self.stopped = threading.Event()

    def url(self, path: str) -> str:
        return f"{self._scheme}://{self._host}:{self.server_port}{path}"

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores clients that hang up, which is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: HttpServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        route = self.server.routes.get(self.path, Route(b"nothing here", status=404))
        route.seen.append({name.lower(): value for name, value in self.headers.items()})
        with route.busy():
            if route.on_request is not None:
                route.on_request(route)
            self.server.stopped.wait(route.wait_s)
            odd = self._odd(route)
            body = self._head(route) if odd is None else self._odd_head(odd)
            if route.cuts:
                self._send(route, body[: route.cuts.pop(0)])
                self.close_connection = True
            else:
                self._send(route, body)

    def do_HEAD(self) -> None:
        route = self.server.routes.get(self.path, Route(status=404))
        if route.head_status != 200:
            self.send_response(route.head_status)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._head(route)

    def _odd(self, route: Route) -> Odd | None:
        span = self._range(route)
        return route.on_range(*span) if span and route.on_range else None

    def _odd_head(self, odd: Odd) -> bytes:
        self.send_response(odd.status)
        for name, value in odd.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(odd.body)))
        self.end_headers()
        return odd.body

    def _head(self, route: Route) -> bytes:
        body, status, size = route.body, route.status, len(route.body)
        span = self._range(route)
        if span and span[0] >= size:
            span, body, status = None, b"", 416
        elif span:
            body, status = body[slice(*span)], 206
        self.send_response(status)
        if span:
            self.send_header("Content-Range", f"bytes {span[0]}-{span[1] - 1}/{size}")
        if status == 416:
            self.send_header("Content-Range", f"bytes */{size}")
        if route.etag and status < 300:
            self.send_header("ETag", route.etag)
        if route.ranges and status < 300:
            self.send_header("Accept-Ranges", "bytes")
        if route.declares_length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        for name, value in route.headers.items():
            self.send_header(name, value)
        self.end_headers()
        return body

    def _range(self, route: Route) -> tuple[int, int] | None:
        """[start, end) of the bytes that are asked for and given."""
        wanted = self.headers.get("Range", "")
        names = (route.etag, route.headers.get("Last-Modified"))
        condition = self.headers.get("If-Range")
        same = condition is None or condition in names or not route.heeds_if_range
        if not (route.ranges and wanted and same and route.status == 200):
            return None
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        end = int(last) + 1 if last else len(route.body)
        return int(first), min(end, len(route.body))

    def _send(self, route: Route, body: bytes) -> None:
        if not route.drip_s:
            self.wfile.write(body)
            return
        for byte in body:
            if self.server.stopped.wait(route.drip_s):
                return
            self.wfile.write(bytes([byte]))


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[HttpServer]:
    with HttpServer(tls) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.stopped.set()
        server.shutdown()
        thread.join(5)


@pytest.fixture
def http_server() -> Iterator[HttpServer]:
    with serving() as server:
        yield server


# S3

READER = Identity("reader", ("Read:open",))
"""An identity that may read the bucket "open" and nothing else."""
WRITER = Identity("writer", ("Read:open", "Write:open", "Read:gone"))
"""An identity that may use "open" and not "closed"; the bucket "gone" does not exist."""
WRITE_ONLY = Identity("write-only", ("Write:open",))
"""An identity that may write into "open" and read nothing."""


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Server]:
    """Runs SeaweedFS with the buckets "open" and "closed", with its data in `folder`."""
    with S3Server(folder, others=(READER, WRITER, WRITE_ONLY)) as server:
        for bucket in ("open", "closed"):
            server.client().create_bucket(Bucket=bucket)
        yield server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


# A connection that breaks


@contextmanager
def serve_raw(answer: Callable[[str, int, socket.socket], None]) -> Iterator[str]:
    """A server whose answers are written byte by byte; `answer` gets the request, its number and the socket."""
    count = iter(range(10**6))

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                lines = []
                while line := self.rfile.readline().strip():
                    lines.append(line.decode("latin-1"))
                answer("\n".join(lines), next(count), self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Ignores clients that hang up."""

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class CuttingProxy(socketserver.ThreadingTCPServer):
    """A proxy that passes connections on to a port, and breaks some off.

    `cuts` holds, for each connection to come, after how many bytes of the answer it ends;
    connections beyond the list are whole.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, to_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Pump)
        self.to_port = to_port
        self.silent = threading.Event()
        """While it is cleared, connections are accepted and nothing is passed on."""
        self.silent.set()
        self.cuts: list[int] = []
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores broken connections, which this proxy is for."""


class _Pump(socketserver.BaseRequestHandler):
    server: CuttingProxy

    def handle(self) -> None:
        self.server.connections += 1
        left = self.server.cuts.pop(0) if self.server.cuts else None
        self.server.silent.wait(60)
        with socket.create_connection(("127.0.0.1", self.server.to_port), 5) as upstream:
            threading.Thread(target=self._requests, args=(upstream,), daemon=True).start()
            while content := upstream.recv(65536):
                if left is not None:
                    content, left = content[:left], left - len(content[:left])
                self.request.sendall(content)
                if left == 0:
                    break
        with suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)

    def _requests(self, upstream: socket.socket) -> None:
        with suppress(OSError):
            while content := self.request.recv(65536):
                upstream.sendall(content)
            upstream.shutdown(socket.SHUT_WR)


@pytest.fixture
def s3_proxy(s3_server: S3Server) -> Iterator[CuttingProxy]:
    with CuttingProxy(s3_server.port) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join(5)
