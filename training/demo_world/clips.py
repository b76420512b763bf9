"""Clips: scenes as real video files, H.264 with B-frames in a faststart mp4.

Knows nothing of questions. The same arguments give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from .rendering import Look, render
from .shapes import Scene

__all__ = ["write_clip"]

#: Frames drawn at a time; bounds the memory of long clips.
_CHUNK_FRAMES = 16


def write_clip(
    scene: Scene | Sequence[Scene],
    path: str | Path,
    *,
    size_px: tuple[int, int] = (320, 240),
    fps: int = 25,
    duration_s: float = 4.0,
    gop_frames: int = 50,
    crf: int = 23,
    noise: float = 0.0,
    seed: int = 0,
) -> Path:
    """Encodes the scene and returns the file's path.

    Args:
        scene: what happens; its time 0..1 is stretched over the clip. Several come one after the
            other, each as long as one alone.
        path: of the file to write; replaced if it is there.
        size_px: (width, height), both even, as yuv420p demands.
        fps: frames a second.
        duration_s: of each scene, rounded to whole frames, at least one.
        gop_frames: most frames from one keyframe to the next.
        crf: x264's quality, 0 (lossless) to 51 (worst).
        noise: standard deviation of the pixels' noise, 0..255.
        seed: of the noise.

    Raises:
        ValueError: a side is odd.
    """
    if any(side % 2 for side in size_px):
        raise ValueError(f"got size_px {size_px}, expected even numbers: yuv420p halves both sides")
    scenes = [scene] if isinstance(scene, Scene) else scene
    frames = max(1, round(duration_s * fps))
    look = Look(noise=noise)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=fps, options=_x264_options(gop_frames, crf))
        stream.width, stream.height = size_px
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, fps)
        pictures = (_draw_frames(one, frames, size_px, look, seed) for one in scenes)
        for index, picture in enumerate(chain.from_iterable(pictures)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Path(path)


def _x264_options(gop_frames: int, crf: int) -> dict[str, str]:
    """Returns x264's options; one thread, since the bytes must not depend on the machine's cores."""
    return {
        "preset": "veryfast",
        "crf": str(crf),
        "g": str(gop_frames),
        "bf": "2",
        "threads": "1",
    }


def _draw_frames(
    scene: Scene, frames: int, size_px: tuple[int, int], look: Look, seed: int
) -> Iterator[NDArray[np.uint8]]:
    """Yields uint8[H, W, 3], RGB, for each frame."""
    for start in range(0, frames, _CHUNK_FRAMES):
        stop = min(start + _CHUNK_FRAMES, frames)
        times = [index / frames for index in range(start, stop)]
        yield from render([scene], times, size_px, look=look, seed=seed + start)[0]
