"""Maps pictures in HDR, or in wide primaries, to RGB for SDR displays with BT.709's primaries.

Each pixel of the chroma planes takes the way of `tone_curve`: a matrix to R'G'B', a curve to light, a matrix to
BT.709's light, and a curve to SDR. That gives SDR's chroma, and how far luma is from that of a grey of the same
signal; luma itself passes one curve at full size. Curves are tables. FFmpeg's scaler then converts to RGB as it
does any SDR picture. Tables of three dimensions were tried (FFmpeg's `haldclut`): a sixth less time, but saturated
colours were off by 10 to 50 of 255, since the light of what they lack is a small difference of large numbers.

Stills: `ToneMapper().convert(picture)` takes any `VideoFrame` with its tags set, one made of RGB too
(`VideoFrame.from_ndarray(pixels, format="rgb48le")` with `color_trc`, `color_primaries` and `colorspace = 0`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av.video.reformatter import VideoReformatter

from videoqa.errors import DecodingFailed
from videoqa_worker.frames.library_failures import LIBRARY_FAILURES
from videoqa_worker.frames.picture.colour.colours import (
    BT709,
    BT2020_MATRIX,
    FULL_RANGE,
    UNSPECIFIED,
    Colours,
)
from videoqa_worker.frames.picture.colour.matrices import has_luma
from videoqa_worker.frames.picture.colour.tone_curve import (
    LUMA_WEIGHTS,
    LightPath,
    encode_sdr,
    find_light_path,
    find_nearest_colours,
    roll_off,
)

__all__ = ["ToneMapper"]

Values = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]

_MOST = 1023
_CHROMA_MIDDLE = 512
_PEAK_STEPS = 32
"""Parts of a doubling of light to which a picture's peak is rounded up: each is a table of its own."""
_NOISE = 1.12
"""Light up to which a codec may exceed SDR white: without roll-off it is cut off."""
_LUMA_UNIT = 16 * 255
"""One is 16 times the 255 of 8 bits, so that sums are rounded once."""
_OFFSET = 4096
"""Makes differences of luma positive."""
_SIGNAL_ENTRIES, _LIGHT_ENTRIES = 1 << 16, 1 << 13
_BLOCK = 49_152
"""Pixels that are converted at a time, so that they stay in caches."""


class ToneMapper:
    """Maps the pictures of one video to rgb24."""

    def __init__(self) -> None:
        self._to_planar, self._to_rgb = VideoReformatter(), VideoReformatter()
        self.approximated: Colours | None = None
        """The colours of a picture so far that was converted by others, which are near."""

    def convert(self, picture: VideoFrame, colours: Colours | None = None) -> VideoFrame:
        """Returns the picture as rgb24; its colours are those of its own tags by default.

        Raises:
            DecodingFailed: FFmpeg refuses the picture. MemoryError.
        """
        colours = colours or Colours.of(picture)
        if colours.dynamic_range != "sdr":
            colours = colours.fill_for_hdr()
        nearest = find_nearest_colours(colours, has_luma=has_luma(picture))
        if nearest != colours:
            self.approximated, colours = colours, nearest
        try:
            planar, colours = self._make_planar(picture, colours)
            return self._to_rgb.reformat(self._map(planar, colours), format="rgb24", threads=1)
        except LIBRARY_FAILURES as error:
            if isinstance(error, MemoryError):
                raise
            raise DecodingFailed(
                f"got HDR pictures of format {picture.format.name} that cannot be converted to RGB "
                f"({error}); encode the video again, in SDR for example"
            ) from error

    def _make_planar(self, picture: VideoFrame, colours: Colours) -> tuple[VideoFrame, Colours]:
        """Converts to planes of 10 bits, of Y'CbCr, with the chroma planes of 4:2:0 or of 4:4:4."""
        is_rgb = picture.format.is_rgb or picture.format.has_palette
        wanted = "yuv420p10le" if not is_rgb and _has_quarter_chroma(picture) else "yuv444p10le"
        if picture.format.name == wanted:
            return picture, colours
        if len(picture.format.components) == 1 and not is_rgb:
            return _colour_grey(picture), colours
        if not is_rgb:
            # The matrix is the table's part; the scaler refuses some of them, and uses none here.
            tagged, picture.colorspace = picture.colorspace, UNSPECIFIED
            planar = self._to_planar.reformat(picture, format=wanted, threads=1)
            picture.colorspace = tagged
            return planar, colours
        planar = self._to_planar.reformat(
            picture,
            format=wanted,
            dst_colorspace=BT2020_MATRIX,
            dst_color_range=FULL_RANGE,
            threads=1,
        )
        return planar, replace(colours, matrix=BT2020_MATRIX, is_full_range=True)

    def _map(self, picture: VideoFrame, colours: Colours) -> VideoFrame:
        """Returns the picture as 8 bits of SDR, full range, with the same chroma planes."""
        luma, *chroma = _find_planes(picture, np.uint16)
        step = 1 if "444" in picture.format.name else 2
        if step == 2:
            luma = _pad_to_even(luma)
        coarse = luma if step == 1 else _sum_squares(luma)
        out = VideoFrame(picture.width, picture.height, "yuv420p" if step == 2 else "yuv444p")
        out.colorspace, out.color_range = BT709, FULL_RANGE
        target, *targets = _find_planes(out, np.uint8)
        tables = _make_tables(colours, step * step)
        difference = tables.convert([coarse, *chroma], targets)
        sums = tables.greys.take(luma, mode="clip")
        _add_coarse(sums, difference, step)
        np.clip(sums, _OFFSET, _OFFSET + _LUMA_UNIT + 15, out=sums)
        sums >>= 4
        np.copyto(target, sums[: picture.height, : picture.width], casting="unsafe")
        return out


