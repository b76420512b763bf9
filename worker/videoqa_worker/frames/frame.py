"""What sampling hands on: pictures, where they stand in the video, and what the video is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from videoqa.contract import Warn

__all__ = ["Frame", "SampledVideo", "VideoInfo"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video."""

    index: int | None
    """Its number in presentation order from 0, where that can be known."""
    pts_s: float
    """Seconds from the video's beginning, that is, from its first picture."""
    exact: bool
    """False: damaged, or the container's timestamps could not be trusted."""
    pixels: npt.NDArray[np.uint8]
    """uint8[H, W, 3], RGB, C-contiguous, upright (rotation applied)."""
    asked_s: float = 0.0
    """The instant that it was taken for: the first, if it is on screen at several."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file says it is; sizes are those of the upright picture."""

    duration_s: float | None
    fps: float | None
    """Pictures a second on average."""
    width: int
    height: int
    codec: str | None
    format: str | None


@dataclass(frozen=True, eq=False)
class SampledVideo:
    """The frames of one input, in the order of time."""

    frames: tuple[Frame, ...]
    info: VideoInfo
    warnings: tuple[Warn, ...] = ()
