"""Metrics: callers and workers name methods, paths and models, and none of these is a series of its own."""

from __future__ import annotations

from datetime import UTC, datetime

from videoqa.contract import QueueInfo, WorkerInfo
from videoqa.gateway.metrics.fleet_metrics import FleetState, make_fleet_families
from videoqa.gateway.metrics.own_metrics import OwnMetrics

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def test_made_up_methods_cost_neither_series_nor_memory() -> None:
    metrics = OwnMetrics()
    metrics.note_request("/v1/jobs", "GET", 200, 0.1)
    families = list(metrics.registry.collect())
    for number in range(10_000):
        metrics.note_request("/v1/jobs", f"M{number}", 405, 0.1)
    series = sum(len(family.samples) for family in metrics.registry.collect())
    assert series <= sum(len(family.samples) for family in families) + 40
    assert len(metrics._requests._found) <= 10
    assert len(metrics._request_seconds._found) <= 10
    requests = next(
        family for family in metrics.registry.collect() if family.name == "videoqa_http_requests"
    )
    assert (
        sum(sample.value for sample in requests.samples if sample.labels["method"] == "other")
        == 10_000
    )


def test_any_number_of_models_and_any_name_of_one_are_a_bounded_number_of_series() -> None:
    names = ["default", "other", *(f"made-up-{number}" for number in range(10_000))]
    queues = [
        QueueInfo(
            model=name,
            priority="bulk",
            waiting=1,
            tenants=1,
            paused=False,
            workers=0,
            slots=0,
            served_s=1.0,
        )
        for name in names
    ]
    workers = [
        WorkerInfo(id=name, model=name, queues=(), slots=2, running=0, ready=True, state="ready", started_at=NOW,
                   seen_at=NOW)
        for name in names
    ]  # fmt: skip
    state = FleetState(queues, workers, {}, {}, {})
    found = {family.name: family for family in make_fleet_families(state)}
    assert max(len(family.samples) for family in found.values()) < 1000
    for name, expected in (
        ("videoqa_workers", 10_002),
        ("videoqa_slots", 20_004),
        ("videoqa_queue_waiting", 10_002),
    ):
        samples = found[name].samples
        assert sum(sample.value for sample in samples) == expected
        assert len({tuple(sample.labels.items()) for sample in samples}) == len(samples)
