"""The very pictures that Hugging Face's guide "video-text-to-text" takes, by OpenCV and by its count.

The guide (transformers, docs/source/en/tasks/video_text_to_text.md of 2024 and 2025) asks OpenCV for the number of
pictures, reads them all, keeps those whose number is a multiple of `count // n`, and of these the first n. OpenCV
estimates its count in many formats, turns pictures by the file's rotation, and knows no HDR, pixel aspect or clip:
all of that stays as it is here, so that an answer does not change. The limits are those of the other methods.
"""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from typing import Any

import av

from videoqa.contract import Sampling, Warn
from videoqa.errors import FramesTooLarge, GuideFailed, GuideUnavailable, VideoTooLong
from videoqa_worker.frames.budget import DecodeBudget
from videoqa_worker.frames.container.demuxer import OpenVideo, open_video
from videoqa_worker.frames.container.encryption import refuse_encrypted
from videoqa_worker.frames.container.file_cursor import FileCursor
from videoqa_worker.frames.frame import Frame, SampledVideo, VideoInfo
from videoqa_worker.frames.picture.thumbnail import shrink
from videoqa_worker.frames.picture_size import check_video_size
from videoqa_worker.frames.sparse_file import SparseFile
from videoqa_worker.settings import FrameLimits

__all__ = ["import_opencv", "sample_like_guide"]

_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
"""Variable by which OpenCV passes options to FFmpeg."""


def import_opencv() -> None:
    """Imports OpenCV, for a process that will not be able to; without it, sampling says so.

    Raises:
        GuideUnavailable: it is not installed.
    """
    try:
        _load().setNumThreads(1)
    except (ImportError, OSError) as error:
        raise GuideUnavailable(
            "sampling method 'guide' needs OpenCV, which this worker does not have; install it with "
            "`pip install './worker[guide]'`, or take the method 'uniform'",
            param="sampling.method",
        ) from error


def _load() -> Any:
    """Returns the module cv2, whose types are no help: they do not know that it reads Python's files."""
    return importlib.import_module("cv2")


def sample_like_guide(
    file: SparseFile,
    sampling: Sampling,
    *,
    most_side: int | None,
    limits: FrameLimits,
    budget: DecodeBudget,
) -> SampledVideo:
    """Returns the pictures number `k * (count // n)`, with n = `frames` and OpenCV's count; fetches the whole file.

    Raises:
        GuideUnavailable: OpenCV is not installed. GuideFailed: the guide's own steps fail on this video.
        As `sample_frames` otherwise.
    """
    import_opencv()
    file.ensure([(0, file.size_bytes)])
    with open_video(file, limits) as video:
        refuse_encrypted(file, video.stream.id)
        duration_s = _read_duration(video)
        if duration_s is not None and duration_s > limits.max_duration_s:
            raise VideoTooLong(
                f"the video is {duration_s:.0f} s long, expected at most {limits.max_duration_s:.0f} s; "
                "cut it into parts"
            )
        with _open_capture(file, limits) as capture:
            frames, fps = _take_frames(capture, sampling.cap, most_side, limits, budget)
        height, width = frames[0].pixels.shape[:2]
        colours = video.declared_colours
        info = VideoInfo(
            duration_s=duration_s,
            fps=fps,
            width=width,
            height=height,
            codec=video.decoder.name,
            format=video.format.split(",")[0],
            dynamic_range=colours.dynamic_range,
        )
    return SampledVideo(frames, info, _warn_of_hdr(info))


class _Stream(io.BufferedIOBase):
    """The file as OpenCV reads it, by the descriptor: no path can be opened here."""

    def __init__(self, cursor: FileCursor) -> None:
        super().__init__()
        self._cursor = cursor

    def read(self, size: int | None = -1, /) -> bytes:
        return self._cursor.read(-1 if size is None else size)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._cursor.seek(offset, whence)


