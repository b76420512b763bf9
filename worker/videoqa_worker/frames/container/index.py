"""Reads the index of a container: the times and byte offsets of its keyframes or packets.

MP4 lists every packet in its header, Matroska lists keyframes in its cues. FFmpeg's demuxer parses
them, which knows their many forms; nothing is decoded, and no media data is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from videoqa_worker.frames.container.demuxer import OpenVideo, open_video
from videoqa_worker.frames.library_failures import LIBRARY_FAILURES

__all__ = ["Index", "read_cues", "read_index"]

Ticks = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Index:
    """The index of a video stream: arrays of length N, an entry per packet, in decoding order."""

    times: Ticks
    """Decoding times in MP4, presentation times in Matroska; ticks of the stream's time base."""
    starts: Ticks
    """Offset of each packet's first byte; in Matroska that of its cluster."""
    ends: Ticks
    """Offset behind each packet's last byte; equals `starts` where the container does not tell."""
    keyframes: npt.NDArray[np.bool_]
    shown: npt.NDArray[np.bool_]
    """False for packets that an edit list cuts off."""

    def __len__(self) -> int:
        return len(self.times)


def read_index(video: OpenVideo) -> Index:
    """Reads the packets of an MP4; a fragmented file's header may list none."""
    return _build_index(video.stream.index_entries)


def read_cues(video: OpenVideo) -> Index:
    """Reads the keyframes of a Matroska file, whose cues FFmpeg reads at the first seek only."""
    with open_video(video.file, video.limits, probe=False) as fresh:
        with suppress(*LIBRARY_FAILURES):
            fresh.container.seek(0, stream=fresh.stream)
        return _build_index(fresh.stream.index_entries)


def _build_index(entries: Iterable[Any]) -> Index:
    rows = list(entries)
    starts = _read_column(rows, "pos")
    return Index(
        times=_read_column(rows, "timestamp"),
        starts=starts,
        ends=starts + _read_column(rows, "size"),
        keyframes=_read_column(rows, "is_keyframe").astype(bool),
        shown=_read_column(rows, "is_discard") == 0,
    )


def _read_column(rows: list[Any], name: str) -> Ticks:
    return np.fromiter(map(attrgetter(name), rows), dtype=np.int64, count=len(rows))
