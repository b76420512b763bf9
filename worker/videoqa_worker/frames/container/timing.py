"""Reads a video's timeline: from the container's header, its packets, or by counting pictures.

The header is used where it is complete (MP4; large Matroska files with cues), else the packets are
scanned; pictures are counted where packets have no usable times.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from itertools import islice

import av
import numpy as np
import numpy.typing as npt

from videoqa.errors import VideoTooLong
from videoqa_worker.frames.budget import DecodeBudget
from videoqa_worker.frames.container.boxes import has_pauses
from videoqa_worker.frames.container.demuxer import OpenVideo, read_packets
from videoqa_worker.frames.container.index import read_cues, read_index
from videoqa_worker.frames.container.packets import PacketTable, find_last_pts, scan_packets
from videoqa_worker.frames.container.timeline import Timeline
from videoqa_worker.frames.library_failures import LIBRARY_FAILURES

__all__ = ["SCAN_BELOW_BYTES", "has_constant_lag", "read_timeline"]

_COUNTED_FORMATS = ("avi",)
"""Formats without presentation times: an AVI shows picture n at n times a frame's length."""
_UNSEEKABLE_FORMATS = ("avi", "gif", "apng")
_UNTIMED_FORMATS = ("obu", "mjpeg")
"""Formats without any times, for which FFmpeg invents 25 pictures a second."""
SCAN_BELOW_BYTES = 16 << 20
"""A smaller Matroska file is scanned, which numbers its pictures; else its cues must do."""
_PROBED_PACKETS = 48
"""Two seconds; with B-frames the difference of pts and dts varies within a few packets."""
_MAX_UNSPANNED_S = 20
"""Cues may end this much before the video (a long GOP); cues that end earlier are incomplete."""


def read_timeline(
    video: OpenVideo, origin: int | None, budget: DecodeBudget, *, doubtful: bool = False
) -> Timeline:
    """Reads the timeline of an open video.

    Arguments:
        origin: pts of the first decoded picture.
        doubtful: the first packets' pts may be decoding times.

    Raises:
        VideoTooLong: longer than `max_duration_s`.
    """
    timeline = None
    if doubtful and _has_decoding_times_only(video):
        timeline = _count_reordered(video, budget)
    elif origin is not None:
        timeline = _read_header_timeline(video, origin, budget)
    if timeline is None:
        timeline = _build_from_packets(video, origin, scan_packets(video, budget))
    if video.format in _UNTIMED_FORMATS:
        timeline = replace(timeline, trusted=False)
    limit_s = video.limits.max_duration_s
    if timeline.duration_s > limit_s:
        raise VideoTooLong(
            f"the video is {float(timeline.duration_s):.0f} s long, "
            f"expected at most {limit_s:.0f} s; cut it into parts"
        )
    return timeline


def has_constant_lag(times: Sequence[tuple[int, int]], video: OpenVideo) -> bool:
    """Returns True if pts - dts is constant, but for rounding to milliseconds.

    The tolerance is at most half a picture, since in a damaged file all times may lie within a
    millisecond.

    Arguments:
        times: (pts, dts) of each packet.
    """
    lags = [pts - dts for pts, dts in times] or [0]
    step = Fraction(times[-1][1] - times[0][1], len(times) - 1) if len(times) > 1 else Fraction()
    slack = min(Fraction(2, 1000) / _get_time_base(video), abs(step) / 2)
    return max(lags) - min(lags) <= slack


def _has_decoding_times_only(video: OpenVideo) -> bool:
    """Returns True if the pts are decoding times, as some muxers write them."""
    times: list[tuple[int, int]] = []
    with video.reopen() as fresh, suppress(*LIBRARY_FAILURES):
        for packet in islice(read_packets(fresh.container, fresh.stream), _PROBED_PACKETS):
            if packet.pts is not None and packet.dts is not None:
                times.append((packet.pts, packet.dts))
    return (
        video.format not in _COUNTED_FORMATS and len(times) > 2 and has_constant_lag(times, video)
    )


def _read_header_timeline(video: OpenVideo, origin: int, budget: DecodeBudget) -> Timeline | None:
    if "mp4" in video.format:
        return _read_index_timeline(video, origin, budget)
    if "matroska" in video.format and video.file.size_bytes >= SCAN_BELOW_BYTES:
        return _read_cues_timeline(video, origin, budget)
    return None


def _read_index_timeline(video: OpenVideo, origin: int, budget: DecodeBudget) -> Timeline | None:
    """Builds the timeline from an MP4's index; None if that is incomplete, as in fragmented files."""
    index = read_index(video)
    if len(index) < 2 or not video.stream.duration:
        return None
    if np.any(np.diff(index.times[index.shown]) < 0):
        return None  # fragments with times that go back
    step = Fraction(int(index.times[-1] - index.times[0]), len(index) - 1)
    even = _is_even(index.times, step)
    if even and abs(video.stream.duration - int(index.shown.sum()) * step) > step:
        return None
    beyond = np.flatnonzero(index.ends > video.file.size_bytes)
    whole = int(beyond[0]) if len(beyond) else len(index)
    # The index has decoding times; pictures are shown later by the reordering delay.
    delay = round(video.decoder.reorder_depth * step)
    if index.shown.all():
        delay = origin - int(index.times[0])
    keyframes = (index.times[:whole][index.keyframes[:whole]] + delay).tolist()
    truncated = whole < len(index)
    end = origin + video.stream.duration
    if truncated:
        # Decoding times do not exceed presentation times: all pictures up to this one exist.
        last = max(origin, int(index.times[max(0, whole - 1)]))
    elif even:
        last = end - round(step)
    else:
        tail = np.flatnonzero(index.keyframes)[-1:]
        video.file.ensure([(int(index.starts[n:].min()), int(index.ends.max())) for n in tail])
        last = find_last_pts(video, keyframes[-1] if keyframes else origin, budget)
    return Timeline(
        time_base=_get_time_base(video),
        origin=origin,
        end=max(end, last + 1),
        last=last,
        truncated=truncated,
        step=step,
        even=even,
        keyframes=keyframes,
        trusted=not has_pauses(video.file),
        index=index,
    )


