"""Opens a video with PyAV, and nothing but a video.

FFmpeg follows playlists, SDP and concat lists to wherever they point, so formats and
protocols are allow-lists. The only module that turns FFmpeg's opening errors into ours.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import cast

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
    TooManyStreams,
    VideoCorrupt,
    VideoTruncated,
)
from videoqa_worker.frames.container.boxes import broken_fragment, ends_before_index
from videoqa_worker.frames.container.file_cursor import Cursor, is_whole
from videoqa_worker.frames.container.sniff import look_at
from videoqa_worker.frames.sparse_file import Media
from videoqa_worker.settings import FrameLimits

__all__ = ["OpenVideo", "open_video", "packets"]

_LATE_STREAMS = ("mpegts", "mpeg", "flv")
"""Formats without a header that names the streams: they need FFmpeg's own, longer probing."""


@dataclass(frozen=True)
class OpenVideo:
    """An open container and the one video stream that is read."""

    media: Media
    container: InputContainer
    stream: VideoStream
    limits: FrameLimits

    @property
    def decoder(self) -> VideoCodecContext:
        return self.stream.codec_context

    @property
    def format(self) -> str:
        return self.container.format.name

    @property
    def may_begin_anywhere(self) -> bool:
        """Whether a sound file's first packets may need what was sent before it was joined."""
        return _names_late(self.container)


@contextmanager
def open_video(
    media: Media, limits: FrameLimits, *, only_video: bool = True, probe: bool = True
) -> Iterator[OpenVideo]:
    """Opens the file for decoding on this thread alone.

    `only_video` drops the packets of all other streams inside the demuxer. Without `probe`
    nothing but the header is read: enough for the index, not for decoding.

    Raises:
        NotAVideo, NoVideoStream, VideoCorrupt, VideoTruncated, PictureTooLarge, TooManyStreams.
    """
    with ExitStack() as stack:
        container = _open(media, limits, stack, probe=probe)
        _check_streams(container, limits)
        video = OpenVideo(media, container, _pick_stream(container, media), limits)
        _check_size(video)
        # One thread a decoder: 0.69 CPU s a job against 0.83 with FFmpeg's own choice, and
        # several upstream deadlocks avoided.
        video.decoder.thread_type = "NONE"
        video.decoder.thread_count = 1
        # Passed to av.open it only guards probing; here it stops a picture that grows midway.
        video.decoder.options = {"max_pixels": str(limits.max_pixels)}
        # Else a broken picture, or one that refers to what is missing, shows what lay in memory.
        # HEVC's decoder refuses more than that: see `units`.
        if video.decoder.name in ("mjpeg", "hevc"):
            video.decoder.options |= {"err_detect": "explode"}
        if only_video:
            for other in container.streams:
                if other.index != video.stream.index:
                    other.discard = Discard.all
        yield video


def packets(container: InputContainer, *streams: Stream) -> Iterator[Packet[Stream]]:
    """The packets of these streams, of all without any, up to the end of the file.

    PyAV 18.1 marks the end with an empty packet a stream; where a stream appeared midway, as
    in transport streams, it raises IndexError there instead.

    Its generator is closed here. Built for the limited API, Cython's are not finalized when they
    are dropped (cython/cython#6405): each left 144 bytes amid the heap, and so kept the free
    pages around them from the system.
    """
    read = cast("Generator[Packet[Stream]]", container.demux(*streams))
    with suppress(IndexError), closing(read):
        for packet in read:
            if packet.size == 0 and packet.pts is None and packet.dts is None:
                return
            yield packet


