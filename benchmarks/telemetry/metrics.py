"""Metrics against the client's own counts, and what they cost a worker.

    python benchmarks/telemetry/metrics.py [--jobs 1000] [--cost-jobs 200] [--turns 2] [--json]

Counts: jobs that succeed, fail, are canceled, or are answered from the cache, by a real gateway, worker and Redis. Each
count of the metrics is compared with the jobs and results as a client reads them. Cost: time of counting one attempt,
and of a scrape; and the CPU time that a job takes in a worker that is scraped each second, as a ratio to one without
metrics, by turns. CPU time, since a machine that does other things as well has no steady clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("producer", "worker", "training")]

IN_FLIGHT = 16
QUESTION = "What is moving?"


def scrape(
    url: str, key: str | None = None
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    from prometheus_client.parser import text_string_to_metric_families

    request = urllib.request.Request(f"{url}/metrics")
    if key is not None:
        request.add_header("authorization", f"Bearer {key}")
    with urllib.request.urlopen(request) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@contextmanager
def running_stack(folder: Path, *, metrics: bool) -> Iterator[tuple[Any, str]]:
    """Runs Redis and a worker with the bundled model; yields them, and where the worker is scraped."""
    from videoqa_worker.embedded import Stack
    from videoqa_worker.embedded.process import free_port

    address = f"127.0.0.1:{free_port()}"
    environ = dict(os.environ) | {"VIDEOQA_CPU_THREADS": "1", "VIDEOQA_FILE_ROOTS": "/"}
    if metrics:
        environ["VIDEOQA_METRICS_ADDRESS"] = address
    with Stack(folder, environ) as stack:
        stack.wait_until_ready(lambda state: None)
        yield stack, f"http://{address}"


def compare(jobs: int, folder: Path, clip: Path) -> dict[str, Any]:
    """Runs jobs of all ends, and compares the counts."""
    with (
        running_stack(folder / "compare", metrics=True) as (stack, worker_url),
        stack.client() as client,
    ):
        gateway = stack.start_gateway()
        gateway.save_key()
        key = gateway.key_path.read_text().strip()
        try:
            ids: list[str] = []

            def submit(n: int) -> str:
                missing = n % 20 == 7
                url = (folder / "missing.mp4").as_uri() if missing else clip.as_uri()
                model = "nobody serves it" if n % 20 == 13 else None
                # Each tenth question is one that was asked before.
                text = f"{QUESTION} {n % 10 if n % 10 == 3 else n}"
                job = client.submit(inputs=[url], questions=[text], model=model)
                if model is not None:
                    client.cancel(job.id)
                return client.wait(job.id, timeout_s=600).id

            begun = time.monotonic()
            with ThreadPoolExecutor(IN_FLIGHT) as threads:
                ids = list(threads.map(submit, range(jobs)))
            seconds = time.monotonic() - begun
            fleet, worker = scrape(gateway.url, key), scrape(worker_url)
            pairs = list(list_pairs(client, ids, fleet, worker))
        finally:
            gateway.stop()
    return {
        "jobs": jobs,
        "seconds": round(seconds, 1),
        "compared": len(pairs),
        "unequal": [pair for pair in pairs if pair[1] != pair[2]],
        "pairs": {name: own for name, own, _ in pairs},
    }


def list_pairs(
    client: Any, ids: list[str], fleet: Any, worker: Any
) -> Iterator[tuple[str, float, float]]:
    """Yields names, the client's counts and those of the metrics."""

    def find(series: Any, name: str, **labels: str) -> float:
        return float(series.get((name, tuple(sorted(labels.items()))), -1))

    found = [client.get(job_id) for job_id in ids]
    states = Counter(job.state for job in found)
    codes = Counter(job.failure.code for job in found if job.state == "failed")
    results = [client.result(job.id) for job in found if job.state == "succeeded"]
    asked = [result for result in results if not result.cached]
    for state in ("succeeded", "failed", "canceled", "expired"):
        yield f"jobs {state}", states[state], find(fleet, "videoqa_jobs_total", state=state)
    for code, count in codes.items():
        yield f"failures {code}", count, find(fleet, "videoqa_job_failures_total", code=code)
        yield f"dead letters {code}", count, find(fleet, "videoqa_dead_letters", code=code)
        yield f"attempts {code}", count, find(worker, "videoqa_failures_total", code=code)
    model = results[0].model
    for outcome in ("succeeded", "failed"):
        named = {"model": model, "outcome": outcome}
        yield (
            f"attempts {outcome}",
            states[outcome],
            find(worker, "videoqa_attempts_total", **named),
        )
    hits = find(worker, "videoqa_cache_requests_total", result="hit")
    yield "cache hits", len(results) - len(asked), hits
    for kind in ("input", "output"):
        tokens = sum(getattr(result.usage, f"{kind}_tokens") for result in asked)
        yield f"{kind} tokens", tokens, find(worker, "videoqa_tokens_total", model=model, type=kind)
    exact = Counter(frame.exact for result in asked for frame in result.frames)
    for is_exact in (True, False):
        label = str(is_exact).lower()
        yield (
            f"frames exact={label}",
            exact[is_exact],
            find(worker, "videoqa_frames_total", exact=label),
        )
    stored = find(worker, "videoqa_stage_seconds_count", stage="storing")
    yield "stored", len(results), stored
    waiting = sum(value for (name, _), value in fleet.items() if name == "videoqa_queue_waiting")
    yield "waiting at the end", 0, waiting


