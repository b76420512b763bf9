"""Limits on the pixels and tokens of each frame and image, by the processor's own settings of size.

Processors have different ones: an area in pixels, for a frame or for all frames of a video together (Qwen-VL, GLM-4V,
VideoLLaMA3), the longest edge (Idefics3, Pixtral), a number of tiles (InternVL, Molmo2) or of tokens (Gemma 4). So
the processor is asked what a setting makes of pictures of these sizes, and the largest one that keeps the limits is
searched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, NamedTuple, Self

from videoqa.contract import Sampling
from videoqa.errors import FrameLimitUnmet, UnsupportedInput
from videoqa_worker.prompt.token_budget import Shape

__all__ = ["NO_LIMITS", "NO_SETTINGS", "Limiter", "Measured", "PartSettings", "PictureLimits"]

_SMALLEST_AREA = 64 * 64
"""Areas from here on are areas: no processor has an edge of as many pixels."""
_SMALLEST_EDGE = 28
_COUNTS = ("max_patches", "max_crops", "max_slice_nums", "max_num_tiles", "max_image_tokens")
"""Settings that count the tiles of a picture, its patches or its tokens."""
_SOFT_TOKENS = (70, 140, 280, 560, 1120)
"""Values of `max_soft_tokens` that Gemma 4's processors take."""
_CACHED = 256


@dataclass(frozen=True)
class PictureLimits:
    """Limits of each frame and image, as the model sees it."""

    max_pixels: int | None = None
    """Width x height after resizing; of an image that is cut into tiles, those of all tiles."""
    max_tokens: int | None = None
    """Tokens that stand for it; of frames that share tokens, their share."""

    @classmethod
    def of(cls, sampling: Sampling) -> Self:
        """Returns the limits that a request states."""
        return cls(sampling.max_pixels, sampling.max_tokens_per_frame)

    def __bool__(self) -> bool:
        return self != NO_LIMITS


NO_LIMITS = PictureLimits()


@dataclass(frozen=True, eq=False)
class PartSettings:
    """Arguments of a call of an image or video processor; equal only to itself."""

    values: Mapping[str, Any] = field(default_factory=dict)


NO_SETTINGS = PartSettings()


class Measured(NamedTuple):
    """A picture or frame as the model sees it."""

    pixels: float
    tokens: float

    def keeps(self, limits: PictureLimits) -> bool:
        """Returns True if it is within the limits."""
        return (limits.max_pixels is None or self.pixels <= limits.max_pixels) and (
            limits.max_tokens is None or self.tokens <= limits.max_tokens
        )


class _Knob(NamedTuple):
    """A whole number by which a processor makes pictures larger."""

    low: int
    high: int
    make: Callable[[int], dict[str, Any]]


class Limiter:
    """Finds settings for limits. Safe to use from many threads."""

    def __init__(self, processor: Any, measure: Callable[[Shape, PartSettings], Measured]) -> None:
        """
        Arguments:
            measure: returns what the processor makes of a frame of a video, or of an image, with settings.
        """
        self._processor = processor
        self._measure = measure
        self._choose_cached = lru_cache(_CACHED)(self._choose)

    def choose(self, kind: str, shapes: Sequence[Shape], limits: PictureLimits) -> PartSettings:
        """Returns the settings for pictures of one kind.

        Raises:
            FrameLimitUnmet: the processor cannot keep the limits.
        """
        sizes = tuple(
            Shape(kind, shape.frames, shape.height, shape.width)
            for shape in dict.fromkeys(shapes)
            if shape.kind == kind
        )
        return self._choose_cached(kind, sizes, limits) if limits and sizes else NO_SETTINGS

    def _choose(self, kind: str, shapes: tuple[Shape, ...], limits: PictureLimits) -> PartSettings:
        def keep(values: Mapping[str, Any]) -> bool:
            try:
                found = (self._measure(shape, PartSettings(values)) for shape in shapes)
                return all(one.keeps(limits) for one in found)
            except (UnsupportedInput, ArithmeticError):
                return False

        if keep({}):
            return NO_SETTINGS
        knobs = _find_knobs(getattr(self._processor, f"{kind}_processor"))
        knob = next((one for one in knobs if keep(one.make(one.low))), None)
        if knob is None:
            raise self._refuse(shapes[0], limits)
        low, high = knob.low, knob.high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if keep(knob.make(middle)) else (low, middle)
        return PartSettings(knob.make(low))

    def _refuse(self, shape: Shape, limits: PictureLimits) -> FrameLimitUnmet:
        found = self._measure(shape, NO_SETTINGS)
        asked = [
            f"{limit} {name}"
            for name, limit in (("pixels", limits.max_pixels), ("tokens", limits.max_tokens))
            if limit is not None
        ]
        return FrameLimitUnmet(
            f"expected at most {' and '.join(asked)} for each picture, but the model makes {found.pixels:.0f} pixels "
            f"and {found.tokens:.0f} tokens of one of {shape.width} x {shape.height}, and its processor has no setting "
            "that keeps the limit: raise it or leave it out"
        )


def _find_knobs(part: Any) -> Iterator[_Knob]:
    """Yields the settings by which this processor makes pictures smaller; none: they have a fixed size."""
    for name in _COUNTS:
        most = getattr(part, name, None)
        if isinstance(most, int) and most > 1 and getattr(part, "crop_to_patches", True):
            yield _Knob(1, most, partial(_make_count, part, name))
    steps = [step for step in _SOFT_TOKENS if step <= (getattr(part, "max_soft_tokens", None) or 0)]
    if steps:
        yield _Knob(0, len(steps) - 1, lambda index: {"max_soft_tokens": steps[index]})
    stated = getattr(part, "size", None)
    size = {edge: length for edge, length in dict(stated).items() if length} if stated else {}
    longest = size.get("longest_edge", 0)
    if size.keys() == {"shortest_edge", "longest_edge"} and longest > _SMALLEST_AREA:
        shortest = size["shortest_edge"]
        yield _Knob(
            _SMALLEST_AREA,
            longest,
            lambda area: {"size": {"shortest_edge": min(shortest, area), "longest_edge": area}},
        )
    if size.keys() == {"longest_edge"} and longest > _SMALLEST_EDGE:
        yield _Knob(_SMALLEST_EDGE, longest, lambda edge: {"size": {"longest_edge": edge}})


def _make_count(part: Any, name: str, most: int) -> dict[str, Any]:
    least = name.replace("max", "min")
    stated = getattr(part, least, None)
    return {name: most, **({least: min(stated, most)} if isinstance(stated, int) else {})}
