"""Keys and values of the rows that run, in memory that is taken once.

A layer has one block for keys and one for values, seen as [slots, heads, length, dim]: a slot for a
row, or for several that begin alike (`seats`). How many slots, and how long, changes with the rows
(`arrange`); the memory does not. A decode step reads stretches of slots, as slices.

To a transformers model this is its `Cache`: `update` is called by every layer, the other methods
by the code that makes masks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from videoqa_worker.engine.model import attention

__all__ = ["SlotCache", "kv_shape", "token_bytes"]

KvShape = tuple[int, int, int]


def kv_shape(model: Any) -> KvShape | None:
    """(layers, heads, dim) of a text model that slots can hold, else None.

    Every layer has to attend to all that was before: windows and recurrent states keep other things
    than keys and values. Only SDPA takes slots' masks: eager attention would add their booleans to
    the scores. And all layers have to be in one place.
    """
    text = model.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    # Mistral has a window without a switch for it.
    windowed = getattr(text, "use_sliding_window", True) and getattr(text, "sliding_window", None)
    heads = getattr(text, "num_attention_heads", None)
    sdpa = str(getattr(text, "_attn_implementation", None)).startswith(("sdpa", attention.NAME))
    places = set((getattr(model, "hf_device_map", None) or {}).values())
    if kinds != {"full_attention"} or windowed or not heads or not sdpa or len(places) > 1:
        return None
    dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    return text.num_hidden_layers, getattr(text, "num_key_value_heads", None) or heads, dim


def token_bytes(shape: KvShape, dtype: torch.dtype) -> int:
    """Of one position, in all layers."""
    layers, heads, dim = shape
    return 2 * layers * heads * dim * dtype.itemsize


class SlotCache:
    """Room for `tokens` positions. The last position of each slot is scratch: rows that only fill
    up a batch write there."""

    is_compileable = False

    def __init__(
        self, shape: KvShape, tokens: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        layers, self._heads, self._dim = shape
        self._dtype, self._device = dtype, device
        self._layers = layers
        self.is_sliding = [False] * layers
        self.is_linear = self.is_dummy = self.is_sliding
        self._wanted = tokens
        self._tokens = self.slots = self.length = 0
        self._blocks: list[torch.Tensor] = []
        self._views: list[torch.Tensor] = []
        self._take(tokens)
        self._at = self._rows = torch.zeros(0, dtype=torch.long, device=device)
        self._slot: int | torch.Tensor | None = None
        self._start = self._first = self._reach = 0

    @property
    def tokens(self) -> int:
        """Positions that there is memory for, for rows that run together."""
        return min(self._tokens, self._wanted)

    @property
    def grown(self) -> bool:
        """A row by itself needed more than that, and left it behind."""
        return self._tokens > self._wanted

    @property
    def token_bytes(self) -> int:
        return token_bytes((self._layers, self._heads, self._dim), self._dtype)

    def _take(self, tokens: int) -> None:
        """Zeros: see `wipe`. If there is no room, nothing is held, and the next `arrange` tries again."""
        self._views, self._blocks = [], []
        self._tokens = self.slots = self.length = 0
        size = tokens * self._heads * self._dim
        self._blocks = [self._zeros(size) for _ in range(2 * self._layers)]
        self._tokens = tokens

    def _zeros(self, size: int) -> torch.Tensor:
        if self._device.type != "cpu":
            return torch.zeros(size, dtype=self._dtype, device=self._device)
        # numpy leaves pages untouched until they are written (calloc), torch writes all of them:
        # 12 GB for the 0.5B in float32, though most of it is never used.
        return torch.from_numpy(np.zeros(size * self._dtype.itemsize, np.uint8)).view(self._dtype)

    def arrange(self, length: int, used: Sequence[int]) -> None:
        """Makes slots of this length, as many as there is room for; keeps the first `used[n]`
        positions of slot n. If memory runs out, those are as they were."""
        gives_back = self.grown and length <= self._wanted and not used
        if length > self._tokens or gives_back:  # a row by itself: who runs together fits
            self._take(max(length, self._wanted))
        # All memory is there before anything moves; a layer at a time, it is little.
        rows = [
            torch.empty(self._heads, count, self._dim, dtype=self._dtype, device=self._device)
            for count in used
        ]
        shape = (self._tokens // length, self._heads, length, self._dim)
        views = [block[: math.prod(shape)].view(shape) for block in self._blocks]
        for old, new in zip(self._views, views, strict=False):
            for n, row in enumerate(rows):
                row.copy_(old[n, :, : row.shape[1]])
                self._clear(old, n, 0, row.shape[1])
            for n, row in enumerate(rows):
                new[n, :, : row.shape[1]] = row
        self._views, self.slots, self.length = views, shape[0], length

    def move(self, source: int, target: int, count: int) -> None:
        """The first positions of one slot to another."""
        for view in self._views:
            view[target, :, :count] = view[source, :, :count]
            self._clear(view, source, 0, count)

    def swap(self, one: int, other: int, count: int) -> None:
        """The first positions of two slots change places."""
        # All memory is there before anything moves.
        aside = torch.empty(self._heads, count, self._dim, dtype=self._dtype, device=self._device)
        for view in self._views:
            aside.copy_(view[one, :, :count])
            view[one, :, :count] = view[other, :, :count]
            view[other, :, :count] = aside
            for slot in (one, other):
                self._clear(view, slot, 0, 0)

    def wipe(self, slot: int, start: int, end: int) -> None:
        """These positions and scratch, after not-a-number: what is masked is still multiplied, so it
        would come through."""
        for view in self._views:
            self._clear(view, slot, start, end)

    def _clear(self, view: torch.Tensor, slot: int, start: int, end: int) -> None:
        """And scratch. Where something moves away as well: nobody has seen yet whether it is a number."""
        view[slot, :, start:end].zero_()
        view[slot, :, -1].zero_()

    def save(self, slot: int, count: int) -> list[torch.Tensor]:
        """A copy: [heads, count, dim] each."""
        return [view[slot, :, :count].clone() for view in self._views]

    def restore(self, slot: int, saved: Sequence[torch.Tensor]) -> None:
        for view, kept in zip(self._views, saved, strict=True):
            view[slot, :, : kept.shape[1]] = kept

    # What a forward pass is about

    def for_prompt(self, slot: int | torch.Tensor, start: int) -> SlotCache:
        """The next pass writes a prompt, or a piece of one, from this position on.

        Arguments:
            slot: int64[1] where the pass is for several of them; then `start` is 0.
        """
        self._slot, self._start = slot, start
        return self

    def for_tokens(self, first: int, at: torch.Tensor, reach: int) -> SlotCache:
        """The next pass writes single positions, and reads a stretch of slots.

        Arguments:
            first: of the slots.
            at: int64[slots, positions in each].
            reach: attention looks at so many positions of each slot.
        """
        self._slot, self._start = None, 0
        self._first, self._at, self._reach = first, at, reach
        self._rows = torch.arange(at.shape[0], device=self._device)[:, None]
        return self

    @property
    def decodes(self) -> bool:
        """The pass is not one over a prompt by itself."""
        return self._slot is None

    # What transformers asks of a cache

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[slots, heads, new positions, dim] each; returns all that is attended to."""
        own_keys, own_values = self._views[2 * layer_idx], self._views[2 * layer_idx + 1]
        if self._slot is None:
            stretch = slice(self._first, self._first + keys.shape[0])
            own_keys, own_values = own_keys[stretch], own_values[stretch]
            own_keys[self._rows, :, self._at] = keys.transpose(1, 2)
            own_values[self._rows, :, self._at] = values.transpose(1, 2)
            return own_keys[:, :, : self._reach], own_values[:, :, : self._reach]
        end = self._start + keys.shape[2]
        if isinstance(self._slot, torch.Tensor):
            own_keys[self._slot, :, :end] = keys
            own_values[self._slot, :, :end] = values
            return keys, values
        slot = slice(self._slot, self._slot + 1)
        own_keys[slot, :, self._start : end] = keys
        own_values[slot, :, self._start : end] = values
        if self._start == 0:
            return keys, values
        return own_keys[slot, :, :end], own_values[slot, :, :end]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._start

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self._start

    def get_mask_sizes(self, query_length: Any, layer_idx: int = 0) -> tuple[int, int]:
        # transformers before 5.20 gives the positions themselves.
        new = query_length if isinstance(query_length, int) else query_length.shape[0]
        return self._start + new, 0
