"""Video clips for the benchmarks: textured, moving, with each picture's number written into it.

Pictures are drawn and encoded once and kept in a cache folder (`python benchmarks/clips.py` makes
all of them). A clip longer than a minute is its first minute, lengthened by stream copy with
shifted timestamps: its numbers start anew each minute, so a picture's number is known modulo 1500.
Clips are a little shorter than their names say, else uniform targets would all be keyframes (an
eighth of ten minutes is a whole number of GOPs), and sampling look cheaper than it is. No clip has
sound. Knows nothing of what is measured with them.
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
import numpy as np
from av.video.stream import VideoStream

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
_BITS = 12
_NOISE = 3.0
"""Standard deviation of the luma noise, as of a sensor in daylight."""


@dataclass(frozen=True)
class Kind:
    """A codec with its settings, in the container that people have it in."""

    name: str
    encoder: str
    suffix: str
    share: float
    """Of H.264's bit rate, for about the same quality."""
    options: dict[str, str] = field(default_factory=dict)


_HEVC = {"preset": "veryfast", "x265-params": "log-level=error:open-gop=0:scenecut=0"}
"""Closed GOPs, as cameras write them: an open one could not be cut off."""

KINDS = {
    kind.name: kind
    for kind in (
        Kind("h264", "libx264", "mp4", 1.0),
        Kind("h264-no-b", "libx264", "mp4", 1.0, {"bf": "0"}),
        Kind("hevc", "libx265", "mp4", 0.6, _HEVC),
        Kind("vp9", "libvpx-vp9", "webm", 0.6, {"deadline": "good", "cpu-used": "6"}),
        Kind("av1", "libsvtav1", "mp4", 0.5, {"preset": "10", "svtav1-params": "lp=2"}),
    )
}
"""Encoders' own defaults but for speed: B pictures, pyramids, hidden references."""


def default_cache() -> Path:
    return Path(tempfile.gettempdir()) / "videoqa-benchmark-clips"


