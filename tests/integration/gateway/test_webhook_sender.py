"""Calls of hostile receivers: nothing leads into our network, and nothing that comes back holds a gateway."""

from __future__ import annotations

import asyncio
import itertools
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.addresses import FORBIDDEN_HOSTS, PRIVATE_HOSTS
from support.receiver import Receiver, receiving

from videoqa.gateway.webhooks import sender
from videoqa.gateway.webhooks.sender import CallFailed, Reply, Sender, parse_retry_after
from videoqa.net import parse_networks

LOOPBACK = parse_networks("127.0.0.0/8, ::1")


def post(url: str, *, private: bool = True, timeout_s: float = 2, **options: Any) -> Reply:
    networks = LOOPBACK if private else []
    own = Sender(timeout_s=timeout_s, networks=networks, **options)
    return asyncio.run(own.post(url, b"{}", {"webhook-id": "1"}))


def refuse(url: str, **options: Any) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        post(url, **options)
    return caught.value


@contextmanager
def answering(
    *chunks: bytes, pause_s: float = 0.0, hangs: bool = False, reads: bool = True
) -> Iterator[str]:
    """A server that answers all calls with these bytes, then closes or hangs."""
    done = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while reads and self.rfile.readline().strip():
                pass
            for chunk in chunks:
                self.wfile.write(chunk)
                self.wfile.flush()
                if pause_s and done.wait(pause_s):
                    return
            if hangs:
                done.wait(10)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Ignores callers that hang up."""

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/hook"
        done.set()
        server.shutdown()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


# -- where it leads


@pytest.mark.parametrize("host", [*PRIVATE_HOSTS, *FORBIDDEN_HOSTS])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_of_our_network_is_not_called(
    scheme: str, host: str, receiver: Receiver
) -> None:
    port = receiver.url.rpartition(":")[2]
    failed = refuse(f"{scheme}://{host}:{port}", private=False)
    assert failed.is_final
    assert receiver.got == []
    assert str(failed) == "the URL leads to an address that is not called"


@pytest.mark.parametrize("host", FORBIDDEN_HOSTS)
def test_a_setting_does_not_open_special_addresses(host: str) -> None:
    own = Sender(timeout_s=1, networks=parse_networks("0.0.0.0/0, ::/0"))
    with pytest.raises(CallFailed, match="not called"):
        asyncio.run(own.post(f"https://{host}/latest/meta-data/", b"", {}))


def test_a_name_that_is_public_first_and_private_then_is_resolved_once(receiver: Receiver) -> None:
    answers: Iterator[Sequence[str]] = iter([["127.0.0.1"], ["169.254.169.254"]])
    url = f"http://rebinding.example:{receiver.url.split(':')[2]}"
    assert post(url, resolve=lambda host, port: next(answers)).status == 204
    assert receiver.got[0].headers["host"].startswith("rebinding.example:")
    assert "not called" in str(refuse(url, resolve=lambda host, port: next(answers)))


def test_one_private_address_among_public_ones_forbids_the_name() -> None:
    def resolve(host: str, port: int) -> Sequence[str]:
        return ["93.184.216.34", "127.0.0.1"]

    assert refuse("https://a.example/", private=False, resolve=resolve).is_final


def test_plain_http_leads_only_into_allowed_networks(receiver: Receiver) -> None:
    failed = refuse("http://a.example/", resolve=lambda host, port: ["93.184.216.34"])
    assert (failed.is_final, str(failed)) == (
        True, "plain HTTP leads out of our networks; use https",
    )  # fmt: skip
    assert post(receiver.url).status == 204


@pytest.mark.parametrize(
    "url", ["https://", "file:///etc/passwd", "gopher://h/", "https://[x/", "x"]
)
def test_what_is_no_url_is_not_called(url: str) -> None:
    assert refuse(url, resolve=lambda host, port: []).args[0]


def test_a_redirect_is_an_answer_and_is_not_followed(receiver: Receiver) -> None:
    receiver.answer = lambda got: (302, {"location": "http://169.254.169.254/"})
    assert post(receiver.url).status == 302
    assert len(receiver.got) == 1


def test_a_name_that_is_never_resolved_times_out() -> None:
    released = threading.Event()

    def hang(host: str, port: int) -> Sequence[str]:
        released.wait(30)
        return []

    assert str(refuse("https://a.example/", timeout_s=0.2, resolve=hang)) == "no answer in 0.2 s"
    released.set()


def test_a_name_that_does_not_resolve_is_tried_again() -> None:
    def fail(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    failed = refuse("https://a.example/", resolve=fail)
    assert (str(failed), failed.is_final) == ("the name does not resolve", False)


# -- what comes back

OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS: dict[str, tuple[bytes, int | str]] = {
    "no body": (OK + b"content-length: 0\r\n\r\n", 200),
    "a body that ends with the connection": (OK + b"\r\nthanks", 200),
    "many interim answers": (b"HTTP/1.1 103 Early\r\n\r\n" * 50 + OK + b"\r\n", 200),
    "too many interim answers": (b"HTTP/1.1 103 Early\r\n\r\n" * 5000, "header is too long"),
    "nothing": (b"", "closed without an answer"),
    "HTTP/0.9": (b"<html>hello</html>", "no HTTP"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n", "no HTTP"),
    "half a header": (OK + b"x: ", "no HTTP"),
    "a long header": (OK + b"x: " + b"a" * 200_000 + b"\r\n\r\n", "no HTTP|too long"),
    "many headers": (OK + b"a: b\r\n" * 50_000 + b"\r\n", "no HTTP|too long"),
    "blanks before a NUL": (OK + b"x: a" + b" " * 60_000 + b"\0\r\n\r\n", "no HTTP|too long"),
    "a status of another kind": (b"HTTP/1.1 99999 x\r\n\r\n", "no HTTP"),
    "a strange length": (OK + b"content-length: -1\r\n\r\n", "no HTTP"),
    "chunks of another kind": (OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n", 200),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_any_answer_is_read_as_far_as_its_status(name: str) -> None:
    sent, expected = ANSWERS[name]
    with answering(sent) as url:
        begun_s = time.process_time()
        if isinstance(expected, int):
            assert post(url).status == expected
        else:
            with pytest.raises(CallFailed, match=expected):
                post(url)
        assert time.process_time() - begun_s < 0.5


@pytest.mark.parametrize(
    "chunks",
    [
        [OK + b"x: " + b"a" * 10] + [b"a"] * 100,
        [b"HTTP/1.1 103 Early\r\n\r\n"] * 100,
        [],
    ],
    ids=["a header that drips", "interim answers that drip", "silence"],
)
def test_an_answer_that_does_not_come_ends_with_the_time(chunks: list[bytes]) -> None:
    with answering(*chunks, pause_s=0.05, hangs=True) as url:
        assert str(refuse(url, timeout_s=0.5)) == "no answer in 0.5 s"


@pytest.mark.parametrize("kind", ["endless", "dripping"])
def test_a_body_is_not_waited_for(kind: str) -> None:
    endless = itertools.repeat(b"x" * 65_536, 2000) if kind == "endless" else [b"x"] * 200
    with answering(OK + b"\r\n", *endless, pause_s=0 if kind == "endless" else 0.05) as url:
        begun_s = time.monotonic()
        assert post(url).status == 200
        assert time.monotonic() - begun_s < 9, "the drops take 10 s"


def test_a_certificate_that_nobody_vouches_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ssl

    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("hook.example").configure_cert(context)

    def call(host: str, trusted: trustme.CA) -> Reply:
        own = ssl.create_default_context()
        trusted.configure_trust(own)
        monkeypatch.setattr(sender, "_make_tls", lambda: own)
        return post(f"https://{host}:{port}/", resolve=lambda host, port: ["127.0.0.1"])

    async def serve() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK + b"content-length: 0\r\n\r\n")
            writer.close()

        nonlocal port
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        started.set()
        async with server:
            await stopped.wait()

    port, started = 0, threading.Event()
    loop = asyncio.new_event_loop()
    stopped = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(10)
    assert call("hook.example", authority).status == 200
    for host, trusted in (("hook.example", stranger), ("other.example", authority)):
        with pytest.raises(CallFailed, match="certificate is not valid"):
            call(host, trusted)
    loop.call_soon_threadsafe(stopped.set)
    thread.join(10)
    loop.close()


def test_plain_bytes_where_tls_is_expected_fail() -> None:
    with answering(OK + b"\r\n", reads=False) as url:
        assert str(refuse(url.replace("http:", "https:"))) in ("TLS failed", "no connection")


# -- Retry-After


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("7", 7), (" 120 ", 120), ("99999999999", 86_400), ("-1", None), ("soon", None),
     ("٣", None), ("x" * 1000, None), ("Mon, 01 Jan 2001 00:00:00 GMT", 0)],
)  # fmt: skip
def test_retry_after_is_read_within_bounds(text: str, expected: float | None) -> None:
    assert parse_retry_after(text) == expected


def test_retry_after_may_be_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 97 < (parse_retry_after(soon) or 0) <= 100
