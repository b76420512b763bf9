"""Metrics of a real run: each series is declared, each declared metric is there, and counts are the client's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from support.metrics import MetricsFleet, Series, read_series, running_fleet
from support.processes import wait_until, wait_until_holds

from videoqa.settings import Settings
from videoqa.telemetry.metrics import GATEWAY_METRICS, WORKER_METRICS, Metric
from videoqa_worker.embedded.redis_server import RedisServer

DECLARED = {"gateway": GATEWAY_METRICS, "worker": WORKER_METRICS}
NEVER = ("tenant", "job", "job_id", "worker", "url", "instance", "key")


@pytest.fixture(scope="module")
def fleet(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MetricsFleet]:
    settings = Settings(redis_url=redis_server.url, prefix="metrics")
    with running_fleet(settings, tmp_path_factory.mktemp("metrics")) as fleet:
        yield fleet


def find(series: Series, name: str, **labels: str) -> float:
    key = name, tuple(sorted(labels.items()))
    assert key in series
    return series[key]


def check_declared(series: Series, kinds: dict[str, str], declared: tuple[Metric, ...]) -> None:
    by_name = {metric.name: metric for metric in declared}
    assert kinds == {metric.name: metric.kind for metric in declared}
    of_series = {name: metric for metric in declared for name in metric.series}
    for name, labels in series:
        metric = of_series[name]
        found = {label: value for label, value in labels if label != "le"}
        assert found.keys() == {*metric.label_names}, name
        for label in metric.labels:
            assert not label.values or found[label.name] in label.values, (name, found)
    assert {of_series[name].name for name, _ in series} == by_name.keys()


def test_scrapes_and_declarations_are_the_same(fleet: MetricsFleet) -> None:
    before, _ = read_series(fleet.scrape()["gateway"])
    assert find(before, "videoqa_queue_waiting", model="default", priority="bulk") == 0
    ids = fleet.run_jobs(succeeding=6)
    with fleet.http as http:
        stored = http.post(
            "/v1/files",
            files={"file": ("clip.mp4", fleet.clip.read_bytes())},
            data={"purpose": "user_data"},
        )
    assert stored.status_code == 200, stored.text
    wait_until(lambda: len(fleet.receiver.got) == 6)

    def check() -> None:
        texts = fleet.scrape()
        for side, text in texts.items():
            check_text(text, DECLARED[side], unnamed=(*ids, f':{fleet.worker.pid}"'))
        gateway, worker = read_series(texts["gateway"])[0], read_series(texts["worker"])[0]
        check_counts(fleet, ids, gateway, worker)

    wait_until_holds(check)


def check_text(text: str, declared: tuple[Metric, ...], *, unnamed: tuple[str, ...]) -> None:
    series, kinds = read_series(text)
    check_declared(series, kinds, declared)
    assert not [name for name, _ in series if name.endswith("_created")]
    assert not [label for _, labels in series for label, _ in labels if label in NEVER]
    assert not [name for name in unnamed if name in text]


def check_counts(fleet: MetricsFleet, ids: list[str], gateway: Series, worker: Series) -> None:
    """Compares the metrics with the calls, and with the jobs and results as a client reads them."""
    assert find(gateway, "videoqa_upload_bytes_total") == fleet.clip.stat().st_size
    assert find(gateway, "videoqa_webhook_calls_total", outcome="delivered") == 6
    made = {"route": "/v1/jobs", "method": "POST", "status": "2xx"}
    assert find(gateway, "videoqa_http_requests_total", **made) == len(ids)
    assert find(worker, "videoqa_gpu_utilization_ratio", gpu="1") == 0.75
    jobs = [fleet.client.get(job_id) for job_id in ids]
    states = Counter(job.state for job in jobs)
    for state in ("succeeded", "failed", "canceled"):
        assert find(gateway, "videoqa_jobs_total", state=state) == states[state] > 0
    codes = Counter(job.failure.code for job in jobs if job.state == "failed" and job.failure)
    for code, count in codes.items():
        assert find(gateway, "videoqa_job_failures_total", code=code) == count
        assert find(worker, "videoqa_failures_total", code=code) == count
    outcomes = {"succeeded": states["succeeded"], "failed": states["failed"], "lost": 0}
    for outcome, count in outcomes.items():
        named = {"model": "demo", "outcome": outcome}
        assert find(worker, "videoqa_attempts_total", **named) == count
    results = [fleet.client.result(job.id) for job in jobs if job.state == "succeeded"]
    asked = [result for result in results if not result.cached]
    assert len(asked) == len(results) - 1
    assert find(worker, "videoqa_cache_requests_total", result="hit") == 1
    for kind in ("input", "output"):
        tokens = sum(getattr(result.usage, f"{kind}_tokens") for result in asked)
        assert find(worker, "videoqa_tokens_total", model="demo", type=kind) == tokens > 0
    frames = Counter(str(frame.exact).lower() for result in asked for frame in result.frames)
    for exact in ("true", "false"):
        assert find(worker, "videoqa_frames_total", exact=exact) == frames[exact]
    for stage in ("sampling", "generating"):
        assert find(worker, "videoqa_stage_seconds_count", stage=stage) == len(asked)
    assert find(worker, "videoqa_stage_seconds_count", stage="storing") == len(results)
    assert find(worker, "videoqa_attempt_seconds_count", model="demo") == len(jobs) - 1


def test_a_restart_leaves_the_series_as_they_are(fleet: MetricsFleet) -> None:
    fleet.run_jobs(succeeding=1)
    before = {side: read_series(text)[0].keys() for side, text in fleet.scrape().items()}
    fleet.worker.stop()
    wait_until(lambda: not fleet.client.workers())
    alone, _ = read_series(fleet.scrape_gateway())
    assert find(alone, "videoqa_queue_waiting", model="default", priority="interactive") == 0
    fleet.worker = fleet.start_worker()
    fleet.run_jobs(succeeding=1)
    after = {side: read_series(text)[0].keys() for side, text in fleet.scrape().items()}
    assert after == before
