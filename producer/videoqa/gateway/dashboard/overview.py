"""The first page: what needs attention, in words; then the state and the course of each model, and the workers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import Request, Response

from videoqa.contract import Attention, ModelStats, QueueInfo, Stats, UsageRow, WorkerInfo
from videoqa.gateway.access.caller import Caller, Reader
from videoqa.gateway.dashboard.formats import format_duration
from videoqa.gateway.dashboard.frame import PageRouter, make_link, show_page, take_snapshot

__all__ = ["router"]

router = PageRouter()

MOST_MODELS, MOST_WORKERS, MOST_FINDINGS, MOST_CODES = 30, 24, 8, 3
"""Rows that the page shows of each; other pages have the rest."""
DAY_S = 30.0
"""Time for which the figures of the day are shown: their step is a quarter of an hour."""
STAGES = ("queued", "fetching", "sampling", "generating", "storing")
_ABOUT = {
    "model": "/queues",
    "queue": "/queues",
    "worker": "/workers",
    "failures": "/dead",
    "webhooks": "/webhooks",
}
_STATE_ORDER = {"broken": 0, "loading": 1, "draining": 2, "ready": 3}


@dataclass(frozen=True)
class ModelRow:
    """A row of the table of models."""

    stats: ModelStats
    queues: dict[str, QueueInfo]
    """By priority."""

    @property
    def name(self) -> str:
        """Returns the words for the model."""
        if self.stats.other:
            return "other models"
        return self.stats.model or "default model"

    @property
    def seconds(self) -> list[tuple[str, float]]:
        """Returns the mean seconds of each stage, of jobs that succeeded."""
        found = self.stats.stages
        return [(name, found[name].mean_s or 0.0) for name in STAGES if name in found]

    @property
    def seconds_together(self) -> float:
        """Returns the mean seconds of a job."""
        return sum(seconds for _, seconds in self.seconds)

    @property
    def parts(self) -> list[tuple[str, float]]:
        """Returns the words and seconds of each stage, for the bar."""
        return [(f"{name} {format_duration(seconds)}", seconds) for name, seconds in self.seconds]

    @property
    def words(self) -> str:
        """Returns what the bar says."""
        return "Seconds by stage: " + ", ".join(words for words, _ in self.parts)

    @property
    def failures(self) -> list[tuple[str, int]]:
        """Returns the most frequent codes of failures of the hour."""
        return list(self.stats.failures.items())[:MOST_CODES]

    @property
    def other_failures(self) -> int:
        """Returns the number of failures with other codes."""
        return sum(self.stats.failures.values()) - sum(count for _, count in self.failures)


@router.get("/")
async def show_overview(request: Request, caller: Reader) -> Response:
    """Shows the fleet; to a tenant, its own queues and use."""
    if caller.key.tenant is not None:
        return await _show_tenant(request, caller)
    client = caller.client
    hour, queues, workers = await take_snapshot(
        caller,
        "overview",
        lambda: _gather(client.stats("hour"), client.queues(), client.workers()),
    )
    day = await take_snapshot(caller, "day", lambda: client.stats("day"), kept_s=DAY_S)
    rows = list(_make_rows(hour, queues))
    shown_workers = _sort_workers(workers) if caller.key.may("operate") else []
    return show_page(
        request,
        "overview.html",
        hour=hour,
        findings=[(one, _link_finding(request, one)) for one in hour.attention[:MOST_FINDINGS]],
        other_findings=max(0, len(hour.attention) - MOST_FINDINGS),
        rows=rows[:MOST_MODELS],
        other_rows=max(0, len(rows) - MOST_MODELS),
        workers=shown_workers[:MOST_WORKERS],
        other_workers=max(0, len(shown_workers) - MOST_WORKERS),
        ready=sum(worker.ready for worker in workers),
        all_workers=len(workers),
        stages=STAGES,
        charts=[
            ("Last hour", "60 min ago", _make_chart(hour)),
            ("Last day", "24 h ago", _make_chart(day)),
        ],
    )


async def _show_tenant(request: Request, caller: Caller) -> Response:
    client = caller.client
    today = caller.resources.snapshots.clock.now().date()
    queues, usage = await take_snapshot(
        caller,
        "overview",
        lambda: _gather(client.queues(), client.usage(first_day=today, last_day=today)),
        today,
    )
    return show_page(
        request, "overview_tenant.html", queues=queues, today=usage[0] if usage else UsageRow()
    )


async def _gather(*calls: Any) -> list[Any]:
    return list(await asyncio.gather(*calls))


def _make_rows(hour: Stats, queues: Sequence[QueueInfo]) -> Iterator[ModelRow]:
    """Yields the rows, those with jobs or workers in front."""
    found: dict[str | None, dict[str, QueueInfo]] = defaultdict(dict)
    for queue in queues:
        found[queue.model][queue.priority] = queue

    def is_idle(one: ModelStats) -> bool:
        return not (one.waiting or one.running or one.workers or one.totals.ended)

    for stats in sorted(hour.models, key=is_idle):
        yield ModelRow(stats, {} if stats.other else found[stats.model])


def _sort_workers(workers: Sequence[WorkerInfo]) -> list[WorkerInfo]:
    """Returns the workers, those in trouble in front."""
    return sorted(workers, key=lambda one: (_STATE_ORDER[one.state], one.model, one.id))


def _link_finding(request: Request, finding: Attention) -> str | None:
    """Returns the link to the page that a finding is about; None if the app has it not."""
    path = _ABOUT[finding.about]
    if path not in {link.path for link in request.app.state.navigation}:
        return None
    return make_link(request, path, code=finding.failure)


def _make_chart(stats: Stats) -> dict[str, Any]:
    """Returns the columns of a chart: jobs that ended, by outcome."""
    points = stats.all.series
    series = [
        ("succeeded", "good", [point.succeeded for point in points]),
        ("canceled or expired", "quiet", [point.canceled + point.expired for point in points]),
        ("failed", "bad", [point.failed for point in points]),
    ]
    return {
        "series": series,
        "names": [_name_step(point.at) for point in points],
        "most": max((point.ended for point in points), default=0),
        "totals": [(name, tone, sum(values)) for name, tone, values in series],
        "words": ", ".join(f"{sum(values):,} {name}" for name, _, values in series),
        "step_s": stats.step_s,
    }


def _name_step(at: datetime) -> str:
    return f"{at:%H:%M} UTC"
