"""Cuts a clip into its shots: suspects by the packets, keyframes decoded and compared where one is suspected.

Only these keyframes are decoded, each once, and where that leaves a doubt the pictures right before the cut, up to
a share of all. A dissolve, or a cut that neither a keyframe nor the packets' sizes betray, is not found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
from av.video.reformatter import VideoReformatter

from videoqa.contract import Sampling, Warn
from videoqa.errors import TooManySegments
from videoqa_worker.frames.budget import DecodeBudget
from videoqa_worker.frames.container.packets import scan_packets
from videoqa_worker.frames.container.timeline import Timeline
from videoqa_worker.frames.decode.walk import Walk
from videoqa_worker.frames.selection.clip import Clip, to_fraction
from videoqa_worker.frames.selection.instants import SegmentSpan
from videoqa_worker.frames.shots.difference import Thumbnail, differ, is_cut, make_thumbnail
from videoqa_worker.frames.shots.suspects import PacketSizes, Suspect, find_suspects
from videoqa_worker.frames.sparse_file import SparseFile
from videoqa_worker.settings import FrameLimits

__all__ = ["KEYFRAMES_A_STEP", "Shots", "find_shots"]

KEYFRAMES_A_STEP = 64
"""Keyframes that are decoded under one deadline: as many as a segment may have frames, or fewer."""
_ALL_KEYFRAMES_S = 0.5
"""Distance of the pictures that are compared where every picture is a keyframe."""
_MOST_REFINED = 0.02
"""Share of the clip's pictures that may be decoded to settle doubts; a suspect beyond it counts as no cut."""
_UNFOLLOWED = 0.25
"""A warning is given if more than this share of the cuts came at no keyframe."""


@dataclass(frozen=True)
class Shots:
    """The segments of a clip that follow its cuts."""

    segments: tuple[SegmentSpan, ...]
    warnings: tuple[Warn, ...] = ()


def find_shots(
    file: SparseFile,
    timeline: Timeline,
    clip: Clip,
    sampling: Sampling,
    limits: FrameLimits,
    budget: DecodeBudget,
    on_step: Callable[[], None],
) -> Shots:
    """Cuts the clip at its cuts, by the definition in `Sampling`'s docstring.

    Arguments:
        on_step: called after each `KEYFRAMES_A_STEP` keyframes, and the budget's deadline begins anew.

    Raises:
        TooManySegments. DecodeTimeout, TooManyPackets: as sampling.
    """
    with Walk(file, limits, budget) as walk:
        walk.read_first()
        walk.use_timeline(timeline)
        cuts, warnings = _Finder(walk, timeline, budget, on_step).find(clip)
    spans = limit_lengths(
        cuts, clip, to_fraction(sampling.shortest_s), to_fraction(sampling.longest_s)
    )
    if len(spans) > limits.max_segments:
        raise TooManySegments(
            f"the clip has {len(spans)} shots, expected at most {limits.max_segments}; "
            "raise min_segment_s, or ask for a shorter clip"
        )
    numbered = (SegmentSpan(n, start_s, end_s) for n, (start_s, end_s) in enumerate(spans))
    return Shots(tuple(numbered), warnings)