def _open(media: Media, limits: FrameLimits, stack: ExitStack, *, probe: bool) -> InputContainer:
    if probe and is_whole(media) and "MP4" in look_at(media.path).text:
        # FFmpeg decodes up to 20 pictures only to guess how they are reordered: 28 ms of 1080p.
        # Most streams state it (H.264: bitstream_restriction); an MP4 states the rest.
        stated = stack.enter_context(ExitStack())
        quick = {"probesize": "500000", "skip_frame": "all"}
        container = _try_open(media, limits, stated, quick)
        if _states_reordering(container):
            return container
        stated.close()
    if not probe:
        return _try_open(media, limits, stack, {"probesize": "32", "analyzeduration": "0"})
    # A small probe opens a bomb with 81 MB instead of 372. Formats that name their streams
    # late are opened again with FFmpeg's default of 5 MB.
    first = stack.enter_context(ExitStack())
    container = _try_open(media, limits, first, {"probesize": "500000"})
    found = any(s.codec_context is not None and s.width for s in container.streams.video)
    if found and not _names_late(container):
        return container
    first.close()
    return _try_open(media, limits, stack, {})


def _names_late(container: InputContainer) -> bool:
    return any(name in container.format.name for name in _LATE_STREAMS)


def _states_reordering(container: InputContainer) -> bool:
    decoders = [s.codec_context for s in container.streams.video if s.codec_context is not None]
    return bool(decoders) and all(decoder.reorder_depth > 0 for decoder in decoders)


def _try_open(
    media: Media,
    limits: FrameLimits,
    stack: ExitStack,
    extra: dict[str, str],
    end: int | None = None,
) -> InputContainer:
    """`end`: what comes after this position is not read."""
    whole = is_whole(media) and end is None
    options = {
        # What has holes is read through an object, and opens nothing else at all.
        "protocol_whitelist": "file" if whole else "none",
        "format_whitelist": limits.formats,
        "max_pixels": str(limits.max_pixels),
        **extra,
    }
    # "file:" keeps a name such as "data:..." or "concat:..." from being read as a protocol.
    source = f"file:{media.path}" if whole else stack.enter_context(closing(Cursor(media, end)))
    try:
        container = av.open(source, "r", options=options, metadata_errors="replace")
        return stack.enter_context(closing(container))
    except (FFmpegError, OSError, ValueError) as error:
        cut = (
            broken_fragment(media) if end is None and look_at(media.path).kind == "video" else None
        )
        if cut is None:
            raise _refusal(media, error) from error
        # FFmpeg refuses what ends within a fragment's header, though all before it is sound.
        return _try_open(media, limits, stack, extra, cut)


def _refusal(media: Media, error: Exception) -> SamplingError:
    look = look_at(media.path)
    if look.kind == "audio":
        return NoVideoStream(f"got {look.text}, expected a file with pictures")
    if look.kind == "image":
        return NotAVideo(f"got {look.text}, expected a video; send it as an image input")
    if look.kind != "video":
        return NotAVideo(f"got bytes that are no video: it looks like {look.text}")
    if look.text.startswith("an MP4") and ends_before_index(media):
        return VideoTruncated(
            "the file ends before its index (moov), so no picture can be found; upload it again"
        )
    return VideoCorrupt(f"looks like {look.text}, and cannot be opened: {_reason(error)}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _pick_stream(container: InputContainer, media: Media) -> VideoStream:
    still = Disposition.attached_pic | Disposition.timed_thumbnails
    moving = [s for s in container.streams.video if not s.disposition & still]
    streams = container.streams
    if not (streams.video or streams.audio or streams.subtitles):
        raise _refusal(media, EOFError("no streams"))
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
        raise VideoCorrupt(f"no decoder for the video stream of {look_at(media.path).text}")
    return stream


def _check_streams(container: InputContainer, limits: FrameLimits) -> None:
    count = len(container.streams)
    if count > limits.max_streams:
        raise TooManyStreams(
            f"the file has {count} streams, expected at most {limits.max_streams}; "
            "keep only the video's, or raise the worker's max_streams"
        )


def _check_size(video: OpenVideo) -> None:
    width, height = video.stream.width, video.stream.height
    if width * height > video.limits.max_pixels:
        raise PictureTooLarge(
            f"the picture is {width}x{height}, expected at most "
            f"{video.limits.max_pixels} pixels; scale it down before"
        )
