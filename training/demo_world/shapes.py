"""Scenes of the demo world: coloured shapes that move straight, or stay still, on a plain background.

Everything here is geometry in the unit square: x to the right, y downwards, both 0..1 of the
picture. Time is `u`, 0..1 of the clip. Knows nothing of pixels, questions or video files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["COLORS", "DIRECTIONS", "SHAPES", "MovingShape", "Rgb", "Scene", "SceneKind"]

Rgb = tuple[int, int, int]
SceneKind = Literal["single", "sequence", "group"]

COLORS: dict[str, Rgb] = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 230),
    "yellow": (240, 220, 40),
    "purple": (170, 50, 190),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle")
#: Unit steps, as (x, y); "still" does not move.
DIRECTIONS: dict[str, tuple[int, int]] = {
    "right": (1, 0),
    "left": (-1, 0),
    "down": (0, 1),
    "up": (0, -1),
    "still": (0, 0),
}


@dataclass(frozen=True)
class MovingShape:
    """One shape: its look, its path, and the time in which it is seen."""

    color: str
    shape: str
    direction: str
    #: Centre of the shape when it appears, as (x, y) in 0..1.
    start: tuple[float, float]
    #: Centre of the shape when it goes, as (x, y) in 0..1.
    end: tuple[float, float]
    #: Fraction of the picture's shorter side.
    radius: float
    #: Seen for `appears <= u < vanishes`, fractions of the clip.
    appears: float = 0.0
    vanishes: float = 1.0

    def __post_init__(self) -> None:
        for value, known in (
            (self.color, COLORS),
            (self.shape, SHAPES),
            (self.direction, DIRECTIONS),
        ):
            if value not in known:
                raise ValueError(f"got {value!r}, expected one of {', '.join(known)}")

    @property
    def name(self) -> str:
        """Colour and shape, for example "a red circle"."""
        return f"a {self.color} {self.shape}"

    @property
    def motion(self) -> str:
        """Direction as a verb: "moves right", or "stays still"."""
        return f"moves {self.direction}" if self.moves else "stays still"

    @property
    def moves(self) -> bool:
        """True if its position changes."""
        return self.direction != "still"

    def position(self, u: float) -> tuple[float, float]:
        """Returns the centre at time `u`, as (x, y) in 0..1; outside its time, its start or end."""
        done = min(max((u - self.appears) / (self.vanishes - self.appears), 0.0), 1.0)
        (x0, y0), (x1, y1) = self.start, self.end
        return x0 + (x1 - x0) * done, y0 + (y1 - y0) * done

    @classmethod
    def along(
        cls,
        direction: str,
        *,
        color: str,
        shape: str,
        center: tuple[float, float] = (0.5, 0.5),
        travel: float = 0.55,
        radius: float = 0.17,
        appears: float = 0.0,
        vanishes: float = 1.0,
    ) -> MovingShape:
        """Returns a shape with a path of length `travel` (0..1 of the picture) around `center`."""
        if direction not in DIRECTIONS:
            raise ValueError(
                f"got direction {direction!r}, expected one of {', '.join(DIRECTIONS)}"
            )
        step_x, step_y = (step * travel / 2 for step in DIRECTIONS[direction])
        start = (center[0] - step_x, center[1] - step_y)
        end = (center[0] + step_x, center[1] + step_y)
        return cls(color, shape, direction, start, end, radius, appears, vanishes)


@dataclass(frozen=True)
class Scene:
    """The true content of a clip; questions and their answers follow from it.

    `single` is one shape; `sequence` is two, the second in place of the first; `group` is two or
    three at once, each on its own lane.
    """

    kind: SceneKind
    objects: tuple[MovingShape, ...]
    background: Rgb = (40, 42, 48)

    @classmethod
    def single(
        cls, color: str, shape: str, direction: str, *, background: Rgb = (40, 42, 48)
    ) -> Scene:
        """Returns a scene of one shape through the middle of the picture."""
        return cls("single", (MovingShape.along(direction, color=color, shape=shape),), background)

    @classmethod
    def sequence(
        cls,
        first: tuple[str, str, str],
        second: tuple[str, str, str],
        *,
        background: Rgb = (40, 42, 48),
    ) -> Scene:
        """Returns a scene of two shapes one after the other, each as (color, shape, direction)."""
        halves = ((0.0, 0.5), (0.5, 1.0))
        objects = tuple(
            MovingShape.along(
                direction, color=color, shape=shape, appears=appears, vanishes=vanishes
            )
            for (color, shape, direction), (appears, vanishes) in zip(
                (first, second), halves, strict=True
            )
        )
        return cls("sequence", objects, background)

    @classmethod
    def group(cls, *members: tuple[str, str, str], background: Rgb = (40, 42, 48)) -> Scene:
        """Returns a scene of two or three shapes at once, each as (color, shape, direction), on own lanes.

        Raises:
            ValueError: the colours are not all different, or some move across and others up or
            down.
        """
        horizontal = _lanes_are_horizontal([direction for _, _, direction in members])
        if len({color for color, _, _ in members}) != len(members) or len(members) not in (2, 3):
            raise ValueError(
                f"got {members}, expected two or three members, each of another colour"
            )
        lane_width = 1 / len(members)
        objects = []
        for lane, (color, shape, direction) in enumerate(members):
            across = (lane + 0.5) * lane_width
            center = (0.5, across) if horizontal else (across, 0.5)
            objects.append(
                MovingShape.along(
                    direction,
                    color=color,
                    shape=shape,
                    center=center,
                    radius=0.16 - 0.01 * len(members),
                )
            )
        return cls("group", tuple(objects), background)


def _lanes_are_horizontal(directions: Sequence[str]) -> bool:
    axes = {direction in ("left", "right") for direction in directions if direction != "still"}
    if len(axes) > 1:
        raise ValueError(f"got directions {directions}, expected all left/right, or all up/down")
    return axes != {False}
