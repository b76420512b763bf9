"""The pictures of the benchmarks' clips: textured, moving, each with its number written into it.

Knows nothing of codecs and files.
"""

from __future__ import annotations

import av
import numpy as np

__all__ = ["Scene", "number_in"]

_BITS = 12
_NOISE = 3.0
"""Standard deviation of the luma noise, as of a sensor in daylight."""
_ROUND = 1500
"""Pictures until all that moves is back at its place."""


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
        turn = 2 * np.pi * number / _ROUND
        top = (plane.shape[0] - height - 2) * (0.5 + 0.4 * np.sin(3 * turn + 2))
        left = (plane.shape[1] - width - 2) * (0.5 + 0.4 * np.sin(2 * turn + 1))
        shake = 2 * pace * np.sin(number * 0.12)
        return _cut(plane, top + shake, left - shake, height, width)

    def _lay(self, luma: np.ndarray, thing: np.ndarray, number: int, k: int) -> None:
        height, width = luma.shape
        high, wide = (side - 2 for side in thing.shape)
        turn = 2 * np.pi * number / _ROUND
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
