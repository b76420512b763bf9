"""All pictures of a file, decoded one after the other: what the sampler's are compared with.

Runs in a child. One pass from the first packet to the last with PyAV, on one thread, without
seeking, skipping or an index, sharing no code with the sampler but FFmpeg itself. Packets that
FFmpeg gives an error for are passed over.

Damage can make a picture depend on more than the file. A keyframe is where decoding may begin,
but a damaged one can lean on pictures before it (VP8 keeps its segment map, H.264 conceals with
what it has), so whoever seeks sees another picture than whoever reads on; and a decoder may show
memory that it never wrote. A second, thorough look finds both: it begins at every keyframe, and
decodes twice with freed memory filled with different bytes.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median

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
_MOST_ENTRIES = 60
_FILLINGS = (0x55, 0xAA)
_M_PERTURB = -6


@dataclass(frozen=True)
class Seen:
    """One picture. A display matrix allows for eight digests, one an orientation."""

    tick: int | None
    digests: frozenset[str]
    number: int | None
    indices: frozenset[int]
    """Its number by pictures that decoded, by packets, by time: they differ in damaged files."""
    corrupt: bool


@dataclass(frozen=True)
class Reference:
    """`pictures` in the order in which they came out of the decoder."""

    pictures: tuple[Seen, ...] = ()
    tick_s: Fraction = Fraction(1)
    errors: int = 0
    """Packets that FFmpeg could not read or decode."""
    entered: frozenset[tuple[int, str]] = frozenset()
    """(tick, digest) of pictures as they look to whoever begins at some keyframe."""
    unstable: frozenset[int] = frozenset()
    """Ticks of pictures that show memory which was never written."""

    @property
    def origin(self) -> int:
        """The first picture's tick; pictures that FFmpeg calls corrupt are none."""
        return _origin(self.pictures)


@dataclass
class _Pass:
    """What one pass over the file notes; the first four are of the pictures."""

    ticks: list[int | None] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    """The number of the packet that the picture came from."""
    digests: list[frozenset[str]] = field(default_factory=list)
    numbers: list[tuple[int | None, bool]] = field(default_factory=list)
    """What can be read in it, and whether FFmpeg calls it corrupt."""
    packets: list[tuple[int | None, int | None, bool]] = field(default_factory=list)
    """(pts, dts, keyframe)."""
    errors: int = 0
    tick_s: Fraction = Fraction(1)
    format: str = ""


def referee() -> Callable[[tuple[Path, bool]], Reference]:
    """For a `Child`; its question is (path, whether to be thorough)."""
    return lambda question: _judge(*question)


def _judge(path: Path, thorough: bool) -> Reference:
    try:
        noted = _read(path)
    except (FFmpegError, OSError, ValueError):
        return Reference(errors=1)
    ticks = _ticks_by_packet(noted) if noted.format == "avi" else noted.ticks
    reference = Reference(tuple(_seen(noted, ticks)), noted.tick_s, noted.errors)
    return _thorough(path, noted, reference) if thorough else reference


def _read(path: Path, begin: int = 0) -> _Pass:
    """Decodes from packet number `begin` on."""
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
        decoder.options = {"max_pixels": str(LIMITS.max_pixels)}
        # PyAV 18.1 raises IndexError at the end of streams that appear midway.
        with suppress(IndexError, FFmpegError):
            noted.errors += 1
            _read_packets(container, stream, noted, begin)
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


def _read_packets(container: InputContainer, stream: VideoStream, noted: _Pass, begin: int) -> None:
    for packet in container.demux(stream):
        if packet.size == 0 and packet.pts is None and packet.dts is None:
            return
        packet.opaque = len(noted.packets)
        noted.packets.append((packet.pts, packet.dts, packet.is_keyframe))
        if packet.opaque >= begin:
            _decode(stream.codec_context, packet, noted)
        if len(noted.ticks) > _MOST_PICTURES:
            return


def _decode(decoder: VideoCodecContext, packet: av.Packet | None, noted: _Pass) -> None:
    try:
        pictures = decoder.decode(packet)
    except FFmpegError:
        noted.errors += 1
        return
    for picture in pictures:
        pixels = picture.to_ndarray(format="rgb24", threads=1)
        turned = "DISPLAYMATRIX" in {str(data.type.name) for data in picture.side_data}
        noted.ticks.append(picture.pts)
        noted.sources.append(-1 if picture.opaque is None else picture.opaque)
        noted.digests.append(frozenset(map(digest, _orientations(pixels) if turned else [pixels])))
        noted.numbers.append((number_in(pixels), picture.is_corrupt))


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
    by_packet = sorted(pts for pts, _, _ in noted.packets if pts is not None)
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


# The second look


def _thorough(path: Path, noted: _Pass, reference: Reference) -> Reference:
    entered: set[tuple[int, str]] = set()
    keys = [n for n, (pts, _, key) in enumerate(noted.packets) if key and pts is not None]
    for number in keys[:_MOST_ENTRIES]:
        entered |= set(_by_tick(_read(path, begin=number), least=noted.packets[number][0]))
    unstable: set[int] = set()
    looks = [set(_by_tick(noted)), *(set(_by_tick(_filled(path, byte))) for byte in _FILLINGS)]
    for look in looks[1:]:
        unstable |= {tick for tick, _ in look ^ looks[0]}
    return replace(reference, entered=frozenset(entered), unstable=frozenset(unstable))


def _by_tick(noted: _Pass, least: int | None = None) -> Iterator[tuple[int, str]]:
    """Pictures before the keyframe may lack what they refer to: open GOPs."""
    ticks = _ticks_by_packet(noted) if noted.format == "avi" else noted.ticks
    for tick, digests in zip(ticks, noted.digests, strict=True):
        if tick is not None and (least is None or tick >= least):
            yield from ((tick, one) for one in digests)


def _filled(path: Path, byte: int) -> _Pass:
    c_library = ctypes.CDLL(None)
    c_library.mallopt(_M_PERTURB, byte)
    try:
        return _read(path)
    finally:
        c_library.mallopt(_M_PERTURB, 0)
