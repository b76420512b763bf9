"""Minute rings: sums as text, estimates of quantiles, and the steps of a span."""

from __future__ import annotations

import json
import random
import statistics

import pytest

from videoqa.jobs.rings import Ring, Window, _find_bucket, parse_sums

NOW_S = 29934206 * 60 + 30.0


def fill(seconds: list[float]) -> Ring:
    counts: dict[int, int] = {}
    for each in seconds:
        counts[_find_bucket(each)] = counts.get(_find_bucket(each), 0) + 1
    sums = {f"g{bucket}": count for bucket, count in counts.items()}
    return Ring.parse({"em1": f"29934206 {json.dumps({'g': sum(seconds), **sums})}"})


@pytest.mark.parametrize("typical_s", [0.02, 0.7, 40.0, 5000.0])
def test_quantiles_are_within_a_fifth_of_the_true_ones(typical_s: float) -> None:
    rng = random.Random(1)
    seconds = [typical_s * rng.lognormvariate(0, 0.6) for _ in range(500)]
    found = fill(seconds).describe(Window("hour", NOW_S)).stages["generating"]
    true = statistics.quantiles(seconds, n=100)
    assert found.mean_s == pytest.approx(statistics.fmean(seconds), rel=1e-3)
    for got, at in ((found.p50_s, 49), (found.p90_s, 89), (found.p99_s, 98)):
        assert got == pytest.approx(true[at], rel=0.2)


@pytest.mark.parametrize(
    "seconds", [0.0, -1.0, float("nan"), 1e-9, 0.01, 86400.0, 1e12, float("inf")]
)
def test_any_seconds_have_a_bucket(seconds: float) -> None:
    assert 0 <= _find_bucket(seconds) < 48


def test_a_span_has_its_steps_and_nothing_older() -> None:
    minute, quarter = 29934206, 29934206 // 15
    fields = {
        "em0": f'{minute} {{"succeeded":1}}',
        "em1": f'{minute - 59} {{"succeeded":2}}',
        "em2": f'{minute - 60} {{"succeeded":4}}',
        "em3": f'{minute + 5} {{"succeeded":8}}',
        "eq0": f'{quarter - 95} {{"succeeded":16}}',
        "eq1": f'{quarter - 96} {{"succeeded":32}}',
    }
    hour = Ring.parse(fields).describe(Window("hour", NOW_S))
    day = Ring.parse(fields).describe(Window("day", NOW_S))
    assert (hour.totals.succeeded, len(hour.series)) == (3, 60)
    assert (hour.series[0].succeeded, hour.series[-1].succeeded) == (2, 1)
    assert (day.totals.succeeded, len(day.series)) == (1 + 2 + 4 + 16, 96)
    assert (day.series[0].succeeded, day.series[-1].at.timestamp()) == (16, quarter * 900)


def test_rates_are_of_the_last_minutes() -> None:
    minute = 29934206
    fields = {f"em{n}": f'{minute - n} {{"succeeded":60,"output_tokens":600}}' for n in range(10)}
    found = Ring.parse(fields).describe(Window("hour", NOW_S))
    # Five minutes, of which the last one is half over.
    assert found.jobs_per_minute == pytest.approx(5 * 60 / 4.5, rel=1e-3)
    assert found.tokens_s == pytest.approx(5 * 600 / 270, rel=1e-3)


@pytest.mark.parametrize(
    ("text", "sums"),
    [
        ('{"a": 1, "b": "x", "d": 1e999, "e": -1, "f": {}, "g": NaN}', {"a": 1}),
        ("[1]", {}),
        ("", {}),
        ("[" * 10_000, {}),
    ],
)
def test_sums_of_another_program_count_nothing(text: str, sums: dict[str, float]) -> None:
    assert parse_sums(text) == sums
