"""A gateway in a process of its own, which a row kills, and listeners to it, which resume where they were."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
from support.forking.workers import clean_environ
from support.processes import wait_until

from faults.rig import Rig
from videoqa.contract import FINAL_STATES
from videoqa.gateway.access.keys import KeyStore

__all__ = ["Gateway", "Listeners"]


class Gateway:
    """`videoqa gateway` in front of a rig's Redis; it starts again on the same port."""

    def __init__(self, rig: Rig, environ: Mapping[str, str] | None = None) -> None:
        """
        Arguments:
            environ: more settings of it.
        """
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        store = KeyStore(rig.plain, url=rig.redis_url, prefix="faults")
        folder = f"file://{rig.folder}/"
        self.key = store.create("faults", ("admin",), inputs=(folder,)).text
        self._log = Path(rig.folder) / "gateway.log"
        self._environ = clean_environ() | {
            "VIDEOQA_REDIS_URL": rig.redis_url,
            "VIDEOQA_PREFIX": "faults",
            "VIDEOQA_GATEWAY_PORT": str(self._port),
            **(environ or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from videoqa_command import main; main()", "gateway"],
                env=self._environ,
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, every_s=0.05)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()[-2000:]
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/livez").status_code == 200
        return False

    def kill(self) -> None:
        """Sends SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


class Listeners:
    """Readers of `GET /v1/jobs/{job_id}/events`, one connection each; a lost one is made again.

    A context manager; the listeners end with it.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.seen: dict[str, list[str]] = {}
        """Job id -> ids of the events that came, in this order."""
        self.reconnects = 0
        self._over: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        headers = {"authorization": f"Bearer {gateway.key}"}
        self._http = httpx.AsyncClient(
            base_url=gateway.url, headers=headers, limits=limits, timeout=30
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await self._http.aclose()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def follow(self, job_ids: Sequence[str]) -> None:
        """Begins to listen to these jobs."""
        for job_id in job_ids:
            self.seen[job_id] = []
            asyncio.run_coroutine_threadsafe(self._follow(job_id), self._loop)

    @property
    def waiting(self) -> int:
        """Number of streams whose job has not ended yet for their listener."""
        return len(self.seen) - len(self._over)

    async def _follow(self, job_id: str) -> None:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if await self._read(job_id):
                    self._over.add(job_id)
                    return
            self.reconnects += 1
            await asyncio.sleep(0.3)

    async def _read(self, job_id: str) -> bool:
        """Reads one connection; returns True if the stream ended since the job has."""
        ids = self.seen[job_id]
        headers = {"last-event-id": ids[-1]} if ids else {}
        is_final = False
        async with self._http.stream(
            "GET", f"/v1/jobs/{job_id}/events", headers=headers
        ) as response:
            if response.status_code == 204:
                return True  # no event comes after the last one that was seen
            if response.status_code != 200:
                return False
            async for line in response.aiter_lines():
                if line.startswith("id: "):
                    ids.append(line[4:])
                elif line.startswith("data: "):
                    is_final = json.loads(line[6:]).get("state") in FINAL_STATES
        return is_final


def count_gaps(rig: Rig, listeners: Listeners) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each job whose listener missed an event, saw one twice, or saw them in another order."""
    for job_id, found in listeners.seen.items():
        wanted = [event.id for event in rig.ledger.read_events(job_id)]
        if found != wanted:
            yield job_id, {"wanted": wanted, "found": found}
