"""An HTTP server at the other end of a link: each answer waits, and all share one bandwidth.

    python benchmarks/lib/slow_server.py FOLDER --latency-ms 20 --mb-per-s 50

Serves the folder's files by GET and HEAD with Range, keeps connections, and counts: `GET /-/count`
answers requests and body bytes since it was last asked. Bytes count when they are handed to the
socket, so those that a client no longer wants count too, as they do on a real link.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["SlowServer"]

_BLOCK_BYTES = 64 << 10
_BUFFER_BYTES = 256 << 10
"""Send buffer of a socket: what is in it when a client hangs up was sent in vain."""


class Link:
    """One bandwidth for all connections: who sends waits for the bytes before."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._free_s = 0.0

    def send(self, count_bytes: int) -> None:
        with self._lock:
            self._free_s = max(self._free_s, time.monotonic()) + count_bytes / self._bytes_per_s
            wait_s = self._free_s - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)


class SlowServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, latency_s: float, bytes_per_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.latency_s = latency_s
        self.link = Link(bytes_per_s)
        self.lock = threading.Lock()
        self.requests = 0
        self.sent_bytes = 0

    def count(self, requests: int, sent_bytes: int) -> None:
        with self.lock:
            self.requests += requests
            self.sent_bytes += sent_bytes

    def taken(self) -> dict[str, int]:
        with self.lock:
            found = {"requests": self.requests, "bytes": self.sent_bytes}
            self.requests = self.sent_bytes = 0
            return found

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up when they have enough."""


class _Handler(BaseHTTPRequestHandler):
    server: SlowServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        if self.path == "/-/count":
            content = json.dumps(self.server.taken()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.server.folder / Path(self.path).name
        size_bytes = path.stat().st_size
        self.server.count(1, 0)
        time.sleep(self.server.latency_s)
        start, end = 0, size_bytes
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if wanted and wanted[1]:
            start, end = int(wanted[1]), min(size_bytes, int(wanted[2] or size_bytes) + 1)
        elif wanted:
            start = max(0, size_bytes - int(wanted[2]))
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size_bytes}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        self.end_headers()
        if body:
            self._send(path, start, end)

    def _send(self, path: Path, start: int, end: int) -> None:
        with path.open("rb") as file:
            file.seek(start)
            while start < end:
                block = file.read(min(_BLOCK_BYTES, end - start))
                self.server.link.send(len(block))
                self.server.count(0, len(block))
                self.wfile.write(block)
                start += len(block)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--mb-per-s", type=float, default=50.0)
    args = parser.parse_args()
    with SlowServer(args.folder, args.latency_ms / 1000, args.mb_per_s * 1e6) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
