"""Rearranges the KV cache as slots are allocated, packed and freed."""

from __future__ import annotations

import sys
from typing import Generic

from videoqa_worker.engine.device.cuda_graphs import CudaGraphs
from videoqa_worker.engine.kvcache.slot_cache import SlotCache
from videoqa_worker.engine.kvcache.slots import SLOT_STEP, S, Slot, SlotTable
from videoqa_worker.settings import EngineConfig

__all__ = ["SlotAllocator"]


class SlotAllocator(Generic[S]):
    """Keeps one cache in step with its slot table; used by the engine's thread."""

    def __init__(self, cache: SlotCache, graphs: CudaGraphs, config: EngineConfig) -> None:
        self.table: SlotTable[S] = SlotTable()
        self._cache, self._graphs, self._config = cache, graphs, config
        self.standard_length = cache.tokens // config.max_batch // SLOT_STEP * SLOT_STEP
        """Length of slots if there are as many as sequences can run."""

    @property
    def available_tokens(self) -> int:
        """Positions for all sequences; a sequence alone gets all that it needs, beyond the settings."""
        return self._cache.tokens if self.table else sys.maxsize

    @property
    def used_tokens(self) -> int:
        """Positions that sequences have written, each shared prefix once; for any thread."""
        return sum(slot.used for slot in list(self.table.slots))

    @property
    def has_standard_length(self) -> bool:
        """True while slots have the standard length."""
        return self._cache.length == self.standard_length

    def ensure_room(self, sequence: S) -> None:
        """Rearranges the cache if the table needs more or longer slots; `sequence` is the newest."""
        cache, slots = self._cache, self.table.slots
        needed = self.table.compute_slot_length()
        used = [slot.used for slot in slots if slot.used]
        fits = len(slots) <= cache.slots and needed <= cache.length
        if self._config.batch_invariant:
            fits = cache.length == max(needed, self.standard_length)
        if fits and not (cache.is_oversized and needed <= cache.tokens and not used):
            return
        # A length that memory allows for the most sequences: each rearrangement loses the CUDA graphs.
        length = max(needed, self.standard_length)
        region = sequence.region
        if len(region.slot.sequences) > 1:  # and room for more with the same prefix
            more = self._config.max_batch - len(self.table)
            likely = min(needed + more * region.size, cache.tokens // len(slots))
            length = max(length, likely // SLOT_STEP * SLOT_STEP)
        self._graphs.clear()
        cache.arrange(length, used)

    def pack(self, slot: Slot[S]) -> None:
        """Moves a slot to the packed ones, in the table and in the cache."""
        now, then = self.table.find_packed_index(slot)
        if now != then:
            most = max(self.table.slots[n].used for n in (now, then))
            self._cache.swap(now, then, most)
        self.table.mark_packed(slot)

    def free(self, sequence: S) -> None:
        """Frees a sequence's region; other slots move into an empty slot."""
        if sequence.prefill is not None:  # its KV was never checked for NaN
            self.wipe(sequence, whole=not sequence.region.slot.is_written)
        used = [slot.used for slot in self.table.slots]
        for source, target in self.table.remove(sequence):
            if used[source]:
                self._cache.move(source, target, used[source])
            used[target] = used[source]
        if not self.table:
            self._cache.release()

    def wipe(self, sequence: S, *, whole: bool) -> None:
        """Zeroes the KV of a sequence; `whole`: of its slot, with the prefix and the prompt's padding."""
        region, cache = sequence.region, self._cache
        slot = self.table.slots.index(region.slot)
        if slot < cache.slots:
            start, end = (0, cache.length) if whole else (region.start, region.end)
            cache.wipe(slot, start, end)
