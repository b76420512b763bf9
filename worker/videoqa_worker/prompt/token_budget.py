"""Counts the tokens of pictures before one of them is processed: 8192 frames are minutes of work.

The cost of a picture of some size is measured once, with black ones: the processor itself counts the
tokens of two, and of three. From two on each costs the same; a lone image is measured as such,
since LLaVA-OneVision cuts it into tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from videoqa.errors import PromptTooLong, UnsupportedInput

__all__ = ["Shape", "TokenBudget"]

Shape = tuple[str, int, int, int]
"""Kind, number of frames, height and width of one item in the prompt."""
_SIZES = 256
"""Sizes of pictures whose cost is cached."""


@dataclass(frozen=True)
class _Cost:
    each: int
    """Tokens of each further frame."""
    fixed: int
    """Tokens of a video with no frames."""


class TokenBudget:
    """Tokens of pictures against one model's context. Safe to use from many threads."""

    def __init__(
        self, max_context: int, count: Callable[[str, Sequence[Sequence[np.ndarray]]], int]
    ) -> None:
        """
        Arguments:
            count: returns the tokens of items of a kind, each with its frames, in one prompt.
        """
        self.max_context = max_context
        self._count = count
        self._cost = lru_cache(_SIZES)(self._measure)

    def find_costs(self, shapes: Sequence[Shape]) -> list[tuple[_Cost, int]]:
        """Returns the cost of each item, with its number of frames.

        Raises:
            UnsupportedInput: the processor refuses such pictures.
        """
        lone = sum(kind == "image" for kind, _, _, _ in shapes) == 1
        return [
            (self._cost(kind, height, width, lone=lone and kind == "image"), count)
            for kind, count, height, width in shapes
        ]

    def count_tokens(self, shapes: Sequence[Shape]) -> int:
        """Returns the tokens of all items. Raises as `find_costs`."""
        return sum(cost.fixed + cost.each * count for cost, count in self.find_costs(shapes))

    def check(self, shapes: Sequence[Shape], count_others: Callable[[], int]) -> None:
        """Raises PromptTooLong if pictures and other tokens do not fit the context.

        Pictures that the processor refuses are left to it.

        Arguments:
            count_others: returns the other tokens; called only with many frames.
        """
        frames = sum(count for _, count, _, _ in shapes)
        if frames < 3:
            return  # little work to save
        try:
            tokens = self.count_tokens(shapes)
        except UnsupportedInput:
            return
        others = count_others()
        if tokens + others > self.max_context:
            fixed = sum(cost.fixed for cost, _ in self.find_costs(shapes))
            raise self.make_error(tokens + others, frames, fixed, tokens, others)

    def make_error(
        self, length: int, frames: int, fixed: int, media: int, others: int
    ) -> PromptTooLong:
        """Returns the error for a prompt that is too long, with the number of frames that would fit.

        Arguments:
            length: all tokens, with those of the longest answer.
            fixed: those of the `media` tokens that fewer frames would not save.
            others: tokens of no picture, with those of the longest answer.
        """
        a_frame = (media - fixed) / frames
        fit = max(0, int((self.max_context - others - fixed) // max(1.0, a_frame)))
        return PromptTooLong(
            f"got {length} tokens with max_new_tokens ({frames} frames of about {a_frame:.0f}), "
            f"expected at most {self.max_context}; {fit} frames would fit: sample fewer frames, or "
            "lower max_new_tokens"
        )

    def _measure(self, kind: str, height: int, width: int, *, lone: bool) -> _Cost:
        if lone:
            return _Cost(self._count(kind, [*_make_black(kind, 1, height, width)]), 0)
        two, three = (self._count(kind, [*_make_black(kind, n, height, width)]) for n in (2, 3))
        fixed = max(0, two - 2 * (three - two)) if kind == "video" else 0
        return _Cost(three - two, fixed)


def _make_black(kind: str, count: int, height: int, width: int) -> Iterator[list[np.ndarray]]:
    """Yields a black video of so many frames, or so many images."""
    frame = np.zeros((height, width, 3), np.uint8)
    if kind == "video":
        yield [frame] * count
    else:
        yield from ([frame] for _ in range(count))
