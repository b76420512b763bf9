"""Forward passes over slots: a prompt piece by piece, or one token of every row.

Pictures become features by the model's own encoder and stand in the prompt's embeddings, so a
prompt can be cut anywhere. Features, and the keys and values of a prompt up to its last picture,
are kept for the next question about the same pictures. Knows nothing of who waits and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from videoqa_worker.engine import vision
from videoqa_worker.engine.config import EngineConfig
from videoqa_worker.engine.faults import fault_of
from videoqa_worker.engine.graphs import Graphs
from videoqa_worker.engine.kv import KvShape, SlotCache, token_bytes
from videoqa_worker.engine.load import Loaded
from videoqa_worker.engine.request import Ticket
from videoqa_worker.engine.reuse import Kept, prefix_digest

__all__ = ["Passes", "Prompt"]

_REACH = {"cuda": 512, "cpu": 64}
"""Attention's reach is rounded up to it: one graph serves so many steps."""
_PROMPT = 64
"""Prompts are rounded up to it, where they run as graphs. No more than slots: see `_LENGTHS`."""
_CPU_KEPT_BYTES, _CUDA_KEPT_SHARE = 256 << 20, 0.05
"""What each of the two caches may take if the settings say nothing; the share is of all memory."""


_CUDA_KV_SHARE = 0.7
"""Of the memory that is free beside the weights: small devices have no room for what is asked."""


@dataclass
class Prompt:
    """One on its way into a slot."""

    slot: int
    length: int
    done: int = 0
    """Positions that are there."""
    embeddings: torch.Tensor | None = None
    """[1, length - those restored, d]; None: text only, `ids` say it."""
    ids: torch.Tensor | None = None
    prefix: int = 0
    """Positions up to the last picture."""
    key: bytes = b""
    """Under which the prefix is to be kept; empty: it is kept already, or not to be."""


