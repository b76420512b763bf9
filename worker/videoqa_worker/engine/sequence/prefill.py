"""Prefill state of a prompt: the positions that are computed, and the input for the others.

The model's own encoder turns pictures into features, which stand in the prompt's embeddings: so a prompt
can be cut into chunks anywhere. Knows nothing of forward passes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from videoqa_worker.engine.generation import PendingRequest
from videoqa_worker.engine.kvcache.prefix_cache import PrefixCache
from videoqa_worker.engine.model import vision
from videoqa_worker.engine.model.deep_features import DeepFeatures
from videoqa_worker.engine.model.rotary_positions import RotaryPositions, find_positions

__all__ = ["Prefill", "begin_prefill"]


@dataclass
class Prefill:
    """A prompt whose KV is not complete."""

    length: int
    positions: RotaryPositions = field(
        default_factory=lambda: RotaryPositions(torch.empty(1, 0, dtype=torch.long))
    )
    done: int = 0
    """Positions whose KV is written."""
    rest: torch.Tensor = field(default_factory=lambda: torch.empty(1, 0))
    """Input for the other positions: token ids, int64[1, n], if none is a picture's or `deep` has their features;
    else embeddings, [1, n, d]."""
    deep: DeepFeatures | None = None
    """Features that the model puts in by itself."""
    blocks: torch.Tensor | None = None
    """int64[L]: pictures whose tokens attend to each other in both directions, see `LayerMasks`."""
    prefix_length: int = 0
    """Positions up to the last picture, if the prefix cache may hold them."""
    prefix_key: bytes = b""
    """Key to cache the prefix under; empty: it is cached already, or must not be."""

    @property
    def is_text(self) -> bool:
        """True if no picture is left to compute."""
        return self.deep is None and not self.has_embeddings

    @property
    def has_embeddings(self) -> bool:
        """True if the input is embeddings."""
        return self.rest.is_floating_point()

    def find_end(self, end: int) -> int:
        """Returns the end of a chunk, moved out of a picture that would be cut where its tokens need each other."""
        if self.blocks is None or end >= self.length:
            return end
        numbers = self.blocks.tolist()
        if numbers[end] < 0 or numbers[end] != numbers[end - 1]:
            return end
        first = numbers.index(numbers[end])
        return first if first > self.done else first + numbers.count(numbers[end])

    def build_input(self, end: int) -> dict[str, Any]:
        """Returns the model's arguments for the next positions, up to this one."""
        chunk = self.rest[:, : end - self.done]
        if self.has_embeddings:
            return {"inputs_embeds": chunk}
        deep = self.deep.slice(self.done, end) if self.deep is not None else {}
        return {"input_ids": chunk, **deep}


def begin_prefill(
    model: Any, cache: PrefixCache, pending: PendingRequest, slot: int, *, shares_prefix: bool
) -> Prefill:
    """Returns the prefill of a prompt, begun with what the prefix cache or the slot has of it.

    Arguments:
        shares_prefix: another sequence of the slot has written the prefix.
    """
    inputs = pending.request.inputs
    prefill = Prefill(inputs.length, find_positions(model, inputs))
    key, length = cache.find_prefix(pending)
    if shares_prefix:
        prefill.done = length
    elif key and cache.prefixes.accepts(1):
        prefill.prefix_length, prefill.prefix_key = length, key
        if cache.restore(key, slot):
            prefill.done, prefill.prefix_key = length, b""
    placeholders = vision.find_placeholders(model, inputs)
    if placeholders[prefill.done :].any():
        features = cache.compute_features(pending)
        prefill.deep = DeepFeatures.find(model, inputs, features)
        if prefill.deep is None:
            prefill.rest = vision.embed(model, inputs, features)[:, prefill.done :]
            return prefill
    rest = inputs.input_ids[:, prefill.done :]
    prefill.rest = rest.to(model.device, non_blocking=True)
    return prefill
