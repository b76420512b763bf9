"""Minute rings: the counts of what happened to jobs, as the text that scripts add up, and figures made of them.

`count_stats` of `lua/common.lua` writes them. Does no I/O.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic_core import from_json

from videoqa.contract import (
    ModelStats,
    Result,
    StageSeconds,
    StatsPoint,
    StatsSpan,
    StatsTotals,
    Usage,
    to_datetime,
)

__all__ = [
    "MINUTE_FIELDS",
    "STAGE_NAMES",
    "Ring",
    "Window",
    "pack_stages",
    "pack_sums",
]

MINUTE_S, QUARTER_S = 60, 900
MINUTE_FIELDS = tuple(f"{kind}m{place}" for kind in "se" for place in range(120))
"""Fields of a model's hash that have the last two hours."""
STAGE_NAMES = ("queued", "fetching", "sampling", "generating", "storing")
RECENT_S = 300
"""Seconds of the rates."""

_FIRST_S, _RATIO = 0.01, math.sqrt(2)
_BUCKETS = 48
"""Buckets of a stage's seconds: up to 0.01 s, each further one sqrt(2) times as long, up to a day; the last has the
rest."""
_LETTERS = {"queued": "q", "fetching": "f", "sampling": "s", "generating": "g", "storing": "w"}
"""Names of the sums of stages; that of a bucket has its number behind it."""
_STAGE_OF = {letter: name for name, letter in _LETTERS.items()}
_BUCKET = re.compile(r"([qfsgw])([0-9]{1,2})")
_TEXT = re.compile(r"([0-9]{1,12}) (.*)", re.DOTALL)
_COUNTS = tuple(StatsTotals.model_fields)
_QUANTILES = {"p50_s": 0.5, "p90_s": 0.9, "p99_s": 0.99}


def parse_sums(text: str) -> dict[str, float]:
    """Parses sums by name, as JSON; what another program wrote counts nothing."""
    try:
        found = from_json(text)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: number
        for name, number in found.items()
        if isinstance(number, int | float) and 0 <= number < 1e15
    }


def _list_stages(usage: Usage) -> dict[str, float]:
    return {name: getattr(usage, f"{name}_s") for name in STAGE_NAMES}


def pack_stages(result: Result | None) -> str:
    """Returns the seconds of a result's stages, as they stand in the record; none for None."""
    if result is None:
        return ""
    stages = _list_stages(result.usage).items()
    return " ".join(f"{name}={seconds:.4f}" for name, seconds in stages if name != "queued")


def pack_sums(result: Result | None) -> str:
    """Returns what a result adds to the rings of its model; nothing for None."""
    if result is None:
        return "{}"
    usage = result.usage
    sums: dict[str, float] = {"cached": 1} if result.cached else {
        "frames": usage.frames,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }  # fmt: skip
    for name, seconds in _list_stages(usage).items():
        if result.cached and name != "queued":
            continue  # it asked no model: its stages would make those of the others look short
        letter = _LETTERS[name]
        sums[letter] = round(seconds, 4)
        sums[f"{letter}{_find_bucket(seconds)}"] = 1
    return json.dumps({name: number for name, number in sums.items() if number})


def _find_bucket(seconds: float) -> int:
    if not seconds > _FIRST_S:
        return 0
    longest = _FIRST_S * _RATIO ** (_BUCKETS - 1)
    return math.ceil(round(math.log(min(seconds, longest) / _FIRST_S, _RATIO), 9))


def _estimate(counts: Mapping[int, float], share: float) -> float:
    """Returns the seconds below which this share of the jobs is, between the bounds of a bucket."""
    left = share * sum(counts.values())
    for bucket in sorted(counts):
        if counts[bucket] >= left:
            upper = _FIRST_S * _RATIO**bucket
            lower = upper / _RATIO if bucket else 0.0
            return round(lower + (upper - lower) * left / counts[bucket], 4)
        left -= counts[bucket]
    return 0.0


