"""Callers on a raw socket: what is no HTTP, is slow, is large, or smuggles; the gateway answers others meanwhile."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import h11._readers
import httpx
import psutil
import pytest
from support.gateway import serve_gateway
from support.processes import wait_until

from videoqa.gateway import GatewayServer
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.http import connection, middleware
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]

ASKED = {"inputs": ["https://a.org/x.mp4"], "questions": ["What?"]}
SECRET = "vqa_" + "0" * 12 + "_" + "5ecret" * 8


class Wire:
    """A connection on which a test writes bytes."""

    def __init__(self, server: GatewayServer, key: str) -> None:
        self.socket = socket.create_connection(server.socket.getsockname()[:2], timeout=60)
        self.key = key

    def send(self, *lines: str, body: bytes = b"") -> None:
        self.socket.sendall("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def read(self) -> bytes:
        """Reads to the end of the connection."""
        found = b""
        try:
            while data := self.socket.recv(65_536):
                found += data
        except ConnectionResetError:
            pass
        return found

    def read_status(self) -> int:
        return status_of(self.socket.recv(65_536))

    def ask(self, *lines: str, body: bytes = b"") -> bytes:
        """Sends a request, and reads all that comes; the connection ends after it."""
        with closing(self.socket):
            self.send(*lines, f"Authorization: Bearer {self.key}", "Connection: close", body=body)
            return self.read()


def status_of(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert found, answer[:200]
    return int(found[1])


def count_answers(answer: bytes) -> int:
    return len(re.findall(rb"^HTTP/1\.1 ", answer, re.MULTILINE))


@pytest.fixture
def key(keys: KeyStore) -> str:
    return keys.create("raw", ("submit", "read")).text


@pytest.fixture
def wire(gateway: GatewayServer, key: str) -> Iterator[Callable[[], Wire]]:
    made: list[Wire] = []

    def open_wire() -> Wire:
        made.append(Wire(gateway, key))
        return made[-1]

    yield open_wire
    for each in made:
        each.socket.close()
    assert httpx.get(f"{gateway.url}/livez", timeout=60).json() == {"status": "ok"}


HOST = "Host: gateway"
JOBS = ("POST /v1/jobs HTTP/1.1", HOST, "Content-Type: application/json")
BODY = json.dumps(ASKED).encode()
SMUGGLED = b"GET /v1/workers HTTP/1.1\r\nHost: gateway\r\n\r\n"

MALFORMED = {
    "two lengths": (*JOBS, "Content-Length: 3", "Content-Length: 40"),
    "two lengths in one": (*JOBS, "Content-Length: 3, 40"),
    "signed length": (*JOBS, "Content-Length: +3"),
    "hexadecimal length": (*JOBS, "Content-Length: 0x3"),
    "negative length": (*JOBS, "Content-Length: -1"),
    "huge length": (*JOBS, "Content-Length: " + "9" * 40),
    "unknown coding": (*JOBS, "Transfer-Encoding: xchunked"),
    "coding twice": (*JOBS, "Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
    "gzip coding": (*JOBS, "Transfer-Encoding: gzip, chunked"),
    "blank before the colon": (*JOBS, "Content-Length : 3"),
    "folded": (*JOBS, "X-A: b", " Content-Length: 3\x00"),
    "NUL in a header": (*JOBS, "X-A: a\x00b"),
    "bare CR in a header": (*JOBS, "X-A: a\rContent-Length: 3"),
    "no host": ("GET /livez HTTP/1.1",),
    "two hosts": ("GET /livez HTTP/1.1", HOST, "Host: other"),
    "blank in the target": ("GET /livez /x HTTP/1.1", HOST),
    "no method": (" /livez HTTP/1.1", HOST),
    "TLS": ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",),
    "long target": ("GET /" + "a" * 100_000 + " HTTP/1.1", HOST),
    "long header": ("GET /livez HTTP/1.1", HOST, "X-A: " + "a" * 100_000),
    "many headers": ("GET /livez HTTP/1.1", HOST, *(f"X-{n}: y" for n in range(10_000))),
}


def test_what_is_no_http_is_refused_once_and_the_connection_ends(wire: Callable[[], Wire]) -> None:
    for name, lines in MALFORMED.items():
        one = wire()
        one.send(*lines, f"X-Secret: {SECRET}")
        answer = one.read()
        assert status_of(answer) in (400, 431), f"{name}: {answer[:300]!r}"
        assert count_answers(answer) == 1, f"{name}: {answer!r}"
        assert b"application/problem+json" in answer, name
        assert SECRET.encode() not in answer, name
        assert b"Traceback" not in answer, name


def test_a_body_that_smuggles_a_request_is_never_answered_twice(wire: Callable[[], Wire]) -> None:
    """With both lengths the chunks count (RFC 9112), and the connection ends after the answer."""
    chunks = b"3\r\n{}\n\r\n0\r\n\r\n"
    lines = (*JOBS, "Content-Length: 3", "Transfer-Encoding: chunked")
    answer = wire().ask(*lines, body=chunks)
    assert count_answers(answer) == 1
    assert status_of(answer) == 400
    for chunk in (
        b"3;a=\nb\r\n{}\n\r\n0\r\n\r\n",
        b"-3\r\n{}\n",
        b"0x3\r\n{}\n\r\n0\r\n\r\n",
        b"f" * 30 + b"\r\n{}",
    ):
        answer = wire().ask(*JOBS, "Transfer-Encoding: chunked", body=chunk + SMUGGLED)
        assert count_answers(answer) == 1, answer
        assert status_of(answer) == 400, answer


def test_lengths_that_lie_end_with_their_connection(
    wire: Callable[[], Wire], connect: Connect
) -> None:
    short = wire()
    short.send(*JOBS, f"Authorization: Bearer {short.key}", "Content-Length: 1000", body=BODY)
    short.socket.close()
    long = wire().ask(*JOBS, f"Content-Length: {len(BODY)}", body=BODY + SMUGGLED)
    assert (count_answers(long), status_of(long)) == (1, 202)
    assert len(connect("read").get("/v1/jobs").json()["jobs"]) == 1


def test_paths_are_never_those_of_files(wire: Callable[[], Wire]) -> None:
    for target in (
        "/docs/../../../etc/passwd", "/docs/%2e%2e/%2e%2e/etc/passwd", "/docs/..%2f..%2fetc/passwd", "//etc/passwd",
        "/docs//style.css", "/docs/style.css/", "/docs/style.css;a", "/docs/style.css%00", "/docs/%5c..%5csettings.py",
        "/v1/files/..%2f..%2fetc%2fpasswd", "/v1/files/%2e%2e/content", "/v1/jobs/%2e%2e%2f%2e%2e", "http://other/v1/jobs",
        "http://169.254.169.254/latest", "/v1/jobs/" + "a" * 30_000, "/V1/JOBS", "*",
    ):  # fmt: skip
        answer = wire().ask(f"GET {target} HTTP/1.1", HOST)
        assert status_of(answer) in (400, 404), f"{target[:60]}: {answer[:200]!r}"
        assert b"root:" not in answer


def test_what_is_echoed_cannot_make_a_header(wire: Callable[[], Wire]) -> None:
    for given in (
        "a b",
        "a\tSet-Cookie: x",
        "\xe9",
        "x" * 129,
        "%0d%0aSet-Cookie:%20x",
        '"><script>',
    ):
        answer = wire().ask("GET /livez HTTP/1.1", HOST, f"X-Request-Id: {given}")
        (found,) = re.findall(rb"x-request-id: (.*)\r", answer)
        assert re.fullmatch(rb"req_[0-9a-f]{24}", found), given
    for target in ("/v1/jobs/%0d%0aSet-Cookie:%20x", "/v1/%0d%0aSet-Cookie:%20x"):
        answer = wire().ask(f"GET {target} HTTP/1.1", HOST)
        assert b"\nset-cookie" not in answer.lower()


def test_odd_but_lawful_requests_are_answered(wire: Callable[[], Wire]) -> None:
    assert status_of(wire().ask("GET /livez HTTP/1.0")) == 200
    assert wire().ask("HEAD /livez HTTP/1.1", HOST).endswith(b"\r\n\r\n")
    assert (
        status_of(
            wire().ask("GET /livez HTTP/1.1", HOST, "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ")
        )
        == 200
    )
    assert (
        status_of(
            wire().ask(
                "GET /livez HTTP/1.1", HOST, "Upgrade: websocket", "Sec-WebSocket-Version: 13"
            )
        )
        == 200
    )
    for span in (
        "bytes=0-0",
        "bytes=-1",
        "bytes=5-2",
        "bytes=" + "0-," * 5_000 + "0-",
        "lines=1",
        "bytes=9" * 300,
    ):
        assert status_of(wire().ask("GET /docs/style.css HTTP/1.1", HOST, f"Range: {span}")) == 200
    many = [f"X-{n}: y" for n in range(900)]
    assert status_of(wire().ask("GET /livez HTTP/1.1", HOST, *many)) == 200
    asked = wire()
    asked.send(
        *JOBS,
        f"Authorization: Bearer {asked.key}",
        "Expect: 100-continue",
        f"Content-Length: {len(BODY)}",
    )
    assert asked.read_status() == 100
    asked.socket.sendall(BODY)
    assert asked.read_status() == 202


def test_pipelined_requests_are_answered_in_order(wire: Callable[[], Wire]) -> None:
    one = wire()
    pipe = "".join(
        f"GET /v1/jobs/{n} HTTP/1.1\r\n{HOST}\r\nX-Request-Id: n{n}\r\nAuthorization: Bearer {one.key}\r\n\r\n"
        for n in range(50)
    )
    one.socket.sendall(pipe.encode())
    last = one.ask("GET /v1/jobs/50 HTTP/1.1", HOST, "X-Request-Id: n50")
    assert [int(n) for n in re.findall(rb'"request_id": "n(\d+)"', last)] == [*range(51)]


# -- sizes and time


def test_a_gigabyte_is_refused_in_constant_memory(
    gateway: GatewayServer, wire: Callable[[], Wire]
) -> None:
    """The gateway runs in this process: its memory is ours."""
    before = psutil.Process().memory_info().rss
    for lines in ((*JOBS, f"Content-Length: {1 << 30}"), (*JOBS, "Transfer-Encoding: chunked")):
        one = wire()
        one.send(*lines, f"Authorization: Bearer {one.key}")
        piece = b" " * 1_000_000
        sent = 0
        try:
            while sent < 1 << 30:
                one.socket.sendall(
                    piece if "Length" in lines[-1] else b"f4240\r\n" + piece + b"\r\n"
                )
                sent += len(piece)
        except OSError:
            pass
        assert sent < 300_000_000, "it read on"
    assert psutil.Process().memory_info().rss - before < 100_000_000
    headers = {"authorization": f"Bearer {one.key}", "content-type": "application/json"}
    answer = httpx.post(f"{gateway.url}/v1/jobs", headers=headers, content=b" " * 9_000_000)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_a_slow_head_and_a_slow_body_end(
    wire: Callable[[], Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.3)
    monkeypatch.setattr(middleware, "GRACE_S", 0.3)
    assert wire().read() == b"", "a connection without a request is closed"
    head = wire()
    head.socket.sendall(b"GET /livez HTTP/1.1\r\nX-A: ")
    answer = head.read()
    assert (status_of(answer), b"request_too_slow" in answer) == (408, True)
    again = wire()
    again.send("GET /livez HTTP/1.1", HOST)
    assert again.read_status() == 200
    again.socket.sendall(b"GET /livez HT")
    assert b" 408 " in again.read()
    body = wire()
    body.send(*JOBS, f"Authorization: Bearer {body.key}", "Content-Length: 1000", body=b"{")
    answer = body.read()
    assert (status_of(answer), b"request_too_slow" in answer) == (408, True)


def test_too_many_streams_and_connections_are_refused(settings: Settings, keys: KeyStore) -> None:
    options = {"gateway_streams": 3, "gateway_streams_per_key": 2, "gateway_connections": 12}
    first, second = (keys.create(name, ("submit", "read")).text for name in ("a", "b"))
    with serve_gateway(settings, **options) as server:
        made = httpx.post(
            f"{server.url}/v1/jobs", json=ASKED, headers={"authorization": f"Bearer {first}"}
        )
        path = f"/v1/jobs/{made.json()['id']}/events"

        def follow(key: str) -> Wire:
            one = Wire(server, key)
            one.send(f"GET {path} HTTP/1.1", HOST, f"Authorization: Bearer {key}")
            return one

        streams = [follow(key) for key in (first, first, second)]
        assert [one.read_status() for one in streams] == [200] * 3
        for key in (first, second):
            answer = Wire(server, key).ask(f"GET {path} HTTP/1.1", HOST)
            assert (status_of(answer), b"stream_limit" in answer) == (429, True)
            assert b"retry-after" in answer
        streams.pop().socket.close()
        wait_until(lambda: follow(second).read_status() == 200)
        idle = [
            socket.create_connection(server.socket.getsockname()[:2], timeout=60) for _ in range(15)
        ]
        refused = Wire.__new__(Wire)
        refused.socket = idle[-1]
        answer = refused.read()
        assert (status_of(answer), b"too_many_connections" in answer) == (503, True)
        for one in (*idle, *(stream.socket for stream in streams)):
            one.close()


def test_the_parser_of_heads_takes_linear_time() -> None:
    """h11's own patterns hold the interpreter for 8 s with 64 kB of blanks; ours have no blank to give back."""
    patterns = [each for each in vars(h11._readers).values() if isinstance(each, re.Pattern)]
    assert patterns
    assert not [each.pattern for each in patterns if re.search(rb"\[ \\t\]\*(?!\+)", each.pattern)]


def test_no_error_of_a_caller_reaches_the_log_as_a_fault(
    wire: Callable[[], Wire], caplog: pytest.LogCaptureFixture
) -> None:
    for lines in MALFORMED.values():
        one = wire()
        one.send(*lines)
        one.read()
    hung_up = wire()
    hung_up.send(*JOBS, f"Authorization: Bearer {hung_up.key}", "Content-Length: 1000", body=b"{")
    hung_up.socket.close()
    assert not [each for each in caplog.records if each.levelname in ("ERROR", "CRITICAL")]
