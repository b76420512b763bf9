"""What an engine has done so far, for any thread to read."""

from __future__ import annotations

from dataclasses import dataclass, field

from videoqa_worker.engine.kvcache.lru import CacheCounts

__all__ = ["Stats"]


@dataclass(frozen=True)
class Stats:
    """Counted since the start, with the warm-up; a runner of whole batches counts no steps."""

    running: int = 0
    """Rows now, with one whose prompt is on its way in."""
    steps: int = 0
    """Decode steps of all running rows together."""
    rows: int = 0
    """Rows of all steps: `rows / steps` is how full they were."""
    packed: int = 0
    """Rows that sat beside one whose prompt begins alike, and used that beginning."""
    shared: int = 0
    """Requests that shared the row of an equal one."""
    prompt_tokens: int = 0
    """Computed; those that were kept do not count."""
    beat_s: float = 0.0
    """When the last step began, by `time.monotonic`. Rows that run under an old beat are stuck; an
    engine without rows waits for work, and has an old beat too."""
    features: CacheCounts = field(default_factory=CacheCounts)
    """Of pictures."""
    prefixes: CacheCounts = field(default_factory=CacheCounts)
    """Of prompts up to their last picture."""
