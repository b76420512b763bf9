"""Counts what vLLM's scheduler reports after each step, for any thread to read."""

from __future__ import annotations

import time
from typing import Any

from videoqa_worker.engine.kvcache.lru import CacheCounts
from videoqa_worker.engine.stats import Stats

__all__ = ["StepCounter"]


class StepCounter:
    """A stat logger of vLLM; `record` is called on the engine's thread."""

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._positions: int | None = None
        self._used = 0.0
        self._steps = self._rows = self._output_tokens = self._prompt_tokens = self._preempted = 0
        self._prefix_hits = self._prefix_misses = self._media_hits = self._media_misses = 0
        self.last_step_at = 0.0

    def make(self, config: Any, engine_index: int = 0) -> StepCounter:
        """Returns itself: the factory that vLLM calls once its engine runs."""
        blocks = config.cache_config.num_gpu_blocks
        self._positions = blocks * config.cache_config.block_size if blocks else None
        return self

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Adds a step."""
        self.last_step_at = time.monotonic()
        if scheduler_stats is not None:
            self._used = scheduler_stats.kv_cache_usage
            prefixes = scheduler_stats.prefix_cache_stats
            self._prefix_hits += prefixes.hits
            self._prefix_misses += prefixes.queries - prefixes.hits
        if iteration_stats is not None:
            self._steps += 1
            self._rows += iteration_stats.num_generation_tokens
            self._output_tokens += iteration_stats.num_generation_tokens
            self._prompt_tokens += iteration_stats.prompt_token_stats.computed
            self._preempted += iteration_stats.num_preempted_reqs
        if mm_cache_stats is not None:
            self._media_hits += mm_cache_stats.hits
            self._media_misses += mm_cache_stats.queries - mm_cache_stats.hits

    def log_engine_initialized(self) -> None:
        """Does nothing: the worker has a log line of its own."""

    def log(self) -> None:
        """Does nothing: the worker announces its counters."""

    def record_sleep_state(self, is_awake: int, level: int) -> None:
        """Does nothing: this engine never sleeps."""

    def read(self, running: int) -> Stats:
        """Returns the counters now."""
        positions = self._positions
        return Stats(
            running=running,
            steps=self._steps,
            rows=self._rows,
            output_tokens=self._output_tokens,
            max_batch=self._max_batch,
            kv_used=None if positions is None else round(positions * self._used),
            kv_positions=positions,
            prompt_tokens=self._prompt_tokens,
            preempted=self._preempted,
            last_step_at=self.last_step_at,
            features=CacheCounts(self._media_hits, self._media_misses),
            prefixes=CacheCounts(self._prefix_hits, self._prefix_misses),
        )
