"""Where the positions of a row lie in the cache, and which of them a token sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

__all__ = ["Last", "Place", "seen"]


@dataclass(frozen=True)
class Place:
    """Where the positions of a row lie: the first `shared` at the beginning of a slot, the others from
    `start` on."""

    slot: int
    start: int = 0
    shared: int = 0

    def at(self, position: int) -> int:
        return position if position < self.shared else self.start + position - self.shared


class Last(NamedTuple):
    """The last token of a row, where it goes in its slot, and which positions the row sees."""

    token: int
    at: int
    start: int
    shared: int


def seen(
    reach: int, at: torch.Tensor, start: int | torch.Tensor, shared: int | torch.Tensor
) -> torch.Tensor:
    """bool[..., reach]: which positions of its slot a token sees, that is at `at`, int64[...]: what is
    shared, and what is its row's own up to itself."""
    places = torch.arange(reach, device=at.device)
    return ((places < shared) | (places >= start)) & (places <= at[..., None])
