"""Counters of an engine, for any thread to read."""

from __future__ import annotations

from dataclasses import dataclass, field

from videoqa_worker.engine.kvcache.lru import CacheCounts

__all__ = ["Stats"]


@dataclass(frozen=True)
class Stats:
    """Counted since the start, warm-up included; a padded runner counts no steps."""

    running: int = 0
    """Sequences now, in prefill or decoding."""
    steps: int = 0
    """Decode steps of the whole batch."""
    rows: int = 0
    """Sequences over all steps: `rows / steps` is the mean batch size."""
    packed: int = 0
    """Sequences that used the prefix of another one in their slot."""
    shared: int = 0
    """Requests answered by the sequence of an equal request."""
    output_tokens: int = 0
    """Tokens that were generated."""
    max_batch: int | None = None
    """Most sequences that are decoded together; None: a limit of tokens decides."""
    kv_used: int | None = None
    """Positions of the KV cache that sequences take now; None: there is no such cache here."""
    kv_positions: int | None = None
    """Positions of the KV cache."""
    prompt_tokens: int = 0
    """Positions computed in prefill, without those from the prefix cache."""
    preempted: int = 0
    """Sequences that were put back to make room for others."""
    out_of_memory: int = 0
    """Passes that the device had no memory for."""
    last_step_at: float = 0.0
    """Start of the last step, by `time.monotonic`. A long time ago means stuck if sequences run; an
    engine without sequences waits for work."""
    features: CacheCounts = field(default_factory=CacheCounts)
    """Features of pictures."""
    prefixes: CacheCounts = field(default_factory=CacheCounts)
    """KV of prompts up to their last picture."""
