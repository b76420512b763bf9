"""Opens a video with PyAV, and refuses all other kinds of files.

FFmpeg follows playlists, SDP and concat lists to wherever they point, so formats and protocols are
allow-lists. The only module that translates FFmpeg's opening errors into ours.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
from av import Packet
from av.container import InputContainer
from av.stream import Discard, Disposition, Stream
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from videoqa.contract import Warn
from videoqa.errors import (
    NotAVideo,
    NoVideoStream,
    SamplingError,
    TooManyStreams,
    VideoCorrupt,
    VideoTruncated,
)
from videoqa_worker.frames.container.boxes import ends_before_index, find_broken_fragment
from videoqa_worker.frames.container.encryption import refuse_encrypted
from videoqa_worker.frames.container.file_cursor import FileCursor, is_complete
from videoqa_worker.frames.container.optional_boxes import LeftOut, find_optional_boxes
from videoqa_worker.frames.container.sniff import MP4, TEXT, UNKNOWN, identify
from videoqa_worker.frames.library_failures import LIBRARY_FAILURES
from videoqa_worker.frames.picture.colour.colours import Colours
from videoqa_worker.frames.picture_size import check_video_size
from videoqa_worker.frames.sparse_file import SparseFile
from videoqa_worker.settings import FrameLimits

__all__ = ["OpenVideo", "open_video", "read_packets"]

_LATE_STREAMS = ("mpegts", "mpeg", "flv")
"""Formats without a header that lists the streams; they need FFmpeg's own, longer probing."""

_BORDER_PIXELS = 1 << 17
"""Pixels that decoders may add to the smallest picture for their own use; MPEG-4's takes more than 50,000."""


@dataclass(frozen=True)
class OpenVideo:
    """An open container and the one video stream that is read."""

    file: SparseFile
    container: InputContainer
    stream: VideoStream
    limits: FrameLimits
    declared_colours: Colours
    """The colour tags that the container declares; a decoder replaces them by those of its stream."""
    edits_ignored: bool = False
    """True if an MP4's edit list is not applied."""
    stated_aspect: Fraction | None = None
    """Width / height of a pixel by the container; None: it is that of the pictures, which may change midway."""
    warnings: tuple[Warn, ...] = ()
    """Warnings about boxes that had to be left out to open the file."""

    def reopen(self, *, only_video: bool = True) -> AbstractContextManager[OpenVideo]:
        """Opens the file once more, for a reader with a position of its own."""
        return open_video(
            self.file, self.limits, only_video=only_video, ignore_edits=self.edits_ignored
        )

    @property
    def decoder(self) -> VideoCodecContext:
        return self.stream.codec_context

    @property
    def format(self) -> str:
        return self.container.format.name

    @property
    def pixel_aspect(self) -> Fraction | None:
        """Width / height of a pixel of the packet decoded last; None: square, or not yet known."""
        return self.stated_aspect or self.decoder.sample_aspect_ratio

    @property
    def may_begin_anywhere(self) -> bool:
        """True for broadcast formats, whose first packets may refer to pictures sent before."""
        return _names_streams_late(self.container)


@contextmanager
def open_video(
    file: SparseFile,
    limits: FrameLimits,
    *,
    only_video: bool = True,
    probe: bool = True,
    ignore_edits: bool = False,
) -> Iterator[OpenVideo]:
    """Opens the file for decoding on this thread alone.

    `only_video` drops the packets of all other streams inside the demuxer. Without `probe`
    nothing but the header is read: enough for the index, not for decoding. `ignore_edits` shows
    what an MP4's edit list cuts off.

    Raises:
        NotAVideo, NoVideoStream, VideoEncrypted, VideoCorrupt, VideoTruncated, PictureTooLarge, TooManyStreams.
    """
    _refuse_known_others(file, limits)
    with ExitStack() as stack:
        edits = {"ignore_editlist": "1"} if ignore_edits else {}
        container, stream, left_out = _open_as_needed(file, limits, stack, edits, probe=probe)
        colours = Colours.of(stream.codec_context)
        aspect = _read_stated_aspect(stream)
        warnings = left_out.warnings if left_out else ()
        video = OpenVideo(file, container, stream, limits, colours, ignore_edits, aspect, warnings)
        check_video_size(stream.width, stream.height, limits)
        # One thread per decoder: 0.69 CPU s a job against 0.83 with FFmpeg's own choice, and
        # it avoids several upstream deadlocks.
        video.decoder.thread_type = "NONE"
        video.decoder.thread_count = 1
        # The option of av.open guards probing only; this one stops a picture that grows midway. MPEG-4's
        # decoder counts borders as well. What is between the limits, `PictureStream` refuses.
        most_pixels = limits.max_pixels + limits.max_pixels // 8 + _BORDER_PIXELS
        video.decoder.options = {"max_pixels": str(most_pixels)}
        # Otherwise a broken picture, or one with missing references, shows uninitialized memory.
        # HEVC's decoder then refuses more than that: see `nal_units`.
        if video.decoder.name in ("mjpeg", "hevc"):
            video.decoder.options |= {"err_detect": "explode"}
        if only_video:
            for other in container.streams:
                if other.index != video.stream.index:
                    other.discard = Discard.all
        yield video


