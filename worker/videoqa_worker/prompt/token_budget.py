"""Counts the tokens of pictures before one of them is processed: 8192 frames are minutes of work.

The cost of a picture of some size is measured once, with black ones: the processor itself counts the
tokens of two, and of three. From two on each costs the same; a lone image is measured as such,
since LLaVA-OneVision cuts it into tiles. A video whose processor writes times into the prompt, or shares a
budget of pixels among its frames, is measured with its own number of frames and times.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from videoqa.errors import PromptTooLong, UnsupportedInput

__all__ = ["Shape", "TokenBudget"]

_SIZES = 256
"""Sizes of pictures whose cost is cached."""


class Shape(NamedTuple):
    """One item in the prompt, by what decides its tokens."""

    kind: str
    frames: int
    height: int
    width: int
    times_s: tuple[float, ...] | None = None
    duration_s: float | None = None
    settings: Hashable = None
    """Settings with which the processor is called."""


class _Cost(NamedTuple):
    tokens: int
    """Tokens of an item."""
    fixed: int
    """Those of them that fewer frames would not save."""


class TokenBudget:
    """Tokens of pictures against one model's context. Safe to use from many threads."""

    def __init__(
        self,
        max_context: int,
        count: Callable[[str, Sequence[Sequence[np.ndarray]], Any], int],
        count_video: Callable[[Shape], int] | None = None,
    ) -> None:
        """
        Arguments:
            count: returns the tokens of items of a kind, each with its frames, in one prompt with these settings.
            count_video: returns the tokens of one video, where a further frame does not always cost the same.
        """
        self.max_context = max_context
        self._count = count
        self._measure_cached = lru_cache(_SIZES)(self._measure)
        self._count_video = None if count_video is None else lru_cache(_SIZES)(count_video)

    def find_costs(self, shapes: Sequence[Shape]) -> list[_Cost]:
        """Returns the cost of each item.

        Raises:
            UnsupportedInput: the processor refuses such pictures.
        """
        images = [n for n, shape in enumerate(shapes) if shape.kind == "image"]
        lone = len(images) == 1
        return [
            self._find_cost(shape, lone=lone, is_first=n in images[:1])
            for n, shape in enumerate(shapes)
        ]

    def count_tokens(self, shapes: Sequence[Shape]) -> int:
        """Returns the tokens of all items. Raises as `find_costs`."""
        return sum(cost.tokens for cost in self.find_costs(shapes))

    def check(self, shapes: Sequence[Shape], count_others: Callable[[], int]) -> None:
        """Raises PromptTooLong if pictures and other tokens do not fit the context.

        Pictures that the processor refuses are left to it.

        Arguments:
            count_others: returns the other tokens; called only with many frames.
        """
        frames = sum(shape.frames for shape in shapes)
        if frames < 3:
            return  # little work to save
        try:
            costs = self.find_costs(shapes)
        except UnsupportedInput:
            return
        tokens = sum(cost.tokens for cost in costs)
        others = count_others()
        if tokens + others > self.max_context:
            fixed = sum(cost.fixed for cost in costs)
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

    def _find_cost(self, shape: Shape, *, lone: bool, is_first: bool) -> _Cost:
        """Returns the cost of an item; the first of several images has what they cost together beside themselves."""
        if shape.kind == "video" and self._count_video is not None:
            return _Cost(self._count_video(shape), 0)
        kind, frames, height, width = shape[:4]
        lone = lone and kind == "image"
        each, fixed = self._measure_cached(kind, height, width, shape.settings, lone=lone)
        if kind == "image" and not is_first:
            fixed = 0
        return _Cost(fixed + each * frames, fixed)

    def _measure(
        self, kind: str, height: int, width: int, settings: Any, *, lone: bool
    ) -> tuple[int, int]:
        """Returns the tokens of each further picture, and those that a video or a row of images has without any."""
        if lone:
            return self._count(kind, [*_make_black(kind, 1, height, width)], settings), 0
        two, three = (
            self._count(kind, [*_make_black(kind, n, height, width)], settings) for n in (2, 3)
        )
        fixed = two - 2 * (three - two)
        return three - two, max(0, fixed) if kind == "video" else fixed


def _make_black(kind: str, count: int, height: int, width: int) -> Iterator[list[np.ndarray]]:
    """Yields a black video of so many frames, or so many images."""
    frame = np.zeros((height, width, 3), np.uint8)
    if kind == "video":
        yield [frame] * count
    else:
        yield from ([frame] for _ in range(count))
