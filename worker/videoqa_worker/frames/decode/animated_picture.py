"""Animated WebP, and AVIF with alpha, as a video in memory: FFmpeg 8.1 does not decode them, and Pillow does.

FFmpeg takes the alpha of an AVIF sequence for another video. The pictures are decoded one after the other,
blended with what is behind them, and stored without loss in a QuickTime file with
their times, so that the code for videos selects them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from fractions import Fraction
from typing import IO, cast

import av
import numpy as np
from av import VideoFrame
from PIL import Image

from videoqa.errors import FramesTooLarge, SamplingError, VideoCorrupt
from videoqa_worker.frames.container.animation import is_animated
from videoqa_worker.frames.container.boxes import has_alpha_track
from videoqa_worker.frames.container.file_cursor import FileCursor
from videoqa_worker.frames.container.sniff import AVIF, WEBP, identify
from videoqa_worker.frames.picture_size import check_video_size
from videoqa_worker.frames.sparse_file import Span, Spans, SparseFile
from videoqa_worker.settings import FrameLimits

__all__ = ["MemoryFile", "is_read_by_pillow", "open_playable"]

_CLOCK = Fraction(1, 1000)
_LEAST_MS, _DEFAULT_MS = 11, 100
"""Browsers show pictures for 100 ms whose duration is 10 ms or less."""


def is_read_by_pillow(file: SparseFile) -> bool:
    """Returns True for an animated WebP, and for an animated AVIF with alpha; both are fetched whole."""
    file_type = identify(file)
    if file_type == AVIF:
        return is_animated(file) and has_alpha_track(file)
    return file_type == WEBP and is_animated(file)


@contextmanager
def open_playable(
    file: SparseFile, limits: FrameLimits, check: Callable[[], None]
) -> Iterator[SparseFile]:
    """Yields a file that FFmpeg plays: of an animation that Pillow reads a copy as QuickTime, of others the same file.

    Raises:
        VideoCorrupt, PictureTooLarge, FramesTooLarge. Whatever `check` raises.
    """
    if not is_read_by_pillow(file):
        yield file
        return
    with _create() as memory:
        with closing(FileCursor(file)) as cursor:
            try:
                with _open(cursor) as image:
                    _check_size(image, limits)
                    _write(image, memory, check)
            except (SamplingError, MemoryError):
                raise
            except (OSError, EOFError, ValueError) as error:
                if cursor.failure is not None:
                    raise cursor.failure from None
                raise VideoCorrupt(
                    f"got {identify(file).text}, animated, that cannot be decoded: {error}; upload it again"
                ) from error
        name = "avif" if identify(file) == AVIF else "webp"
        yield MemoryFile(memory.fileno(), memory.seek(0, os.SEEK_END), name)


def _create() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("animation"), "w+b")
    return tempfile.TemporaryFile()


def _check_size(image: Image.Image, limits: FrameLimits) -> None:
    check_video_size(image.width, image.height, limits)
    count = getattr(image, "n_frames", 1)
    needed_bytes = 4 * image.width * image.height * count
    if needed_bytes > limits.max_frames_bytes:
        raise FramesTooLarge(
            f"an animation of {count} pictures takes up to {needed_bytes} bytes in memory, expected at "
            f"most {limits.max_frames_bytes}; convert it to MP4"
        )


def _write(image: Image.Image, memory: IO[bytes], check: Callable[[], None]) -> None:
    with av.open(memory, "w", format="mov", options={"video_track_timescale": "1000"}) as out:
        stream = out.add_stream("png", rate=Fraction(1000))
        stream.width, stream.height, stream.pix_fmt = image.width, image.height, "rgba"
        stream.codec_context.time_base = _CLOCK
        stream.codec_context.thread_count = 1
        stream.options = {"compression_level": "1"}
        at_ms = 0
        for number in range(getattr(image, "n_frames", 1)):
            check()
            picture = _decode(image, number)
            duration_ms = int(image.info.get("duration") or 0)
            duration_ms = duration_ms if duration_ms >= _LEAST_MS else _DEFAULT_MS
            picture.pts, picture.time_base = at_ms, _CLOCK
            for packet in stream.encode(picture):
                packet.duration = duration_ms
                out.mux(packet)
            at_ms += duration_ms


def _open(cursor: FileCursor) -> Image.Image:
    try:
        return Image.open(cast("IO[bytes]", cursor), formats=("WEBP", "AVIF"))
    except (RuntimeError, SyntaxError, ArithmeticError) as error:  # Pillow's, of damaged AVIF
        raise ValueError(error) from error


def _decode(image: Image.Image, number: int) -> VideoFrame:
    try:
        image.seek(number)
        image.load()
    except (RuntimeError, SyntaxError, ArithmeticError) as error:  # Pillow's, of damaged AVIF
        raise ValueError(error) from error
    return VideoFrame.from_ndarray(np.asarray(image.convert("RGBA")), format="rgba")


class MemoryFile:
    """A SparseFile of anonymous memory, without holes."""

    def __init__(self, descriptor: int, size_bytes: int, format_name: str) -> None:
        self._descriptor = descriptor
        self.size_bytes = size_bytes
        self.format_name = format_name
        """Name of the format from which it was made."""

    def open_file(self) -> int:
        return os.dup(self._descriptor)

    @property
    def present(self) -> Spans:
        return Spans([(0, self.size_bytes)])

    def ensure(self, spans: Sequence[Span]) -> None:
        """Returns at once: no byte is missing."""
