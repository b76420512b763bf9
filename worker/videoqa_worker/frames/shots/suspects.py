"""Suspected cuts of a video, by its packets alone: nothing is decoded.

Encoders put a keyframe where the picture changes at once, so a keyframe that comes before its time is
suspect. Where they do not (a fixed distance of keyframes, or a cut right after one), the first packet of a
new shot is far larger than its neighbours, since little of it can be predicted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from videoqa_worker.frames.container.packets import PacketTable
from videoqa_worker.frames.container.timeline import Timeline

__all__ = ["PacketSizes", "Suspect", "find_suspects"]

_NEIGHBOURS = 24
"""Packets before and after one that it is compared with: about a second each."""
_NEAR = 12
"""Packets before and after a keyframe that tell whether more moves on one side."""
_LEAST_SIZES = ((3.0, 0.3), (2.0, 1.0))
"""Sizes of a suspect packet, either pair: by the 90th percentile of its neighbours (B-frames are small, P-frames
are not), and by the median of the keyframes, since the first picture of a shot is coded nearly like one."""


_OUTSTANDING = 1.5
"""Size of a keyframe that is clearly more than its neighbours, by the 90th percentile of them. In pictures that
move as a whole every packet is nearly as large, and encoders take some of them for a cut."""
_SAME_LEVEL = (0.8, 1.25)
"""Mean size after a keyframe by that before it, where no more moves than before."""
_OTHER_LEVEL = (0.4, 2.5)
"""Mean size after a keyframe by that before it, where the pictures are clearly others: a keyframe at the usual
distance that is a cut by chance."""


@dataclass(frozen=True, eq=False)
class PacketSizes:
    """The packets of a video: arrays of length N, ascending in time."""

    pts: npt.NDArray[np.int64]
    """Ticks; in an MP4 decoding times shifted by the reordering, which may be off by some pictures."""
    sizes: npt.NDArray[np.int64]
    """Bytes."""
    keyframes: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, timeline: Timeline) -> PacketSizes | None:
        """Returns what the timeline knows of its packets; None if it knows no sizes."""
        table, index = timeline.table, timeline.index
        if table is not None:
            return cls.of_table(table)
        if index is None or not np.any(index.ends > index.starts):
            return None
        first = int(np.argmax(index.keyframes))
        delay = timeline.keyframes[0] - int(index.times[first]) if timeline.keyframes else 0
        return cls(index.times + delay, index.ends - index.starts, index.keyframes)

    @classmethod
    def of_table(cls, table: PacketTable) -> PacketSizes:
        """Returns the packets of a table."""
        keyframes = set(table.keyframes)
        return cls(
            np.asarray(table.pts, dtype=np.int64),
            np.asarray([table.sizes[one] for one in table.pts], dtype=np.int64),
            np.asarray([one in keyframes for one in table.pts], dtype=bool),
        )


@dataclass(frozen=True)
class Suspect:
    """A suspected cut, and the keyframes to compare: the shot before it shows in one, that after it in the other."""

    pts: int
    before: int
    """Pts of the last keyframe before the cut."""
    after: int
    """Pts of the cut's own keyframe, or of the first one after it."""
    is_doubtful: bool = False
    """True if the pictures right before and after have to be compared, since both keyframes may differ in one shot."""

    @property
    def is_keyframe(self) -> bool:
        return self.pts == self.after


def find_suspects(packets: PacketSizes) -> list[Suspect]:
    """Returns the suspected cuts, ascending."""
    keys = packets.pts[packets.keyframes]
    if len(keys) < 2:
        return []
    suspects = list(_suspect_keyframes(packets))
    for pts in _find_large_packets(packets):
        after = bisect_right(keys, pts)
        if 0 < after < len(keys):
            suspects.append(Suspect(pts, int(keys[after - 1]), int(keys[after])))
    return sorted(suspects, key=lambda one: one.pts)


def _suspect_keyframes(packets: PacketSizes) -> Iterator[Suspect]:
    """Yields the keyframes that come before the usual distance, which several others keep, or change the level."""
    at = np.flatnonzero(packets.keyframes)
    gaps = np.diff(at)
    usual = int(gaps.max()) if np.count_nonzero(gaps == gaps.max()) > 1 else int(gaps.max()) + 1
    for before, here in pairwise(at):
        outstanding, level = _compare_around(packets, int(here))
        is_level = _SAME_LEVEL[0] < level < _SAME_LEVEL[1]
        if here - before < usual or not _OTHER_LEVEL[0] < level < _OTHER_LEVEL[1]:
            pts = int(packets.pts[here])
            is_doubtful = outstanding < _OUTSTANDING and is_level
            yield Suspect(pts, int(packets.pts[before]), pts, is_doubtful)


def _compare_around(packets: PacketSizes, here: int) -> tuple[float, float]:
    """Returns a keyframe's size by that of its neighbours, and the mean after it by that before it."""
    sides = []
    for side in (slice(max(0, here - _NEAR), here), slice(here + 1, here + 1 + _NEAR)):
        sizes = packets.sizes[side][~packets.keyframes[side]]
        sides.append(sizes if len(sizes) else packets.sizes[here : here + 1])
    most = max(_find_rank(side, 0.9) for side in sides)
    return float(packets.sizes[here]) / max(1.0, most), float(
        sides[1].mean() / max(1.0, sides[0].mean())
    )


def _find_large_packets(packets: PacketSizes) -> list[int]:
    """Returns the times of packets that are far larger than those around them, and no keyframes."""
    others = np.flatnonzero(~packets.keyframes)
    if len(others) < 2:
        return []
    sizes = packets.sizes[others]
    of_keyframe = sizes / _find_rank(packets.sizes[packets.keyframes], 0.5)
    found = []
    for n in np.flatnonzero(of_keyframe >= min(least for _, least in _LEAST_SIZES)):
        low, high = max(0, n - _NEIGHBOURS), n + _NEIGHBOURS + 1
        if sizes[n] < sizes[low:high].max():
            continue
        around = np.concatenate((sizes[low:n], sizes[n + 1 : high]))
        ratio = sizes[n] / max(1.0, _find_rank(around, 0.9))
        if any(ratio >= a and of_keyframe[n] >= b for a, b in _LEAST_SIZES):
            found.append(int(packets.pts[others[n]]))
    return found


def _find_rank(sizes: npt.NDArray[np.int64], share: float) -> float:
    """Returns the size that this share of all is below; numpy's percentile imports modules, which is confined away."""
    return float(np.sort(sizes)[int(share * (len(sizes) - 1))]) if len(sizes) else 1.0
