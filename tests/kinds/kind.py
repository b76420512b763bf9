"""One row of the accuracy table: a clip, and the picture on screen at each instant.

That picture follows from how the clip was made, never from a decoder. Knows no reader.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

from support.videos import Recipe, write_clip

from videoqa.errors import SamplingError

__all__ = ["Kind"]

_TICK_S = Fraction(1, 1000)
"""The coarsest tick to which containers here round: Matroska's and FLV's."""


@dataclass(frozen=True)
class Kind:
    """A kind of video; by default all pictures are shown at the recipe's times."""

    recipe: Recipe
    write: Callable[[Path, Recipe], None] = write_clip
    edit: Callable[[bytes], bytes] | None = None
    """Edit of the written file."""
    numbers: tuple[int, ...] = ()
    """The pictures that are shown, in their order."""
    times_s: tuple[Fraction, ...] = ()
    """Times of the shown pictures, from the first one on."""
    end_s: Fraction | None = None
    slack_s: Fraction = Fraction(1, 500)
    """Tolerance of the declared end: few files store how long the last picture lasts."""
    clip_s: tuple[float, float] = (0.52, 1.4)
    """A clip of it that is sampled as well."""
    inexact: str = ""
    """Reason why this file is inexact; every frame must then be marked so, though all are right."""
    may_miss: bool = False
    """True for an inexact file whose frames may be other pictures than those on screen."""
    ends_early: bool = False
    """True for a file that is cut off: frames beyond the cut are refused or marked inexact."""
    refused: type[SamplingError] | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    """Sizes of its pictures on screen; by default the recipe's, in square pixels."""
    offset_s: Fraction = Fraction(0)
    """Time on a player's clock at which the first picture is shown, to a few hundredths."""
    warned: tuple[str, ...] = ()
    """Codes of warnings about its pictures."""

    @property
    def pictures(self) -> Sequence[int]:
        return self.numbers or range(self.recipe.frames)

    @cached_property
    def shown_s(self) -> Sequence[Fraction]:
        return self.times_s or self.recipe.shown_s[: len(self.pictures)]

    @property
    def duration_s(self) -> Fraction:
        return self.end_s or self.shown_s[-1] + 1 / self.recipe.fps

    @property
    def shown_sizes(self) -> Sequence[tuple[int, int]]:
        (width, height), aspect = self.recipe.size, self.recipe.pixel_aspect
        wide = (round(width * aspect), height)
        return self.sizes or [wide if aspect >= 1 else (width, round(height / aspect))]

    def place_at(self, instant_s: Fraction) -> int:
        """Returns the number, from 0, of the last picture with time <= instant."""
        return max(0, bisect_right(self.shown_s, instant_s) - 1)

    def places_at(self, instant_s: Fraction, doubt_s: Fraction = Fraction(0)) -> set[int]:
        """Returns all right numbers: an instant less than a tick before a picture belongs to it.

        `doubt_s` is how far the reader's end, and so its instants, may be off.
        """
        first = self.place_at(instant_s - doubt_s)
        return set(range(first, self.place_at(instant_s + max(_TICK_S, doubt_s)) + 1))

    def make(self, folder: Path) -> Path:
        """Writes the clip under the recipe's name."""
        path = folder / self.recipe.name
        self.write(path, self.recipe)
        if self.edit is not None:
            path.write_bytes(self.edit(path.read_bytes()))
        return path
