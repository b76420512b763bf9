"""`GET /v1/jobs/{job_id}/events`: resumed without a gap, in whatever state the stream is, and ended in time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import httpx
import pytest
import redis
from support.chats import ask, list_jobs
from support.gateway import serve_gateway
from support.processes import wait_until
from support.worker import begin, finish

from videoqa import errors
from videoqa.client import Client
from videoqa.gateway import GatewayServer
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.http.event_stream import EventStream, ServerEvent
from videoqa.jobs import Ledger, Progress
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]
ASKED: dict[str, Any] = {"inputs": ["https://a.org/x.mp4"], "questions": ["What?"], "stream": True}


@pytest.fixture
def http(connect: Connect) -> httpx.Client:
    return connect("submit", "read", tenant="a")


def submit(http: httpx.Client) -> str:
    return str(http.post("/v1/jobs", json=ASKED).json()["id"])


def parse(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Yields events as dictionaries of their fields; a comment has the field ''."""
    fields: dict[str, Any] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line:
            fields[name] = json.loads(value) if name == "data" else value
        elif fields:
            yield fields
            fields = {}


def read(http: httpx.Client, job_id: str, after: str | None = None) -> list[dict[str, Any]]:
    headers = {} if after is None else {"last-event-id": after}
    with http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as response:
        assert response.status_code == 200
        return list(parse(response.iter_lines()))


def write_text(ledger: Ledger, job_id: str, token: str, pieces: int) -> None:
    ledger.report(
        [
            (job_id, token, Progress("generating", question_id="q1", text=f"w{n} "))
            for n in range(pieces)
        ]
    )


def test_a_stream_resumes_after_each_of_its_events_without_a_gap(
    http: httpx.Client, ledger: Ledger
) -> None:
    job_id = submit(http)
    claim = begin(ledger, "t")
    write_text(ledger, job_id, "t", 5)
    finish(ledger, claim, q1="a cat")
    events = read(http, job_id)
    assert [event["event"] for event in events[:2]] == ["state", "state"]
    assert [event["data"]["id"] for event in events] == [event["id"] for event in events]
    for n, event in enumerate(events[:-1]):
        assert read(http, job_id, event["id"]) == events[n + 1 :]
    end = http.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": events[-1]["id"]})
    assert (end.status_code, end.content) == (204, b"")


def test_a_running_job_is_followed_from_where_its_reader_was(
    http: httpx.Client, ledger: Ledger
) -> None:
    job_id = submit(http)
    claim = begin(ledger, "t")
    write_text(ledger, job_id, "t", 1)
    seen: list[dict[str, Any]] = []
    with http.stream("GET", f"/v1/jobs/{job_id}/events") as response:
        for event in parse(response.iter_lines()):
            seen.append(event)
            if event["event"] == "text":
                break
    write_text(ledger, job_id, "t", 3)
    done = threading.Timer(0.3, lambda: finish(ledger, claim, q1="a cat"))
    done.start()
    seen += read(http, job_id, seen[-1]["id"])
    done.join()
    texts = [event["data"]["text"] for event in seen if event["event"] == "text"]
    assert texts == ["w0 ", "w0 ", "w1 ", "w2 "]
    assert seen[-1]["data"]["state"] == "succeeded"
    assert [event["id"] for event in seen] == [event["id"] for event in read(http, job_id)]


@pytest.mark.parametrize(
    "after", ["abc", "1-1", "99999999999999-0", "0-2", "18446744073709551615-1", "-1", "1" * 500]
)
def test_an_id_of_no_event_gets_a_snapshot_first(
    http: httpx.Client, ledger: Ledger, after: str
) -> None:
    job_id = submit(http)
    finish(ledger, begin(ledger, "t"), q1="a cat")
    first, *events = read(http, job_id, after)
    assert (first["event"], "id" in first) == ("snapshot", False)
    assert (first["data"]["id"], first["data"]["state"]) == (job_id, "succeeded")
    assert events == read(http, job_id)


def test_a_trimmed_stream_gets_a_snapshot_first(
    http: httpx.Client, ledger: Ledger, redis_client: redis.Redis
) -> None:
    job_id = submit(http)
    claim = begin(ledger, "t")
    write_text(ledger, job_id, "t", 3)
    finish(ledger, claim, q1="a cat")
    events = read(http, job_id)
    redis_client.xtrim(ledger.keys.events(job_id), maxlen=2, approximate=False)
    for trimmed in events[:3]:
        first, *rest = read(http, job_id, trimmed["id"])
        assert first["event"] == "snapshot"
        assert rest[-2:] == events[-2:]
    assert read(http, job_id, events[-2]["id"]) == events[-1:]


