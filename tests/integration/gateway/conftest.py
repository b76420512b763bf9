"""A real gateway on loopback for each test, over a real Redis, without workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from support.gateway import serve_gateway
from support.servers import S3Server

from videoqa.gateway import GatewayServer, GatewaySettings
from videoqa.gateway.access.keys import KeyStore
from videoqa.gateway.files.files import Files
from videoqa.gateway.resources import Resources
from videoqa.gateway.snapshots import Snapshots
from videoqa.settings import Settings

Connect = Callable[..., httpx.Client]


@pytest.fixture
def gateway_settings(settings: Settings, tmp_path: Path) -> GatewaySettings:
    """Settings of the gateway; a test module may have others."""
    return GatewaySettings(
        **settings.model_dump(),
        gateway_port=0,
        gateway_drain_s=1,
        gateway_files=str(tmp_path / "files"),
    )


@pytest.fixture
def gateway(gateway_settings: GatewaySettings) -> Iterator[GatewayServer]:
    with serve_gateway(gateway_settings) as server:
        yield server


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The environment of a gateway beside a worker that may read one folder."""
    for name in [name for name in os.environ if name.startswith("VIDEOQA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VIDEOQA_MODEL", "demo")
    monkeypatch.setenv("VIDEOQA_FILE_ROOTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def fresh_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has pages show what the tests have changed by other ways, which snapshots would hide for 2 s."""

    async def take(_: Snapshots, __: Any, make: Any, kept_s: float = 0) -> Any:
        return await make()

    monkeypatch.setattr(Snapshots, "take", take)


@pytest.fixture
def keys(settings: Settings, redis_client: redis.Redis) -> KeyStore:
    return KeyStore(redis_client, url=settings.redis_url, prefix=settings.prefix)


@pytest.fixture
def connect(gateway: GatewayServer, keys: KeyStore) -> Iterator[Connect]:
    """Returns a function that makes an HTTP client with a key of its own; `roles=()`: without a key."""
    made: list[httpx.Client] = []

    def connect(*roles: Any, tenant: str | None = None) -> httpx.Client:
        headers = {}
        if roles:
            headers["authorization"] = f"Bearer {keys.create('test', roles, tenant=tenant).text}"
        made.append(httpx.Client(base_url=gateway.url, headers=headers, timeout=30))
        return made[-1]

    yield connect
    for client in made:
        client.close()


@pytest.fixture(params=["folder", "s3"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The settings of a place of files, for tests that run with each kind."""
    if request.param == "folder":
        return {"gateway_files": str(tmp_path / "files")}
    server: S3Server = request.getfixturevalue("s3_server")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.admin.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.admin.secret_key)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    url = f"s3://open/{tmp_path.name}/"
    return {"gateway_files": url, "s3_endpoint_url": server.endpoint_url}


@pytest.fixture
def files(gateway: GatewayServer) -> Files:
    resources: Resources = gateway._app.state.resources
    return resources.files
