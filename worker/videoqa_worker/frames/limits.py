"""What a video may be and what sampling may cost: beyond these it is refused."""

from __future__ import annotations

from dataclasses import dataclass

from videoqa_worker.settings import FORMATS

__all__ = ["DEFAULT_LIMITS", "FrameLimits"]


@dataclass(frozen=True)
class FrameLimits:
    """Each limit ends in an error of its own, named beside it."""

    formats: str = FORMATS
    """Demuxers that may open a file, comma-separated. NotAVideo, or VideoCorrupt."""
    max_pixels: int = 8192 * 4320
    """Width x height of a picture: 8K cinema. A 420 KB file can claim 16384x8704 and take 3 GB.
    PictureTooLarge."""
    max_duration_s: float = 24 * 3600.0
    """A day: longer files are surveillance archives or lies; ask for them in parts. VideoTooLong."""
    max_streams: int = 64
    """Films with many languages have some forty; each costs a decoder's probing. TooManyStreams."""
    max_packets: int = 10_000_000
    """A day at 60 frames a second with sound; stops files of endless tiny packets.
    TooManyPackets."""
    max_segments: int = 2000
    """More than a day in minutes. Each is kept in the job's record until the job is done, about
    2 KB; a million of them would fill Redis. TooManySegments."""
    max_frames_bytes: int = 2 << 30
    """RGB of all sampled frames together: 256 frames of 1080p are 1.6 GB. FramesTooLarge."""
    decode_timeout_s: float = 120.0
    """Wall time for one video, without waiting for its bytes. An hour of 1080p read from the
    start needs about 60 s on a core. DecodeTimeout."""


DEFAULT_LIMITS = FrameLimits()
