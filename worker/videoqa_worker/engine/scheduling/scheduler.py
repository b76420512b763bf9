"""Admits sequences to slots, finishes them, and sends some back to the queue.

At most one prompt is in prefill, or several that wait for the same prefix. The number of sequences
that fit is learnt from running out of memory. Knows nothing of forward passes.
"""

from __future__ import annotations

from collections.abc import Callable

from videoqa.errors import EngineStopped
from videoqa_worker.engine.failures import STOPPED
from videoqa_worker.engine.generation import PendingRequest
from videoqa_worker.engine.kvcache.allocator import SlotAllocator
from videoqa_worker.engine.kvcache.prefix_cache import PrefixCache
from videoqa_worker.engine.kvcache.slots import SlotRegion
from videoqa_worker.engine.model.loading import LoadedModel
from videoqa_worker.engine.scheduling.request_queue import RequestQueue
from videoqa_worker.engine.sequence.sequence import SlotSequence
from videoqa_worker.settings import EngineConfig

__all__ = ["Scheduler"]

_RAISE_LIMIT_AFTER = 64
"""Answers. A sequence too many costs its prefill again, and the caches."""


class Scheduler:
    """Schedules the sequences of one model; used by the engine's thread."""

    def __init__(
        self,
        loaded: LoadedModel,
        allocator: SlotAllocator[SlotSequence],
        prefix_cache: PrefixCache,
        config: EngineConfig,
        stopping: Callable[[], bool],
    ) -> None:
        self._loaded, self._config, self._stopping = loaded, config, stopping
        self._allocator, self._table, self._prefix_cache = allocator, allocator.table, prefix_cache
        self.packs = config.pack_from_tokens is not None and not config.batch_invariant
        """True if sequences with the same prefix share a slot."""
        self.requeued: list[PendingRequest] = []
        """Requests that go back to the queue at the next step."""
        self._max_sequences = config.max_batch
        """Lowered when one more did not fit into memory, and raised by one after every so many answers,
        since what did not fit may have been one long prompt."""
        self._answers = 0
        """Since the limit changed."""

    def schedule(self, queue: RequestQueue) -> bool:
        """Finishes sequences and admits requests that fit; waits if none runs. False if the queue is closed."""
        for sequence in self._table.sequences:
            if sequence.prefill is not None:
                sequence.poll_caller()  # decoding sequences poll with each token
        for sequence in self._table.sequences:
            self.finish(sequence)
        if self.requeued:
            queue.put_back(self.requeued)
            self.requeued = []
        while (pending := queue.take(self._fits, wait=not self._table)) is not None:
            self._admit(pending)
        return bool(self._table)

    def _fits(self, pending: PendingRequest) -> bool:
        if not self._table:
            return True
        sequences, prefilling = self._table.sequences, self._table.prefilling
        if self._needs_own_batch(pending) or self._needs_own_batch(sequences[0].pending):
            return False
        if len(sequences) >= self._max_sequences:
            return False
        region = self._find_region(pending)
        return region is not None and (not prefilling or region.slot is prefilling[0].slot)

    def _needs_own_batch(self, pending: PendingRequest) -> bool:
        """Returns True if it runs alone: also if it needs longer slots while shapes must not change."""
        is_longer = pending.max_tokens >= self._allocator.standard_length
        return pending.own_batch or (self._config.batch_invariant and is_longer)

    def _find_region(self, pending: PendingRequest) -> SlotRegion[SlotSequence] | None:
        key, length = self._prefix_cache.find_prefix(pending) if self.packs else (b"", 0)
        if length < (self._config.pack_from_tokens or 0):
            key, length = b"", 0
        return self._table.find_region(
            pending.max_tokens, key, length, self._allocator.available_tokens
        )

    def _admit(self, pending: PendingRequest) -> None:
        if not pending.start():
            return
        region = self._find_region(pending)
        assert region is not None  # noqa: S101 - it fits
        # It takes memory of the device only when its prefill begins.
        sequence = SlotSequence(pending, self._loaded.tokenizer, self._loaded.generation, region)
        self._table.add(sequence)
        sequence.poll_caller()
        self.finish(sequence)

    def finish(self, sequence: SlotSequence) -> None:
        """Delivers a finished sequence and frees its region; does nothing with one that goes on."""
        if not sequence.is_finished and self._stopping():
            sequence.error = EngineStopped(STOPPED)
        if not sequence.is_finished or sequence not in self._table:  # requeued with another one
            return
        self.free(sequence)
        if sequence.error is not None:
            sequence.pending.future.set_exception(sequence.error)
        else:
            sequence.pending.future.set_result(sequence.build_answer())
            self._count_answer()

    def _count_answer(self) -> None:
        self._answers += 1
        if self._answers >= _RAISE_LIMIT_AFTER and self._max_sequences < self._config.max_batch:
            self._max_sequences, self._answers = self._max_sequences + 1, 0

    def lower_limit(self, sequences: int) -> None:
        """Admits at most so many sequences from here on."""
        self._max_sequences, self._answers = sequences, 0

    def free(self, sequence: SlotSequence) -> None:
        """Frees a region; sequences that waited for the prefix that it was to write are requeued."""
        slot = sequence.slot
        waits = sequence is slot.sequences[0] and not slot.is_written
        others = slot.sequences[1:] if waits else []
        self.requeued += [other.pending for other in others]
        for one in (sequence, *others):
            self._allocator.free(one)
            one.prefill = None  # a reference to the sequence holds no memory of the device

    def close(self) -> None:
        """Ends all sequences with EngineStopped."""
        running = [sequence.pending for sequence in self._table.sequences]
        for pending in (*running, *self.requeued):
            if not pending.future.done():
                pending.future.set_exception(EngineStopped(STOPPED))
        self._table.clear()
        self.requeued.clear()