def _group_buckets(sums: Mapping[str, float]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for name, number in sums.items():
        match = _BUCKET.fullmatch(name)
        if match and int(match[2]) < _BUCKETS and number > 0:
            found[_STAGE_OF[match[1]]][int(match[2])] = number
    return found


def _describe_stages(sums: Mapping[str, float]) -> dict[str, StageSeconds]:
    buckets = _group_buckets(sums)
    found = {}
    for name in STAGE_NAMES:
        counts = buckets.get(name, {})
        jobs, sum_s = round(sum(counts.values())), sums.get(_LETTERS[name], 0.0)
        if not jobs:
            found[name] = StageSeconds()
            continue
        found[name] = StageSeconds(
            jobs=jobs,
            sum_s=round(sum_s, 4),
            mean_s=round(sum_s / jobs, 4),
            **{field: _estimate(counts, share) for field, share in _QUANTILES.items()},
        )
    return found


def _find_codes(sums: Mapping[str, float], kind: str) -> dict[str, int]:
    """Returns counts by error code, the most frequent in front."""
    found = {
        name.partition(":")[2]: round(number)
        for name, number in sums.items()
        if name.startswith(f"{kind}:")
    }
    return dict(sorted(found.items(), key=lambda each: (-each[1], each[0])))


def _count(sums: Mapping[str, float]) -> dict[str, int]:
    return {name: round(sums.get(name, 0)) for name in _COUNTS}


def _add_up(many: Iterable[Mapping[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for one in many:
        for name, number in one.items():
            sums[name] += number
    return dict(sums)


@dataclass(frozen=True)
class Window:
    """The steps of a span that ends now; the last one is running."""

    span: StatsSpan
    now_s: float

    @property
    def step_s(self) -> int:
        return MINUTE_S if self.span == "hour" else QUARTER_S

    @property
    def steps(self) -> int:
        return 60 if self.span == "hour" else 96

    @property
    def since_s(self) -> int:
        """Begin of the first step."""
        return (int(self.now_s) // self.step_s - self.steps + 1) * self.step_s


@dataclass(frozen=True)
class _Slot:
    """A field of a ring: the counts of a minute, or of a quarter of an hour."""

    at_s: int
    length_s: int
    sums: Mapping[str, float]


class Ring:
    """The counts of one model, or of several together."""

    def __init__(self, slots: Sequence[_Slot]) -> None:
        self._slots = slots

    @classmethod
    def parse(cls, fields: Mapping[str, str | None]) -> Ring:
        """Parses the hash of a model; what another program wrote counts nothing."""
        slots = []
        for name, text in fields.items():
            match = _TEXT.fullmatch(text or "")
            if match is None:
                continue
            length_s = QUARTER_S if name[1:2] == "q" else MINUTE_S
            slots.append(_Slot(int(match[1]) * length_s, length_s, parse_sums(match[2])))
        return cls(slots)

    @classmethod
    def join(cls, rings: Iterable[Ring]) -> Ring:
        return cls([slot for ring in rings for slot in ring._slots])

    def describe(self, window: Window) -> ModelStats:
        """Returns the figures of the span, without those of now."""
        steps: dict[int, list[Mapping[str, float]]] = defaultdict(list)
        for slot in self._slots:
            if window.since_s <= slot.at_s <= window.now_s and slot.length_s <= window.step_s:
                steps[slot.at_s // window.step_s].append(slot.sums)
        by_step = {step: _add_up(found) for step, found in steps.items()}
        sums = _add_up(by_step.values())
        first = window.since_s // window.step_s
        recent_s = int(window.now_s) // MINUTE_S * MINUTE_S - RECENT_S + MINUTE_S
        recent = _add_up(
            slot.sums
            for slot in self._slots
            if slot.length_s == MINUTE_S and recent_s <= slot.at_s <= window.now_s
        )
        lasted_s = max(window.now_s - recent_s, 1.0)
        return ModelStats(
            jobs_per_minute=round(StatsTotals(**_count(recent)).ended / lasted_s * 60, 3),
            tokens_s=round(recent.get("output_tokens", 0.0) / lasted_s, 3),
            totals=StatsTotals(**_count(sums)),
            failures=_find_codes(sums, "failed"),
            retries=_find_codes(sums, "retried"),
            stages=_describe_stages(sums),
            series=tuple(
                _make_point(step * window.step_s, by_step.get(step, {}))
                for step in range(first, first + window.steps)
            ),
        )


def _make_point(at_s: int, sums: Mapping[str, float]) -> StatsPoint:
    buckets = _group_buckets(sums)
    medians = {
        f"{name}_p50_s": _estimate(buckets[name], 0.5)
        for name in ("queued", "generating")
        if name in buckets
    }
    return StatsPoint(at=to_datetime(at_s), **_count(sums), **medians)
