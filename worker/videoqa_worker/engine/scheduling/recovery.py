"""Failure handling: preempts, retries or fails sequences without failing their neighbours.

It follows running out of memory, an error of the model, or NaN logits.

Out of memory: the caches are cleared first, then the youngest sequence is preempted. If the model raises
on several sequences, each is retried alone.
"""

from __future__ import annotations

from videoqa_worker.engine.device.memory import free_memory
from videoqa_worker.engine.failures import Fault, make_nan_error
from videoqa_worker.engine.kvcache.allocator import SlotAllocator
from videoqa_worker.engine.kvcache.prefix_cache import PrefixCache
from videoqa_worker.engine.scheduling.scheduler import Scheduler
from videoqa_worker.engine.sequence.sequence import SlotSequence

__all__ = ["Recovery"]


class Recovery:
    """Handles the failures of one model's sequences; used by the engine's thread."""

    def __init__(
        self,
        scheduler: Scheduler,
        allocator: SlotAllocator[SlotSequence],
        prefix_cache: PrefixCache,
    ) -> None:
        self._scheduler, self._allocator, self._prefix_cache = scheduler, allocator, prefix_cache
        self._table = allocator.table
        self.preempted = self.out_of_memory = 0
        """Counters since the start: of sequences, and of passes."""

    def recover_prefill(self, fault: Fault) -> None:
        """Handles a failed prefill pass."""
        table = self._table
        self.out_of_memory += fault.is_memory
        failed = [one for one in table.prefilling if one.is_prepared] or table.prefilling[:1]
        requests = [one.pending for one in failed]
        for sequence in failed:
            self._scheduler.free(sequence)
        free_memory()
        if not fault.is_memory and len(failed) > 1:
            for pending in requests:
                pending.retry_alone = True
        elif fault.is_memory and not requests[0].retried and self._prefix_cache.clear():
            for pending in requests:
                pending.retried = True
        elif fault.is_memory and (table or len(failed) > 1):
            self._scheduler.lower_limit(len(table) or len(failed) - 1)
        else:
            requests[0].future.set_exception(fault.as_error(requests[0]))
            return
        self._scheduler.requeued += requests

    def recover_decode(self, fault: Fault) -> None:
        """Handles a failed decode step."""
        decoding = self._table.decoding
        self.out_of_memory += fault.is_memory
        for sequence in decoding:
            sequence.undo_draw()
        free_memory()
        if fault.is_memory and self._prefix_cache.clear():
            return  # the step is repeated
        if fault.is_memory and len(self._table) > 1:
            self._preempt()
        elif len(decoding) == 1:
            pending = decoding[0].pending
            self._scheduler.free(decoding[0])
            pending.future.set_exception(fault.as_error(pending))
        else:
            self._retry_alone(decoding)

    def _preempt(self) -> None:
        """Requeues the youngest sequence: one in prefill, else the one with the shortest answer."""
        prefilling = [one for one in self._table.prefilling if one.is_prepared]
        shortest = min(reversed(self._table.decoding), key=lambda one: len(one.tokens))
        youngest = prefilling[-1] if prefilling else shortest
        self._scheduler.free(youngest)
        self.preempted += 1
        self._scheduler.lower_limit(len(self._table))
        self._scheduler.requeued.append(youngest.pending)

    def _retry_alone(self, decoding: list[SlotSequence]) -> None:
        """Requeues all sequences, those that were decoding to run alone."""
        for sequence in decoding:
            sequence.pending.retry_alone = True
        # The prompt in prefill is not to blame, but the others run alone.
        self._scheduler.requeued += [one.pending for one in self._table.sequences]
        for sequence in self._table.sequences:  # their KV was never checked for NaN
            self._allocator.wipe(sequence, whole=True)
        self._table.clear()

    def quarantine(self, failed: list[SlotSequence]) -> None:
        """Fails sequences with NaN logits, and wipes their KV.

        NaN spreads to the other sequences of a slot: then the culprit is unknown, and each of them is
        retried alone.
        """
        retried: list[SlotSequence] = []
        for sequence in failed:
            slot = sequence.slot
            beside = [one for one in failed if one.slot is slot]
            self._allocator.wipe(sequence, whole=len(beside) == len(slot.sequences))
            # A prompt half way through prefill was never checked for NaN.
            unchecked = any(one.is_prepared and one.prefill is not None for one in slot.sequences)
            if len(beside) == 1 and not unchecked:
                sequence.error = make_nan_error()
            else:
                sequence.pending.retry_alone = True
                retried.append(sequence)
        for sequence in retried:
            self._scheduler.free(sequence)
        self._scheduler.requeued += [sequence.pending for sequence in retried]
