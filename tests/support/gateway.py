"""Gateways: in a thread of the test, or in processes of their own, which may be killed."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import redis

from support.forking.workers import clean_environ
from support.processes import wait_until
from videoqa.gateway import GatewayServer, GatewaySettings
from videoqa.gateway.access.keys import KeyStore
from videoqa.settings import Settings
from videoqa_worker.embedded.process import ServerProcess, free_port
from videoqa_worker.embedded.redis_server import RedisServer

__all__ = ["GatewayProcess", "make_key", "serve_frozen", "serve_gateway"]


@contextmanager
def serve_gateway(settings: Settings, **options: object) -> Iterator[GatewayServer]:
    """Serves a gateway in a thread."""
    given = settings.model_dump() | {"gateway_port": 0, "gateway_drain_s": 1} | options
    server = GatewayServer(GatewaySettings(**given))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [server.socket]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield server
    finally:
        server.handle_exit(15, None)
        thread.join(60)
    assert not thread.is_alive()


@contextmanager
def serve_frozen(folder: Path) -> Iterator[httpx.Client]:
    """Serves a gateway whose Redis stands still, to a caller whose key was right before."""
    with RedisServer(folder) as server:
        settings = Settings(redis_url=server.url, prefix="frozen")
        headers = {"authorization": f"Bearer {make_key(settings)}"}
        with (
            serve_gateway(settings) as gateway,
            httpx.Client(base_url=gateway.url, headers=headers, timeout=30) as http,
        ):
            assert http.get("/").status_code == 200
            time.sleep(1.1)  # the key is checked again
            os.kill(server.pid, signal.SIGSTOP)
            try:
                yield http
            finally:
                os.kill(server.pid, signal.SIGCONT)


def make_key(settings: Settings, *roles: Any, tenant: str | None = None, **limits: Any) -> str:
    """Makes an API key; without roles an administrator's. Its jobs may read the bucket `b` of the tests."""
    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as client:
        store = KeyStore(client, url=settings.redis_url, prefix=settings.prefix)
        scope = {"inputs": ["https://", "http://", "s3://b/"]} | limits
        return store.create("test", roles or ("admin",), tenant=tenant, **scope).text


class GatewayProcess(ServerProcess):
    """`videoqa gateway`, ready to be called."""

    def __init__(
        self, settings: Settings, folder: Path, *, before: str = "", **environ: str
    ) -> None:
        """`before`: Python that runs in the process first, to change a constant there."""
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        own = {
            "VIDEOQA_REDIS_URL": settings.redis_url,
            "VIDEOQA_PREFIX": settings.prefix,
            "VIDEOQA_GATEWAY_PORT": str(port),
        }
        run = "from videoqa.cli.main import app\napp(['gateway'])"
        super().__init__(
            "the gateway",
            [sys.executable, "-P", "-c", f"{before}\n{run}"],
            log_path=folder / "gateway.log",
            env=clean_environ() | own | environ,
        )
        self.url = f"http://127.0.0.1:{port}"
        self.wait_until(self._answers, timeout_s=90)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").is_success
        except httpx.TransportError:
            return False
