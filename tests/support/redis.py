"""A real Valkey, one a test session; each test gets its own prefix."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from videoqa.client import Client
from videoqa.jobs import Ledger, connect
from videoqa.settings import Settings
from videoqa_worker.embedded.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(Path(tmp_path_factory.mktemp("redis"))) as server:
        yield server


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url, prefix=f"t{secrets.token_hex(4)}")


@pytest.fixture
def redis_client(settings: Settings) -> Iterator[redis.Redis]:
    with connect(settings) as client:
        yield client


def read_commands(redis_client: redis.Redis) -> Counter[str]:
    """Returns how often the server has run each command, those within scripts too, but not those of such looks."""
    stats = redis_client.info("commandstats")
    counts = {name.removeprefix("cmdstat_"): int(of["calls"]) for name, of in stats.items()}
    return Counter(
        {name: count for name, count in counts.items() if name not in ("info", "config|resetstat")}
    )


def count_blocked(redis_client: redis.Redis) -> int:
    """Returns how many connections to the server wait in a blocking read."""
    return int(redis_client.info("clients")["blocked_clients"])


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings=settings) as client:
        yield client


@pytest.fixture
def ledger(settings: Settings, redis_client: redis.Redis) -> Ledger:
    return Ledger(redis_client, url=settings.redis_url, prefix=settings.prefix)