class Passes:
    """Of one model, on the engine's thread."""

    def __init__(self, loaded: Loaded, shape: KvShape, config: EngineConfig) -> None:
        self._model = loaded.model
        self._device: torch.device = loaded.model.device
        dtype = self._model.dtype
        tokens = min(config.max_batch_tokens, self._affordable(token_bytes(shape, dtype)))
        self.cache = SlotCache(shape, tokens, dtype, self._device)
        self.features: Kept[vision.Flat] = Kept(self._limit(config.feature_cache_bytes))
        self.prefixes: Kept[list[torch.Tensor]] = Kept(self._limit(config.prefix_cache_bytes))
        self._graphs = Graphs(self._device, wanted=config.cuda_graphs)
        self._numbers = torch.arange(1024, device=self._device)

    def _affordable(self, bytes_each: int) -> int:
        """Positions that leave the device room for the caches and for passes."""
        if self._device.type != "cuda":
            return 2**62
        free, _ = torch.cuda.mem_get_info(self._device)
        return max(1, int(free * _CUDA_KV_SHARE) // bytes_each)

    def _limit(self, configured: int | None) -> int:
        if configured is not None:
            return configured
        if self._device.type != "cuda":
            return _CPU_KEPT_BYTES
        total = torch.cuda.get_device_properties(self._device).total_memory
        return int(total * _CUDA_KEPT_SHARE)

    @property
    def keeps(self) -> bool:
        """Whether it is worth knowing which pictures are equal."""
        return self.features.takes(1) or self.prefixes.takes(1)

    def arrange(self, length: int, used: Sequence[int]) -> None:
        """See `SlotCache.arrange`."""
        self._graphs.forget()
        self.cache.arrange(length, used)

    def let_go(self) -> bool:
        """Frees what is kept; False if nothing was."""
        return self.prefixes.clear() | self.features.clear()

    # A prompt

    def open(self, ticket: Ticket, slot: int) -> Prompt:
        """What is left to be computed of a prompt."""
        inputs = ticket.request.inputs
        prompt = Prompt(slot, inputs.length)
        placed = vision.placeholders(self._model, inputs)
        if placed.any() and ticket.media and self.prefixes.takes(1):
            # The last position's scores are the first token: it is always computed.
            last = int(placed.nonzero()[-1]) + 1
            prompt.prefix = min(last, inputs.length - 1)
            prompt.key = prefix_digest(inputs, ticket.media, prompt.prefix)
            saved = self.prefixes.get(prompt.key)
            if saved is not None:
                self.cache.restore(slot, saved)
                prompt.done, prompt.key = prompt.prefix, b""
        ids = inputs.input_ids[:, prompt.done :].to(self._device)
        if placed[prompt.done :].any():
            whole = vision.embedded(self._model, inputs, self._features(ticket))
            prompt.embeddings = whole[:, prompt.done :]
        else:
            prompt.ids = ids
        return prompt

    def _features(self, ticket: Ticket) -> vision.Flat:
        kept = self.features.get(ticket.media) if ticket.media else None
        if kept is None:
            kept = vision.flat(vision.encode(self._model, ticket.request.inputs, self._graphs))
            if ticket.media:
                size = sum(part.numel() * part.element_size() for part in kept.values())
                self.features.put(ticket.media, kept, size)
        return kept

    def advance(self, prompt: Prompt, most: int) -> torch.Tensor | None:
        """Computes up to so many positions; the scores, float[1, vocabulary], after the last."""
        whole = not prompt.done and prompt.length <= most
        if self._graphs.on and whole and prompt.embeddings is not None:
            return self._whole(prompt, prompt.embeddings)
        start, end = prompt.done, min(prompt.length, prompt.done + most)
        given = "input_ids" if prompt.ids is not None else "inputs_embeds"
        rest = prompt.ids if prompt.ids is not None else prompt.embeddings
        assert rest is not None  # noqa: S101 - one of the two, by construction
        piece, later = rest[:, : end - start], rest[:, end - start :]
        mask = None
        if start:
            every = torch.ones(end - start, end, dtype=torch.bool, device=self._device)
            mask = every.tril(diagonal=start)[None, None]
        with self._any_shape():
            scores: torch.Tensor = self._model(
                **{given: piece},
                attention_mask=mask,
                position_ids=torch.arange(start, end, device=self._device)[None],
                past_key_values=self.cache.for_prompt(prompt.slot, start),
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
        prompt.done = end
        if prompt.ids is not None:
            prompt.ids = later
        else:
            prompt.embeddings = later
        return scores if end == prompt.length else None

    def keep(self, prompt: Prompt) -> None:
        """Of a complete prompt, what the next question about its pictures can use."""
        size = prompt.prefix * self.cache.token_bytes
        if prompt.key and self.prefixes.takes(size):
            saved = self._saved(prompt)
            if saved is not None:
                self.prefixes.put(prompt.key, saved, size)

    def _saved(self, prompt: Prompt) -> list[torch.Tensor] | None:
        """None where there is no memory: the answer does without."""
        try:
            return self.cache.save(prompt.slot, prompt.prefix)
        except Exception as error:
            if not fault_of(error).memory:
                raise
        return None

    def _any_shape(self) -> AbstractContextManager[None]:
        """cuDNN's attention, the default on some GPUs, prepares itself for each new shape: 0.85 s on
        an H200. Prompts have many shapes."""
        if self._device.type != "cuda":
            return nullcontext()
        return sdpa_kernel(
            [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        )

    def _whole(self, prompt: Prompt, embeddings: torch.Tensor) -> torch.Tensor:
        """All of a prompt as a graph. What is filled up behind it is masked, then overwritten."""
        longest = -(-prompt.length // _PROMPT) * _PROMPT
        filled = embeddings.new_zeros(1, longest, embeddings.shape[-1])
        filled[:, : prompt.length] = embeddings
        places = torch.tensor([[prompt.slot], [prompt.length - 1]]).to(self._device)
        key = "prompt", longest
        scores = self._graphs.run(key, self._prompt_pass, filled, places[0], places[1])
        prompt.done, prompt.embeddings = prompt.length, None
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

    def decode(self, tokens: Sequence[int], lengths: Sequence[int]) -> torch.Tensor:
        """The next scores of each row, float[rows, vocabulary].

        Arguments:
            tokens: the last token of each row.
            lengths: the position of each, which is how many come before it.
        """
        count, scratch = len(tokens), self.cache.length - 1
        rows = min(1 << (count - 1).bit_length(), self.cache.slots) if self._graphs.on else count
        step = _REACH.get(self._device.type, _REACH["cpu"])
        reach = min(self.cache.length, -(-(max(lengths) + 1) // step) * step)
        filler = rows - count
        numbers = torch.tensor([[*tokens, *[0] * filler], [*lengths, *[scratch] * filler]])
        placed = numbers.to(self._device, non_blocking=True)
        key = "rows", rows, reach
        return self._graphs.run(key, partial(self._rows_pass, reach), *placed)[:count]

    def _rows_pass(self, reach: int, tokens: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        rows = self._numbers[: tokens.shape[0]]
        seen = torch.arange(reach, device=self._device) <= at[:, None]
        scores: torch.Tensor = self._model(
            input_ids=tokens[:, None],
            attention_mask=seen[:, None, None],
            position_ids=at[:, None],
            past_key_values=self.cache.for_tokens(rows, at, reach),
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return scores
