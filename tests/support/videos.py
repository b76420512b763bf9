"""Small videos whose frame numbers are burnt into the pictures.

A picture is a grid of 4 x 3 black and white blocks, the bits of its number: large enough to
survive any codec, and unequal under rotation, so that reading the number back proves which
picture came and that it is upright.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream

from support.hdr import Grade, make_picture, paint

COLUMNS, ROWS = 4, 3
Pixels = npt.NDArray[np.uint8]


def draw_number(number: int, width: int, height: int) -> Pixels:
    """Draws a number as uint8[height, width, 3], RGB; the first block is the lowest bit."""
    bits = [255 if number >> bit & 1 else 0 for bit in range(COLUMNS * ROWS)]
    rows = np.arange(height) * ROWS // height
    columns = np.arange(width) * COLUMNS // width
    grey = np.array(bits, dtype=np.uint8).reshape(ROWS, COLUMNS)[rows][:, columns]
    return np.repeat(grey[:, :, None], 3, axis=2)


def read_number(pixels: Pixels) -> int:
    """Reads the number that `draw_number` drew; fails if a block is neither black nor white."""
    height, width = pixels.shape[:2]
    number = 0
    for bit in range(COLUMNS * ROWS):
        row, column = divmod(bit, COLUMNS)
        y, x = (2 * row + 1) * height // (2 * ROWS), (2 * column + 1) * width // (2 * COLUMNS)
        grey = float(pixels[y - 2 : y + 3, x - 2 : x + 3].mean())
        assert not 80 < grey < 175, f"block {bit} is grey ({grey:.0f}): a damaged picture"
        number |= (grey > 128) << bit
    return number


@dataclass(frozen=True)
class Recipe:
    """The recipe of a clip; picture n is shown from `times_s[n]` on, by default from n / fps."""

    name: str = "clip.mp4"
    frames: int = 50
    first_number: int = 0
    """Number that the first picture shows."""
    fps: Fraction = Fraction(25)
    codec: str = "libx264"
    size: tuple[int, int] = (96, 72)
    gop: int = 12
    b_frames: int = 2
    times_s: tuple[Fraction, ...] | None = None
    clock_s: Fraction | None = None
    """A tick of the encoder's clock; by default a picture, or a millisecond if `times_s` is given."""
    first_pts_s: Fraction = Fraction(0)
    """Time of the container's clock at the first picture."""
    sound_s: float = 0.0
    sound_from_s: float = 0.0
    video: bool = True
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    codec_options: dict[str, str] = field(default_factory=dict)
    pixel_format: str = "yuv420p"
    turned_degrees: int = 0
    """Degrees by which pictures are stored turned clockwise; the container says to turn them back."""
    grade: Grade | None = None
    """The HDR that pictures are converted to; they are then in two colours."""
    pixel_aspect: Fraction = Fraction(1)
    """Width / height of a pixel on screen, which the encoder tells."""
    border: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Grey pixels at the left, the top, the right and the bottom of the stored picture, around `size`."""
    transparent: bool = False
    """True for pictures of which the bright blocks are transparent black."""
    mirrored: bool = False
    """True for pictures that are stored mirrored, and which the container says to mirror back."""

    @cached_property
    def shown_s(self) -> Sequence[Fraction]:
        return self.times_s or [n / self.fps for n in range(self.frames)]

    @property
    def duration_s(self) -> Fraction:
        return self.shown_s[-1] + 1 / self.fps

    def number_at(self, instant_s: Fraction) -> int:
        """Returns the picture on screen, straight from the definition."""
        return max(n for n, time_s in enumerate(self.shown_s) if time_s <= instant_s)


def write_clip(path: Path, recipe: Recipe) -> None:
    with av.open(str(path), "w", format=recipe.format, options=recipe.options) as out:
        video = _add_video(out, recipe) if recipe.video else None
        sound = out.add_stream("aac", rate=16_000) if recipe.sound_s else None
        if video is not None:
            _write_pictures(out, video, recipe)
        if sound is not None:
            _write_silence(out, sound, recipe)
    if recipe.codec == "libsvtav1":
        share_cores()


def share_cores() -> None:
    """Undoes what SVT-AV1 does as root: it makes the thread that calls it one of real time, before all others."""
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _add_video(out: OutputContainer, recipe: Recipe) -> VideoStream:
    stream = out.add_stream(recipe.codec, rate=recipe.fps)
    stream.height, stream.width = _stored(recipe, 0).shape[:2]
    if recipe.turned_degrees or recipe.mirrored:
        stream.set_display_rotation(recipe.turned_degrees, hflip=recipe.mirrored)
    stream.pix_fmt = recipe.pixel_format
    if recipe.pixel_aspect != 1:
        stream.codec_context.sample_aspect_ratio = recipe.pixel_aspect
    stream.gop_size = recipe.gop
    stream.codec_context.max_b_frames = recipe.b_frames
    stream.codec_context.time_base = _clock(recipe)
    stream.codec_context.thread_count = 1
    defaults = {
        "libx264": {"preset": "veryfast", "b-adapt": "0"},
        "libx265": {"x265-params": "log-level=none"},
    }
    stream.options = {**defaults.get(recipe.codec, {}), **recipe.codec_options}
    if recipe.grade is not None:
        recipe.grade.tag(stream.codec_context)
    return stream


def _stored(recipe: Recipe, number: int) -> Pixels:
    pixels = draw_number(recipe.first_number + number, *recipe.size)
    left, top, right, bottom = recipe.border
    pixels = np.pad(pixels, ((top, bottom), (left, right), (0, 0)), constant_values=128)
    if recipe.mirrored:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(np.rot90(pixels, -recipe.turned_degrees // 90))


def _make_picture(recipe: Recipe, number: int) -> av.VideoFrame:
    pixels = _stored(recipe, number)
    if recipe.grade is not None:
        return make_picture(paint(pixels), recipe.grade, recipe.pixel_format)
    layout = "rgb24"
    if recipe.transparent:
        pixels, layout = np.pad(255 - pixels[:, :, :1], ((0, 0), (0, 0), (3, 0))), "rgba"
    picture = av.VideoFrame.from_ndarray(pixels, format=layout)
    return picture.reformat(format=recipe.pixel_format)


def _clock(recipe: Recipe) -> Fraction:
    if recipe.clock_s is not None:
        return recipe.clock_s
    return 1 / recipe.fps if recipe.times_s is None else Fraction(1, 1000)


def _write_pictures(out: OutputContainer, stream: VideoStream, recipe: Recipe) -> None:
    clock = _clock(recipe)
    for number, time_s in enumerate(recipe.shown_s):
        picture = _make_picture(recipe, number)
        picture.pts = round((time_s + recipe.first_pts_s) / clock)
        picture.time_base = clock
        out.mux(stream.encode(picture))
    out.mux(stream.encode(None))


def _write_silence(out: OutputContainer, stream: AudioStream, recipe: Recipe) -> None:
    first = round(recipe.sound_from_s * 16_000)
    for block in range(int(recipe.sound_s * 16_000 / 1024)):
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono"
        )
        sound.sample_rate, sound.pts = 16_000, first + block * 1024
        sound.time_base = Fraction(1, 16_000)
        out.mux(stream.encode(sound))
    out.mux(stream.encode(None))


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[[Recipe], Path]:
    """Writes a clip into the test's folder and returns its path."""

    def make(recipe: Recipe) -> Path:
        path = tmp_path / recipe.name
        write_clip(path, recipe)
        return path

    return make
