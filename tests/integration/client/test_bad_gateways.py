"""Gateways that cannot be reached, break off, or are something else; and keys that are shown nowhere."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, cast

import pytest
import redis
from support.gateway import make_key, serve_gateway
from support.processes import wait_until
from support.worker import begin, finish

from videoqa import AsyncClient, Client, Settings, errors
from videoqa.backends.http import connection as http_connection
from videoqa.backends.http.follower import LANES
from videoqa.backends.http_backend import HttpBackend
from videoqa.contract import Failure
from videoqa.jobs import Ledger

ASKED: dict[str, Any] = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}
KEY = "vqa_AAAAAAAAAAAA_secretsecretsecret"


class Answers(threading.Thread):
    """A server that gives each connection the next of some answers, and the last one from then on."""

    def __init__(self, *answers: bytes) -> None:
        super().__init__(daemon=True)
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def run(self) -> None:
        while True:
            try:
                found, _ = self._socket.accept()
            except OSError:
                return
            with found:
                found.settimeout(60)
                self.requests.append(_read_request(found))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                found.sendall(answer)

    def __enter__(self) -> Answers:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.join(60)


def _read_request(found: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data and (part := found.recv(65536)):
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")),
        0,
    )  # fmt: skip
    while len(body) < length and (part := found.recv(65536)):
        body += part
    return head + b"\r\n\r\n" + body


def answer(status: str, body: bytes, kind: str = "application/json", *more: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        f"content-type: {kind}",
        f"content-length: {len(body)}",
        "connection: close",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


JOB = {
    "id": "job_1",
    "state": "queued",
    "created_at": "2026-11-30T00:00:00Z",
    "a_field": "of a later release",
}
GOOD = answer("200 OK", json.dumps(JOB).encode())
NOW = ("retry-after: 0",)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "FIRST_PAUSE_S", 0.01)


@contextmanager
def client_of(url: str) -> Iterator[Client]:
    with Client(url, settings=Settings(), api_key=KEY) as client:
        yield client


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        GOOD[:-20],
        GOOD[:30],
        answer("502 Bad Gateway", b"<html>nginx</html>", "text/html"),
        answer("503 Service Unavailable", b"", "text/plain", *NOW),
        answer("504 Gateway Timeout", b"{}"),
        answer("408 Request Timeout", b"{}"),
        answer(
            "429 Too Many Requests", b'{"code": "rate_limited", "detail": "slow"}', "application/problem+json", *NOW
        ),
    ],
    ids=["nothing", "cut body", "cut head", "502 of HTML", "503", "504", "408", "429"],
)  # fmt: skip
def test_what_may_be_repeated_is_and_a_submit_keeps_its_key(bad: bytes) -> None:
    with Answers(bad, bad, GOOD) as server, client_of(server.url) as client:
        assert client.submit(ASKED).id == "job_1"
    keys = {json.loads(one.partition(b"\r\n\r\n")[2])["idempotency_key"] for one in server.requests}
    assert (len(server.requests), len(keys)) == (3, 1)
    with Answers(GOOD) as server, client_of(server.url) as client:
        client.submit(ASKED)
        client.submit(ASKED)
    bodies = [json.loads(one.partition(b"\r\n\r\n")[2]) for one in server.requests]
    assert bodies[0]["idempotency_key"] != bodies[1]["idempotency_key"]


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (answer("200 OK", b'{"id": "job_1", '), "no JSON of a gateway"),
        (answer("200 OK", b"<html>Welcome</html>", "text/html"), "'text/html'"),
        (answer("200 OK", b"[1]"), "does not understand"),
        (answer("200 OK", b'{"id": "job_1"}'), "Job.state"),
        (answer("404 Not Found", b"<html>not here</html>", "text/html"), "HTTP 404: <html>not here"),
        (answer("400 Bad Request", b'{"code": 7}'), "HTTP 400"),
        (answer("200 OK", b"no gzip", "application/json", "content-encoding: gzip"), "unpacked"),
    ],
)  # fmt: skip
def test_an_answer_of_something_else_is_told_at_once(bad: bytes, match: str) -> None:
    with Answers(bad) as server, client_of(server.url) as client:
        with pytest.raises(errors.GatewayError, match=match) as caught:
            client.get("job_1")
        assert len(server.requests) == 1
    assert (caught.value.code, caught.value.retryable) == ("gateway_error", False)


def test_a_packed_answer_is_bounded_by_what_it_unpacks_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "MOST_BYTES", 1_000_000)
    bomb = answer("200 OK", gzip.compress(b" " * 50_000_000), "application/json", "content-encoding: gzip")  # fmt: skip
    with (
        Answers(bomb) as server,
        client_of(server.url) as client,
        pytest.raises(errors.GatewayError, match="more than 1,000,000 bytes"),
    ):
        client.get("job_1")


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent"])  # fmt: skip
def test_no_redirect_is_followed_so_no_other_host_gets_the_key(status: str) -> None:
    with Answers(GOOD) as other:
        elsewhere = answer(status, b"", "text/plain", f"location: {other.url}/v1/jobs/job_1")
        with Answers(elsewhere) as server, client_of(server.url) as client:
            with pytest.raises(errors.GatewayError, match=r"redirects to .http://127\.0\.0\.1."):
                client.get("job_1")
            with pytest.raises(errors.GatewayError, match="redirects"):
                client.submit(ASKED)
        assert other.requests == []


def test_a_failure_comes_back_with_code_param_and_reason() -> None:
    failure = {
        "code": "source_not_found",
        "message": "gone",
        "attempt": 2,
        "stage": "fetching",
        "later": 1,
    }
    problems: tuple[tuple[str, dict[str, Any], type[Exception]], ...] = (
        ("409 Conflict", {"code": "job_failed", "detail": "has failed", "failure": failure}, errors.JobFailed),
        ("400 Bad Request", {"code": "invalid_request", "detail": "no", "param": "inputs.0"}, errors.InvalidRequest),
        ("404 Not Found", {"code": "job_not_found", "detail": "no job"}, errors.JobNotFound),
        ("410 Gone", {"code": "job_expired", "detail": "gone"}, errors.JobExpired),
        ("429 Too Many", {"code": "queue_full", "detail": "full"}, errors.QueueFull),
        ("401 Unauthorized", {"code": "wrong_key", "detail": "no"}, errors.WrongKey),
        ("403 Forbidden", {"code": "operator_only", "detail": "no"}, errors.OperatorOnly),
        ("403 Forbidden", {"code": "input_not_allowed", "detail": "no", "param": "inputs.0.url"}, errors.GatewayError),
        ("503 Unavailable", {"code": "redis_unavailable", "detail": "away"}, errors.RedisUnavailable),
        ("400 Bad Request", {"code": "client_closed", "detail": "a lie"}, errors.GatewayError),
    )  # fmt: skip
    for status, problem, kind in problems:
        body = json.dumps(problem).encode()
        bad = answer(status, body, "application/problem+json", "retry-after: 60")
        with Answers(bad) as server, client_of(server.url) as client:
            with pytest.raises(kind) as caught:
                client.result("job_1")
            found: Any = caught.value
            where = "; set VIDEOQA_API_KEY or `api_key`, or use `videoqa login`"
            detail = problem["detail"] + (where if kind is errors.WrongKey else "")
            assert (found.code, found.message, found.param) == (
                problem["code"], detail, problem.get("param"),
            )  # fmt: skip
            assert len(server.requests) == 1
            if kind is errors.JobFailed:
                assert isinstance(found.failure, Failure)
                assert (found.failure.code, found.failure.attempt) == ("source_not_found", 2)


def test_a_retry_whose_answer_is_lost_is_no_error() -> None:
    refusal = answer("409 Conflict", b'{"code": "not_retryable", "detail": "is queued"}')
    with Answers(b"", refusal, GOOD) as server, client_of(server.url) as client:
        assert client.retry("job_1").state == "queued"
    with (
        Answers(refusal) as server,
        client_of(server.url) as client,
        pytest.raises(errors.NotRetryable),
    ):
        client.retry("job_1")


def test_a_try_that_was_plainly_refused_was_not_obeyed() -> None:
    refused = answer(
        "429 Too Many Requests",
        b'{"code": "rate_limited", "detail": "slow"}',
        "application/json",
        *NOW,
    )
    gone = answer("404 Not Found", b'{"code": "job_not_found", "detail": "no such job"}')
    with (
        Answers(refused, gone) as server,
        client_of(server.url) as client,
        pytest.raises(errors.JobNotFound),
    ):
        client.purge("job_1")
    lost = answer("502 Bad Gateway", b"<html>nginx</html>", "text/html")
    with Answers(lost, refused, gone) as server, client_of(server.url) as client:
        client.purge("job_1")


def test_a_gateway_that_is_away_is_told_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "PATIENCE_S", 0.5)
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    with (
        client_of(f"http://127.0.0.1:{port}") as client,
        pytest.raises(errors.GatewayUnavailable, match="VIDEOQA_URL") as caught,
    ):
        client.submit(ASKED)
    assert caught.value.retryable


def test_the_key_stands_in_no_repr_log_and_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bad = answer("401 Unauthorized", b'{"code": "wrong_key", "detail": "no"}')
    with Answers(bad) as server, client_of(server.url) as client:
        with pytest.raises(errors.WrongKey) as caught:
            client.get("job_1")
        assert f"authorization: Bearer {KEY}".encode() in server.requests[0]
        assert KEY.encode() not in server.requests[0].split(b"\r\n")[0]
        shown = [
            caplog.text,
            repr(caught.value),
            *(repr(vars(one)) for one in (client, client._backend)),
        ]
        shown += [repr(client.settings), client.settings.model_dump_json(), str(client.settings)]
        assert isinstance(client._backend, HttpBackend)
        shown += [repr(client._backend.connection.address)]
    assert "secret" not in " ".join(shown)
    bad_urls = (
        "https://user:secret@h",
        "https://h?key=secret",
        "https://h/#secret",
        "https://secret@h:x",
    )
    for url in bad_urls:
        with pytest.raises(errors.ConfigurationError) as wrong:
            Client(url, settings=Settings())
        assert "secret" not in str(wrong.value)
    with pytest.raises(errors.ConfigurationError) as wrong:
        Client("https://h", settings=Settings(), api_key="secret\r\nx-other: 1")
    assert "secret" not in str(wrong.value)


def test_a_key_is_for_a_gateway_and_decides_the_tenant() -> None:
    with pytest.raises(errors.ConfigurationError, match="expected the URL of a gateway"):
        Client("redis://h", api_key=KEY)
    with pytest.raises(errors.OperatorOnly, match="key decides the tenant"):
        Client("https://h", api_key=KEY, tenant="a")
    with Client("https://h", api_key=KEY) as client, pytest.raises(errors.OperatorOnly):
        client.for_tenant("a")


# -- a real gateway behind a bad line


class Cutting(threading.Thread):
    """A proxy that cuts each connection after some bytes of the answer."""

    def __init__(self, port: int, most_bytes: int) -> None:
        super().__init__(daemon=True)
        self._port, self._most_bytes = port, most_bytes
        self.cuts = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def run(self) -> None:
        while True:
            try:
                found, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(found,), daemon=True).start()

    def _pass_on(self, found: socket.socket) -> None:
        with found, socket.create_connection(("127.0.0.1", self._port)) as behind:
            threading.Thread(target=_copy, args=(found, behind), daemon=True).start()
            left = self._most_bytes
            while left > 0 and (part := behind.recv(min(left, 65536))):
                found.sendall(part)
                left -= len(part)
            self.cuts += left == 0
            for one in (found, behind):
                with_suppressed(lambda one=one: one.shutdown(socket.SHUT_RDWR))

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    def run() -> None:
        while part := source.recv(65536):
            target.sendall(part)

    with_suppressed(run)


def with_suppressed(call: Callable[[], object]) -> None:
    try:
        call()
    except OSError:
        return


def test_a_line_that_cuts_every_connection_loses_and_doubles_no_event(
    settings: Settings, ledger: Ledger
) -> None:
    from videoqa.jobs import Progress

    with serve_gateway(settings) as gateway:
        cutting = Cutting(int(gateway.url.rpartition(":")[2]), 1500)
        cutting.start()
        with Client(cutting.url, settings=Settings(), api_key=make_key(settings)) as client:
            job = client.submit({**ASKED, "stream": True})
            texts: list[str] = []
            reading = threading.Thread(
                target=lambda: texts.extend(piece.text for piece in client.stream(job.id))
            )
            reading.start()
            claim = begin(ledger, "t1")
            words = [f"word{n} " for n in range(40)]
            for word in words:
                ledger.progress(job.id, claim.token, Progress("generating", question_id="q1", text=word))  # fmt: skip
                time.sleep(0.005)
            finish(ledger, claim, q1="".join(words))
            reading.join(60)
            assert texts == words
            assert cutting.cuts >= 2
        cutting.close()


def test_hundreds_wait_on_few_connections_and_a_gateway_that_restarts_loses_none(
    settings: Settings, ledger: Ledger
) -> None:
    count = 300

    async def run() -> list[str]:
        key = make_key(settings)
        with serve_gateway(settings) as first:
            port = int(first.url.rpartition(":")[2])
            async with AsyncClient(first.url, settings=Settings(), api_key=key) as client:
                jobs = await client.submit_many([ASKED] * count)
                waits = [asyncio.create_task(client.wait(job.id, timeout_s=150)) for job in jobs]
                backend: Any = client._client._backend
                await asyncio.to_thread(
                    wait_until, lambda: backend.follower.waiting == count and backend.follower.lanes
                )
                assert 1 <= backend.follower.lanes <= LANES
                for n in range(20):
                    finish(ledger, begin(ledger, f"a{n}"), q1="a cat")
                await asyncio.to_thread(first.handle_exit, 15, None)
                await asyncio.to_thread(wait_until, lambda: not first.started or first.should_exit)
                with await asyncio.to_thread(_serve_again, settings, port):
                    for n in range(count - 20):
                        finish(ledger, begin(ledger, f"b{n}"), q1="a cat")
                    found = [job.state for job in await asyncio.gather(*waits)]
        return found

    assert asyncio.run(run()) == ["succeeded"] * count


def _serve_again(settings: Settings, port: int) -> Any:
    """Serves a gateway at the same port, once the first one has left it."""
    deadline_s = time.monotonic() + 30
    while True:
        try:
            serving = serve_gateway(settings, gateway_port=port)
            serving.__enter__()
        except errors.ConfigurationError:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        else:
            return closing(_Leaving(serving))


class _Leaving:
    def __init__(self, serving: Any) -> None:
        self._serving = serving

    def close(self) -> None:
        self._serving.__exit__(None, None, None)


def test_a_closed_client_ends_those_whose_question_is_under_way() -> None:
    found: list[object] = []

    def wait(client: Client) -> None:
        try:
            found.append(client.wait("job_1", timeout_s=60))
        except errors.VideoQAError as error:
            found.append(error)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(
            f"http://127.0.0.1:{silent.getsockname()[1]}", settings=Settings(), api_key=KEY
        )
        waiting = threading.Thread(target=wait, args=(client,), daemon=True)
        waiting.start()
        silent.settimeout(60)
        with silent.accept()[0] as asking:
            asking.recv(1)
            client.close()
            waiting.join(60)
    assert [type(one) for one in found] == [errors.ClientClosed]


def test_a_job_whose_events_are_spoiled_ends_no_other_wait(
    settings: Settings, redis_client: redis.Redis
) -> None:
    with (
        serve_gateway(settings) as gateway,
        Client(gateway.url, api_key=make_key(settings)) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        good, bad = client.submit(ASKED), client.submit(ASKED)
        waiting = pool.submit(client.wait, good.id, timeout_s=60)
        of_bad = pool.submit(client.wait, bad.id, timeout_s=60)
        follower = cast(HttpBackend, client._backend).follower
        wait_until(lambda: follower.waiting == 2)
        redis_client.set(f"{settings.prefix}:events:{bad.id}", "x")
        assert isinstance(of_bad.exception(60), errors.ConfigurationError)
        client.cancel(good.id)
        assert waiting.result(60).state == "canceled"
