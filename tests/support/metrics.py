"""Scrapes of metrics, and a fleet that has something to tell: a gateway, a real worker, jobs of all ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from support.gateway import make_key, serve_gateway
from support.processes import wait_until
from support.receiver import Receiver, receiving
from support.scenes import Scene, write_clip
from support.stack import WorkerProcess
from videoqa.client import Client
from videoqa.settings import Settings
from videoqa_worker.embedded.process import free_port

__all__ = ["MetricsFleet", "Series", "read_series", "running_fleet"]

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""Values by the name and the labels of a series."""

FAKE_NVML = """
import sys, types
nvml = types.ModuleType("pynvml")
nvml.nvmlInit = lambda: None
nvml.nvmlDeviceGetCount = lambda: 2
nvml.nvmlDeviceGetHandleByIndex = lambda number: number
nvml.nvmlDeviceGetMemoryInfo = lambda gpu: types.SimpleNamespace(total=80 << 30, used=40 << 30)
nvml.nvmlDeviceGetUtilizationRates = lambda gpu: types.SimpleNamespace(gpu=75)
sys.modules["pynvml"] = nvml
"""
"""A binding of NVML with two GPUs, which runs in the worker's process."""


def read_series(text: str) -> tuple[Series, dict[str, str]]:
    """Returns the series of a scrape, and the types of its metrics by their names as they are declared."""
    series: Series = {}
    kinds: dict[str, str] = {}
    for family in text_string_to_metric_families(text):
        is_counter = family.type == "counter"
        kinds[f"{family.name}_total" if is_counter else family.name] = family.type
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in series, f"{key} stands there twice"
            series[key] = sample.value
    return series, kinds


@dataclass
class MetricsFleet:
    """A gateway and a worker, and where they are scraped."""

    settings: Settings
    client: Client
    folder: Path
    clip: Path
    gateway_url: str
    worker_url: str
    key: str
    worker: WorkerProcess
    receiver: Receiver

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.gateway_url, headers=self.headers, timeout=30)

    def scrape(self) -> dict[str, str]:
        """Returns the texts of the gateway and the worker.

        A gateway reads the fleet once a second, so its figures may be older than what was waited for; nor does the
        end of a job wait for the worker's counters.
        """
        worker = httpx.get(f"{self.worker_url}/metrics")
        assert worker.status_code == 200, worker.text
        return {"gateway": self.scrape_gateway(), "worker": worker.text}

    def scrape_gateway(self) -> str:
        """Returns the text of the gateway, again if it had not read Redis within its 0.8 s on a busy machine."""

        def read() -> str:
            with self.http as http:
                answer = http.get("/metrics")
            assert answer.status_code == 200, answer.text
            return answer.text if "\nvideoqa_redis_up 1.0\n" in answer.text else ""

        return wait_until(read)

    def start_worker(self) -> WorkerProcess:
        worker = WorkerProcess(
            self.settings,
            self.folder / "worker",
            before=FAKE_NVML,
            VIDEOQA_METRICS_ADDRESS=self.worker_url.removeprefix("http://"),
        )
        worker.wait_ready(self.client)
        return worker

    def submit(self, **fields: Any) -> str:
        """Submits a job about the clip, or of other fields, by the gateway."""
        body = {"inputs": [self.clip.as_uri()], "questions": ["What is moving?"], **fields}
        with self.http as http:
            answer = http.post("/v1/jobs", json=body)
        assert answer.status_code in (200, 201, 202), answer.text
        return str(answer.json()["id"])

    def run_jobs(self, succeeding: int) -> list[str]:
        """Runs jobs that succeed, one that fails, one from the cache and one that is canceled; returns their ids."""
        hook = {"url": self.receiver.url}
        ids = [
            self.submit(questions=[f"What is moving? {n}"], cache="off", webhook=hook)
            for n in range(succeeding)
        ]
        missing = (self.folder / "missing.mp4").as_uri()
        ids += [self.submit(inputs=[missing]), self.submit(model="nobody serves it")]
        self.client.cancel(ids[-1])
        first = self.submit()
        self.client.wait(first, timeout_s=60)
        ids += [first, self.submit()]
        for job_id in ids:
            self.client.wait(job_id, timeout_s=60)
        return ids


@contextmanager
def running_fleet(settings: Settings, folder: Path) -> Iterator[MetricsFleet]:
    """Runs a gateway, a worker with two GPUs of its own making, and a receiver of webhooks."""
    options = {"webhook_networks": "127.0.0.0/8", "gateway_files": str(folder / "files")}
    clip = write_clip([Scene.single("red", "circle", "right")], folder / "clip.mp4")
    with (
        serve_gateway(settings, **options) as gateway,
        Client(settings=settings) as client,
        receiving() as receiver,
    ):
        key = make_key(settings, "submit", "read", inputs=[f"{folder.as_uri()}/"])
        fleet = MetricsFleet(
            settings, client, folder, clip, gateway.url, f"http://127.0.0.1:{free_port()}", key,
            None, receiver,  # type: ignore[arg-type]
        )  # fmt: skip
        fleet.worker = fleet.start_worker()
        try:
            yield fleet
        finally:
            fleet.worker.stop()
