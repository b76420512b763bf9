"""Leaves out pictures that nothing refers to and that are surely not on screen at any target.

A later picture that is still before the next target takes such a picture's place on screen;
once its packet was read, the earlier one need not be decoded. On top of that, the packets read
lately tell whether a picture is missing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

from av import Packet
from av.stream import Stream

from videoqa_worker.frames.container.demuxer import OpenVideo
from videoqa_worker.frames.container.packets import is_shown
from videoqa_worker.frames.container.timing import has_constant_lag

__all__ = ["NonRefSkipper"]

_MARKS_NONREF = ("h264", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v3", "wmv3", "vc1")
"""Decoders whose pictures that are no references are provably so, and which can leave them out.
HEVC's may be references of higher sub-layers: see `_marks_nonref`."""
_RECENT_PACKETS = 17
"""One more than H.264 and HEVC can reorder (max_num_reorder_frames <= 16)."""


class NonRefSkipper:
    """Of one open video. `targets`: ticks at which pictures are wanted, ascending."""

    def __init__(self, video: OpenVideo, targets: Sequence[int]) -> None:
        self.targets = targets
        self._video = video
        self._can_skip = _marks_nonref(video)
        self._on = False
        self._recent: deque[int] = deque(maxlen=_RECENT_PACKETS)
        """Presentation times of the packets read last."""
        self._times: list[tuple[int, int]] = []
        """(pts, dts) of those read first."""

    def forget(self) -> None:
        """What is read from here on does not follow what was read before."""
        self._recent.clear()

    def prepare(self, packet: Packet[Stream] | None) -> bool:
        """Prepares the decoder for this packet; True if its picture may be left out."""
        pts = packet.pts if packet is not None else None
        passed = self._can_skip and pts is not None and self._may_skip(pts)
        if passed != self._on:
            self._video.decoder.skip_frame = "NONREF" if passed else "DEFAULT"
            self._on = passed
        if packet is not None and pts is not None and is_shown(packet, self._video.stream):
            self._recent.append(pts)
            if packet.dts is not None and len(self._times) < _RECENT_PACKETS:
                self._times.append((pts, packet.dts))
        return passed

    def is_replaced(self, pts: int, tick: int) -> bool:
        """Whether a packet was read whose picture comes later, and not after the tick."""
        return any(pts < other <= tick for other in reversed(self._recent))

    def lacks_reordering(self) -> bool:
        """Whether pictures are reordered, and no packet read so far says so in its times."""
        return self._video.decoder.reorder_depth > 0 and has_constant_lag(self._times, self._video)

    def _may_skip(self, pts: int) -> bool:
        next_target = self.targets[bisect_left(self.targets, pts) :][:1]
        return any(self.is_replaced(pts, tick) for tick in next_target)


def _marks_nonref(video: OpenVideo) -> bool:
    """Whether pictures marked as no references are referred to by none at all."""
    name = video.decoder.name
    if name != "hevc":
        return name in _MARKS_NONREF
    # hvcC, ISO/IEC 14496-15, 8.3.3.1: with one temporal layer there is no higher sub-layer.
    header = video.decoder.extradata or b""
    return len(header) > 22 and header[0] == 1 and (header[21] >> 3) & 7 == 1
