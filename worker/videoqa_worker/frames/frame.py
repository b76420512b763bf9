"""The result of sampling: frames with their times, and information about the video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from videoqa.contract import DynamicRange, Warn

__all__ = ["Frame", "SampledVideo", "VideoInfo"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video."""

    index: int | None
    """Number in presentation order from 0; None where the container does not tell."""
    pts_s: float
    """Presentation time in seconds from the video's first frame."""
    exact: bool
    """False if the frame is damaged, or the container's timestamps cannot be trusted."""
    pixels: npt.NDArray[np.uint8]
    """uint8[H, W, 3], RGB, C-contiguous, upright (rotation applied)."""
    asked_s: float = 0.0
    """The target instant; the first, if the frame is on screen at several."""


@dataclass(frozen=True)
class VideoInfo:
    """The properties that a file declares; width and height are those of the upright picture."""

    duration_s: float | None
    fps: float | None
    """Average frames per second."""
    width: int
    height: int
    codec: str | None
    format: str | None
    dynamic_range: DynamicRange = "sdr"
    tone_mapped: bool = False
    """True if the pictures are HDR and were mapped to SDR."""
    is_image: bool = False
    """True for a still picture, also if it was sent as a video."""
    start_offset_s: float | None = None
    """Time on a player's clock at which the first picture is shown; None for a still picture."""


@dataclass(frozen=True, eq=False)
class SampledVideo:
    """The sampled frames of one input, ascending in time."""

    frames: tuple[Frame, ...]
    info: VideoInfo
    warnings: tuple[Warn, ...] = ()
