"""Pages of the dashboard with many jobs: their times and sizes, what viewers cost Redis, and memory over time.

    python benchmarks/gateway/dashboard.py [--queued 100000] [--dead 2000] [--viewers 50] [--seconds 30]
                                           [--parts pages paint viewers memory] [--json]

One private Valkey and one `videoqa gateway` as its own process. `pages` asks for each page again and again over HTTP;
`paint` opens the list of jobs in Chromium and reads the browser's own time of the first paint; `viewers` lets
dashboards poll as a browser does, each page every 3 s, and compares Redis' CPU time with that of a quiet stretch;
`memory` ends jobs all the time beside ten viewers, and reads the gateway's resident memory. All of it shares the
machine's cores.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("producer", "worker", "tests", "benchmarks")]

from gateway.load import find_free_port, read_cpu_s, wait_for_port  # noqa: E402
from lib.fleet import Fleet, Size, claim, finish  # noqa: E402
from support.browser import find_chromium, launch  # noqa: E402

from videoqa.contract import Failure  # noqa: E402
from videoqa.gateway.access.keys import KeyStore  # noqa: E402
from videoqa.jobs import connect  # noqa: E402
from videoqa.settings import Settings  # noqa: E402
from videoqa_worker.embedded.redis_server import RedisServer  # noqa: E402

PARTS = ("pages", "paint", "viewers", "memory")
PAGES = {
    "overview": "/",
    "jobs": "/jobs",
    "jobs, failed": "/jobs?state=failed",
    "jobs, tenant": "/jobs?tenant=tenant-00007&state=queued",
    "jobs, words": "/jobs?q=nothing has these words",
    "a job": "/jobs/{job}",
    "dead letters": "/dead",
    "queues": "/queues",
    "workers": "/workers",
    "runs": "/runs",
    "webhooks": "/webhooks",
    "keys": "/keys",
    "audit": "/audit",
}
REPEATS = 40
POLL_S = 3.0
"""Time between two polls of a page."""
LIVE = {"hx-request": "true", "hx-target": "live"}


class Side:
    """A gateway beside a fleet with its backlog."""

    def __init__(self, settings: Settings, folder: Path, *, queued: int, dead: int) -> None:
        self.settings = settings
        size = Size(workers=8, tenants=20, models=5, queued=queued + dead)
        self.fleet = Fleet(settings, size)
        self.fleet.fill()
        self.fleet.announce()
        for n in range(dead):
            taken = claim(self.fleet.ledger, self.fleet.queues, worker=f"fake:{n % 8}")
            if taken is None:
                break
            fail(self.fleet, taken, n)
        with connect(settings) as client:
            store = KeyStore(client, url=settings.redis_url, prefix=settings.prefix)
            self.key = store.create("benchmark", ["admin"]).text
        self.port = find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.headers = {"x-api-key": self.key}
        log = (folder / "gateway.log").open("ab")
        environ = os.environ | {
            "VIDEOQA_REDIS_URL": settings.redis_url,
            "VIDEOQA_PREFIX": settings.prefix,
            "VIDEOQA_GATEWAY_PORT": str(self.port),
            "PYTHONPATH": os.pathsep.join(sys.path[:2]),
        }
        command = [sys.executable, "-c", "from videoqa_command import main; main()", "gateway"]
        self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        wait_for_port(self.port, self.process)
        self.http = httpx.Client(base_url=self.url, headers=self.headers, timeout=60)
        self.job = self.http.get("/v1/jobs?limit=1").json()["jobs"][0]["id"]

    def close(self) -> None:
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.fleet.close()


def fail(fleet: Fleet, taken: Any, n: int) -> None:
    """Fails a job for good, by one of a few codes."""
    code = ("source_not_found", "video_corrupt", "source_timeout")[n % 3]
    failure = Failure(
        code=code,
        message=f"reason {n % 7}",
        stage="fetching",
        retryable=False,
        attempt=taken.attempt,
    )
    fleet.ledger.fail(taken.job_id, taken.token, failure, delay_s=0.0)


@contextmanager
def serving(queued: int, dead: int) -> Iterator[tuple[Side, redis.Redis]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer(Path(folder) / "redis") as server,
        redis.Redis.from_url(server.url) as plain,
    ):
        settings = Settings(redis_url=server.url, prefix="dashboard", max_queued=10_000_000)
        side = Side(settings, Path(folder), queued=queued, dead=dead)
        try:
            yield side, plain
        finally:
            side.close()


def measure_pages(side: Side, plain: redis.Redis) -> dict[str, Any]:
    """Returns p50 and p95 in ms of each page, the bytes of its HTML, and its calls of Redis."""
    found = {}
    for name, path in PAGES.items():
        path = path.format(job=side.job)  # noqa: PLW2901
        if side.http.get(path).status_code != 200:
            continue
        seconds = []
        for _ in range(REPEATS):
            begun_s = time.perf_counter()
            answer = side.http.get(path)
            seconds.append(time.perf_counter() - begun_s)
        seconds.sort()
        time.sleep(2.1)  # until the shared data are old
        before = count_calls(plain)
        side.http.get(path)
        found[name] = {
            "p50_ms": round(seconds[len(seconds) // 2] * 1000, 1),
            "p95_ms": round(seconds[int(len(seconds) * 0.95)] * 1000, 1),
            "html_bytes": len(answer.content),
            "commands": count_calls(plain) - before - 1,
        }
    return found


def count_calls(plain: redis.Redis) -> int:
    stats: Any = plain.info("stats")
    return int(stats["total_commands_processed"])


def measure_paint(side: Side) -> dict[str, Any]:
    """Returns the browser's time of the first paint of the list of jobs, in ms from the start of its navigation."""
    program = find_chromium()
    if program is None:
        return {"missing": "Chromium"}
    found = []
    with launch(program) as browser:
        for _ in range(7):
            context = browser.new_context(
                extra_http_headers=side.headers, viewport={"width": 1440, "height": 900}
            )
            page = context.new_page()
            page.goto(f"{side.url}/jobs")
            page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
            found.append(
                page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
            )
            context.close()
    return {
        "least_ms": round(min(found), 1),
        "median_ms": round(statistics.median(found), 1),
        "most_ms": round(max(found), 1),
    }


