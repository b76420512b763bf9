"""Options: what a run of an archive may be told beside its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """How a run goes and what it writes."""

    in_flight: int = 64
    """Rows that are jobs at the same time: enough for four workers' slots, few to wait for."""
    order: Literal["completion", "input"] = "completion"
    """Of the lines of results.jsonl; `input` writes them at the end."""
    parquet: bool = False
    subtitles: Literal["vtt", "srt"] | None = None
    retry_failed: bool = False
    poll_s: float = 0.25
    """Between two looks at the open jobs."""
    readers: int = 16
    """Results that are read at the same time: a store takes tens of milliseconds for each."""
