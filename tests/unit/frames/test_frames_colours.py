"""A patch of known colour comes back as that colour, whichever matrix and range it was stored in.

The stored values come from the definition of Y'CbCr (ITU-R BT.601, BT.709, BT.2020), not from a
converter.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from videoqa.contract import Sampling
from videoqa_worker.frames import sample_frames

RGB = (200, 60, 30)
WEIGHTS = {
    "BT.601": (0.299, 0.114, Colorspace.ITU601),
    "BT.709": (0.2126, 0.0722, Colorspace.ITU709),
    "BT.2020": (0.2627, 0.0593, Colorspace.BT2020),
}
"""Weights of red and of blue in the luma, and FFmpeg's tag of the matrix."""
ENCODERS = {
    "libx264": {"qp": "0", "preset": "veryfast"},
    "libx265": {"x265-params": "log-level=none:lossless=1:bframes=0:frame-threads=1"},
}


def stored(matrix: str, full: bool, bits: int) -> list[int]:
    """Y', Cb, Cr of the patch."""
    of_red, of_blue, _ = WEIGHTS[matrix]
    red, green, blue = (value / 255 for value in RGB)
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    chroma = (blue - luma) / (2 - 2 * of_blue), (red - luma) / (2 - 2 * of_red)
    scale = 1 << bits - 8
    if full:
        top = 256 * scale - 1
        return [round(luma * top), *(round(128 * scale + value * top) for value in chroma)]
    return [
        round((16 + 219 * luma) * scale),
        *(round((128 + 224 * value) * scale) for value in chroma),
    ]


def write_patch(path: Path, matrix: str, full: bool, codec: str, pixel_format: str) -> None:
    tag, bits = WEIGHTS[matrix][2], 10 if pixel_format.endswith("10le") else 8
    sample = np.uint16 if bits > 8 else np.uint8
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        stream.options = ENCODERS[codec]
        for about in (stream.codec_context, picture := av.VideoFrame(64, 48, pixel_format)):
            about.colorspace = tag
            about.color_range = ColorRange.JPEG if full else ColorRange.MPEG
        for plane, value in zip(picture.planes, stored(matrix, full, bits), strict=True):
            plane.update(np.full(plane.buffer_size // sample().itemsize, value, sample).tobytes())
        picture.pts, picture.time_base = 0, Fraction(1, 25)
        out.mux(stream.encode(picture))
        out.mux(stream.encode(None))


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize(
    ("codec", "pixel_format"),
    [("libx264", "yuv420p"), ("libx264", "yuv444p"), ("libx265", "yuv420p10le")],
)
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_a_tagged_colour_comes_back(
    container: str, codec: str, pixel_format: str, matrix: str, full: bool, tmp_path: Path
) -> None:
    path = tmp_path / f"patch.{container}"
    write_patch(path, matrix, full, codec, pixel_format)
    (frame,) = sample_frames(path, Sampling(frames=1)).frames
    # 8 bits of limited range resolve a colour to about 2 of 255.
    assert np.abs(frame.pixels.astype(int) - RGB).max() <= 3
