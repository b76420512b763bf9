"""Rates of an engine between two words of its worker."""

from __future__ import annotations

from videoqa_worker.engine import Stats
from videoqa_worker.service.rates import EngineRates, RateMeter


def test_rates_are_those_between_two_words() -> None:
    meter = RateMeter()
    assert meter.measure(Stats(steps=10, rows=40, output_tokens=50), 100.0) == EngineRates()
    busy = meter.measure(Stats(steps=30, rows=120, output_tokens=150), 120.0)
    assert busy == EngineRates(tokens_s=5.0, batch=4.0)
    # A word that follows at once, as when the worker drains, has nothing new to measure.
    assert meter.measure(Stats(steps=31, rows=121, output_tokens=151), 120.5) == busy
    idle = meter.measure(Stats(steps=30, rows=120, output_tokens=150), 140.0)
    assert idle == EngineRates(tokens_s=0.0, batch=None)
