"""Decodes all pictures of a file one after the other, to compare the sampler's frames with.

Runs in a child. One pass from the first packet to the last with PyAV, on one thread, without
seeking, skipping or an index, sharing no code with the sampler but FFmpeg itself. Packets that
FFmpeg gives an error for are passed over. Of a file that gives fewer pictures than packets, a second
pass has FFmpeg leave out pictures that nothing refers to: one of those may be what makes it drop others.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from fuzz.asked import LIMITS, Pixels, digest, number_in

__all__ = ["Reference", "Seen", "referee"]

_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,ogg,flv,gif,asf"
_MOST_PICTURES = 3000


@dataclass(frozen=True)
class Seen:
    """One picture; with a display matrix it has eight digests, one per orientation."""

    tick: int | None
    digests: frozenset[str]
    number: int | None
    indices: frozenset[int]
    """Its number by decoded pictures, by packets and by time; these differ in damaged files."""
    corrupt: bool


@dataclass(frozen=True)
class Reference:
    """`pictures` in the order in which they came out of the decoder."""

    pictures: tuple[Seen, ...] = ()
    tick_s: Fraction = Fraction(1)
    errors: int = 0
    """Packets that FFmpeg could not read or decode."""
    spared: tuple[Seen, ...] = ()
    """Pictures at other times, which come out if FFmpeg skips non-reference frames."""

    @property
    def origin(self) -> int:
        """The first picture's tick; pictures that FFmpeg calls corrupt do not count."""
        return _origin(self.pictures)

    @property
    def first(self) -> int | None:
        """The number in the picture at the origin."""
        return next((seen.number for seen in self.pictures if seen.tick == self.origin), None)

    def timed(self, *, spared: bool = False) -> list[tuple[float, Seen]]:
        """(seconds from the first picture, picture) of those that have a time."""
        origin = self.origin
        return [
            (float((seen.tick - origin) * self.tick_s), seen)
            for seen in (self.spared if spared else self.pictures)
            if seen.tick is not None
        ]


@dataclass
class _Pass:
    """The notes of one pass over the file; the first four lists have an entry per picture."""

    ticks: list[int | None] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    """The number of the packet that the picture came from."""
    digests: list[frozenset[str]] = field(default_factory=list)
    numbers: list[tuple[int | None, bool]] = field(default_factory=list)
    """The number that can be read in it, and whether FFmpeg calls it corrupt."""
    packets: list[tuple[int | None, int | None]] = field(default_factory=list)
    """(pts, dts)."""
    errors: int = 0
    tick_s: Fraction = Fraction(1)
    format: str = ""


@contextmanager
def referee() -> Iterator[Callable[[Path], Reference]]:
    """Work for a `Child` that decodes all pictures of a file."""
    yield _judge


def _judge(path: Path) -> Reference:
    try:
        noted = _read(path)
    except (FFmpegError, OSError, ValueError):
        return Reference(errors=1)
    pictures = _pictures(noted)
    spared: tuple[Seen, ...] = ()
    if len(pictures) < len(noted.packets):
        known = {seen.tick for seen in pictures}
        with suppress(FFmpegError, OSError, ValueError):
            again = _pictures(_read(path, "NONREF"))
            spared = tuple(seen for seen in again if seen.tick not in known)
    return Reference(pictures, noted.tick_s, noted.errors, spared)


def _pictures(noted: _Pass) -> tuple[Seen, ...]:
    ticks = _ticks_by_packet(noted) if noted.format == "avi" else noted.ticks
    return tuple(_seen(noted, ticks))


def _read(path: Path, skip_frame: str = "DEFAULT") -> _Pass:
    noted = _Pass()
    with _opened(path) as container:
        noted.format = container.format.name
        stream = _picked(container)
        if stream is None:
            return noted
        noted.tick_s = stream.time_base or Fraction(1, 90_000)
        decoder = stream.codec_context
        decoder.thread_type, decoder.thread_count = "NONE", 1
        decoder.copy_opaque = True
        decoder.skip_frame = skip_frame
        decoder.options = {"max_pixels": str(LIMITS.max_pixels)}
        # PyAV 18.1 raises IndexError at the end of streams that appear midway.
        with suppress(IndexError, FFmpegError):
            noted.errors += 1
            _read_packets(container, stream, noted)
            noted.errors -= 1
        _decode(decoder, None, noted)
    return noted


