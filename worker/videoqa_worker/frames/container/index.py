"""The table of packets that a container carries itself: where keyframes lie, in time and bytes.

MP4 lists every packet in its header; Matroska lists keyframes in its cues. Read by FFmpeg's
demuxer, which knows their many forms; without decoding, and without reading the media data.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
from av.error import FFmpegError

from videoqa_worker.frames.container.demuxer import OpenVideo, open_video

__all__ = ["Index", "read_cues", "read_index"]

Ticks = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Index:
    """One row a packet of the video stream, in the order of decoding. Arrays of length N."""

    times: Ticks
    """MP4: decoding times; Matroska: presentation times. Ticks of the stream's time base."""
    starts: Ticks
    """Byte at which the packet begins; Matroska: its cluster."""
    ends: Ticks
    """One past its last byte; the same as `starts` where the container does not say."""
    keys: npt.NDArray[np.bool_]
    shown: npt.NDArray[np.bool_]
    """False for packets that an edit list cuts away."""

    def __len__(self) -> int:
        return len(self.times)


def read_index(video: OpenVideo) -> Index:
    """The packets of an MP4; of a fragmented one, those that its header lists: perhaps none."""
    return _build_index(video.stream.index_entries)


def read_cues(video: OpenVideo) -> Index:
    """The keyframes of a Matroska file; FFmpeg reads its cues at the first seek only."""
    with open_video(video.file, video.limits, probe=False) as fresh:
        with suppress(FFmpegError):
            fresh.container.seek(0, stream=fresh.stream)
        return _build_index(fresh.stream.index_entries)


def _build_index(entries: Iterable[Any]) -> Index:
    rows = list(entries)
    starts = _read_column(rows, "pos")
    return Index(
        times=_read_column(rows, "timestamp"),
        starts=starts,
        ends=starts + _read_column(rows, "size"),
        keys=_read_column(rows, "is_keyframe").astype(bool),
        shown=_read_column(rows, "is_discard") == 0,
    )


def _read_column(rows: list[Any], name: str) -> Ticks:
    return np.fromiter(map(attrgetter(name), rows), dtype=np.int64, count=len(rows))
