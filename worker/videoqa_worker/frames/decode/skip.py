"""Skips decoding non-reference frames that no target timestamp can show.

A later frame before the next target replaces an earlier one on screen; once the later packet was
read, the earlier one need not be decoded. The packets read last also tell whether a frame is
missing.
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
"""Decoders that can skip non-reference frames, and whose streams mark them reliably.

HEVC's may be references of higher sub-layers: see `_marks_nonref`.
"""
_RECENT_PACKETS = 17
"""One packet more than H.264 and HEVC can reorder (max_num_reorder_frames <= 16)."""


class NonRefSkipper:
    """Decides for each packet of one open video whether its frame may be skipped.

    `targets` are the ticks at which pictures are wanted, ascending.
    """

    def __init__(self, video: OpenVideo, targets: Sequence[int]) -> None:
        self.targets = targets
        self.near_ticks = 0
        """Ticks before a target in which no frame is skipped, since an interlaced one needs its neighbour."""
        self._video = video
        self._can_skip = _marks_nonref(video)
        self._on = False
        self._recent: deque[int] = deque(maxlen=_RECENT_PACKETS)
        """Pts of the packets read last."""
        self._times: list[tuple[int, int]] = []
        """The (pts, dts) of the packets read first."""

    def forget(self) -> None:
        """Forgets the recent packets, after a seek."""
        self._recent.clear()

    def prepare(self, packet: Packet[Stream] | None) -> bool:
        """Prepares the decoder for this packet; returns True if its frame may be skipped."""
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
        """Returns True if a packet was read with a later pts that is not after the tick."""
        return any(pts < other <= tick for other in reversed(self._recent))

    def lacks_reordering(self) -> bool:
        """Returns True if pictures are reordered, but the first packets' times do not show it."""
        return self._video.decoder.reorder_depth > 0 and has_constant_lag(self._times, self._video)

    def _may_skip(self, pts: int) -> bool:
        at = bisect_left(self.targets, pts)
        if at == len(self.targets):
            return False
        tick = self.targets[at]
        return tick - pts >= self.near_ticks and self.is_replaced(pts, tick)


def _marks_nonref(video: OpenVideo) -> bool:
    """Returns True if no frame at all refers to frames marked as non-reference."""
    name = video.decoder.name
    if name != "hevc":
        return name in _MARKS_NONREF
    # hvcC (ISO/IEC 14496-15, 8.3.3.1): with one temporal layer there is no higher sub-layer.
    header = video.decoder.extradata or b""
    return len(header) > 22 and header[0] == 1 and (header[21] >> 3) & 7 == 1
