"""SDR pictures converted to HDR by the published formulas, in float64: SDR white is 203 cd/m2 (BT.2408).

SDR's light is its signal to the power of 2.4 (BT.1886). HLG's system gamma of 1.2 acts on each component, as in
FFmpeg's converter. Knows nothing of the code under test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import CodecContext

__all__ = ["Grade", "encode_light", "make_picture", "paint", "read_exactly"]

Floats = npt.NDArray[np.float64]
Transfer = Literal["hlg", "pq", "sdr"]

_TO_BT2020 = np.array(
    [[0.627404, 0.329283, 0.043313], [0.069097, 0.919540, 0.011362], [0.016391, 0.088013, 0.895595]]
)
_TO_P3 = np.array(
    [[0.822462, 0.177538, 0.0], [0.033194, 0.966806, 0.0], [0.017083, 0.072397, 0.910520]]
)
_BT2020_TO_LMS = np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]) / 4096
_BT2020_TO_XYZ = np.array(
    [[0.636958, 0.144617, 0.168881], [0.262700, 0.677998, 0.059302], [0.0, 0.028073, 1.060985]]
)
_XYZ_TO_DOLBY_LMS = (0.94 * np.eye(3) + 0.02) @ np.array(
    [[0.40024, 0.70760, -0.08081], [-0.22630, 1.16532, 0.04570], [0.0, 0.0, 0.91822]]
)
_YCGCO = np.array([[0.25, 0.5, 0.25], [-0.25, 0.5, -0.25], [0.5, 0.0, -0.5]])
_ICTCP = {
    "pq": np.array([[2048, 2048, 0], [6610, -13613, 7003], [17933, -17390, -543]]) / 4096,
    "hlg": np.array([[2048, 2048, 0], [3625, -7465, 3840], [9500, -9212, -288]]) / 4096,
}
_IPT = np.array([[0.4, 0.4, 0.2], [4.455, -4.851, 0.396], [0.8056, 0.3572, -1.1628]])
_LIGHT, _DARK = (240, 200, 170), (20, 60, 110)


@dataclass(frozen=True)
class Grade:
    """The signal of a clip, and its tags."""

    transfer: Transfer = "pq"
    primaries: int = 9
    matrix: int = 9
    """The matrix of the tags."""
    coded: Literal["ycbcr", "ycgco", "ictcp", "ipt"] = "ycbcr"
    """The signal's own: BT.2020's Y'CbCr, or another."""
    full_range: bool = False
    on_luminance: bool = False
    """True if HLG's system gamma acts on luminance, as in BT.2100's reference."""
    tagged: Literal["both", "container", "none"] = "both"
    """container: the encoder's stream has no tags; none: neither has any but the range."""

    def tag(self, context: CodecContext[Any]) -> None:
        """Sets the tags of an encoder."""
        if self.tagged == "container":
            context.open()
        context.color_range = 2 if self.full_range else 1
        if self.tagged == "none":
            return
        context.color_trc = {"hlg": 18, "pq": 16, "sdr": 14}[self.transfer]
        context.color_primaries, context.colorspace = self.primaries, self.matrix


