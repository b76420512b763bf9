"""Rates of an engine between two words of its worker."""

from __future__ import annotations

from dataclasses import dataclass

from videoqa_worker.engine import Stats

__all__ = ["EngineRates", "RateMeter"]

_SHORTEST_S = 1.0
"""Two words that are closer have the rates of the one before: a worker speaks at once when its state changes."""


@dataclass(frozen=True)
class EngineRates:
    """The rates between the last two words; None: there is nothing to measure yet."""

    tokens_s: float | None = None
    batch: float | None = None
    """Mean batch size of the decode steps; None: there were none."""


class RateMeter:
    """Compares the counters of an engine with those at the last word."""

    def __init__(self) -> None:
        self._last: tuple[Stats, float] | None = None
        self._rates = EngineRates()

    def measure(self, stats: Stats, now_s: float) -> EngineRates:
        """Returns the rates since the last call."""
        if self._last is None:
            self._last = stats, now_s
            return self._rates
        before, at_s = self._last
        if now_s - at_s < _SHORTEST_S:
            return self._rates
        steps = stats.steps - before.steps
        self._rates = EngineRates(
            tokens_s=round((stats.output_tokens - before.output_tokens) / (now_s - at_s), 3),
            batch=round((stats.rows - before.rows) / steps, 3) if steps else None,
        )
        self._last = stats, now_s
        return self._rates
