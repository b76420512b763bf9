"""Video clips for the benchmarks: textured, moving, with each picture's number written into it.

Pictures are drawn and encoded once and kept in a cache folder (`python benchmarks/lib/clips.py` makes
all of them). A clip longer than a minute is its first minute, lengthened by stream copy with
shifted timestamps: its numbers start anew each minute, so a picture's number is known modulo 1500.
Clips are a little shorter than their names say, else uniform targets would all be keyframes (an
eighth of ten minutes is a whole number of GOPs), and sampling look cheaper than it is; the kind
`h264-whole` is exactly as long as its name says, and shows that case. No clip has sound. Knows
nothing of what is measured with them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.stream import VideoStream

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.scenery import Scene, number_in

__all__ = [
    "DURATIONS_S",
    "FPS",
    "KINDS",
    "Kind",
    "count_of",
    "default_cache",
    "make_clip",
    "number_in",
]

FPS = 25
GOP = 125
SEGMENT_S = 60
DURATIONS_S = (10, 60, 600, 3600)
WARM_UP_S = 1
"""The clip that a measurement warms up on."""

_EDITION = 2
"""Goes up when clips change: an old cache is not taken for a new one."""


@dataclass(frozen=True)
class Kind:
    """A codec with its settings, in the container that people have it in."""

    name: str
    encoder: str
    suffix: str
    share: float
    """Share of H.264's bit rate, for about the same quality."""
    options: dict[str, str] = field(default_factory=dict)
    whole: bool = False
    """Exactly as long as the name says: of eight targets, half are keyframes at a minute, and all
    at ten minutes and an hour."""


_HEVC = {"preset": "veryfast", "x265-params": "log-level=error:open-gop=0:scenecut=0"}
"""Closed GOPs, as cameras write them: an open one could not be cut off."""

KINDS = {
    kind.name: kind
    for kind in (
        Kind("h264", "libx264", "mp4", 1.0),
        Kind("h264-whole", "libx264", "mp4", 1.0, whole=True),
        Kind("h264-no-b", "libx264", "mp4", 1.0, {"bf": "0"}),
        Kind("hevc", "libx265", "mp4", 0.6, _HEVC),
        Kind("vp9", "libvpx-vp9", "webm", 0.6, {"deadline": "good", "cpu-used": "6"}),
        Kind("av1", "libsvtav1", "mp4", 0.5, {"preset": "10", "svtav1-params": "lp=2"}),
    )
}
"""Encoders' own defaults but for speed: B pictures, pyramids, hidden references."""


def default_cache() -> Path:
    return Path(tempfile.gettempdir()) / "videoqa-benchmark-clips"


def count_of(kind: Kind, seconds: int) -> int:
    """Counts the pictures in the clip of this name.

    With eight targets these are 60 pictures behind a keyframe on average at a minute, and 55 at ten
    minutes and an hour.
    """
    if seconds < SEGMENT_S or kind.whole:
        return seconds * FPS
    return seconds * FPS - (40 if seconds == SEGMENT_S else GOP)


def size_of(seconds: int) -> tuple[int, int]:
    """Width, height."""
    if seconds == WARM_UP_S:
        return 320, 192
    return (1920, 1080) if seconds <= SEGMENT_S else (1280, 720)


def make_clip(kind: Kind, seconds: int, cache: Path) -> Path:
    """The clip's path; drawn and encoded if the cache has none."""
    width, height = size_of(seconds)
    path = cache / f"v{_EDITION}-{kind.name}-{seconds}s-{height}p.{kind.suffix}"
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"part-{os.getpid()}-{path.name}")
    if seconds > SEGMENT_S:
        segment = cache / f"v{_EDITION}-{kind.name}-segment-{height}p.{kind.suffix}"
        if not segment.exists():
            _encode(kind, SEGMENT_S * FPS, (width, height), part)
            part.rename(segment)
        _lengthen(segment, seconds // SEGMENT_S, part, whole=kind.whole)
    else:
        _encode(kind, count_of(kind, seconds), (width, height), part)
    part.rename(path)
    return path


def _encode(kind: Kind, count: int, size: tuple[int, int], path: Path) -> None:
    width, height = size
    scene = Scene(width, height)
    with av.open(str(path), "w", format=kind.suffix) as out:
        stream: Any = out.add_stream(kind.encoder, rate=FPS, options=dict(kind.options))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size = GOP
        # 2 Mbit/s at 720p: 900 MB an hour.
        stream.bit_rate = int(2_000_000 * kind.share * (width * height / (1280 * 720)) ** 0.9)
        for number in range(count):
            picture = scene.picture(number)
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            out.mux(stream.encode(picture))
            if number % 50 == 0:
                _say(f"{path.name}: picture {number} of {count}")
        out.mux(stream.encode(None))
    _say("")


def _lengthen(segment: Path, times: int, path: Path, *, whole: bool) -> None:
    """Copies the packets of the segment again and again, each time SEGMENT_S later.

    The last time lacks its last GOP, unless `whole`.
    """
    with av.open(str(segment)) as source, av.open(str(path), "w", format=path.suffix[1:]) as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream, opaque=True)
        for packet in _repeated(source, stream, times, whole):
            packet.stream = copy
            out.mux(packet)


def _repeated(source: Any, stream: VideoStream, times: int, whole: bool) -> Iterator[Any]:
    shift = round(SEGMENT_S / (stream.time_base or Fraction(1, FPS)))
    last_key = max(p.pts or 0 for p in source.demux(stream) if p.is_keyframe)
    for turn in range(times):
        source.seek(0, stream=stream)
        for packet in source.demux(stream):
            ends = not whole and turn == times - 1
            if ends and packet.is_keyframe and packet.pts == last_key:
                return
            if packet.size == 0:
                continue
            packet.pts += turn * shift
            packet.dts += turn * shift
            yield packet


def _say(text: str) -> None:
    end = "\r" if text else ""
    print(f"\r{text:60}", end=end, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seconds", nargs="+", type=int, default=[WARM_UP_S, *DURATIONS_S])
    args = parser.parse_args()
    for name in args.kinds:
        for seconds in args.seconds:
            path = make_clip(KINDS[name], seconds, args.cache)
            print(f"{path}  {path.stat().st_size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
