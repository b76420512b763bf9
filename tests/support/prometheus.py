"""A real Prometheus on loopback, and promtool, both from Debian's package: `sh .ci/fetch_prometheus.sh`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from videoqa_worker.embedded.process import ServerProcess, free_port

__all__ = ["Prometheus", "find_program", "running_prometheus"]

FETCHED = Path(sys.prefix) / "prometheus" / "usr" / "bin"


def find_program(name: str) -> str:
    """Returns the path of `prometheus` or `promtool`; skips the test without it."""
    found = FETCHED / name
    path = str(found) if found.exists() else shutil.which(name)
    if path is None:
        pytest.skip(f"no {name} here: on Debian, `sh .ci/fetch_prometheus.sh` unpacks it")
    return path


class Prometheus:
    """A server that answers queries."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Returns the samples of an instant query."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expr}).json()
        assert answer["status"] == "success", (expr, answer)
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def list_rules(self) -> list[dict[str, Any]]:
        """Returns the rules that it has loaded."""
        groups = httpx.get(f"{self.url}/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready").is_success
        except httpx.TransportError:
            return False


@contextmanager
def running_prometheus(folder: Path, config: str) -> Iterator[Prometheus]:
    """Runs a Prometheus with this configuration."""
    program = find_program("prometheus")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "prometheus.yml"
    path.write_text(config)
    port = free_port()
    command = [
        program,
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with ServerProcess("prometheus", command, log_path=folder / "prometheus.log") as process:
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        process.wait_until(prometheus.is_ready, timeout_s=60)
        yield prometheus