def measure_counting() -> dict[str, float]:
    """Measures the counting of one attempt with one answer, and a scrape."""
    from prometheus_client import CollectorRegistry, generate_latest

    from videoqa_worker.engine import Generated
    from videoqa_worker.job.tally import AttemptTally
    from videoqa_worker.service.metrics import AttemptMetrics

    registry = CollectorRegistry()
    count = AttemptMetrics(registry, "demo")
    tally = AttemptTally(
        queued_s=0.1, outcome="succeeded", total_s=2.0, frames_exact=8, cache="miss"
    )
    tally.seconds |= {"fetching": 0.1, "sampling": 0.2, "generating": 1.5, "storing": 0.1}
    tally.answers.append(Generated("a", (1, 2), "stop", 5000, 40, first_token_s=0.3, seconds=1.5))
    times = []
    for _ in range(20):
        begun = time.process_time()
        for _ in range(1000):
            count(tally)
        times.append((time.process_time() - begun) / 1000)
    one = count._attempts("demo", "succeeded")
    begun = time.process_time()
    for _ in range(100_000):
        one.inc()
    one_ns = (time.process_time() - begun) / 100_000 * 1e9
    begun = time.process_time()
    for _ in range(50):
        generate_latest(registry)
    return {
        "attempt_us": round(min(times) * 1e6, 1),
        "one_count_ns": round(one_ns),
        "scrape_ms": round((time.process_time() - begun) / 50 * 1e3, 2),
    }


def measure_worker(jobs: int, folder: Path, clip: Path, *, metrics: bool) -> float:
    """Measures the CPU time of a worker's processes, in ms a job."""
    import psutil

    with running_stack(folder, metrics=metrics) as (stack, url), stack.client() as client:

        def ask(n: int) -> None:
            job = client.submit(inputs=[clip.as_uri()], questions=[f"{QUESTION} {n}"], cache="off")
            client.wait(job.id, timeout_s=600)

        def read_cpu_s() -> float:
            process = psutil.Process(stack.worker.pid)
            found = [process, *process.children(recursive=True)]
            return float(sum(sum(each.cpu_times()[:2]) for each in found))

        stop = threading.Event()

        def scrape_on() -> None:
            while not stop.wait(1.0):
                scrape(url)

        thread = threading.Thread(target=scrape_on, daemon=True)
        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            list(threads.map(ask, range(IN_FLIGHT)))
            if metrics:
                thread.start()
            cpu_s = read_cpu_s()
            list(threads.map(ask, range(IN_FLIGHT, IN_FLIGHT + jobs)))
            cpu_s = read_cpu_s() - cpu_s
        stop.set()
    return round(cpu_s / jobs * 1e3, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--cost-jobs", type=int, default=200)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    import random

    from demo_world import sample_scene, write_clip

    found: dict[str, Any] = {"counting": measure_counting()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = write_clip(
            sample_scene(random.Random(3), "single"), folder / "clip.mp4", duration_s=3
        )
        if arguments.jobs:
            found["counts"] = compare(arguments.jobs, folder, clip)
        turns: dict[bool, list[float]] = {True: [], False: []}
        for turn in range(arguments.turns):
            for metrics in (False, True) if turn % 2 else (True, False):
                place = folder / f"turn-{turn}-{metrics}"
                turns[metrics].append(
                    measure_worker(arguments.cost_jobs, place, clip, metrics=metrics)
                )
        if arguments.turns:
            ratio = statistics.median(turns[True]) / statistics.median(turns[False])
            found["cpu_ms_a_job"] = {
                "on": turns[True],
                "off": turns[False],
                "ratio": round(ratio, 3),
            }
    print(json.dumps(found, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
