"""Tells Dolby Vision whose pictures are in a colour space of its own, for which they mostly have no tags.

That are profile 5 of HEVC and profile 10.0 of AV1: IPT-PQ-C2 in full range. All others have a base layer in HDR10,
HLG or SDR, with its tags. PyAV does not pass on the configuration that FFmpeg reads.
"""

from __future__ import annotations

from videoqa_worker.frames.container.boxes import read_sample_entry
from videoqa_worker.frames.container.demuxer import OpenVideo
from videoqa_worker.frames.container.elements import read_track_videos
from videoqa_worker.frames.picture.colour.colours import UNSPECIFIED

__all__ = ["has_dolby_ipt"]

_OWN_PROFILES = (5, 10)
_OWN_ENTRIES = (b"dvh1", b"dvhe", b"dav1")
"""Names of MP4's sample entries for Dolby Vision that other decoders are not meant to show."""


def has_dolby_ipt(video: OpenVideo) -> bool:
    """Returns True if the video's pictures are IPT-PQ-C2 by its MP4's boxes or its Matroska header."""
    configuration, entry_name = b"", b""
    if "mp4" in video.format:
        entry = read_sample_entry(video.file, video.stream.id)
        if entry is not None:
            configuration, entry_name = entry.dolby_vision, entry.name
    elif "matroska" in video.format:
        place = [stream.index for stream in video.container.streams.video].index(video.stream.index)
        for track in read_track_videos(video.file)[place : place + 1]:
            configuration = track.dolby_vision
    if len(configuration) >= 5:
        # Version (16 bits), profile (7), level (6), presence of metadata, enhancement and base (3), compatibility (4).
        return configuration[2] >> 1 in _OWN_PROFILES and configuration[4] >> 4 == 0
    return entry_name in _OWN_ENTRIES and video.declared_colours.transfer == UNSPECIFIED
