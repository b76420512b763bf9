"""Plans range requests: merges close spans and splits long ones. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from videoqa_worker.frames import Span, Spans
from videoqa_worker.settings import SourceConfig

__all__ = ["plan_ranges"]


def plan_ranges(
    wanted: Sequence[Span], present: Spans, size_bytes: int, config: SourceConfig
) -> list[Span]:
    """Returns the missing ranges to fetch, ascending; [] if nothing is missing.

    Spans closer than `range_gap_bytes` are merged, unless the gap between them is present already;
    a range longer than `range_bytes` is split into equal parts. If more than `whole_above` of the
    file is to be fetched, the rest of it is fetched as well, unless it exceeds `max_bytes`.
    """
    missing = _find_missing(_join_spans(wanted, size_bytes, config.range_gap_bytes), present)
    most = sum(end - start for start, end in missing) > config.whole_above * size_bytes
    if most and size_bytes <= config.max_bytes:
        missing = present.missing(0, size_bytes)
    return [part for span in missing for part in _split_span(span, config.range_bytes)]


def _join_spans(wanted: Iterable[Span], size_bytes: int, gap_bytes: int) -> list[Span]:
    joined: list[Span] = []
    for start, end in sorted((max(0, start), min(end, size_bytes)) for start, end in wanted):
        if start >= end:
            continue
        if joined and start - joined[-1][1] < gap_bytes:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def _find_missing(spans: Iterable[Span], present: Spans) -> list[Span]:
    return [gap for start, end in spans for gap in present.missing(start, end)]


def _split_span(span: Span, limit_bytes: int) -> list[Span]:
    start, end = span
    count = -(-(end - start) // limit_bytes)
    edges = [start + (end - start) * n // count for n in range(count + 1)]
    return list(pairwise(edges))