@contextmanager
def _open_capture(file: SparseFile, limits: FrameLimits) -> Iterator[Any]:
    """Opens the file in OpenCV, which may open nothing else, and starts no thread."""
    cv2 = _load()
    before = os.environ.get(_OPTIONS)
    os.environ[_OPTIONS] = f"protocol_whitelist;none|format_whitelist;{limits.formats}"
    try:
        with closing(FileCursor(file)) as cursor:
            # OpenCV 5.0 drops its reference without the GIL, so the last one is kept here.
            stream = _Stream(cursor)
            capture = cv2.VideoCapture(stream, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
            try:
                if not capture.isOpened():
                    raise _make_error("OpenCV cannot open this video")
                yield capture
            finally:
                capture.release()
    finally:
        if before is None:
            del os.environ[_OPTIONS]
        else:
            os.environ[_OPTIONS] = before


def _take_frames(
    capture: Any,
    count: int,
    most_side: int | None,
    limits: FrameLimits,
    budget: DecodeBudget,
) -> tuple[tuple[Frame, ...], float | None]:
    """Returns the frames, and the frames per second that OpenCV reads."""
    cv2 = _load()
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    step = total // count if total > 0 else 0
    if step == 0:
        raise _make_error(
            f"OpenCV counts {total} pictures, expected at least {count}, one for each frame"
        )
    fps = capture.get(cv2.CAP_PROP_FPS) or None
    frames: list[Frame] = []
    for number in range(step * (count - 1) + 1):
        budget.tick()
        if not capture.grab():
            raise _make_error(f"OpenCV counts {total} pictures, and cannot read number {number}")
        if number % step == 0:
            time_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            frames.append(_convert(capture, number, time_s, most_side, limits))
            _check_memory(frames, count, limits)
    return _order_times(frames, fps), fps


def _convert(
    capture: Any,
    number: int,
    time_s: float,
    most_side: int | None,
    limits: FrameLimits,
) -> Frame:
    cv2 = _load()
    is_there, picture = capture.retrieve()
    if not is_there:
        raise _make_error(f"OpenCV cannot convert picture number {number}")
    check_video_size(picture.shape[1], picture.shape[0], limits)
    pixels = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    if most_side is not None:
        pixels = shrink(pixels, most_side)
    return Frame(number, time_s, True, pixels, time_s)


def _order_times(frames: list[Frame], fps: float | None) -> tuple[Frame, ...]:
    """Returns the frames with times that ascend: OpenCV's own, or those of their numbers, as inexact ones."""
    times = [frame.pts_s for frame in frames]
    if all(a < b for a, b in pairwise(times)):
        return tuple(frames)
    at_s = [(frame.index or 0) / (fps or 25.0) for frame in frames]
    return tuple(
        Frame(frame.index, time_s, False, frame.pixels, time_s)
        for frame, time_s in zip(frames, at_s, strict=True)
    )


def _check_memory(frames: list[Frame], count: int, limits: FrameLimits) -> None:
    """Raises FramesTooLarge if as many frames as asked for, of the size of the latest, exceed the limit."""
    needed_bytes = sum(frame.pixels.nbytes for frame in frames)
    needed_bytes += (count - len(frames)) * frames[-1].pixels.nbytes
    if needed_bytes > limits.max_frames_bytes:
        raise FramesTooLarge(
            f"{count} frames of this size take {needed_bytes / 2**30:.1f} GiB, expected at most "
            f"{limits.max_frames_bytes / 2**30:.1f} GiB; ask for fewer frames"
        )


def _read_duration(video: OpenVideo) -> float | None:
    stream = video.stream
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return video.container.duration / av.time_base if video.container.duration else None


def _warn_of_hdr(info: VideoInfo) -> tuple[Warn, ...]:
    if info.dynamic_range == "sdr":
        return ()
    message = (
        f"the video is HDR ({info.dynamic_range.upper()}), and the guide shows its pictures as they are stored, pale "
        "and dark; take another sampling method for right ones"
    )
    return (Warn(code="hdr_not_mapped", message=message),)


def _make_error(why: str) -> GuideFailed:
    return GuideFailed(
        f"{why}: the guide fails on it; take the sampling method 'uniform'", param="sampling.method"
    )
