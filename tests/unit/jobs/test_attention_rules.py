"""Attention: each rule fires above its threshold, and is silent just below it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from videoqa.contract import (
    Attention,
    AttentionCode,
    ModelStats,
    QueueInfo,
    StatsPoint,
    StatsTotals,
    WorkerInfo,
)
from videoqa.jobs.attention import Fleet, Webhooks, find_attention, format_age

NOW = datetime(2026, 11, 30, 9, 30, tzinfo=UTC)


def queue(**fields: Any) -> QueueInfo:
    known: dict[str, Any] = {
        "model": "llava-x", "priority": "interactive", "waiting": 0, "tenants": 1, "paused": False, "workers": 1,
        "slots": 8, "all_workers": 1,
    }  # fmt: skip
    return QueueInfo(**known | fields)


def unserved(**fields: Any) -> QueueInfo:
    return queue(
        **{"waiting": 120, "workers": 0, "slots": 0, "all_workers": 0, "oldest_s": 900.0} | fields
    )


def worker(**fields: Any) -> WorkerInfo:
    known: dict[str, Any] = {
        "id": "gpu-3:12", "model": "llava-x", "queues": ("p.llava-x.interactive",), "slots": 8, "running": 0,
        "ready": True, "state": "ready", "started_at": NOW - timedelta(hours=1), "seen_at": NOW, "heard_s": 5.0,
        "version": "0.1.0", "model_revision": "aaaa",
    }  # fmt: skip
    return WorkerInfo(**known | fields)


def loading(minutes: float) -> WorkerInfo:
    started_at = NOW - timedelta(minutes=minutes)
    return worker(ready=False, state="loading", model_revision=None, started_at=started_at)


def model(*failed_by_minute: int, **fields: Any) -> ModelStats:
    """Figures of an hour; `failed_by_minute`: of the last minutes, the running one last."""
    counts = [0] * (60 - len(failed_by_minute)) + list(failed_by_minute)
    series = tuple(
        StatsPoint(at=NOW - timedelta(minutes=59 - n), failed=failed)
        for n, failed in enumerate(counts)
    )
    known: dict[str, Any] = {
        "model": "llava-x", "series": series, "totals": StatsTotals(failed=sum(failed_by_minute)),
    }  # fmt: skip
    return ModelStats(**known | fields)


def ended(succeeded: int, **failures: int) -> ModelStats:
    totals = StatsTotals(succeeded=succeeded, failed=sum(failures.values()))
    return ModelStats(model="llava-x", totals=totals, failures=failures)


CASES: dict[AttentionCode, tuple[list[Fleet], list[Fleet]]] = {
    "no_worker": (
        [
            Fleet([unserved(served_s=300.0)]),
            Fleet([unserved(oldest_s=61.0)]),
            Fleet([unserved(all_workers=1, served_s=5.0)], [worker(state="draining", ready=False)]),
        ],
        [
            Fleet([unserved(all_workers=1, oldest_s=59.0)], [worker(state="draining", ready=False)]),
            Fleet([unserved(all_workers=2)], [worker(state="draining", ready=False), loading(1)]),
            Fleet([unserved(served_s=59.0)]),
            Fleet([unserved(oldest_s=59.0)]),
            Fleet([unserved(waiting=0)]),
            Fleet([unserved(all_workers=1)]),
        ],
    ),
    "failures": (
        [Fleet(models=[ended(26, source_not_found=34)]), Fleet(models=[ended(8, x=2)])],
        [Fleet(models=[ended(7, x=2)]), Fleet(models=[ended(81, x=19)]), Fleet(models=[ended(60)])],
    ),
    "start_by_near": (
        [Fleet([queue(waiting=1, oldest_s=840.0, start_by_s=299.0)])],
        [
            Fleet([queue(waiting=1, oldest_s=840.0, start_by_s=301.0)]),
            Fleet([queue(waiting=1, oldest_s=5.0, start_by_s=10.0)]),
            Fleet([queue(waiting=1, oldest_s=840.0)]),
        ],
    ),
    "workers_loading": (
        [Fleet([queue(waiting=5, workers=0)], [loading(10)])],
        [
            Fleet([queue(waiting=5, workers=0)], [loading(9)]),
            Fleet([queue(waiting=0, workers=0)], [loading(10)]),
            Fleet([queue(waiting=5)], [loading(10), worker(id="b")]),
        ],
    ),
    "queue_paused": (
        [Fleet([queue(paused=True, paused_s=7200.0, waiting=40)]), Fleet([queue(paused=True, paused_s=1.0)])],
        [Fleet([queue(waiting=40)])],
    ),
    "worker_silent": (
        [Fleet(workers=[worker(heard_s=40.0)])],
        [Fleet(workers=[worker(heard_s=39.0)]), Fleet(workers=[worker(heard_s=None)])],
    ),
    "worker_broken": (
        [Fleet(workers=[worker(state="broken", ready=False)])],
        [Fleet(workers=[worker(state=state)]) for state in ("ready", "loading", "draining")],
    ),
    "workers_lost": (
        [Fleet(models=[ModelStats(retries={"worker_lost": 2}, failures={"worker_lost": 1})])],
        [Fleet(models=[ModelStats(retries={"worker_lost": 2, "x": 9})])],
    ),
    "jobs_expired": (
        [Fleet(models=[ModelStats(totals=StatsTotals(expired=1))])],
        [Fleet(models=[ModelStats(totals=StatsTotals(canceled=9))])],
    ),
    "dead_letters_rose": (
        [Fleet(models=[model(10)]), Fleet(models=[model(*[0] * 40, 10, *[0] * 14, 30)])],
        [
            Fleet(models=[model(9)]),
            Fleet(models=[model(10, *[0] * 15)]),
            Fleet(models=[model(*[1] * 44, 15)]),
        ],
    ),
    "backlog": (
        [
            Fleet([queue(waiting=9, oldest_s=120.0, running=8)]),
            Fleet(
                [queue(waiting=9, oldest_s=130.0, running=5), queue(priority="bulk", running=3)]
            ),
        ],
        [
            Fleet([queue(waiting=9, oldest_s=119.0, running=8)]),
            Fleet([queue(waiting=9, oldest_s=130.0, running=7)]),
            Fleet([queue(waiting=9, oldest_s=130.0, running=8, priority="bulk")]),
            Fleet([queue(waiting=9, oldest_s=130.0, running=8, paused=True, paused_s=1.0)]),
        ],
    ),
    "revisions_differ": (
        [Fleet(workers=[worker(), worker(id="b", model_revision="bbbb")])],
        [
            Fleet(workers=[worker(), worker(id="b")]),
            Fleet(workers=[worker(), loading(1)]),
            Fleet(workers=[worker(), worker(id="b", model="other", model_revision="bbbb")]),
        ],
    ),
    "webhooks_late": (
        [Fleet(webhooks=Webhooks(late=3, oldest_s=400.0)), Fleet(webhooks=Webhooks(given_up=1))],
        [Fleet()],
    ),
    "versions_differ": (
        [Fleet(workers=[worker(), worker(id="b", version="0.2.0")])],
        [Fleet(workers=[worker(), worker(id="b")]), Fleet(workers=[worker(), worker(version=None)])],
    ),
}  # fmt: skip


def find(fleet: Fleet, code: str) -> list[Attention]:
    return [one for one in find_attention(fleet) if one.code == code]


@pytest.mark.parametrize("code", CASES)
def test_a_rule_fires_above_its_threshold_only(code: AttentionCode) -> None:
    fires, silent = CASES[code]
    for fleet in fires:
        (found,) = find(fleet, code)
        assert "; " in found.message, "a sentence ends in the next step"
        assert found.message[-1] != "."
    for fleet in silent:
        assert find(fleet, code) == []


def test_every_rule_has_a_case_and_a_row_in_the_guide() -> None:
    from pathlib import Path
    from typing import get_args

    codes = get_args(AttentionCode)
    assert set(CASES) == set(codes)
    guide = (Path(__file__).parents[3] / "docs/guide/watch.md").read_text()
    assert [code for code in codes if f"| `{code}` |" not in guide] == []


def test_the_sentences_say_how_many_how_long_and_what_to_do() -> None:
    def say(fleet: Fleet) -> str:
        return find_attention(fleet)[0].message

    assert say(Fleet([unserved(served_s=300.0)])) == (
        "llava-x: 120 jobs wait, no worker for 5 min; start `videoqa worker` with VIDEOQA_MODEL=llava-x"
    )
    assert say(Fleet([unserved(model=None, waiting=1)])).startswith(
        "default model: 1 job waits, no worker within a day; start"
    )
    assert say(Fleet(models=[ended(26, source_not_found=34)])) == (
        "llava-x: 34 of the last 60 jobs ended as source_not_found; look at one of them"
    )
    assert say(Fleet([queue(paused=True, paused_s=7200.0, waiting=40)])) == (
        "llava-x (interactive): paused for 2 h, 40 jobs wait; resume it when it may go on"
    )


def test_the_most_severe_comes_first() -> None:
    found = find_attention(
        Fleet(
            [unserved(), queue(model="b", paused=True, paused_s=1.0)],
            [worker(heard_s=50.0)],
        )
    )
    assert [one.severity for one in found] == ["critical", "warning", "notice"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (300, "5 min"), (5400, "1 h 30 min"), (7200, "2 h"),
     (13 * 3600 + 600, "13 h"), (3 * 86400, "3 days")],
)  # fmt: skip
def test_a_time_is_told_in_two_words(seconds: float, words: str) -> None:
    assert format_age(seconds) == words
