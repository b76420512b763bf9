"""How many tokens pictures will be, before one of them is touched: 8192 frames are minutes of work.

What a picture of some size costs is measured once, with black ones: the processor itself says how
many tokens two are, and three. From two on each costs the same; a lone image is measured as such,
since LLaVA-OneVision cuts it into tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from videoqa.errors import PromptTooLong, UnsupportedInput

__all__ = ["Budget", "Shape"]

Shape = tuple[str, int, int, int]
"""Kind, number of frames, height and width of what stands for one item in the prompt."""
_SIZES = 256
"""Sizes of pictures whose cost is remembered."""


@dataclass(frozen=True)
class _Cost:
    each: int
    """Tokens of a frame more."""
    fixed: int
    """Tokens of a video, whatever its frames."""


class Budget:
    """Of one model's context. Safe to use from many threads."""

    def __init__(
        self, max_context: int, count: Callable[[str, Sequence[Sequence[np.ndarray]]], int]
    ) -> None:
        """
        Arguments:
            count: the tokens that items of a kind, each with its frames, are in one prompt.
        """
        self.max_context = max_context
        self._count = count
        self._cost = lru_cache(_SIZES)(self._measured)

    def costs(self, shapes: Sequence[Shape]) -> list[tuple[_Cost, int]]:
        """Of each item, with its frames.

        Raises:
            UnsupportedInput: the processor refuses such pictures.
        """
        lone = sum(kind == "image" for kind, _, _, _ in shapes) == 1
        return [
            (self._cost(kind, height, width, lone=lone and kind == "image"), count)
            for kind, count, height, width in shapes
        ]

    def tokens(self, shapes: Sequence[Shape]) -> int:
        """All that they will be. Raises as `costs`."""
        return sum(cost.fixed + cost.each * count for cost, count in self.costs(shapes))

    def check(self, shapes: Sequence[Shape], count_others: Callable[[], int]) -> None:
        """Raises PromptTooLong if these and the other tokens, which are counted only if it matters, do
        not fit the context. What the processor refuses is left to it."""
        frames = sum(count for _, count, _, _ in shapes)
        if frames < 3:
            return  # no work worth sparing
        try:
            tokens = self.tokens(shapes)
        except UnsupportedInput:
            return
        others = count_others()
        if tokens + others > self.max_context:
            fixed = sum(cost.fixed for cost, _ in self.costs(shapes))
            raise self.too_long(tokens + others, frames, fixed, tokens, others)

    def too_long(
        self, length: int, frames: int, fixed: int, media: int, others: int
    ) -> PromptTooLong:
        """
        Arguments:
            length: all tokens, with those of the longest answer.
            fixed: of `media` tokens, those that fewer frames would not spare.
            others: tokens that are no pictures, with those of the longest answer.
        """
        a_frame = (media - fixed) / frames
        fit = max(0, int((self.max_context - others - fixed) // max(1.0, a_frame)))
        return PromptTooLong(
            f"got {length} tokens with max_new_tokens ({frames} frames of about {a_frame:.0f}), "
            f"expected at most {self.max_context}; {fit} frames would fit: sample fewer frames, or "
            "lower max_new_tokens"
        )

    def _measured(self, kind: str, height: int, width: int, *, lone: bool) -> _Cost:
        if lone:
            return _Cost(self._count(kind, [*_black(kind, 1, height, width)]), 0)
        two, three = (self._count(kind, [*_black(kind, n, height, width)]) for n in (2, 3))
        fixed = max(0, two - 2 * (three - two)) if kind == "video" else 0
        return _Cost(three - two, fixed)


def _black(kind: str, count: int, height: int, width: int) -> Iterator[list[np.ndarray]]:
    """A video of so many frames, or so many images."""
    frame = np.zeros((height, width, 3), np.uint8)
    if kind == "video":
        yield [frame] * count
    else:
        yield from ([frame] for _ in range(count))
