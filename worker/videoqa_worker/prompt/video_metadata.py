"""Tells a processor at which times the frames of a video are, as transformers' `VideoMetadata`.

transformers computes a frame's time as index / fps. A video's frames need no constant rate, and ours are
chosen by time, so the index counts microseconds: every time that a processor writes into the prompt is that of the
frame. The rate of the sampled frames (`sampled_fps`, by which Qwen2.5-VL spaces its positions) is frames /
total_num_frames x fps, so the total is the span that the frames stand for, at their mean distance.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers.video_utils import VideoMetadata

__all__ = ["describe_video"]

_TICKS_PER_S = 1_000_000


def describe_video(
    times_s: Sequence[float], duration_s: float | None, height: int, width: int
) -> VideoMetadata:
    """Returns the metadata of frames that were sampled already.

    Arguments:
        times_s: time of each frame in seconds, ascending.
        duration_s: length of the whole video; None: up to the last frame.
    """
    count = len(times_s)
    apart_s = (times_s[-1] - times_s[0]) / (count - 1) if count > 1 else duration_s or 1.0
    return VideoMetadata(
        total_num_frames=max(1, round(count * apart_s * _TICKS_PER_S)),
        fps=float(_TICKS_PER_S),
        width=width,
        height=height,
        duration=times_s[-1] if duration_s is None else duration_s,
        frames_indices=[round(time_s * _TICKS_PER_S) for time_s in times_s],
    )
