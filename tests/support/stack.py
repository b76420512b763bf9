"""A whole stack: private Redis and production workers in processes of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.forking.workers import ForkedWorker, clean_environ, wait_ready
from support.servers import WRITER
from videoqa.client import Client
from videoqa.settings import Settings
from videoqa_worker.embedded import S3Server
from videoqa_worker.embedded.process import ServerProcess
from videoqa_worker.embedded.redis_server import RedisServer

QUICK = {
    "VIDEOQA_MODEL": "demo",
    "VIDEOQA_FILE_ROOTS": "/",
    "VIDEOQA_PRIVATE_ADDRESSES": "true",
    "VIDEOQA_CPU_THREADS": "1",
    "VIDEOQA_DECODERS": "1",
    "VIDEOQA_SOURCE_READ_TIMEOUT_S": "2",
    "VIDEOQA_RETRY_BASE_S": "0.1",
    "VIDEOQA_REAP_EVERY_S": "0.3",
    "VIDEOQA_HEARTBEAT_S": "0.3",
    "VIDEOQA_LEASE_S": "3",
    "VIDEOQA_BELL_GRACE_S": "2",
}
"""Faults are noticed sooner than in production, so that tests need not wait."""


class WorkerProcess(ForkedWorker):
    """A production worker of a stack, forked with its imports done."""

    def __init__(
        self, settings: Settings, folder: Path, *, before: str = "", **environ: str
    ) -> None:
        """`before`: Python that runs in the worker's process first, to break something there."""
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder / "worker.log", _environ(settings, folder) | environ, before=before)


class StartedWorker(ServerProcess):
    """`python -m videoqa_worker`, as in production from its first import on."""

    def __init__(self, settings: Settings, folder: Path, **environ: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(
            "the worker",
            [sys.executable, "-P", "-m", "videoqa_worker"],
            log_path=folder / "worker.log",
            env=_environ(settings, folder) | environ,
        )

    def wait_ready(self, client: Client) -> None:
        wait_ready(self, client)


def _environ(settings: Settings, folder: Path) -> dict[str, str]:
    own = {
        "VIDEOQA_REDIS_URL": settings.redis_url,
        "VIDEOQA_PREFIX": settings.prefix,
        "VIDEOQA_OUTPUT": (folder / "results").absolute().as_uri() + "/{job_id}.json",
        "VIDEOQA_SHEET_OUTPUT": (folder / "sheets").absolute().as_uri() + "/{job_id}.jpg",
    }
    return clean_environ() | QUICK | own


@pytest.fixture(scope="session")
def stack_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of the session's stack.

    Its Redis is not that of the other tests: the worker calls it at any time, and some of these count the
    commands of a server.
    """
    with RedisServer(tmp_path_factory.mktemp("stack-redis")) as server:
        yield Settings(redis_url=server.url, prefix="stack")


@pytest.fixture(scope="session")
def stack_client(stack_settings: Settings) -> Iterator[Client]:
    with Client(settings=stack_settings) as client:
        yield client


@pytest.fixture(scope="session")
def worker(
    stack_settings: Settings,
    stack_client: Client,
    s3_server: S3Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[WorkerProcess]:
    """One worker for all tests that do not kill it."""
    folder = tmp_path_factory.mktemp("worker")
    environment = s3_server.environment(WRITER)
    with WorkerProcess(stack_settings, folder, **environment) as process:
        process.wait_ready(stack_client)
        yield process
