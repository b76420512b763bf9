"""Rendering of scenes as pixels: many clips at once, with soft edges, and noise and jitter if asked.

Knows nothing of questions or video files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .shapes import COLORS, SHAPES, MovingShape, Scene

__all__ = ["Look", "render"]

_Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """Deviations of pictures from the ideal; training varies them, a plain `Look()` is clean.

    Pixel values are 0..255; deviations are standard deviations.
    """

    #: Per pixel and frame.
    noise: float = 0.0
    #: Per shape, on its colour.
    color_jitter: float = 0.0
    #: Per clip, from the picture's one side to the other.
    gradient: float = 0.0
    #: Width of a shape's edge in pixels.
    edge_px: float = 1.0
    #: Width by height of the picture these pixels are a squashed copy of; None: of the pixels
    #: themselves.
    aspect: float | None = None


def render(
    scenes: Sequence[Scene],
    times: NDArray[np.floating] | Sequence[float],
    size_px: tuple[int, int],
    *,
    look: Look | None = None,
    seed: int = 0,
) -> NDArray[np.uint8]:
    """Draws every scene at the same times.

    Args:
        scenes: B scenes.
        times: T times of the clip, 0..1.
        size_px: (width, height) of the pictures.
        look: noise and jitter; the default draws clean pictures.
        seed: of the noise; the same arguments give the same pixels.

    Returns:
        uint8[B, T, H, W, 3], RGB.
    """
    look = look or Look()
    rng = np.random.default_rng(seed)
    u = np.asarray(times, dtype=np.float32)
    frames = _backgrounds(scenes, len(u), size_px, look, rng)
    for slot in range(max(len(scene.objects) for scene in scenes)):
        rows = [row for row, scene in enumerate(scenes) if len(scene.objects) > slot]
        shapes = [scenes[row].objects[slot] for row in rows]
        cover = _coverage(shapes, u, size_px, look)[..., None]
        colors = _colors(shapes, look, rng)[:, None, None, None, :]
        frames[rows] += cover * (colors - frames[rows])
    if look.noise:
        frames += rng.standard_normal(frames.shape, dtype=np.float32) * look.noise
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def _backgrounds(
    scenes: Sequence[Scene],
    count: int,
    size_px: tuple[int, int],
    look: Look,
    rng: np.random.Generator,
) -> _Floats:
    """Returns float32[B, T, H, W, 3], 0..255: one colour for each clip, with its gradient."""
    width, height = size_px
    base = np.array([scene.background for scene in scenes], dtype=np.float32)[
        :, None, None, None, :
    ]
    frames = np.broadcast_to(base, (len(scenes), count, height, width, 3)).copy()
    if look.gradient:
        slope = rng.normal(0, look.gradient, (2, len(scenes), 1, 1, 1, 1)).astype(np.float32)
        x, y = _pixel_centers(size_px)
        frames += slope[0] * (x[:, :, None] - 0.5) + slope[1] * (y[:, :, None] - 0.5)
    return frames


def _colors(shapes: Sequence[MovingShape], look: Look, rng: np.random.Generator) -> _Floats:
    """Returns the shapes' colours as float32[N, 3], 0..255."""
    colors = np.array([COLORS[shape.color] for shape in shapes], dtype=np.float32)
    if look.color_jitter:
        colors += rng.normal(0, look.color_jitter, colors.shape).astype(np.float32)
    return np.clip(colors, 0, 255)


def _coverage(
    shapes: Sequence[MovingShape], u: _Floats, size_px: tuple[int, int], look: Look
) -> _Floats:
    """Returns float32[N, T, H, W], 0..1: the share of each pixel that the shape covers."""
    width, height = size_px
    aspect = look.aspect or width / height
    x, y = _pixel_centers(size_px)
    centers = np.array(
        [[shape.position(float(at)) for at in u] for shape in shapes], dtype=np.float32
    )
    # distances in units of the shorter side, so that a circle is round in the picture
    dx = (x - centers[..., 0, None, None]) * np.float32(max(aspect, 1.0))
    dy = (y - centers[..., 1, None, None]) / np.float32(min(aspect, 1.0))
    outside = _signed_distance(shapes, dx, dy) * np.float32(min(width, height) / look.edge_px)
    seen = [[shape.appears <= at < shape.vanishes for at in u] for shape in shapes]
    cover: _Floats = (
        np.clip(0.5 - outside, 0, 1) * np.array(seen, dtype=np.float32)[..., None, None]
    )
    return cover


def _signed_distance(shapes: Sequence[MovingShape], dx: _Floats, dy: _Floats) -> _Floats:
    """Returns float32[N, T, H, W]: the distance of a pixel from its shape, negative inside."""
    distance = np.empty(np.broadcast_shapes(dx.shape, dy.shape), dtype=np.float32)
    for row, shape in enumerate(shapes):
        distance[row] = _DISTANCES[SHAPES.index(shape.shape)](
            dx[row], dy[row], np.float32(shape.radius)
        )
    return distance


def _circle(dx: _Floats, dy: _Floats, radius: np.float32) -> _Floats:
    return np.sqrt(dx * dx + dy * dy) - radius


def _square(dx: _Floats, dy: _Floats, radius: np.float32) -> _Floats:
    return np.maximum(np.abs(dx), np.abs(dy)) - radius * np.float32(0.88)


def _triangle(dx: _Floats, dy: _Floats, radius: np.float32) -> _Floats:
    """Distance from a triangle, point up: slopes fall 1.8 for 1 to the side, and |(1.8, 1)| = 2.06."""
    slopes = (np.abs(dx) * np.float32(1.8) - (dy + radius)) / np.float32(2.06)
    outside: _Floats = np.maximum(dy - radius * np.float32(0.75), slopes)
    return outside


_DISTANCES = (_circle, _square, _triangle)


def _pixel_centers(size_px: tuple[int, int]) -> tuple[_Floats, _Floats]:
    """Returns float32[1, W] and float32[H, 1], 0..1."""
    width, height = size_px
    x = (np.arange(width) + 0.5) / width
    y = (np.arange(height) + 0.5) / height
    return x[None, :].astype(np.float32), y[:, None].astype(np.float32)
