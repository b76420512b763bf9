"""Sampling of random scenes: one shape, two one after the other, or some side by side."""

from __future__ import annotations

import random
from dataclasses import replace

from .shapes import COLORS, SHAPES, MovingShape, Rgb, Scene, SceneKind

__all__ = ["sample_pair", "sample_scene"]

_STILL_SHARE = 0.12
#: Free space between a shape's path and the picture's edge, 0..1.
_MARGIN = 0.02
#: Radius by number of lanes, fractions of the shorter side.
_RADII = {1: (0.14, 0.22), 2: (0.14, 0.18), 3: (0.13, 0.15)}


def sample_scene(rng: random.Random, kind: SceneKind | None = None) -> Scene:
    """Draws a scene; `rng` alone decides it. `kind` None draws the kind too."""
    kind = kind or rng.choices(("single", "sequence", "group"), (0.45, 0.25, 0.30))[0]
    objects: tuple[MovingShape, ...]
    if kind == "single":
        objects = (_sample_free_shape(rng),)
    elif kind == "sequence":
        objects = _sample_sequence(rng)
    else:
        objects = _sample_group(rng, rng.choice((2, 2, 3)))
    return Scene(kind, objects, _sample_background(rng))


def sample_pair(rng: random.Random) -> tuple[Scene, Scene]:
    """Draws two single scenes that agree in colour, shape or direction about as often as not."""
    first = sample_scene(rng, "single")
    base = first.objects[0]
    other = sample_scene(rng, "single").objects[0]
    if rng.random() < 0.4:
        other = replace(base, color=other.color, shape=other.shape)
    if rng.random() < 0.4:
        other = replace(other, color=base.color)
    if rng.random() < 0.3:
        other = replace(other, shape=base.shape)
    return first, Scene("single", (other,), _sample_background(rng))


def _sample_background(rng: random.Random) -> Rgb:
    """Returns a grey, dark to middling, with a slight tint."""
    level = rng.uniform(5, 85)
    red, green, blue = (round(level + rng.uniform(0, 15)) for _ in range(3))
    return red, green, blue


def _sample_free_shape(
    rng: random.Random, appears: float = 0.0, vanishes: float = 1.0
) -> MovingShape:
    """Draws a shape anywhere in the picture, of any colour."""
    radius = rng.uniform(*_RADII[1])
    return _place_shape(
        rng,
        color=rng.choice(list(COLORS)),
        direction=_sample_direction(rng, ("right", "left", "down", "up")),
        radius=radius,
        lane=rng.uniform(radius + _MARGIN, 1 - radius - _MARGIN),
        horizontal=rng.random() < 0.5,
        seen=(appears, vanishes),
    )


def _sample_sequence(rng: random.Random) -> tuple[MovingShape, MovingShape]:
    """Draws two shapes of different names; four frames see each of them twice."""
    change = rng.choice((0.5, rng.uniform(0.42, 0.5)))
    first = _sample_free_shape(rng, 0.0, change)
    while True:
        second = _sample_free_shape(rng, change, 1.0)
        if second.name != first.name:
            return first, second


def _sample_group(rng: random.Random, count: int) -> tuple[MovingShape, ...]:
    """Draws `count` shapes of different colours, on lanes of their own."""
    horizontal = rng.random() < 0.5
    ways = ("right", "left") if horizontal else ("down", "up")
    colors = rng.sample(list(COLORS), count)
    return tuple(
        _place_shape(
            rng,
            color=color,
            direction=_sample_direction(rng, ways),
            radius=rng.uniform(*_RADII[count]),
            lane=(lane + 0.5) / count + rng.uniform(-0.01, 0.01),
            horizontal=horizontal,
        )
        for lane, color in enumerate(colors)
    )


def _sample_direction(rng: random.Random, ways: tuple[str, ...]) -> str:
    return "still" if rng.random() < _STILL_SHARE else rng.choice(ways)


def _place_shape(
    rng: random.Random,
    *,
    color: str,
    direction: str,
    radius: float,
    lane: float,
    horizontal: bool,
    seen: tuple[float, float] = (0.0, 1.0),
) -> MovingShape:
    """Returns a shape on its lane, its path wholly in the picture."""
    if direction != "still":
        horizontal = direction in ("left", "right")
    low, high = radius + _MARGIN, 1 - radius - _MARGIN
    travel = 0.0 if direction == "still" else min(rng.uniform(0.35, 0.62), high - low)
    along = rng.uniform(low + travel / 2, high - travel / 2)
    return MovingShape.along(
        direction,
        color=color,
        shape=rng.choice(SHAPES),
        center=(along, lane) if horizontal else (lane, along),
        travel=travel,
        radius=radius,
        appears=seen[0],
        vanishes=seen[1],
    )