class _Tables:
    """The tables for pictures of some colours, whose luma comes as sums of `summed` pixels."""

    def __init__(self, colours: Colours, summed: int) -> None:
        levels = (0, _MOST, _MOST) if colours.is_full_range else (64, 876, 896)
        self._black, luma, chroma = levels[0] * summed, levels[1] * summed, levels[2]
        path, self._is_sdr = find_light_path(colours), colours.dynamic_range == "sdr"
        self._matrices, self._curves = [], []
        for n, step in enumerate(path.steps):
            scale = np.array([1 / luma, 1 / chroma, 1 / chroma]) * _SIGNAL_ENTRIES if n == 0 else 1
            self._matrices.append(step.matrix * scale)
            self._curves.append(_tabulate(step.curve, is_light=n > 0))
        self._to_own, self._to_bt709 = path.to_own, path.to_bt709
        codes = np.clip((np.arange(_MOST * summed + 1) - self._black) / luma, 0, 1)
        units = encode_sdr(_find_grey(path, codes)) * _LUMA_UNIT
        self.greys = np.rint(units[::summed] + _OFFSET + 8).astype(np.uint16)
        """uint16[1024]: SDR's luma of a grey by its code, in units beyond the offset."""
        self._coarse_greys = units.astype(np.float32)

    def convert(
        self, planes: list[Values], targets: list[npt.NDArray[np.uint8]]
    ) -> npt.NDArray[np.int16]:
        """Writes SDR's chroma; returns how much larger luma is, in units, than that of a grey."""
        height, width = planes[0].shape
        factors = _make_factors(self._measure_peak(planes))
        out = np.empty((height, width), np.int16)
        rows = max(1, _BLOCK // width)
        room = np.empty((2, 3, rows * width), np.float32)
        places = np.empty(rows * width, np.intp)
        for top in range(0, height, rows):
            part = slice(top, min(top + rows, height))
            lines = [plane[part] for plane in planes]
            source, rgb = room[:, :, : lines[0].size]
            index = places[: lines[0].size]
            self._find_light(lines, source, rgb, index)
            source, rgb = rgb, source
            _multiply(self._to_bt709, source, rgb, index)
            if factors is not None:
                factors.apply(rgb, source[0], index)
            _apply(_SDR, rgb, index, is_light=True)
            luma, spare = source[0], source[1]
            _weigh(LUMA_WEIGHTS, rgb, luma, spare)
            for target, weight, colour in zip(
                targets, (LUMA_WEIGHTS[2], LUMA_WEIGHTS[0]), (rgb[2], rgb[0]), strict=True
            ):
                np.subtract(colour, luma, out=colour)
                np.multiply(colour, np.float32(255 / _LUMA_UNIT / 2 / (1 - weight)), out=colour)
                np.add(colour, np.float32(128.5), out=colour)
                np.clip(colour, 0, 255, out=colour)
                np.copyto(target[part], colour.reshape(lines[0].shape), casting="unsafe")
            np.copyto(index, lines[0].reshape(-1))
            self._coarse_greys.take(index, mode="clip", out=spare)
            luma -= spare
            np.copyto(out[part], luma.reshape(lines[0].shape), casting="unsafe")
        return out

    def _find_light(
        self, lines: list[Any], source: Floats, light: Floats, index: npt.NDArray[np.intp]
    ) -> None:
        """Finds the light of pixels; `source` is overwritten."""
        for line, origin, out in zip(
            lines, (self._black, _CHROMA_MIDDLE, _CHROMA_MIDDLE), source, strict=True
        ):
            np.subtract(line, np.float32(origin), out=out.reshape(line.shape))
        for n, (matrix, curve) in enumerate(zip(self._matrices, self._curves, strict=True)):
            if n:
                source[:] = light
            _multiply(matrix, source, light, index)
            _apply(curve, light, index, is_light=n > 0)

    def _measure_peak(self, planes: list[Values]) -> float:
        """Returns the brightest light of a picture: SDR white's, or more, in steps.

        A colour beyond BT.709's gamut alone does not count: in its own primaries it is no brighter than white. A
        sixteenth of the pixels is looked at. Metadata (MaxCLL, mastering displays) is not needed for it, and
        speaks of a whole film.
        """
        if self._is_sdr:
            return 1.0
        lines = [np.ascontiguousarray(plane[::4, ::4]) for plane in planes]
        source, light = np.empty((2, 3, lines[0].size), np.float32)
        index = np.empty(lines[0].size, np.intp)
        self._find_light(lines, source, light, index)
        _multiply(self._to_own, light, source, index)
        if source.max() <= _NOISE:
            return 1.0
        _multiply(self._to_bt709, light, source, index)
        steps = math.ceil(math.log2(max(_NOISE, float(source.max()))) * _PEAK_STEPS)
        return float(2 ** (steps / _PEAK_STEPS))


class _Factors:
    """The factors by which light is dimmed so that up to `peak` fits SDR, by the largest of its components."""

    def __init__(self, peak: float) -> None:
        self._scale = np.float32(1 / peak)
        self._table = _tabulate(
            lambda share: roll_off(share * peak, peak) / (share * peak), is_light=True
        )
        self._table[0] = 1.0

    def apply(self, rgb: Floats, spare: Floats, index: npt.NDArray[np.intp]) -> None:
        """Dims the light."""
        np.maximum(rgb[0], rgb[1], out=spare)
        np.maximum(spare, rgb[2], out=spare)
        spare *= self._scale
        _apply(self._table, spare[None], index, is_light=True)
        rgb *= spare


@lru_cache(maxsize=64)
def _make_factors(peak: float) -> _Factors | None:
    return None if peak <= 1 else _Factors(peak)


@lru_cache(maxsize=16)
def _make_tables(colours: Colours, summed: int) -> _Tables:
    return _Tables(colours, summed)


def _tabulate(curve: Callable[[npt.NDArray[np.float64]], Any], *, is_light: bool) -> Floats:
    """Returns the values of a curve from 0 to 1 at the middle of each entry; for light, entries are of its root."""
    entries = _LIGHT_ENTRIES if is_light else _SIGNAL_ENTRIES
    places = (np.arange(entries) + 0.5) / entries
    places[0] = 1e-9
    places[-1] = 1.0
    return np.asarray(curve(places**2 if is_light else places)).astype(np.float32)


_SDR = _tabulate(lambda light: encode_sdr(light) * _LUMA_UNIT, is_light=True)
"""Signal of an SDR display by its light, in units."""


def _find_grey(path: LightPath, luma: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the light of greys by luma from 0 to 1."""
    values = np.stack([luma, np.zeros_like(luma), np.zeros_like(luma)], axis=-1)
    for step in path.steps:
        values = step.curve(np.clip(values @ step.matrix.T, 0, 1))
    return (values @ path.to_bt709.T)[..., 1]


def _multiply(matrix: npt.NDArray[np.float64], source: Floats, out: Floats, spare: Any) -> None:
    """Multiplies each pixel of float32[3, N] by a matrix."""
    room = spare.view(np.float32)[: source.shape[1]]
    for row, line in zip(matrix.tolist(), out, strict=True):
        _weigh(row, source, line, room)


def _weigh(weights: Sequence[float], source: Floats, out: Floats, spare: Floats) -> None:
    """Adds up the components of each pixel by weights."""
    np.multiply(source[0], np.float32(weights[0]), out=out)
    for weight, line in zip(weights[1:], source[1:], strict=True):
        if weight:
            np.multiply(line, np.float32(weight), out=spare)
            out += spare


def _apply(curve: Floats, values: Floats, index: npt.NDArray[np.intp], *, is_light: bool) -> None:
    """Replaces values, of light by its root, by those of a table; those beyond its ends by the ends'."""
    last = len(curve) - 1
    for line in values:
        # `clip` takes a third of the time of `maximum` with a number, and `wrap` two thirds of that of `clip`.
        if is_light:
            np.clip(line, 0, 1, out=line)
            np.sqrt(line, out=line)
            np.multiply(line, np.float32(last + 0.99), out=line)
        else:
            np.clip(line, 0, last, out=line)
        np.copyto(index, line, casting="unsafe")
        curve.take(index, mode="wrap", out=line)


def _find_planes(picture: VideoFrame, kind: type[np.uint8 | np.uint16]) -> list[Any]:
    """Returns the planes of a picture as arrays [H, W] on its memory."""
    return [
        np.frombuffer(cast("memoryview", plane), dtype=kind).reshape(plane.height, -1)[
            :, : plane.width
        ]
        for plane in picture.planes
    ]


def _has_quarter_chroma(picture: VideoFrame) -> bool:
    """Returns True for 4:2:0."""
    small = (picture.width + 1) // 2, (picture.height + 1) // 2
    layout = picture.format
    return (layout.chroma_width(), layout.chroma_height()) == small


def _colour_grey(picture: VideoFrame) -> VideoFrame:
    """Returns a picture of one plane with two of no colour; the scaler would take its range for the full one."""
    depth = picture.format.components[0].bits
    (values,) = _find_planes(picture, np.uint8 if depth <= 8 else np.uint16)
    if picture.format.name.endswith("be"):
        values = values.byteswap()
    out = VideoFrame(picture.width, picture.height, "yuv444p10le")
    luma, *chroma = _find_planes(out, np.uint16)
    luma[:] = values >> (depth - 10) if depth > 10 else values.astype(np.uint16) << (10 - depth)
    for plane in chroma:
        plane[:] = _CHROMA_MIDDLE
    return out


def _pad_to_even(plane: Values) -> Values:
    """Repeats the last line and column of a plane of odd size."""
    height, width = plane.shape
    if height % 2 == width % 2 == 0:
        return plane
    return np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")


def _sum_squares(plane: Values) -> Values:
    """Returns the sums of 2 x 2 values of 10 bits."""
    lines = plane[0::2] + plane[1::2]
    # Two neighbours are the halves of one number of 32 bits; this takes half the time of two strided views.
    pairs = np.ascontiguousarray(lines).view(np.uint32)
    return ((pairs >> 16) + pairs).astype(np.uint16)


def _add_coarse(fine: Values, coarse: npt.NDArray[np.int16], step: int) -> None:
    """Adds to each value that of its square of `step` x `step`."""
    if step == 1:
        fine += coarse.view(np.uint16)
        return
    height, width = coarse.shape
    # Each value becomes both halves of a number of 32 bits.
    doubled = (coarse.view(np.uint16).astype(np.uint32) * np.uint32(0x10001)).view(np.uint16)
    fine.reshape(height, 2, 2 * width)[:] += doubled[:, None, :]
