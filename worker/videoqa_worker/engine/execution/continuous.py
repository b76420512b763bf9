"""Continuous batching: sequences join and leave at every step.

A step reads: schedule, run, postprocess. At most one prompt is in prefill, by chunks where others would
wait for it; all decoding sequences get their next token together. Each sequence has its own
limit, end, stop strings, sampling and cancellation, and its tokens are those that it would have alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable

import torch

from videoqa_worker.engine.device.cuda_graphs import CudaGraphs
from videoqa_worker.engine.execution.forward import ForwardPass
from videoqa_worker.engine.failures import Fault, classify, make_no_token_error
from videoqa_worker.engine.generation import PendingRequest
from videoqa_worker.engine.kvcache.allocator import SlotAllocator
from videoqa_worker.engine.kvcache.prefix_cache import PrefixCache
from videoqa_worker.engine.model.kv_shape import KVShape
from videoqa_worker.engine.model.loading import LoadedModel
from videoqa_worker.engine.model.logits_processors import ProcessorFactory
from videoqa_worker.engine.scheduling.recovery import Recovery
from videoqa_worker.engine.scheduling.request_queue import RequestQueue
from videoqa_worker.engine.scheduling.scheduler import Scheduler
from videoqa_worker.engine.sequence.logits import LogitsProcessors
from videoqa_worker.engine.sequence.prefill import begin_prefill
from videoqa_worker.engine.sequence.sampler import Sampler
from videoqa_worker.engine.sequence.sequence import SlotSequence
from videoqa_worker.engine.stats import Stats
from videoqa_worker.engine.structured.masks import TokenMasks
from videoqa_worker.settings import EngineConfig

__all__ = ["ContinuousRunner"]

NextTokens = list[tuple[SlotSequence, int]]
"""Sequences and their next tokens; `_NAN` or `_NONE` where there is none."""
_NAN, _NONE = -1, -2
"""In place of a token: the logits are NaN or infinite; the settings forbid every token."""


class ContinuousRunner:
    """Runs the sequences of one model in slots, on the engine's thread."""

    def __init__(
        self,
        loaded: LoadedModel,
        shape: KVShape,
        config: EngineConfig,
        stopping: Callable[[], bool],
        most_pass_tokens: int | None = None,
    ) -> None:
        """
        Arguments:
            stopping: returns True while the engine closes; called at every step.
            most_pass_tokens: positions of the largest pass that there is memory for; None: of any prompt.
        """
        self._config, self._model = config, loaded.model
        self._most_pass_tokens = most_pass_tokens or sys.maxsize
        self._device: torch.device = loaded.model.device
        graphs = CudaGraphs(self._device, wanted=config.cuda_graphs)
        self._masks = loaded.masks
        self.forward = ForwardPass(loaded.model, graphs, shape, loaded.masks, config)
        self.prefix_cache = PrefixCache(loaded.model, graphs, self.forward.cache, config)
        self._allocator: SlotAllocator[SlotSequence] = SlotAllocator(
            self.forward.cache, graphs, config
        )
        self._table = self._allocator.table
        self._scheduler = Scheduler(loaded, self._allocator, self.prefix_cache, config, stopping)
        self._recovery = Recovery(self._scheduler, self._allocator, self.prefix_cache)
        self._processors = ProcessorFactory(loaded.generation, self._device)
        self._token_masks = TokenMasks()
        self.steps = self.rows = self.packed = self.prompt_tokens = self.output_tokens = 0
        """Counters since the start; `rows` are the sequences over all steps."""
        self.last_step_at = time.monotonic()
        """Start of the last step; a watchdog looks at it."""

    @property
    def wants_digests(self) -> bool:
        """True if some cache compares the digests of pictures."""
        return self.prefix_cache.is_enabled or self._scheduler.packs

    @property
    def stats(self) -> Stats:
        """Counters now."""
        return Stats(
            running=len(self._table),
            steps=self.steps,
            rows=self.rows,
            packed=self.packed,
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            preempted=self._recovery.preempted,
            out_of_memory=self._recovery.out_of_memory,
            max_batch=self._config.max_batch,
            kv_used=self._allocator.used_tokens,
            kv_positions=self.forward.cache.tokens,
            last_step_at=self.last_step_at,
            features=self.prefix_cache.features.counts,
            prefixes=self.prefix_cache.prefixes.counts,
        )

    def step(self, queue: RequestQueue) -> bool:
        """Runs one step; waits for work if there is none. Returns False if the queue is closed."""
        self.last_step_at = time.monotonic()
        if not self._scheduler.schedule(queue):
            return False
        for run, recover in (
            (self._prefill, self._recovery.recover_prefill),
            (self._decode, self._recovery.recover_decode),
        ):
            next_tokens = _try_run(run)
            if isinstance(next_tokens, Fault):
                recover(next_tokens)
                break
            self._postprocess(next_tokens)
        return True

    def run(self, requests: list[PendingRequest]) -> None:
        """Answers these requests, then returns."""
        queue = RequestQueue(self._config)
        queue.put_back(requests)
        while queue or self._table or self._scheduler.requeued:
            self.step(queue)

    def close(self) -> None:
        """Ends all sequences with EngineStopped."""
        self._scheduler.close()
        self._token_masks.close()

    # Run

    def _prefill(self) -> NextTokens:
        """Computes one prefill chunk, or the rest of several packed prompts.

        If no sequence is decoding, computes the whole prompt, or as much of it as there is memory for.
        """
        if not self._table.prefilling:
            return []
        sequences = self._prepare_prefill()
        prefills = [one.prefill for one in sequences if one.prefill is not None]
        positions = [self._table.locate(one) for one in sequences]
        before = sum(prefill.done for prefill in prefills)
        self._start_masks(sequences)
        if len(sequences) > 1:
            logits: torch.Tensor | None = self.forward.prefill_packed(prefills, positions)
        else:
            logits = self.forward.prefill_chunk(prefills[0], positions[0], self._max_chunk())
        self.prompt_tokens += sum(prefill.done for prefill in prefills) - before
        for sequence, prefill in zip(sequences, prefills, strict=True):
            sequence.length = prefill.done
        if logits is None:
            return []
        return [*zip(sequences, self._draw_tokens(logits.float(), sequences), strict=True)]

    def _max_chunk(self) -> int:
        """Returns the most positions that a prefill pass may have."""
        alone = not self._config.batch_invariant and len(self._table) == len(self._table.prefilling)
        return self._most_pass_tokens if alone else self._config.prefill_chunk_tokens

    def _prepare_prefill(self) -> list[SlotSequence]:
        """Returns the sequences of the next prefill pass.

        The first of a slot comes alone, then as many of the others as one chunk holds.
        """
        prefilling = self._table.prefilling
        self._prepare(prefilling[0])
        if not prefilling[0].slot.is_written:
            return prefilling[:1]
        left = self._max_chunk()
        for n, sequence in enumerate(prefilling):
            self._prepare(sequence)
            left -= sequence.pending.prompt_tokens - sequence.length
            if sequence.prefill is None or not sequence.prefill.is_text or left < 0:
                return prefilling[: max(1, n)]
        return prefilling

    def _prepare(self, sequence: SlotSequence) -> None:
        """Gives a sequence what it needs on the device."""
        if sequence.is_prepared:
            return
        self._allocator.ensure_room(sequence)
        pending, device = sequence.pending, self._device
        request = pending.request
        if request.generation.temperature > 0:
            sequence.sampler = Sampler(request.generation, pending.seed, device)
        prompt = request.inputs.input_ids[0]
        if processors := self._processors.make(request.generation, prompt, len(prompt)):
            sequence.logits_processors = LogitsProcessors(
                processors, prompt.to(device), pending.max_tokens + 1
            )
        slot = sequence.slot
        shares_prefix = slot.is_written
        if shares_prefix:
            self.packed += 1
            self._allocator.pack(slot)
        sequence.prefill = begin_prefill(
            self._model,
            self.prefix_cache,
            pending,
            self._table.locate(sequence).slot,
            shares_prefix=shares_prefix,
        )
        sequence.prefill.blocks = self._masks.find_blocks(request.inputs)
        sequence.rotary_delta = sequence.prefill.positions.delta
        sequence.length, sequence.is_prepared = sequence.prefill.done, True
        slot.is_written = bool(slot.key) and sequence.length >= slot.prefix_length

    def _decode(self) -> NextTokens:
        """Computes the next token of all decoding sequences."""
        if not self._table.decoding:
            return []
        next_tokens: NextTokens = []
        self._start_masks(self._table.decoding)
        min_slots = self._config.max_batch if self._allocator.has_standard_length else 1
        for first, slots in self._group_decoding():
            sequences = [one for slot in slots for one in slot]
            inputs = [[one.decode_input for one in slot] for slot in slots]
            logits = self.forward.decode(first, inputs, min_slots=min_slots)
            next_tokens += zip(sequences, self._draw_tokens(logits.float(), sequences), strict=True)
        self.steps += 1
        self.rows += len(next_tokens)
        for sequence, _ in next_tokens:
            sequence.length += 1
        return next_tokens

    def _start_masks(self, sequences: Iterable[SlotSequence]) -> None:
        """Has the masks of these sequences' next tokens computed while the model runs."""
        self._token_masks.start([one.matcher for one in sequences if one.matcher is not None])

    def _group_decoding(self) -> list[tuple[int, list[list[SlotSequence]]]]:
        """Returns the groups that decode in one pass; with fixed shapes, only sequences of one reach."""
        found = self._table.group_decoding(self.forward.free_positions)
        if not self._config.batch_invariant:
            return found
        reaches = {
            id(one): self.forward.round_reach(one.write_position + 1)
            for one in self._table.decoding
        }
        return [
            (first, [[one for one in slot if reaches[id(one)] == reach] for slot in slots])
            for first, slots in found
            for reach in sorted({*reaches.values()})
        ]

    def _draw_tokens(self, logits: torch.Tensor, sequences: list[SlotSequence]) -> list[int]:
        """Returns each sequence's next token; the only wait for the device."""
        finite = logits.isfinite().all(dim=-1)
        processed = False
        for n, sequence in enumerate(sequences):
            if sequence.logits_processors is not None:
                logits[n] = sequence.logits_processors(logits[n : n + 1])[0]
                processed = True
        matchers = [one.matcher for one in sequences]
        self._token_masks.apply(logits, matchers)
        processed |= any(matcher is not None for matcher in matchers)
        tokens = logits.argmax(dim=-1)
        for n, sequence in enumerate(sequences):
            if sequence.sampler is not None:
                tokens[n] = sequence.sampler.draw(logits[n])
        if processed:
            tokens = torch.where(logits.amax(dim=-1) > -torch.inf, tokens, _NONE)
        drawn: list[int] = torch.where(finite, tokens, _NAN).tolist()
        return drawn

    # Postprocess

    def _postprocess(self, next_tokens: NextTokens) -> None:
        """Gives each sequence its token, caches complete prefixes, and finishes sequences."""
        for sequence, token in next_tokens:
            prefill, sequence.prefill = sequence.prefill, None
            if token == _NAN:  # it may be all over what would be cached
                continue
            if prefill is not None:
                sequence.slot.is_written = True
                if prefill.prefix_key:
                    slot = self._table.locate(sequence).slot
                    self.prefix_cache.save(prefill.prefix_key, prefill.prefix_length, slot)
            if token == _NONE:
                sequence.error = make_no_token_error(is_free=sequence.matcher is None)
                continue
            sequence.append_token(token)
            self.output_tokens += 1
        self._recovery.quarantine([one for one, token in next_tokens if token == _NAN])
        for sequence, _ in next_tokens:
            self._scheduler.finish(sequence)


def _try_run(run: Callable[[], NextTokens]) -> NextTokens | Fault:
    try:
        return run()
    except Exception as error:  # noqa: BLE001 - the engine survives whatever a model raises
        return classify(error)