def _read_cues_timeline(video: OpenVideo, origin: int, budget: DecodeBudget) -> Timeline | None:
    """Builds the timeline from Matroska's cues (pts in ms); None if they are incomplete."""
    cues = read_cues(video)
    rate, time_base = video.stream.average_rate, _get_time_base(video)
    duration_s = Fraction(video.container.duration or 0, av.time_base)
    if len(cues) < 2 or not rate or not duration_s or int(cues.starts[-1]) >= video.file.size_bytes:
        return None
    reach_s = (int(cues.times[-1]) - origin) * time_base
    if reach_s < duration_s - _MAX_UNSPANNED_S or np.any(np.diff(cues.times) <= 0):
        return None
    step = 1 / rate / time_base
    video.file.ensure([(int(cues.starts[-1]), video.file.size_bytes)])
    last = find_last_pts(video, int(cues.times[-1]), budget)
    return Timeline(
        time_base=time_base,
        origin=origin,
        end=last + max(1, round(step)),
        last=last,
        truncated=False,
        step=step,
        even=False,
        keyframes=cues.times.tolist(),
        index=cues,
    )


def _build_from_packets(video: OpenVideo, origin: int | None, table: PacketTable) -> Timeline:
    if video.format in _COUNTED_FORMATS or not table.complete or origin is None:
        return _build_by_count(video, table)
    times = table.pts
    step = _compute_step(video, times, table.last_duration)
    even = _is_even(times, step)
    end = times[0] + round(len(times) * step) if even else times[-1] + table.last_duration
    declared = _find_declared_end(video, table, origin, step)
    return Timeline(
        time_base=_get_time_base(video),
        origin=origin,
        end=declared or max(end, times[-1] + 1),
        last=times[-1],
        truncated=declared is not None,
        step=step,
        even=even,
        keyframes=() if video.format in _UNSEEKABLE_FORMATS else table.keyframes,
        table=table,
    )


def _count_reordered(video: OpenVideo, budget: DecodeBudget) -> Timeline:
    """Builds the timeline of a video whose pts are decoding times.

    An edit list that cuts no more than the reordering delay belongs to the times that the muxer
    did not write, and would now cut off pictures from the middle.
    """
    table = scan_packets(video, budget)
    if 0 < table.cut <= video.decoder.reorder_depth:
        video = replace(video, edits_ignored=True)
        table = scan_packets(video, budget)
    timeline = _build_by_count(video, table)
    trusted = timeline.even and table.complete
    return replace(timeline, trusted=trusted, edits_ignored=video.edits_ignored)


def _build_by_count(video: OpenVideo, table: PacketTable) -> Timeline:
    """Builds a timeline that shows picture n of the decoder at the n-th decoding time."""
    times: Sequence[int] = sorted(set(table.dts))
    timed = 0 < len(times) == table.count
    step = _compute_step(video, times, table.last_duration)
    if not timed:
        # The demuxer of a raw stream invents times at 25 a second; the stream may know better.
        rate = video.stream.guessed_rate or video.stream.average_rate or Fraction(25)
        step = 1 / rate / _get_time_base(video)
        times = [round(n * step) for n in range(max(1, table.count))]
    declared = _find_declared_end(video, table, times[0], step)
    even = _is_even(times, step)
    # Decoding times equal presentation times if all steps are equal, or nothing is reordered.
    in_order = even or video.decoder.reorder_depth == 0
    return Timeline(
        time_base=_get_time_base(video),
        origin=times[0],
        end=declared or times[-1] + max(1, round(step)),
        last=times[-1],
        truncated=declared is not None,
        step=step,
        even=even,
        table=table,
        stamps=times,
        trusted=timed and video.format in _COUNTED_FORMATS and in_order,
    )


def _is_even(times: Sequence[int] | npt.NDArray[np.int64], step: Fraction) -> bool:
    """Returns True if `(time - first) / step`, rounded, is each picture's number."""
    if len(times) < 2 or not step:
        return False
    since_first = np.asarray(times, dtype=np.float64) - times[0]
    off = since_first - np.arange(len(times)) * float(step)
    return bool(np.abs(off).max() <= 0.4 * float(step))


def _compute_step(video: OpenVideo, times: Sequence[int], last_duration: int) -> Fraction:
    if len(times) > 1:
        return Fraction(times[-1] - times[0], len(times) - 1)
    rate = video.stream.average_rate or video.stream.guessed_rate
    return Fraction(last_duration) or (1 / (rate or Fraction(25)) / _get_time_base(video))


def _find_declared_end(
    video: OpenVideo, table: PacketTable, first: int, step: Fraction
) -> int | None:
    """Returns the declared end if the file breaks off before it; else None.

    Sound that merely outlasts the pictures does not count.
    """
    time_base = _get_time_base(video)
    stream_s = Fraction(video.stream.duration or 0) * time_base
    declared_s = max(stream_s, Fraction(video.container.duration or 0, av.time_base))
    reached_s = max(table.reached_s, table.reached_s - float(first * time_base))
    tolerance_s = max(0.5, 2 * float(step * time_base))
    if float(declared_s) - reached_s <= tolerance_s:
        return None
    return first + round(declared_s / time_base)


def _get_time_base(video: OpenVideo) -> Fraction:
    return video.stream.time_base or Fraction(1, 90_000)
