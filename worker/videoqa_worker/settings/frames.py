"""Limits of a video and of its sampling; whatever is beyond them is refused."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from videoqa.contract import VIDEO_DEMUXERS
from videoqa.settings import Config

__all__ = ["DEFAULT_LIMITS", "FrameLimits", "HdrMode"]

HdrMode = Literal["tonemap", "off"]


class FrameLimits(Config):
    """Limits of decoding one input; each ends in an error of its own, named beside it."""

    # NotAVideo, VideoCorrupt
    formats: str = Field(
        default=VIDEO_DEMUXERS,
        description="FFmpeg demuxers that may open an input, comma-separated",
    )
    # Models were trained on SDR pictures.
    hdr: HdrMode = Field(
        default="tonemap",
        description="HDR video (HLG, PQ): `tonemap` maps it to SDR; `off` leaves its signal as it is, with a warning",
    )
    # PictureTooLarge. A 420 KB file can claim 16384x8704 and take 3 GB.
    max_pixels: int = Field(
        default=8192 * 4320,
        gt=0,
        description="largest frame, width x height (8K); decoding may take 100 bytes per pixel",
    )
    # PictureTooLarge. The whole picture is in memory, several times while it is turned and put on white.
    max_image_pixels: int = Field(
        default=1 << 27,
        gt=0,
        description="largest still picture, width x height (134 megapixels); reading may take 16 bytes per pixel",
    )
    # VideoTooLong. Longer files are surveillance archives or lies: ask for them in parts.
    max_duration_s: float = Field(default=24 * 3600.0, gt=0, description="longest video: a day")
    # TooManyStreams. Each costs a decoder's probing.
    max_streams: int = Field(
        default=64, gt=0, description="most streams of a file; films with many languages have forty"
    )
    # TooManyPackets. Stops files of endless tiny packets.
    max_packets: int = Field(
        default=10_000_000, gt=0, description="most packets read of a file: a day at 60 per second"
    )
    # TooManySegments. A million of them would fill Redis.
    max_segments: int = Field(
        default=2000,
        gt=0,
        description="most segments of a video; each takes about 2 KB of Redis until its job is done",
    )
    # FramesTooLarge. 256 frames of 1080p are 1.6 GB.
    max_frames_bytes: int = Field(
        default=2 << 30,
        gt=0,
        description="most memory for the frames of one input, or of segments that overlap, as RGB",
    )
    # DecodeTimeout. An hour of 1080p read from the start needs about 60 s on a core.
    decode_timeout_s: float = Field(
        default=120.0,
        gt=0,
        description="longest decoding of one input, or segment, without its download",
    )

    @property
    def max_picture_pixels(self) -> int:
        """The larger of both limits of a picture's size."""
        return max(self.max_pixels, self.max_image_pixels)


DEFAULT_LIMITS = FrameLimits()
