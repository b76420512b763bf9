"""Forward passes over slots: a prompt piece by piece, or one token of every row.

Knows nothing of who waits and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from videoqa_worker.engine.device.cuda_graphs import Graphs
from videoqa_worker.engine.device.memory import kv_tokens
from videoqa_worker.engine.kvcache.positions import Last, Place, seen
from videoqa_worker.engine.kvcache.slot_cache import KvShape, SlotCache, token_bytes
from videoqa_worker.engine.model import attention, kernels
from videoqa_worker.engine.sequence.prefill import Prompt
from videoqa_worker.settings import EngineConfig

__all__ = ["Passes"]

_REACH = {"cuda": 512, "cpu": 64}
"""Attention's reach is rounded up to it: one graph serves so many steps."""
_FREE = 256
"""Positions of a decode step on a GPU; one pass for all rows also needs fewer graphs."""
_PROMPT = 64
"""Prompts are rounded up to it, where they run as graphs. No more than slots: see `LENGTHS`."""


class Passes:
    """Of one model, on the engine's thread."""

    def __init__(self, model: Any, graphs: Graphs, shape: KvShape, config: EngineConfig) -> None:
        self._model, self._graphs = model, graphs
        self._device: torch.device = model.device
        self._invariant = config.batch_invariant
        self._unmasked = self._spares_masks(config)
        self._kernel = self._fastest(shape, config) if self._unmasked else None
        attention.install(model, self._kernel)
        tokens = kv_tokens(config.max_batch_tokens, token_bytes(shape, model.dtype), self._device)
        self.cache = SlotCache(shape, tokens, model.dtype, self._device)

    def _spares_masks(self, config: EngineConfig) -> bool:
        """Where kernels can do without, see `attention`."""
        chosen = config.attn_implementation is None and not config.batch_invariant
        return chosen and self._device.type == "cuda"

    def _fastest(self, shape: KvShape, config: EngineConfig) -> str | None:
        queries = self._model.config.get_text_config().num_attention_heads
        heads = kernels.Heads(queries, shape[1], shape[2])
        dtype, graphs = self._model.dtype, config.cuda_graphs
        return kernels.fastest(heads, dtype, self._device, as_graphs=graphs)

    @property
    def free_positions(self) -> int:
        """A pass over so many costs no more than one over fewer: reading the weights is what takes time."""
        return _FREE if self._graphs.on else 0

    # A prompt

    def advance(self, prompt: Prompt, place: Place, most: int) -> torch.Tensor | None:
        """Computes up to so many positions; the scores, float[1, vocabulary], after the last."""
        whole = not prompt.done and prompt.length <= most and not self._invariant
        if self._graphs.on and whole and not prompt.text_only:
            return self._whole(prompt, place.slot)
        start, end = prompt.done, min(prompt.length, prompt.done + most)
        if self._invariant and start < prompt.prefix:
            end = min(end, prompt.prefix)  # what is kept ends there, and was computed so
        given = "input_ids" if prompt.text_only else "inputs_embeds"
        piece, later = prompt.rest[:, : end - start], prompt.rest[:, end - start :]
        with self._any_shape():
            scores: torch.Tensor = self._model(
                **{given: piece},
                attention_mask=self._mask(place, start, end),
                position_ids=torch.arange(start, end, device=self._device)[None],
                past_key_values=self.cache.for_prompt(place.slot, place.at(start)),
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
        prompt.done, prompt.rest = end, later
        return scores if end == prompt.length else None

    def _mask(self, place: Place, start: int, end: int) -> torch.Tensor | None:
        """For these positions of a row; None at its beginning, where they see only each other."""
        if not start:
            return None
        first, behind = place.at(start), place.at(end - 1) + 1
        if end - start > 1 and self._unmasked and (first, behind) == (start, end):
            return attention.lengths(torch.tensor([end]))
        at = torch.arange(first, behind, device=self._device)
        return seen(behind, at, place.start, place.shared)[None, None]

    def together(self, prompts: Sequence[Prompt], places: Sequence[Place]) -> torch.Tensor:
        """Computes all that is left of prompts in one slot, which are text alone; the scores,
        float[prompts, vocabulary], after the last of each."""
        spans = [torch.arange(prompt.done, prompt.length) for prompt in prompts]
        counts = torch.tensor([len(span) for span in spans])
        shared, start = (
            torch.tensor(each).repeat_interleave(counts)
            for each in zip(*((place.shared, place.start) for place in places), strict=True)
        )
        at = start + torch.cat(spans) - shared
        rests = torch.cat([prompt.rest[0] for prompt in prompts])
        behind = max(
            place.at(prompt.length - 1) + 1 for prompt, place in zip(prompts, places, strict=True)
        )
        keep = counts.cumsum(0) - 1
        at, start, shared, keep = map(self._sent, (at, start, shared, keep))
        with self._any_shape():
            scores = self._placed(
                places[0].slot,
                behind,
                *(each[None] for each in (rests, at, start, shared)),
                keep=keep,
            )[0]
        for prompt in prompts:
            prompt.done, prompt.rest = prompt.length, prompt.rest[:, :0]
        return scores

    def _sent(self, numbers: torch.Tensor) -> torch.Tensor:
        """To the device, without waiting for what it has to do before."""
        return numbers.to(self._device, non_blocking=True)

    def _any_shape(self) -> AbstractContextManager[None]:
        """cuDNN's attention, the default on some GPUs, prepares itself for each new shape: 0.85 s on
        an H200. Prompts have many shapes."""
        if self._device.type != "cuda":
            return nullcontext()
        return sdpa_kernel(
            [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        )

    def _whole(self, prompt: Prompt, slot: int) -> torch.Tensor:
        """All of a prompt as a graph. What is filled up behind it is masked, then overwritten."""
        longest = -(-prompt.length // _PROMPT) * _PROMPT
        filled = prompt.rest.new_zeros(1, longest, prompt.rest.shape[-1])
        filled[:, : prompt.length] = prompt.rest
        places = self._sent(torch.tensor([[slot], [prompt.length - 1]]))
        key = "prompt", longest
        scores = self._graphs.run(key, self._prompt_pass, filled, places[0], places[1])
        prompt.done, prompt.rest = prompt.length, prompt.rest.new_empty(1, 0)
        return scores

    def _prompt_pass(
        self, embeddings: torch.Tensor, slot: torch.Tensor, last: torch.Tensor
    ) -> torch.Tensor:
        scores: torch.Tensor = self._model(
            inputs_embeds=embeddings,
            position_ids=torch.arange(embeddings.shape[1], device=self._device)[None],
            past_key_values=self.cache.for_prompt(slot, 0),
            use_cache=True,
            logits_to_keep=last,
        ).logits[:, -1]
        return scores

    # Rows

    def decode(self, first: int, rows: Sequence[Sequence[Last]], *, least: int = 1) -> torch.Tensor:
        """The next scores of each row, float[rows, vocabulary], slot by slot.

        Arguments:
            first: number of the first slot.
            rows: of each slot from that one on; some have none.
            least: so many slots the pass has, where its shape must not change.
        """
        scratch = Last(0, self.cache.length - 1, 0, 0)
        slots, each = len(rows), max(map(len, rows))
        if self._invariant:
            slots = least
        elif self._graphs.on:
            slots = min(_power_of_two(slots), self.cache.slots - first)
            each = _power_of_two(each)
        filled = [[*slot, *[scratch] * (each - len(slot))] for slot in rows]
        filled += [[scratch] * each] * (slots - len(rows))
        reach = max(self.reach(row.at + 1) for slot in rows for row in slot)
        placed = self._sent(torch.tensor(filled).permute(2, 0, 1))
        by_length = self._kernel is not None and reach % kernels.PAGE == 0 and each == 1
        by_length &= all(row.start == row.shared for slot in rows for row in slot)
        key = "rows", slots, each, first, reach, by_length
        step = partial(self._placed, first, reach, keep=each, by_length=by_length)
        scores = self._graphs.run(key, step, *placed)
        if all(len(slot) == each for slot in rows):
            return scores[: len(rows)].flatten(0, 1)
        return torch.cat([part[: len(slot)] for part, slot in zip(scores, rows, strict=False)])

    def reach(self, positions: int) -> int:
        """How far attention looks for a row of so many positions, if it is by itself."""
        step = _REACH.get(self._device.type, _REACH["cpu"])
        if self._invariant:  # rows of one reach run together: there are to be few
            step = max(step, _power_of_two(positions) // 2)
        return min(self.cache.length, -(-positions // step) * step)

    def _placed(
        self,
        first: int,
        reach: int,
        tokens: torch.Tensor,
        at: torch.Tensor,
        start: torch.Tensor,
        shared: torch.Tensor,
        *,
        keep: int | torch.Tensor,
        by_length: bool = False,
    ) -> torch.Tensor:
        """Tokens anywhere in a stretch of slots, int64[slots, tokens of each] all four; the scores,
        float[slots, kept of each, vocabulary].

        Arguments:
            by_length: each is the only one of its slot, and sees all that is before it.
        """
        if by_length:  # those in scratch, which only fill up, see one position
            mask = attention.lengths(torch.where(at < reach, at + 1, 1)[:, 0])
        else:
            mask = seen(reach, at, start[..., None], shared[..., None])[:, None]
        scores: torch.Tensor = self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=at - start + shared,
            past_key_values=self.cache.for_tokens(first, at, reach),
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        return scores


def _power_of_two(count: int) -> int:
    """The least that is no less."""
    return 1 << (count - 1).bit_length()
