"""A broker that takes no message costs no job, whatever its library raises: the record is the job."""

from __future__ import annotations

import asyncio
import logging
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from amqp.exceptions import NotFound
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport.memory import Transport as MemoryTransport
from support.processes import wait_until
from support.worker import begin, fail

from videoqa import AsyncClient, Client, Settings, errors
from videoqa.backends.redis_backend import RedisBackend
from videoqa.broker import make_celery
from videoqa.contract import WorkerInfo, to_datetime
from videoqa.jobs import Ledger
from videoqa_worker.embedded.process import free_port
from videoqa_worker.embedded.redis_server import RedisServer
from videoqa_worker.service.reaper import Reaper

ASKED: dict[str, Any] = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}


class AmqpServer(socketserver.ThreadingTCPServer):
    """Speaks AMQP 0-9-1 up to the refusal of a login or of a virtual host.

    RabbitMQ needs Erlang, which is not everywhere; these are its replies.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, *, knows_login: bool) -> None:
        super().__init__(("127.0.0.1", 0), _AmqpHandler)
        self.knows_login = knows_login

    @property
    def url(self) -> str:
        return f"amqp://guest:secret@127.0.0.1:{self.server_address[1]}/none"


class _AmqpHandler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.rfile.read(8)  # "AMQP" and the version
        self._send(10, 10, b"\0\x09" + _long(b"") + _long(b"PLAIN") + _long(b"en_US"))
        self._receive()  # Start-OK, with the login
        if not self.server.knows_login:  # type: ignore[attr-defined]
            return self._close(403, b"ACCESS_REFUSED - Login was refused")
        self._send(10, 30, struct.pack(">HIH", 0, 131072, 0))
        self._receive()  # Tune-OK
        self._receive()  # Open
        return self._close(530, b"NOT_ALLOWED - vhost none not found")

    def _close(self, code: int, text: bytes) -> None:
        self._send(10, 50, struct.pack(">HB", code, len(text)) + text + bytes(4))
        self._receive()

    def _send(self, kind: int, method: int, arguments: bytes) -> None:
        payload = struct.pack(">HH", kind, method) + arguments
        self.wfile.write(struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce")

    def _receive(self) -> None:
        head = self.rfile.read(7)
        if len(head) == 7:
            self.rfile.read(struct.unpack(">BHI", head)[2] + 1)


def _long(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


class RaisingTransport(MemoryTransport):
    """A transport that raises `error` when it is to connect."""

    error: Exception

    def establish_connection(self) -> None:
        raise self.error


RAISED = (
    OperationalError("no route"),
    NotFound("no queue"),
    redis.ResponseError("WRONGTYPE"),
    KeyError("visibility"),
    RuntimeError(),
    Exception("plain"),
)


@contextmanager
def serving(server: AmqpServer) -> Iterator[str]:
    with server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.url
        server.shutdown()


@pytest.fixture(
    params=["login", "vhost", "sentinel", "away", *RAISED],
    ids=lambda param: param if isinstance(param, str) else type(param).__name__,
)
def broken(
    request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Settings with a broker that refuses every message."""
    kind = request.param
    if kind in ("login", "vhost"):
        with serving(AmqpServer(knows_login=kind == "vhost")) as url:
            yield settings.model_copy(update={"broker_url": url})
            return
    if isinstance(kind, Exception):
        monkeypatch.setattr(RaisingTransport, "error", kind, raising=False)
        monkeypatch.setitem(TRANSPORT_ALIASES, "raising", f"{__name__}:RaisingTransport")
        url = "raising://"
    else:
        host = f":secret@127.0.0.1:{free_port()}"
        url = f"redis+sentinel://{host}/jobs/0" if kind == "sentinel" else f"redis://{host}/0"
    yield settings.model_copy(update={"broker_url": url})