def read_packets(container: InputContainer, *streams: Stream) -> Iterator[Packet[Stream]]:
    """Yields the packets of these streams up to the end of the file; of all streams by default.

    PyAV 18.1 marks the end with an empty packet per stream; where a stream appeared midway, as in
    transport streams, it raises IndexError there instead.

    PyAV's generator is closed here. Built for the limited API, Cython's generators are not
    finalized when they are dropped (cython/cython#6405): each left 144 bytes amid the heap, which
    kept the free pages around them from the system.
    """
    read = cast("Generator[Packet[Stream]]", container.demux(*streams))
    with suppress(IndexError), closing(read):
        for packet in read:
            if packet.size == 0 and packet.pts is None and packet.dts is None:
                return
            yield packet


def _open_as_needed(
    file: SparseFile,
    limits: FrameLimits,
    stack: ExitStack,
    extra: dict[str, str],
    *,
    probe: bool,
) -> tuple[InputContainer, VideoStream, LeftOut | None]:
    """Opens the container and picks its stream; an MP4 that is refused as corrupt, without its optional boxes.

    FFmpeg refuses a whole file for one such box that is malformed.
    """
    try:
        return (*_open_and_pick(file, limits, stack, extra, None, probe=probe), None)
    except VideoCorrupt:
        for left_out in _find_optional_boxes(file):
            with suppress(VideoCorrupt):
                found = _open_and_pick(file, limits, stack, extra, left_out, probe=probe)
                return (*found, left_out)
        raise


def _open_and_pick(
    file: SparseFile,
    limits: FrameLimits,
    stack: ExitStack,
    extra: dict[str, str],
    left_out: LeftOut | None,
    *,
    probe: bool,
) -> tuple[InputContainer, VideoStream]:
    with ExitStack() as attempt:
        container = _open(file, limits, attempt, extra, left_out, probe=probe)
        _check_streams(container, limits)
        stream = _pick_stream(container, file, limits)
        stack.push(attempt.pop_all())
        return container, stream


def _find_optional_boxes(file: SparseFile) -> Iterator[LeftOut]:
    if identify(file) == MP4:
        yield from find_optional_boxes(file)


def _open(
    file: SparseFile,
    limits: FrameLimits,
    stack: ExitStack,
    extra: dict[str, str],
    left_out: LeftOut | None,
    *,
    probe: bool,
) -> InputContainer:
    if probe and is_complete(file) and identify(file) == MP4:
        # FFmpeg decodes up to 20 pictures only to guess how they are reordered: 28 ms of 1080p.
        # Most streams state it (H.264: bitstream_restriction); an MP4 states the rest.
        stated = stack.enter_context(ExitStack())
        quick = {"probesize": "500000", "skip_frame": "all", **extra}
        container = _try_open(file, limits, stated, quick, left_out)
        if _states_reordering(container):
            return container
        stated.close()
    if not probe:
        return _try_open(
            file, limits, stack, {"probesize": "32", "analyzeduration": "0", **extra}, left_out
        )
    # A small probe opens a bomb with 81 MB instead of 372. Formats that name their streams
    # late are opened again with FFmpeg's default of 5 MB.
    first = stack.enter_context(ExitStack())
    container = _try_open(file, limits, first, {"probesize": "500000", **extra}, left_out)
    found = any(s.codec_context is not None and s.width for s in container.streams.video)
    if found and not _names_streams_late(container):
        return container
    first.close()
    return _try_open(file, limits, stack, extra, left_out)


def _names_streams_late(container: InputContainer) -> bool:
    return any(name in container.format.name for name in _LATE_STREAMS)