def count_of(seconds: int) -> int:
    """Pictures in the clip of this name: targets are then 60 pictures behind a keyframe on average
    at a minute, and 55 at ten minutes and an hour, if there are eight of them."""
    if seconds < SEGMENT_S:
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
        _lengthen(segment, seconds // SEGMENT_S, part)
    else:
        _encode(kind, count_of(seconds), (width, height), part)
    part.rename(path)
    return path


def number_in(pixels: np.ndarray) -> int | None:
    """The number that is written into a picture, uint8[H, W, 3]; None if none can be read."""
    block = pixels.shape[1] // 16
    luma = pixels[: 2 * block].mean(axis=2)
    inner = slice(block // 4, block - block // 4)
    cells = [
        [luma[r * block : (r + 1) * block, (c + 1) * block : (c + 2) * block][inner, inner].mean()
         for c in range(_BITS)]
        for r in range(2)
    ]  # fmt: skip
    bits = [above > below for above, below in zip(*cells, strict=True)]
    if min(abs(above - below) for above, below in zip(*cells, strict=True)) < 96:
        return None  # two pictures mixed, or a damaged one
    gray = sum(1 << at for at, bit in enumerate(bits) if bit)
    number = 0
    while gray:
        number ^= gray
        gray >>= 1
    return number


# Drawing


class Scene:
    """A camera that pans over a landscape of 1/f noise while ten textured things move across."""

    def __init__(self, width: int, height: int) -> None:
        self._rng = np.random.default_rng(7)
        self._size = width, height
        self._ground = self._texture(2 * height, 2 * width, 36)
        self._colours = [self._texture(height, width, 10) for _ in range(2)]
        self._things = [
            self._texture(height // 4, height // 4 + 16 * k, 30) + 12 * (k - 5) for k in range(10)
        ]
        noise = self._rng.normal(0, _NOISE, (height + 64, width + 64))
        self._noise = noise.astype(np.int16)

    def _texture(self, height: int, width: int, spread: float) -> np.ndarray:
        """int16[height, width] around 128: as detailed as photographs are (power 1/f^2.8)."""
        height, width = height // 2 * 2, width // 2 * 2
        rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
        radius = np.hypot(rows, columns)
        radius[0, 0] = 1
        phases = np.exp(2j * np.pi * self._rng.random(radius.shape))
        waves = np.fft.irfft2(phases / radius**1.4, s=(height, width))
        return np.asarray(128 + spread * (waves - waves.mean()) / waves.std()).astype(np.int16)

    def picture(self, number: int) -> av.VideoFrame:
        width, height = self._size
        luma = self._panned(self._ground, number, 1.0, height, width)
        for k, thing in enumerate(self._things):
            self._lay(luma, thing, number, k)
        top, left = self._rng.integers(0, 64, 2)
        luma += self._noise[top : top + height, left : left + width]
        _write_number(luma, number)
        planes = [
            self._panned(plane, number, 0.5, height // 2, width // 2) for plane in self._colours
        ]
        flat = np.concatenate([plane.reshape(-1) for plane in (luma, *planes)])
        pixels = flat.clip(16, 235).astype(np.uint8).reshape(height * 3 // 2, width)
        return av.VideoFrame.from_ndarray(pixels, format="yuv420p")

    def _panned(
        self, plane: np.ndarray, number: int, pace: float, height: int, width: int
    ) -> np.ndarray:
        turn = 2 * np.pi * number / (FPS * SEGMENT_S)
        top = (plane.shape[0] - height - 2) * (0.5 + 0.4 * np.sin(3 * turn + 2))
        left = (plane.shape[1] - width - 2) * (0.5 + 0.4 * np.sin(2 * turn + 1))
        shake = 2 * pace * np.sin(number * 0.12)
        return _cut(plane, top + shake, left - shake, height, width)

    def _lay(self, luma: np.ndarray, thing: np.ndarray, number: int, k: int) -> None:
        height, width = luma.shape
        high, wide = (side - 2 for side in thing.shape)
        turn = 2 * np.pi * number / (FPS * SEGMENT_S)
        y = height // 6 + (height * 5 // 6 - high) * (0.5 + 0.5 * np.sin((k % 3 + 1) * turn + k))
        x = (width - wide) * (0.5 + 0.5 * np.sin((k % 4 + 2) * turn + 2 * k))
        part = _cut(thing, 1 - y % 1, 1 - x % 1, high, wide)
        rows, columns = np.ogrid[-1 : 1 : high * 1j, -1 : 1 : wide * 1j]
        place = luma[int(y) : int(y) + high, int(x) : int(x) + wide]
        np.copyto(place, part, where=rows**4 + columns**4 < 0.9)


def _cut(plane: np.ndarray, top: float, left: float, height: int, width: int) -> np.ndarray:
    """A part that begins between pixels, blended of its neighbours: motion below a pixel."""
    y, x = int(top), int(left)
    down, right = (round(256 * (at % 1)) for at in (top, left))
    wide = plane[y : y + height + 1, x : x + width + 1].astype(np.int32)
    mixed = wide[:-1] * (256 - down) + wide[1:] * down
    return np.asarray(mixed[:, :-1] * (256 - right) + mixed[:, 1:] * right >> 16).astype(np.int16)


def _write_number(luma: np.ndarray, number: int) -> None:
    """Twelve bits, each a white or black block of a sixteenth of the width; below, inverted.

    In Gray code one block changes from picture to picture: more, and encoders, which then see
    a cut, would choose fewer B pictures than for a video without numbers.
    """
    block = luma.shape[1] // 16
    gray = number ^ number >> 1
    for at in range(_BITS):
        columns = slice((at + 1) * block, (at + 2) * block)
        bit = gray >> at & 1
        luma[:block, columns] = 235 if bit else 16
        luma[block : 2 * block, columns] = 16 if bit else 235


# Writing


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


def _lengthen(segment: Path, times: int, path: Path) -> None:
    """Copies the packets of the segment again and again, each time SEGMENT_S later; of the last
    time all but the last GOP."""
    with av.open(str(segment)) as source, av.open(str(path), "w", format=path.suffix[1:]) as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in _repeated(source, stream, times):
            packet.stream = copy
            out.mux(packet)


def _repeated(source: Any, stream: VideoStream, times: int) -> Iterator[Any]:
    shift = round(SEGMENT_S / (stream.time_base or Fraction(1, FPS)))
    last_key = max(p.pts or 0 for p in source.demux(stream) if p.is_keyframe)
    for turn in range(times):
        source.seek(0, stream=stream)
        for packet in source.demux(stream):
            if turn == times - 1 and packet.is_keyframe and packet.pts == last_key:
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