def test_silence_is_bridged_by_comments(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    monkeypatch.setattr("videoqa.gateway.http.event_stream.SILENCE_S", 0.05)
    job_id = submit(http)
    with http.stream("GET", f"/v1/jobs/{job_id}/events") as response:
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["cache-control"] == "no-store"
        comments = 0
        for event in parse(response.iter_lines()):
            comments += "" in event
            if comments == 2:
                break
    assert comments == 2


def test_a_stream_that_fails_ends_so_that_its_reader_resumes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> AsyncIterator[ServerEvent]:
        yield ServerEvent({"state": "queued"}, id="1-1")
        raise errors.RedisUnavailable("Redis has been away for 30 s")

    async def serve() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []
        stays = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await stays.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        revoked = asyncio.get_running_loop().create_future()
        await EventStream(fail(), stop=asyncio.Event())._send_all(receive, send, revoked)
        return sent

    start, first, last = asyncio.run(serve())
    assert (start["status"], first["body"][:7], first["more_body"]) == (200, b"id: 1-1", True)
    assert (last["body"], last["more_body"]) == (b"", False)
    assert "its caller may resume it: Redis has been away" in caplog.text


def test_a_thousand_streams_end_with_the_gateway_and_their_jobs_go_on(
    settings: Settings, ledger: Ledger
) -> None:
    with (
        serve_gateway(settings, gateway_open=True) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        job_id = submit(http)
        asyncio.run(_stop_under_streams(server, job_id, 1000))
    assert ledger.get(job_id).state == "queued"
    finish(ledger, begin(ledger, "t"), q1="a cat")


async def _stop_under_streams(server: GatewayServer, job_id: str, count: int) -> None:
    """Opens streams, sends SIGTERM's call, and waits until all have ended."""
    port = int(server.url.rpartition(":")[2])
    ask = f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    streams = []
    for start in range(0, count, 100):
        found = await asyncio.gather(
            *(asyncio.open_connection("127.0.0.1", port) for _ in range(start, start + 100))
        )
        for reader, writer in found:
            writer.write(ask)
            streams.append((reader, writer))
        await asyncio.gather(*(reader.readuntil(b"queued") for reader, _ in found))
    server.handle_exit(15, None)
    ends = await asyncio.gather(*(reader.read() for reader, _ in streams))
    assert all(end.endswith(b"0\r\n\r\n") for end in ends)  # whole, not cut
    for _, writer in streams:
        writer.close()


class PausableRedis:
    """The server of these tests, which can be made to stand still."""

    def __init__(self, client: redis.Redis) -> None:
        self._pid = int(cast("dict[str, Any]", client.info("server"))["process_id"])

    def pause(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)


@pytest.fixture
def pausable(redis_client: redis.Redis) -> Iterator[PausableRedis]:
    server = PausableRedis(redis_client)
    yield server
    server.go_on()


def test_a_paused_redis_is_503_in_5_s_on_each_kind_of_route(
    http: httpx.Client, gateway: GatewayServer, pausable: PausableRedis
) -> None:
    job_id = submit(http)
    many = httpx.Client(
        base_url=gateway.url,
        headers=http.headers,
        timeout=30,
        limits=httpx.Limits(max_connections=200),
    )
    found: list[tuple[str, int, str, float]] = []

    def call(method: str, path: str) -> None:
        begun = time.monotonic()
        body = {"json": ASKED} if method == "POST" else {}
        answer = many.request(method, path, **body)
        code = answer.json()["code"]
        found.append((path, answer.status_code, code, time.monotonic() - begun))
        assert answer.headers["retry-after"]

    calls = [
        ("GET", f"/v1/jobs/{job_id}"), ("GET", f"/v1/jobs/{job_id}/events"), ("POST", "/v1/jobs"), ("GET", "/readyz"),
    ] * 40  # fmt: skip
    pausable.pause()
    threads = [threading.Thread(target=call, args=one) for one in calls]
    for thread in threads:
        thread.start()
    assert httpx.get(f"{gateway.url}/livez").status_code == 200
    for thread in threads:
        thread.join(40)
    assert {one[1:3] for one in found} == {(503, "redis_unavailable")}
    # 4.2 s on an idle machine; one call behind another would take minutes.
    assert max(one[3] for one in found) < 15
    many.close()
    assert len(found) == len(calls)
    pausable.go_on()
    wait_until(lambda: http.get(f"/v1/jobs/{job_id}").status_code == 200)


@pytest.mark.parametrize("route", ["events", "follow", "chat"])
def test_a_stream_ends_soon_after_its_key_was_revoked(
    gateway: GatewayServer, keys: KeyStore, client: Client, route: str
) -> None:
    made = keys.create("short", ["submit", "read"], tenant="a")
    headers = {"authorization": f"Bearer {made.text}"}
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=30) as http:
        job_id = submit(http)
        calls: dict[str, tuple[str, str, Any]] = {
            "events": ("GET", f"/v1/jobs/{job_id}/events", None),
            "follow": ("POST", "/v1/jobs:follow", {"jobs": [{"id": job_id}]}),
            "chat": ("POST", "/v1/chat/completions", ask(stream=True)),
        }
        method, path, body = calls[route]
        found: list[bytes] = []

        def read_all() -> None:
            with http.stream(method, path, json=body) as stream:
                found.extend(stream.iter_raw())
                found.append(str(stream.status_code).encode())

        reading = threading.Thread(target=read_all, daemon=True)
        reading.start()
        wait_until(lambda: gateway._app.state.resources.streams._by_key.total() == 1)
        keys.revoke(made.key.id)
        reading.join(7)
        assert not reading.is_alive()
    if route == "chat":  # nothing was sent before, so that it has a status
        assert found[-1] == b"401"
        wait_until(lambda: [job.state for job in list_jobs(client)].count("canceled") == 1)
