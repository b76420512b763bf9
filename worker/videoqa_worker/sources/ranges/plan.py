"""Which byte ranges to ask for, so that certain spans are there. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from videoqa_worker.frames import Span, Spans
from videoqa_worker.settings import SourceConfig

__all__ = ["plan"]


def plan(
    wanted: Sequence[Span], present: Spans, size_bytes: int, config: SourceConfig
) -> list[Span]:
    """The ranges to fetch, ascending, none of them there yet; [] if nothing is missing.

    Neighbours closer than `range_gap_bytes` are asked for in one, unless what lies between
    them is there already; what is longer than `range_bytes` is split into equal parts. If more
    than `whole_above` of the file is to be fetched, the rest of it comes along, if it may.
    """
    missing = _missing(_joined(wanted, size_bytes, config.range_gap_bytes), present)
    most = sum(end - start for start, end in missing) > config.whole_above * size_bytes
    if most and size_bytes <= config.max_bytes:
        missing = present.missing(0, size_bytes)
    return [part for span in missing for part in _split(span, config.range_bytes)]


def _joined(wanted: Iterable[Span], size_bytes: int, gap_bytes: int) -> list[Span]:
    joined: list[Span] = []
    for start, end in sorted((max(0, start), min(end, size_bytes)) for start, end in wanted):
        if start >= end:
            continue
        if joined and start - joined[-1][1] < gap_bytes:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def _missing(spans: Iterable[Span], present: Spans) -> list[Span]:
    return [gap for start, end in spans for gap in present.missing(start, end)]


def _split(span: Span, limit_bytes: int) -> list[Span]:
    start, end = span
    count = -(-(end - start) // limit_bytes)
    edges = [start + (end - start) * n // count for n in range(count + 1)]
    return list(pairwise(edges))
