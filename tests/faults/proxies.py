"""Faults of networks and stores, between two real ends.

toxiproxy would be the peer of `Wire`, but its server comes from no package index; and neither it
nor another proxy breaks single answers of HTTP as `Store` does.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

__all__ = ["Store", "Wire"]

_NOW = struct.pack("ii", 1, 0)
"""SO_LINGER that makes close() a reset."""


class Wire:
    """Passes TCP on; each piece may wait, or the connection be reset in its place."""

    def __init__(self, port: int, seed: int, *, delay_s: float = 0.0, resets: float = 0.0) -> None:
        """
        Arguments:
            resets: share of pieces.
        """
        self.delay_s, self.resets = delay_s, resets
        self.count: Counter[str] = Counter()
        self.to = port
        """Port of new connections; those that are open stay where they are, as with a name of DNS."""
        self._draw = random.Random(seed)
        self._server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self.to), timeout=5)
                    far.settimeout(None)
                except OSError:
                    near.close()
                    continue
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65_536):
                self.count["pieces"] += 1
                if self._draw.random() < self.resets:
                    self.count["resets"] += 1
                    break
                if self.delay_s:
                    time.sleep(self.delay_s)
                target.sendall(piece)
            else:
                target.shutdown(socket.SHUT_WR)
                return
        for end in (source, target):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
                end.shutdown(socket.SHUT_RDWR)
                end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()


class Store(ThreadingHTTPServer):
    """Passes HTTP on to a store; a share of the answers is broken in one of these ways.

    `refused`: an error in place of the call. `late`: the call was made, and its answer is an error.
    `silent`: no answer. `short`: the body ends early, though its length says more. `unlimited`: the
    same without a length. `flipped`: one byte of the body is another.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, seed: int, faults: Mapping[str, float], silent_s: float) -> None:
        """
        Arguments:
            faults: the share of each kind.
        """
        super().__init__(("127.0.0.1", 0), _Answer)
        self.to, self.faults, self.silent_s = port, faults, silent_s
        self.away = False
        """Acts as a store that is stopped: every connection is closed without an answer."""
        self.count: Counter[str] = Counter()
        self._draw = random.Random(seed)
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def fault(self, has_body: bool) -> str:
        with self._lock:
            drawn = self._draw.random()
            for name, share in self.faults.items():
                drawn -= share
                if drawn < 0 and (has_body or name in ("refused", "late", "silent")):
                    self.count[name] += 1
                    return name
            self.count["sound"] += 1
            return "sound"

    def at(self, length: int) -> int:
        """A place in a body."""
        with self._lock:
            return self._draw.randrange(length)

    def handle_error(self, *_: object) -> None:
        """Clients that are killed reset their connections; nobody wants to read of it."""

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Answer(BaseHTTPRequestHandler):
    server: Store
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        if self.server.away:
            self.server.count["away"] += 1
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault(self.command == "GET")
        if fault == "silent":
            time.sleep(self.server.silent_s)
            self.close_connection = True
            return
        if fault == "refused":
            self._send(503, {"Content-Length": "0"}, b"")
            return
        status, headers, answer = self._asked(body)
        if fault == "late":
            self._send(500, {"Content-Length": "0"}, b"")
        elif fault in ("short", "unlimited") and len(answer) > 1:
            if fault == "unlimited":
                headers.pop("Content-Length", None)
            self._send(
                status, headers | {"Connection": "close"}, answer[: self.server.at(len(answer))]
            )
            self.close_connection = True
        elif fault == "flipped" and answer:
            at = self.server.at(len(answer))
            flipped = answer[:at] + bytes([answer[at] ^ 0xFF]) + answer[at + 1 :]
            self._send(status, headers, flipped)
        else:
            self._send(status, headers, answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _any  # noqa: N815

    def _asked(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        asking = http.client.HTTPConnection("127.0.0.1", self.server.to, timeout=30)
        given = {name: value for name, value in self.headers.items() if name != "Expect"}
        asking.request(self.command, self.path, body or None, given)
        answer = asking.getresponse()
        headers = {
            name: value
            for name, value in answer.getheaders()
            if name not in ("Connection", "Transfer-Encoding")
        }
        found = answer.status, headers, answer.read()
        asking.close()
        return found

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        with suppress(OSError):
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.close_connection = True
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
