"""Positions of a sequence in its slot, and the input of its decode step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["DecodeInput", "KVPosition"]


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