def measure_viewers(
    side: Side, plain: redis.Redis, *, viewers: int, seconds: float
) -> dict[str, Any]:
    """Returns the share of a core that viewers cost Redis and the gateway, beyond the quiet ones."""
    server = psutil.Process(int(cast_info(plain)["process_id"]))
    gateway = psutil.Process(side.process.pid)

    def measure(length_s: float) -> tuple[float, float]:
        begun_s, before = time.monotonic(), (read_cpu_s(server), read_cpu_s(gateway))
        time.sleep(length_s)
        wall_s = time.monotonic() - begun_s
        return (read_cpu_s(server) - before[0]) / wall_s, (read_cpu_s(gateway) - before[1]) / wall_s

    quiet = measure(min(10.0, seconds))
    with watched(side, viewers, ("/", "/jobs", "/queues", "/workers", "/dead")):
        time.sleep(POLL_S)
        busy = measure(seconds)
    return {
        "viewers": viewers,
        "redis_core_percent": round((busy[0] - quiet[0]) * 100, 2),
        "redis_quiet_percent": round(quiet[0] * 100, 2),
        "gateway_core_percent": round((busy[1] - quiet[1]) * 100, 1),
    }


def cast_info(plain: redis.Redis) -> dict[str, Any]:
    found: Any = plain.info("server")
    return dict(found)


@contextmanager
def watched(side: Side, viewers: int, paths: tuple[str, ...]) -> Iterator[None]:
    """Has viewers poll, each its page, as the script of the pages does: with the tag of what it has."""
    over = threading.Event()

    def view(number: int) -> None:
        path, tag = paths[number % len(paths)], ""
        with httpx.Client(base_url=side.url, headers=side.headers, timeout=60) as http:
            over.wait(POLL_S * number / viewers)
            while not over.wait(POLL_S):
                answer = http.get(path, headers=LIVE | ({"if-none-match": tag} if tag else {}))
                tag = answer.headers.get("etag", tag)

    threads = [threading.Thread(target=view, args=(n,), daemon=True) for n in range(viewers)]
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join()


def measure_memory(side: Side, *, seconds: float) -> dict[str, Any]:
    """Returns the gateway's resident memory while jobs end beside ten viewers."""
    gateway = psutil.Process(side.process.pid)
    over = threading.Event()
    ended = [0]

    def work() -> None:
        while not over.is_set():
            side.fleet.announce()
            side.fleet.client.submit(inputs=["s3://b/c.mp4"], questions=[f"What {ended[0]}?"])
            taken = claim(side.fleet.ledger, side.fleet.queues, worker="fake:1")
            if taken is not None:
                finish(side.fleet.ledger, taken)
                ended[0] += 1
            over.wait(0.01)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    mib = []
    with watched(side, 10, ("/", "/jobs", "/dead", f"/jobs/{side.job}")):
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s:
            mib.append(gateway.memory_info().rss / 2**20)
            time.sleep(seconds / 40)
    over.set()
    worker.join()
    part = max(1, len(mib) // 4)
    return {
        "seconds": seconds,
        "jobs_per_s": round(ended[0] / seconds, 1),
        "second_quarter_mib": round(statistics.median(mib[part : 2 * part]), 1),
        "last_quarter_mib": round(statistics.median(mib[-part:]), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--queued", type=int, default=100_000)
    parser.add_argument("--dead", type=int, default=2000)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found: dict[str, Any] = {"queued": args.queued, "dead": args.dead, "load": os.getloadavg()[0]}
    with serving(args.queued, args.dead) as (side, plain):
        if "pages" in args.parts:
            found["pages"] = measure_pages(side, plain)
        if "paint" in args.parts:
            found["paint"] = measure_paint(side)
        if "viewers" in args.parts:
            found["viewers"] = measure_viewers(
                side, plain, viewers=args.viewers, seconds=args.seconds
            )
        if "memory" in args.parts:
            found["memory"] = measure_memory(side, seconds=args.seconds)
    if args.json:
        print(json.dumps(found))
        return
    for name, row in found.pop("pages", {}).items():
        print(f"{name:14} " + "  ".join(f"{key} {value:,}" for key, value in row.items()))
    for name, row in found.items():
        print(f"{name:14} {row}")


if __name__ == "__main__":
    main()