def test_jobs_are_recorded_retried_and_canceled_with_a_warning(
    broken: Settings, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(settings=broken) as client, caplog.at_level(logging.WARNING, "videoqa"):
        job = client.submit(ASKED)
        assert (job.state, "what was recorded waits" in caplog.text) == ("queued", True)
        fail(ledger)
        caplog.clear()
        assert client.retry(job.id).state == "queued"
        assert "what was recorded waits" in caplog.text
        assert client.cancel(job.id).state == "canceled"
        caplog.clear()
        jobs = client.submit_many([ASKED] * 3)
        assert [found.state for found in client.get_many([job.id for job in jobs]) if found] == (
            ["queued"] * 3
        )
        assert "what was recorded waits" in caplog.text
    assert "secret" not in caplog.text


def test_an_async_client_does_the_same(broken: Settings, caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> list[str]:
        async with AsyncClient(settings=broken) as client:
            one, many = await client.submit(ASKED), await client.submit_many([ASKED] * 2)
            return [one.state, *(job.state for job in many)]

    assert asyncio.run(ask()) == ["queued"] * 3
    assert caplog.text.count("what was recorded waits") == 2


@pytest.mark.parametrize("broken", ["login", "sentinel", RAISED[-1]], ids=str, indirect=True)
def test_a_reaper_ends_what_is_due_and_announces_its_worker_all_the_same(
    broken: Settings, settings: Settings, ledger: Ledger
) -> None:
    with Client(settings=settings) as client:
        job = client.submit({**ASKED, "max_attempts": 1})
        begin(ledger, lease_s=0)
        app = make_celery(broken)
        queue = f"{settings.prefix}.default.interactive"
        info = WorkerInfo(
            id="w", model="m", queues=(queue,), slots=1, running=0, ready=True,
            started_at=to_datetime(0), seen_at=to_datetime(0),
        )  # fmt: skip
        with Reaper(ledger, app, lambda: info, every_s=0.02, grace_s=60):
            assert client.wait(job.id, timeout_s=30).failure.code == "worker_lost"  # type: ignore[union-attr]
            wait_until(client.workers)
        app.close()


@pytest.mark.parametrize("method", ["submit", "submit_many", "retry"])
def test_a_broker_url_that_no_library_reads_is_refused_before_anything_changes(
    settings: Settings, ledger: Ledger, method: str
) -> None:
    with Client(settings=settings) as client:
        job = client.submit(ASKED)
    fail(ledger)
    before = ledger._redis.keys(f"{settings.prefix}:*")
    with Client(settings=settings.model_copy(update={"broker_url": "carrier-pigeon://"})) as client:
        calls = {
            "submit": lambda: client.submit(ASKED),
            "submit_many": lambda: client.submit_many([ASKED]),
            "retry": lambda: client.retry(job.id),
        }
        with pytest.raises(errors.ConfigurationError, match="VIDEOQA_BROKER_URL"):
            calls[method]()
    assert sorted(ledger._redis.keys(f"{settings.prefix}:*")) == sorted(before)  # type: ignore[type-var,arg-type]
    assert ledger.get(job.id).state == "failed"


def test_a_transport_whose_module_raises_is_a_wrong_url(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRANSPORT_ALIASES, "raising", f"{__name__}:missing.attribute")
    monkeypatch.setattr(
        "kombu.connection.get_transport_cls", lambda _: (_ for _ in ()).throw(RuntimeError("no"))
    )
    with Client(settings=settings.model_copy(update={"broker_url": "raising://"})) as client:
        with pytest.raises(errors.ConfigurationError, match="for no host: no; expected redis://"):
            client.submit(ASKED)
        assert client.list().jobs == ()


@pytest.mark.parametrize("count", [1, 2])
def test_a_submit_asks_redis_for_nothing_once_its_jobs_are_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    with RedisServer(tmp_path, password="x") as server:

        class StopRedis:
            def ring(self, queues: object) -> None:
                server.stop()

            def close(self) -> None:
                pass

        monkeypatch.setattr(RedisBackend, "_make_doorbell", lambda _backend: StopRedis())
        with Client(server.url) as client:
            jobs = [client.submit(ASKED)] if count == 1 else client.submit_many([ASKED] * count)
        assert [job.state for job in jobs] == ["queued"] * count
        assert caplog.text == ""