def _opened(path: Path) -> InputContainer:
    options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
    try:
        return av.open(f"file:{path}", options=options, metadata_errors="replace")
    except EOFError:
        options["fflags"] = "ignidx"
        return av.open(f"file:{path}", options=options, metadata_errors="replace")


def _picked(container: InputContainer) -> VideoStream | None:
    still = Disposition.attached_pic | Disposition.timed_thumbnails
    moving = [s for s in container.streams.video if not s.disposition & still]
    best = container.streams.best("video")
    chosen = [s for s in moving if best is not None and s.index == best.index] or moving
    return chosen[0] if chosen and chosen[0].codec_context is not None else None


def _read_packets(container: InputContainer, stream: VideoStream, noted: _Pass) -> None:
    for packet in container.demux(stream):
        if packet.size == 0 and packet.pts is None and packet.dts is None:
            return
        packet.opaque = len(noted.packets)
        noted.packets.append((packet.pts, packet.dts))
        _decode(stream.codec_context, packet, noted)
        if len(noted.ticks) > _MOST_PICTURES:
            return


def _decode(decoder: VideoCodecContext, packet: av.Packet[Any] | None, noted: _Pass) -> None:
    try:
        pictures = decoder.decode(packet)
    except FFmpegError:
        noted.errors += 1
        return
    for picture in pictures:
        pixels = picture.to_ndarray(format="rgb24", threads=1).astype(np.uint8, copy=False)
        turned = _is_turned(picture)
        noted.ticks.append(picture.pts)
        noted.sources.append(picture.opaque if isinstance(picture.opaque, int) else -1)
        noted.digests.append(frozenset(map(digest, _orientations(pixels) if turned else [pixels])))
        noted.numbers.append((number_in(pixels), picture.is_corrupt))


def _is_turned(picture: av.VideoFrame) -> bool:
    try:
        return bool(cast("Mapping[str, object]", picture.side_data)["DISPLAYMATRIX"])
    except KeyError:
        return False


def _orientations(pixels: Pixels) -> Iterator[Pixels]:
    for turns in range(4):
        turned = np.rot90(pixels, turns)
        yield turned
        yield turned[:, ::-1]


def _ticks_by_packet(noted: _Pass) -> Sequence[int | None]:
    """AVI stores no times: pictures come out in order, at the times of the packets they are from.

    A packet that gives no picture leaves its time to the picture before; with B-frames that is
    off by their delay.
    """
    known = sorted(source for source in noted.sources if source >= 0)
    if len(known) != len(noted.sources):
        return noted.ticks
    return [noted.packets[source][1] for source in known]


def _seen(noted: _Pass, ticks: Sequence[int | None]) -> Iterator[Seen]:
    plain = [
        Seen(tick, digests, number, frozenset(), corrupt)
        for tick, digests, (number, corrupt) in zip(
            ticks, noted.digests, noted.numbers, strict=True
        )
    ]
    origin = _origin(plain)
    shown = sorted(seen.tick for seen in plain if seen.tick is not None)
    by_packet = sorted(pts for pts, _ in noted.packets if pts is not None)
    skipped = next((order for order, seen in enumerate(plain) if seen.tick == origin), 0)
    step = median(b - a for a, b in pairwise(shown)) if shown[1:] else 0
    for order, seen in enumerate(plain):
        indices = {order - skipped, noted.sources[order]}
        if seen.tick is not None:
            indices |= {bisect_left(times, seen.tick) - bisect_left(times, origin)
                        for times in (shown, by_packet)}  # fmt: skip
            indices |= {round((seen.tick - origin) / step)} if step else set()
        yield replace(seen, indices=frozenset(indices))


def _origin(pictures: Sequence[Seen]) -> int:
    timed = [seen for seen in pictures if seen.tick is not None]
    sound = [seen for seen in timed if not seen.corrupt] or timed
    return (sound[0].tick or 0) if sound else 0