def _states_reordering(container: InputContainer) -> bool:
    decoders = [s.codec_context for s in container.streams.video if s.codec_context is not None]
    return bool(decoders) and all(decoder.reorder_depth > 0 for decoder in decoders)


def _try_open(
    file: SparseFile,
    limits: FrameLimits,
    stack: ExitStack,
    extra: dict[str, str],
    left_out: LeftOut | None,
    end: int | None = None,
) -> InputContainer:
    """Opens the container; bytes after `end` are not read, and boxes that are left out as `free`."""
    options = {
        # The file is read through a Python object, and nothing else may be opened at all.
        "protocol_whitelist": "none",
        "format_whitelist": limits.formats,
        "max_pixels": str(limits.max_pixels),
        **extra,
    }
    source = stack.enter_context(
        closing(FileCursor(file, end, left_out.replaced if left_out else None))
    )
    try:
        container = av.open(source, "r", options=options, metadata_errors="replace")
        return stack.enter_context(closing(container))
    except (OSError, *LIBRARY_FAILURES) as error:
        cut = find_broken_fragment(file) if end is None and identify(file).kind == "video" else None
        if cut is None:
            raise _explain_refusal(file, error, limits) from error
        # FFmpeg refuses a file that ends within a fragment's header, though the rest is sound.
        return _try_open(file, limits, stack, extra, left_out, cut)


def _refuse_known_others(file: SparseFile, limits: FrameLimits) -> None:
    """Raises NotAVideo for archives, documents and the like: FFmpeg would find pictures or streams amid them."""
    file_type = identify(file)
    if file_type.kind in ("other", "playlist") and file_type not in (UNKNOWN, TEXT):
        raise _explain_refusal(file, ValueError(), limits)


def _explain_refusal(file: SparseFile, error: Exception, limits: FrameLimits) -> SamplingError:
    file_type = identify(file)
    if file_type.kind == "audio":
        return NoVideoStream(
            f"got {file_type.text}, expected a video; send a file that has pictures"
        )
    if file_type.kind != "video":
        advice = f"; {file_type.advice}" if file_type.advice else ""
        return NotAVideo(f"got {file_type.text}, expected a video{advice}")
    if file_type.demuxer and file_type.demuxer not in limits.formats.split(","):
        return NotAVideo(
            f"got {file_type.text}, a format ({file_type.demuxer}) that this worker does not allow; convert it to "
            "MP4, or add the format to the worker's VIDEOQA_FORMATS"
        )
    refuse_encrypted(file)
    if file_type == MP4 and ends_before_index(file):
        return VideoTruncated(
            "the file ends before its index (moov), expected a complete MP4; upload it again"
        )
    return VideoCorrupt(
        f"got {file_type.text} that cannot be opened: {_describe_error(error)}; upload it again"
    )


def _describe_error(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _pick_stream(container: InputContainer, file: SparseFile, limits: FrameLimits) -> VideoStream:
    still = Disposition.attached_pic | Disposition.timed_thumbnails
    moving = [s for s in container.streams.video if not s.disposition & still]
    streams = container.streams
    if not (streams.video or streams.audio or streams.subtitles):
        raise _explain_refusal(file, EOFError("no streams"), limits)
    if not moving:
        covers = len(container.streams.video)
        raise NoVideoStream(
            f"got {len(container.streams.audio)} audio streams"
            + (f" and {covers} cover pictures" if covers else "")
            + " and no video stream, expected a video; send a file that has pictures"
        )
    best = container.streams.best("video")
    stream = next((s for s in moving if best is not None and s.index == best.index), moving[0])
    if stream.codec_context is None:
        refuse_encrypted(file, stream.id)
        raise VideoCorrupt(
            f"got {identify(file).text} with a codec that FFmpeg does not know; convert it to H.264"
        )
    return stream


def _read_stated_aspect(stream: VideoStream) -> Fraction | None:
    """Returns the container's pixel aspect ratio, which FFmpeg and players prefer to the codec's, if they differ."""
    guessed = stream.sample_aspect_ratio
    return None if guessed == stream.codec_context.sample_aspect_ratio else guessed


def _check_streams(container: InputContainer, limits: FrameLimits) -> None:
    count = len(container.streams)
    if count > limits.max_streams:
        raise TooManyStreams(
            f"the file has {count} streams, expected at most {limits.max_streams}; "
            "keep only the video stream, or raise the worker's VIDEOQA_MAX_STREAMS"
        )
