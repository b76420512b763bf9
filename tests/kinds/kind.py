"""One row of the accuracy table: a clip, and what is on screen in it.

What is on screen follows from how the clip was made, never from a decoder. Knows no reader.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from support.videos import Recipe, write_clip

from videoqa.errors import SamplingError

__all__ = ["Kind"]

_TICK_S = Fraction(1, 1000)
"""The coarsest tick to which containers here round: Matroska's and FLV's."""


@dataclass(frozen=True)
class Kind:
    """By default all pictures of the recipe are shown when the recipe says."""

    recipe: Recipe
    write: Callable[[Path, Recipe], None] = write_clip
    edit: Callable[[bytes], bytes] | None = None
    """Done to the file once it is written."""
    numbers: tuple[int, ...] = ()
    """The pictures that are shown, in their order."""
    times_s: tuple[Fraction, ...] = ()
    """Times, from the first shown picture on."""
    end_s: Fraction | None = None
    slack_s: Fraction = Fraction(1, 500)
    """The file may tell the end this far off: few store how long the last picture lasts."""
    clip_s: tuple[float, float] = (0.52, 1.4)
    """A part of it that is sampled too."""
    inexact: str = ""
    """Why this file cannot tell exactly; then every frame must say so, though all are right."""
    may_miss: bool = False
    """Inexact, and another picture may come than the one on screen; then it must say so."""
    ends_early: bool = False
    """Cut off: what is there must be right; what is not is refused, or said to be inexact."""
    refused: type[SamplingError] | None = None

    @property
    def pictures(self) -> Sequence[int]:
        return self.numbers or range(self.recipe.frames)

    @property
    def shown_s(self) -> Sequence[Fraction]:
        return self.times_s or self.recipe.shown_s[: len(self.pictures)]

    @property
    def duration_s(self) -> Fraction:
        return self.end_s or self.shown_s[-1] + 1 / self.recipe.fps

    def place_at(self, instant_s: Fraction) -> int:
        """The last picture with time <= instant: its place in the video, from 0."""
        return max(0, bisect_right(self.shown_s, instant_s) - 1)

    def places_at(self, instant_s: Fraction, doubt_s: Fraction = Fraction(0)) -> set[int]:
        """All that are right: an instant less than a tick before a picture belongs to it.

        `doubt_s`: how far the reader's end, and so its instants, may be off.
        """
        first = self.place_at(instant_s - doubt_s)
        return set(range(first, self.place_at(instant_s + max(_TICK_S, doubt_s)) + 1))

    def make(self, folder: Path) -> Path:
        """Writes the clip; its name is the recipe's."""
        path = folder / self.recipe.name
        self.write(path, self.recipe)
        if self.edit is not None:
            path.write_bytes(self.edit(path.read_bytes()))
        return path
