"""What is left to be computed of a prompt, and what of it is kept.

Pictures become features by the model's own encoder and stand in the prompt's embeddings, so a
prompt can be cut anywhere. Features, and the keys and values of a prompt up to its last picture,
are kept for the next question about the same pictures. Knows nothing of passes over prompts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from videoqa_worker.engine.device.cuda_graphs import Graphs
from videoqa_worker.engine.device.memory import kept_bytes
from videoqa_worker.engine.failures import fault_of
from videoqa_worker.engine.kvcache.lru import Kept, prefix_digest
from videoqa_worker.engine.kvcache.slot_cache import SlotCache
from videoqa_worker.engine.model import vision
from videoqa_worker.engine.request import Ticket
from videoqa_worker.settings import EngineConfig

__all__ = ["Prompt", "Prompts"]


@dataclass
class Prompt:
    """One on its way in."""

    length: int
    done: int = 0
    """Positions that are there."""
    rest: torch.Tensor = field(default_factory=lambda: torch.empty(1, 0))
    """Of the others: int64[1, n], their ids, if none of them is a picture's; else their embeddings, [1, n, d]."""
    prefix: int = 0
    """Positions up to the last picture, if they may be kept."""
    key: bytes = b""
    """Under which the prefix is to be kept; empty: it is kept already, or not to be."""

    @property
    def text_only(self) -> bool:
        """What is left of it."""
        return not self.rest.is_floating_point()


class Prompts:
    """Of one model, on the engine's thread."""

    def __init__(self, model: Any, graphs: Graphs, cache: SlotCache, config: EngineConfig) -> None:
        self._model, self._graphs, self._cache = model, graphs, cache
        features, prefixes = config.feature_cache_bytes, config.prefix_cache_bytes
        self.features: Kept[vision.Flat] = Kept(kept_bytes(features, model.device))
        self.prefixes: Kept[list[torch.Tensor]] = Kept(kept_bytes(prefixes, model.device))

    @property
    def keeps(self) -> bool:
        """Whether anything is."""
        return self.features.takes(1) or self.prefixes.takes(1)

    def let_go(self) -> bool:
        """Frees what is kept, and what graphs hold for their passes; False if nothing was kept."""
        self._graphs.forget()
        return self.prefixes.clear() | self.features.clear()

    def beginning(self, ticket: Ticket) -> tuple[bytes, int]:
        """A digest of the prompt up to its last picture, and the positions of that; (b"", 0) if there
        are no pictures, or nobody cares which are equal."""
        if ticket.beginning is None:
            inputs, length, key = ticket.request.inputs, 0, b""
            placed = vision.placeholders(self._model, inputs)
            if placed.any() and ticket.media:
                # The last position's scores are the first token: it is always computed.
                length = min(int(placed.nonzero()[-1]) + 1, inputs.length - 1)
                key = prefix_digest(inputs, ticket.media, length)
            ticket.beginning = key, length
        return ticket.beginning

    def open(self, ticket: Ticket, slot: int, *, beside: bool) -> Prompt:
        """What is left to be computed of a prompt.

        Arguments:
            beside: its beginning is there, as that of another row.
        """
        inputs = ticket.request.inputs
        prompt = Prompt(inputs.length)
        key, length = self.beginning(ticket)
        if beside:
            prompt.done = length
        elif key and self.prefixes.takes(1):
            prompt.prefix, prompt.key = length, key
            saved = self.prefixes.get(key)
            if saved is not None:
                self._cache.restore(slot, saved)
                prompt.done, prompt.key = length, b""
        placed = vision.placeholders(self._model, inputs)
        if placed[prompt.done :].any():
            whole = vision.embedded(self._model, inputs, self._features(ticket))
            prompt.rest = whole[:, prompt.done :]
        else:
            rest = inputs.input_ids[:, prompt.done :]
            prompt.rest = rest.to(self._model.device, non_blocking=True)
        return prompt

    def _features(self, ticket: Ticket) -> vision.Flat:
        kept = self.features.get(ticket.media) if ticket.media else None
        if kept is None:
            kept = vision.flat(vision.encode(self._model, ticket.request.inputs, self._graphs))
            if ticket.media:
                size = sum(part.numel() * part.element_size() for part in kept.values())
                self.features.put(ticket.media, kept, size)
        return kept

    def keep(self, prompt: Prompt, slot: int) -> None:
        """Of a complete prompt, what the next question about its pictures can use."""
        size = prompt.prefix * self._cache.token_bytes
        if prompt.key and self.prefixes.takes(size):
            saved = self._saved(prompt, slot)
            if saved is not None:
                self.prefixes.put(prompt.key, saved, size)

    def _saved(self, prompt: Prompt, slot: int) -> list[torch.Tensor] | None:
        """None where there is no memory: the answer does without."""
        try:
            return self._cache.save(slot, prompt.prefix)
        except Exception as error:
            if not fault_of(error).memory:
                raise
        return None
