"""The KV cache of running sequences, in memory that is allocated once.

A layer has one block for keys and one for values, seen as [slots, heads, length, dim]: a slot for a
sequence, or for several with the same prefix (`slots`). The number and length of slots change with
the sequences (`arrange`); the memory does not. A decode step reads contiguous slots, as slices.

To a transformers model this is its `Cache`: every layer calls `update`, the code that makes masks
calls the other methods.
"""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from videoqa_worker.engine.model.kv_shape import KVShape, count_token_bytes

__all__ = ["SlotCache"]


class SlotCache:
    """KV of `tokens` positions. The last position of each slot is scratch: padding of a batch is written there."""

    is_compileable = False

    def __init__(
        self, shape: KVShape, tokens: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        layers, self._heads, self._dim = shape
        self._dtype, self._device = dtype, device
        self._layers = layers
        self.is_sliding = [False] * layers
        self.is_linear = self.is_dummy = self.is_sliding
        self._wanted = tokens
        self._tokens = self.slots = self.length = 0
        self._blocks: list[torch.Tensor] = []
        self._pages: list[mmap.mmap] = []
        """The memory of the blocks, where it is the kernel's to give and to take back."""
        self._views: list[torch.Tensor] = []
        self._allocate(tokens)
        self._positions = self._slot_indices = torch.zeros(0, dtype=torch.long, device=device)
        self._slot: int | torch.Tensor | None = None
        self._start = self._first = self._reach = 0

    @property
    def tokens(self) -> int:
        """Positions for sequences that run together."""
        return min(self._tokens, self._wanted)

    @property
    def is_oversized(self) -> bool:
        """True after a sequence that ran alone needed more positions than configured."""
        return self._tokens > self._wanted

    @property
    def token_bytes(self) -> int:
        """Bytes of one position in all layers."""
        return count_token_bytes((self._layers, self._heads, self._dim), self._dtype)

    def _allocate(self, tokens: int) -> None:
        """Allocates zeros (see `wipe`). If memory runs out nothing is held, and the next `arrange` retries."""
        self._views, self._blocks, self._pages = [], [], []
        self._tokens = self.slots = self.length = 0
        size = tokens * self._heads * self._dim
        self._blocks = [self._make_zeros(size) for _ in range(2 * self._layers)]
        self._tokens = tokens

    def _make_zeros(self, size: int) -> torch.Tensor:
        if self._device.type != "cpu":
            return torch.zeros(size, dtype=self._dtype, device=self._device)
        # Pages that nobody has written take no memory; torch would write all of them.
        size_bytes = size * self._dtype.itemsize
        if sys.platform != "linux":
            return torch.from_numpy(np.zeros(size_bytes, np.uint8)).view(self._dtype)
        # numpy asks for huge pages, of which a single position touches one for each head: 580 MB for the
        # first answer of a model with 109 M parameters.
        pages = mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # a kernel without huge pages
            pages.madvise(mmap.MADV_NOHUGEPAGE)
        self._pages.append(pages)
        return torch.frombuffer(pages, dtype=self._dtype)

    def release(self) -> None:
        """Gives the memory back of a cache whose slots are all free; it is taken again as it is written.

        Only where that is for the kernel to do: on a GPU the memory stays.
        """
        for pages in self._pages:
            pages.madvise(mmap.MADV_DONTNEED)  # reads as zeros from here on

    def arrange(self, length: int, used: Sequence[int]) -> None:
        """Divides the memory into slots of this length and copies the first `used[n]` positions of slot n.

        If memory runs out, the slots are as they were.
        """
        shrinks = self.is_oversized and length <= self._wanted and not used
        if length > self._tokens or shrinks:  # a sequence that runs alone
            self._allocate(max(length, self._wanted))
        # All memory is allocated before anything moves; for one layer at a time it is little.
        copies = [
            torch.empty(self._heads, count, self._dim, dtype=self._dtype, device=self._device)
            for count in used
        ]
        shape = (self._tokens // length, self._heads, length, self._dim)
        views = [block[: math.prod(shape)].view(shape) for block in self._blocks]
        for old, new in zip(self._views, views, strict=False):
            for n, copied in enumerate(copies):
                copied.copy_(old[n, :, : copied.shape[1]])
                self._clear(old, n, 0, copied.shape[1])
            for n, copied in enumerate(copies):
                new[n, :, : copied.shape[1]] = copied
        self._views, self.slots, self.length = views, shape[0], length

    def move(self, source: int, target: int, count: int) -> None:
        """Moves the first `count` positions of a slot to another."""
        for view in self._views:
            view[target, :, :count] = view[source, :, :count]
            self._clear(view, source, 0, count)

    def swap(self, one: int, other: int, count: int) -> None:
        """Exchanges the first `count` positions of two slots."""
        # All memory is allocated before anything moves.
        aside = torch.empty(self._heads, count, self._dim, dtype=self._dtype, device=self._device)
        for view in self._views:
            aside.copy_(view[one, :, :count])
            view[one, :, :count] = view[other, :, :count]
            view[other, :, :count] = aside
            for slot in (one, other):
                self._clear(view, slot, 0, 0)

    def wipe(self, slot: int, start: int, end: int) -> None:
        """Zeroes positions and scratch after NaN: masked values are still multiplied, and NaN would spread."""
        for view in self._views:
            self._clear(view, slot, start, end)

    def _clear(self, view: torch.Tensor, slot: int, start: int, end: int) -> None:
        """Zeroes these positions and scratch; also where KV moved away, since it may not be checked for NaN yet."""
        view[slot, :, start:end].zero_()
        view[slot, :, -1].zero_()

    def save(self, slot: int, count: int) -> list[torch.Tensor]:
        """Returns copies of the first positions: [heads, count, dim] for each block."""
        return [view[slot, :, :count].clone() for view in self._views]

    def restore(self, slot: int, saved: Sequence[torch.Tensor]) -> None:
        """Writes saved positions to the beginning of a slot."""
        for view, one in zip(self._views, saved, strict=True):
            view[slot, :, : one.shape[1]] = one

    # The next forward pass

    def for_prefill(self, slot: int | torch.Tensor, start: int) -> SlotCache:
        """Sets the next pass to write a prefill chunk from this position on.

        Arguments:
            slot: int64[1] if the pass is a CUDA graph that serves any slot; then `start` is 0.
        """
        self._slot, self._start = slot, start
        return self

    def for_decode(self, first: int, positions: torch.Tensor, reach: int) -> SlotCache:
        """Sets the next pass to write single positions and to read contiguous slots.

        Arguments:
            first: index of the first slot.
            positions: int64[slots, positions of each].
            reach: positions of each slot that attention reads.
        """
        self._slot, self._start = None, 0
        self._first, self._positions, self._reach = first, positions, reach
        self._slot_indices = torch.arange(positions.shape[0], device=self._device)[:, None]
        return self

    @property
    def is_decoding(self) -> bool:
        """True if the pass is not the prefill of a single prompt."""
        return self._slot is None

    # The interface of transformers' caches

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes new KV, [slots, heads, new positions, dim] each; returns all that attention reads."""
        own_keys, own_values = self._views[2 * layer_idx], self._views[2 * layer_idx + 1]
        if self._slot is None:
            run = slice(self._first, self._first + keys.shape[0])
            own_keys, own_values = own_keys[run], own_values[run]
            own_keys[self._slot_indices, :, self._positions] = keys.transpose(1, 2)
            own_values[self._slot_indices, :, self._positions] = values.transpose(1, 2)
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
        """Returns the positions before the pass."""
        return self._start

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Returns the positions before the pass."""
        return self._start

    def get_mask_sizes(self, query_length: Any, layer_idx: int = 0) -> tuple[int, int]:
        """Returns the length and the offset of the KV that a mask covers."""
        # transformers before 5.20 gives the positions themselves.
        new = query_length if isinstance(query_length, int) else query_length.shape[0]
        return self._start + new, 0
