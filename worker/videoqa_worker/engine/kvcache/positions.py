"""Positions of a sequence in its slot, and the mask of those that a token attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

__all__ = ["DecodeInput", "KVPosition", "mask_visible"]


@dataclass(frozen=True)
class KVPosition:
    """Maps the positions of a sequence to those of its slot.

    The first `prefix_length` lie at the beginning of the slot, the others from `start` on.
    """

    slot: int
    start: int = 0
    prefix_length: int = 0

    def locate(self, position: int) -> int:
        """Returns where in the slot this position of the sequence lies."""
        if position < self.prefix_length:
            return position
        return self.start + position - self.prefix_length


class DecodeInput(NamedTuple):
    """The last token of a sequence, its position in the slot, and the region that it attends to."""

    token: int
    position: int
    start: int
    prefix_length: int
    rotary: int
    """Its rotary position."""


def mask_visible(
    reach: int,
    positions: torch.Tensor,
    start: int | torch.Tensor,
    prefix_length: int | torch.Tensor,
) -> torch.Tensor:
    """Returns bool[..., reach]: the positions of its slot that each token attends to.

    A token at `positions`, int64[...], attends to the shared prefix and to its own region up to itself.
    """
    columns = torch.arange(reach, device=positions.device)
    return ((columns < prefix_length) | (columns >= start)) & (columns <= positions[..., None])
