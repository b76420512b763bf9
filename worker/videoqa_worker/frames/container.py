"""Opens a video file with PyAV, and nothing but a video file.

FFmpeg follows playlists, SDP and concat lists to wherever they point, so formats and
protocols are allow-lists. The only module that turns FFmpeg's opening errors into ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import av
from av import Packet
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Discard, Disposition, Stream
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from videoqa.errors import (
    NotAVideo,
    NoVideoStream,
    PictureTooLarge,
    SamplingError,
    VideoCorrupt,
    VideoTruncated,
)
from videoqa_worker.frames.limits import FrameLimits
from videoqa_worker.frames.sniff import ends_before_index, look_at

__all__ = ["OpenVideo", "open_video", "packets"]

_LATE_STREAMS = ("mpegts", "mpeg", "flv")
"""Formats without a header that names the streams: they need FFmpeg's own, longer probing."""


@dataclass(frozen=True)
class OpenVideo:
    """An open container and the one video stream that is read."""

    path: Path
    container: InputContainer
    stream: VideoStream
    limits: FrameLimits

    @property
    def decoder(self) -> VideoCodecContext:
        return self.stream.codec_context

    @property
    def format(self) -> str:
        return self.container.format.name


@contextmanager
def open_video(path: Path, limits: FrameLimits, *, only_video: bool = True) -> Iterator[OpenVideo]:
    """Opens the file for decoding on this thread alone.

    `only_video` drops the packets of all other streams inside the demuxer.

    Raises:
        NotAVideo, NoVideoStream, VideoCorrupt, VideoTruncated, PictureTooLarge, TooManyStreams.
    """
    with _open(path, limits) as container:
        video = OpenVideo(path, container, _pick_stream(container, path), limits)
        _check_size(video)
        # One thread a decoder: 0.69 CPU s a job against 0.83 with FFmpeg's own choice, and
        # several upstream deadlocks avoided.
        video.decoder.thread_type = "NONE"
        video.decoder.thread_count = 1
        # Passed to av.open it only guards probing; here it stops a picture that grows midway.
        video.decoder.options = {"max_pixels": str(limits.max_pixels)}
        if only_video:
            for other in container.streams:
                if other.index != video.stream.index:
                    other.discard = Discard.all
        yield video


def packets(container: InputContainer, *streams: Stream) -> Iterator[Packet[Stream]]:
    """The packets of these streams, of all without any, up to the end of the file.

    PyAV 18.1 marks the end with an empty packet a stream; where a stream appeared midway, as
    in transport streams, it raises IndexError there instead.
    """
    with suppress(IndexError):
        for packet in container.demux(*streams):
            if packet.size == 0 and packet.pts is None and packet.dts is None:
                return
            yield packet


def _open(path: Path, limits: FrameLimits) -> InputContainer:
    # A small probe opens a bomb with 81 MB instead of 372. Formats that name their streams
    # late are opened again with FFmpeg's default of 5 MB.
    container = _try_open(path, limits, {"probesize": "500000"})
    found = any(s.codec_context is not None and s.width for s in container.streams.video)
    if found and not any(name in container.format.name for name in _LATE_STREAMS):
        return container
    container.close()
    return _try_open(path, limits, {})


def _try_open(path: Path, limits: FrameLimits, extra: dict[str, str]) -> InputContainer:
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": limits.formats,
        "max_pixels": str(limits.max_pixels),
        **extra,
    }
    try:
        # "file:" keeps a name such as "data:..." or "concat:..." from being read as a protocol.
        return av.open(f"file:{path}", options=options, metadata_errors="replace")
    except EOFError as error:
        if "fflags" in extra:
            raise _refusal(path, error) from error
        # A fragmented MP4 that ends within a fragment's header opens if read without index.
        return _try_open(path, limits, {**extra, "fflags": "ignidx"})
    except (FFmpegError, OSError, ValueError) as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> SamplingError:
    look = look_at(path)
    if look.kind == "audio":
        return NoVideoStream(f"got {look.text}, expected a file with pictures")
    if look.kind == "image":
        return NotAVideo(f"got {look.text}, expected a video; send it as an image input")
    if look.kind != "video":
        return NotAVideo(f"got bytes that are no video: it looks like {look.text}")
    if look.text.startswith("an MP4") and ends_before_index(path):
        return VideoTruncated(
            "the file ends before its index (moov), so no picture can be found; upload it again"
        )
    return VideoCorrupt(f"looks like {look.text}, and cannot be opened: {_reason(error)}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _pick_stream(container: InputContainer, path: Path) -> VideoStream:
    still = Disposition.attached_pic | Disposition.timed_thumbnails
    moving = [s for s in container.streams.video if not s.disposition & still]
    streams = container.streams
    if not (streams.video or streams.audio or streams.subtitles):
        raise _refusal(path, EOFError("no streams"))
    if not moving:
        covers = len(container.streams.video)
        raise NoVideoStream(
            f"got {len(container.streams.audio)} audio streams"
            + (f" and {covers} cover pictures" if covers else "")
            + " and no video stream, expected a video"
        )
    best = container.streams.best("video")
    stream = next((s for s in moving if best is not None and s.index == best.index), moving[0])
    if stream.codec_context is None:
        raise VideoCorrupt(f"no decoder for the video stream of {look_at(path).text}")
    return stream


def _check_size(video: OpenVideo) -> None:
    width, height = video.stream.width, video.stream.height
    if width * height > video.limits.max_pixels:
        raise PictureTooLarge(
            f"the picture is {width}x{height}, expected at most "
            f"{video.limits.max_pixels} pixels; scale it down before"
        )