def limit_lengths(
    cuts: list[Fraction], clip: Clip, shortest_s: Fraction, longest_s: Fraction
) -> list[tuple[Fraction, Fraction]]:
    """Returns the spans between cuts: none shorter than the one limit, and longer ones in equal parts.

    A cut that would leave less than `shortest_s` before it, or behind it to the clip's end, is left out.
    """
    bounds = [clip.start_s]
    for cut in sorted(cuts):
        if cut - bounds[-1] >= shortest_s and clip.end_s - cut >= shortest_s:
            bounds.append(cut)
    bounds.append(clip.end_s)
    spans = []
    for start_s, end_s in pairwise(bounds):
        parts = max(1, -((start_s - end_s) // longest_s))
        step_s = (end_s - start_s) / parts
        spans += [(start_s + n * step_s, start_s + (n + 1) * step_s) for n in range(parts)]
    return spans


class _Finder:
    """Finds the cuts of one video."""

    def __init__(
        self, walk: Walk, timeline: Timeline, budget: DecodeBudget, on_step: Callable[[], None]
    ) -> None:
        self._walk, self._timeline = walk, timeline
        self._budget, self._on_step = budget, on_step
        self._scaler = VideoReformatter()
        self._decoded = 0
        self._last: dict[int, tuple[int, Thumbnail] | None] = {}
        """Pts and picture of the keyframes decoded last; None: it does not decode."""
        self._refinable = 0
        """Pictures that may still be decoded to settle doubts."""

    def find(self, clip: Clip) -> tuple[list[Fraction], tuple[Warn, ...]]:
        """Returns the cuts in the clip, in seconds, and what to say about them."""
        packets = self._read_packets()
        if packets is None or np.count_nonzero(packets.keyframes) < 2:
            return [], (
                _warn("its packets cannot be told apart by a seek, or it has one keyframe"),
            )
        list_suspects = self._list_all if packets.keyframes.all() else find_suspects
        start, end = (self._timeline.ticks_at(at_s) for at_s in (clip.start_s, clip.end_s))
        self._refinable = round(
            _MOST_REFINED * np.count_nonzero((packets.pts >= start) & (packets.pts < end))
        )
        within = [one for one in list_suspects(packets) if start < one.pts < end]
        found = [(one, pts) for one in within if (pts := self._examine(one)) is not None]
        cuts = [self._to_seconds(pts) for _, pts in found]
        beside = sum(not one.is_keyframe for one, _ in found)
        if beside > _UNFOLLOWED * len(found) or self._is_periodic(packets, start, end, len(found)):
            return cuts, (_warn("its keyframes do not follow its cuts"),)
        return cuts, ()

    def _read_packets(self) -> PacketSizes | None:
        if self._timeline.stamps is not None or not self._timeline.keyframes:
            return None
        packets = PacketSizes.of(self._timeline)
        if packets is not None:
            return packets
        table = scan_packets(self._walk.video, self._budget)  # Matroska's cues tell no sizes
        return PacketSizes.of_table(table)

    def _list_all(self, packets: PacketSizes) -> list[Suspect]:
        """Returns a suspect every half a second, for a file of keyframes alone."""
        step_s = float(self._timeline.step * self._timeline.time_base)
        some = [int(pts) for pts in packets.pts[:: max(1, round(_ALL_KEYFRAMES_S / step_s))]]
        return [Suspect(b, a, b) for a, b in pairwise(some)]

    @staticmethod
    def _is_periodic(packets: PacketSizes, start: int, end: int, found: int) -> bool:
        """Returns True if keyframes come at a fixed distance, and so none of them tells of a cut."""
        at = np.flatnonzero(packets.keyframes & (packets.pts > start) & (packets.pts < end))
        gaps = np.diff(at)
        return not found and len(gaps) > 1 and int(gaps.max() - gaps.min()) <= 1

    def _examine(self, suspect: Suspect) -> int | None:
        """Returns the pts of the cut; None if the pictures around it are of the same shot."""
        before, after = self._decode(suspect.before), self._decode(suspect.after)
        self._last = {key: self._last[key] for key in (suspect.before, suspect.after)}
        if before is None or after is None:
            return None
        if not differ(before[1], after[1]):
            return None
        if suspect.is_doubtful and not self._is_cut_at(suspect, after[1]):
            return None
        return after[0] if suspect.is_keyframe else suspect.pts

    def _is_cut_at(self, suspect: Suspect, after: Thumbnail) -> bool:
        """Decodes up to the suspected keyframe, and compares the picture before it with it."""
        pictures = round((suspect.pts - suspect.before) / self._timeline.step)
        if pictures > self._refinable:
            return False
        self._refinable -= pictures
        self._walk.set_targets([suspect.pts - 1])
        before = self._walk.advance_to(suspect.pts - 1)
        return before is not None and is_cut(make_thumbnail(before.picture, self._scaler), after)

    def _decode(self, key: int) -> tuple[int, Thumbnail] | None:
        if key not in self._last:
            decoded = self._walk.decode_keyframe_at(key)
            self._last[key] = None
            if decoded is not None:
                self._last[key] = decoded.pts, make_thumbnail(decoded.picture, self._scaler)
            self._decoded += 1
            if self._decoded % KEYFRAMES_A_STEP == 0:
                self._budget.restart()
                self._on_step()
        return self._last[key]

    def _to_seconds(self, pts: int) -> Fraction:
        return (pts - self._timeline.origin) * self._timeline.time_base


def _warn(why: str) -> Warn:
    return Warn(
        code="shots_uncertain",
        message=f"cuts of this video may have been missed, since {why}; segments end at those that were found, and "
        "at the greatest length; give segment_s alone for equal segments, or encode it with keyframes at cuts",
        param="sampling.segment",
    )