def paint(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Returns a picture in black and white in two colours, so that wrong colours are seen."""
    return np.where(pixels > 128, np.uint8(_LIGHT), np.uint8(_DARK))


def make_picture(
    pixels: npt.NDArray[np.uint8], grade: Grade, pixel_format: str = "yuv420p10le"
) -> av.VideoFrame:
    """Returns an SDR picture (uint8[H, W, 3], RGB) as a picture of HDR."""
    return encode_light((pixels / 255) ** 2.4, grade, pixel_format)


def encode_light(light: Floats, grade: Grade, pixel_format: str = "yuv420p10le") -> av.VideoFrame:
    """Returns linear light (BT.709's primaries, 1 is 203 cd/m2) as a picture of HDR."""
    wide = light @ (_TO_P3 if grade.primaries == 12 else _TO_BT2020).T
    if grade.on_luminance:
        # The light whose components, each to the power of 1 / 1.2, are the scene's.
        luminance = np.maximum(wide @ np.array([0.2627, 0.6780, 0.0593]), 1e-9)[..., None] * 0.203
        wide = np.maximum(wide * luminance ** (1 / 1.2 - 1), 0) ** 1.2 / 0.203**-0.2
    signal = {"pq": _encode_pq, "hlg": _encode_hlg, "sdr": _encode_sdr}[grade.transfer](wide)
    if pixel_format.startswith("gbrp"):
        return _make_rgb(signal, pixel_format)
    luma, blue, red = np.moveaxis(_encode_chroma(wide, signal, grade), -1, 0)
    height, width = luma.shape
    picture = av.VideoFrame(width, height, pixel_format)
    bits = picture.format.components[0].bits
    scale = 2 ** (bits - 8)
    most = 2**bits - 1
    black, luma_codes, chroma_codes = (
        (0, most, most) if grade.full_range else (16 * scale, 219 * scale, 224 * scale)
    )
    planes = (
        luma * luma_codes + black,
        _shrink(blue, picture) * chroma_codes + 128 * scale,
        _shrink(red, picture) * chroma_codes + 128 * scale,
    )
    for plane, codes in zip(picture.planes[:3], planes, strict=True):
        memory = np.frombuffer(plane, np.uint8 if bits == 8 else np.uint16)
        rows = memory.reshape(plane.height, -1)[:, : plane.width]
        rows[:] = np.clip(np.rint(codes), 0, most)
    picture.color_range = 2 if grade.full_range else 1
    return picture


def _encode_chroma(light: Floats, signal: Floats, grade: Grade) -> Floats:
    """Returns luma from 0 to 1, and chroma from -0.5 to 0.5, of light and its R'G'B'."""
    if grade.coded == "ycgco":
        return signal @ _YCGCO.T
    if grade.coded == "ictcp":
        # HLG's is of the scene's light, and this curve undoes the system gamma of a component.
        scene = light if grade.transfer == "pq" else np.maximum(light * 0.203, 0) ** (1 / 1.2)
        lms = scene @ _BT2020_TO_LMS.T
        if grade.transfer == "pq":
            return _encode_pq(lms) @ _ICTCP["pq"].T
        return _encode_hlg(np.maximum(lms, 0) ** 1.2 / 0.203) @ _ICTCP["hlg"].T
    if grade.coded == "ipt":
        return _encode_pq(light @ (_XYZ_TO_DOLBY_LMS @ _BT2020_TO_XYZ).T) @ _IPT.T
    luma = signal @ np.array([0.2627, 0.6780, 0.0593])
    return np.stack(
        [luma, (signal[..., 2] - luma) / 1.8814, (signal[..., 0] - luma) / 1.4746], axis=-1
    )


def read_exactly(picture: av.VideoFrame, grade: Grade, x: int, y: int) -> Floats:
    """Returns the SDR colour, of 255, that a pixel's codes of 10 bits of Y'CbCr are; none is below 0 or above 255."""
    codes = []
    for plane in picture.planes:
        step = picture.width // plane.width
        rows = np.frombuffer(plane, np.uint16).reshape(plane.height, -1)
        codes.append(float(rows[y // step, x // step]))
    black, luma_codes, chroma_codes = (0, 1023, 1023) if grade.full_range else (64, 876, 896)
    luma = (codes[0] - black) / luma_codes
    blue, red = ((code - 512) / chroma_codes for code in codes[1:])
    r, b = luma + 1.4746 * red, luma + 1.8814 * blue
    signal = np.clip([r, (luma - 0.2627 * r - 0.0593 * b) / 0.6780, b], 0, 1)
    if grade.transfer == "pq":
        power = signal ** (1 / 78.84375)
        share = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
        light = share ** (1 / 0.1593017578125) * 10000 / 203
    elif grade.transfer == "hlg":
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        light = scene**1.2 / 0.203
    else:
        light = signal**2.4
    return np.asarray(np.clip(np.linalg.inv(_TO_BT2020) @ light, 0, 1) ** (1 / 2.4) * 255)


def _make_rgb(signal: Floats, pixel_format: str) -> av.VideoFrame:
    height, width = signal.shape[:2]
    picture = av.VideoFrame(width, height, pixel_format)
    most = 2 ** picture.format.components[0].bits - 1
    for plane, component in zip(picture.planes, (1, 2, 0), strict=True):
        rows = np.frombuffer(plane, np.uint16).reshape(height, -1)[:, :width]
        rows[:] = np.rint(np.clip(signal[..., component], 0, 1) * most)
    return picture


def _shrink(values: Floats, picture: av.VideoFrame) -> Floats:
    """Averages chroma down to the size of its plane."""
    for axis, (whole, part) in enumerate(
        ((picture.height, picture.planes[1].height), (picture.width, picture.planes[1].width))
    ):
        if part < whole:
            pad = [(0, 0), (0, 0)]
            pad[axis] = (0, 2 * part - whole)
            even = np.moveaxis(np.pad(values, pad, mode="edge"), axis, 0)
            values = np.moveaxis((even[0::2] + even[1::2]) / 2, 0, axis)
    return values


def _encode_sdr(light: Floats) -> Floats:
    return np.asarray(np.clip(light, 0, 1) ** (1 / 2.4))


def _encode_pq(light: Floats) -> Floats:
    power = (np.maximum(light, 0) * 203 / 10000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def _encode_hlg(light: Floats) -> Floats:
    scene = np.clip(light * 0.203, 0, 1) ** (1 / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    )
