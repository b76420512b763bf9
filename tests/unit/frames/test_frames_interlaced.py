"""Frames of interlaced video show one instant: that of their first field, without combs.

The source is progressive, at two pictures for each coded one: a box moves over fine lines that stand still.
Coded pictures take every other line from each of two. What is right follows from the source.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.filter import Graph
from support.videos import draw_number, read_number

from videoqa.contract import Sampling
from videoqa_worker.frames import SampledVideo, sample_frames
from videoqa_worker.frames.picture.interlace import Deinterlacer

Luma = npt.NDArray[np.uint8]

WIDTH, HEIGHT, STEP = 192, 160, 6
FRAMES = 16
MOVING, STILL = slice(16, 80), slice(100, 150)
X264 = {"flags": "+ildct", "qp": "8", "preset": "veryfast"}
MPEG = {"flags": "+ildct+ilme", "qscale": "2"}


@dataclass(frozen=True)
class Coding:
    """A way to store interlaced video."""

    name: str
    codec: str
    options: dict[str, str] = field(default_factory=dict)
    pixel_format: str = "yuv420p"
    b_frames: int = 0
    gop: int = 12


CODINGS = (
    Coding("clip.mpg", "mpeg2video", MPEG),
    Coding("clip.ts", "mpeg2video", MPEG, b_frames=2),
    Coding("long.mpg", "mpeg2video", MPEG, gop=60),
    Coding("clip.mp4", "libx264", X264),
    Coding("b.mp4", "libx264", X264, b_frames=2),
    Coding("clip.mkv", "libx264", X264, pixel_format="yuv420p10le"),
    Coding("four.mp4", "mpeg4", MPEG),
)
INTRA = (
    Coding("clip.mov", "prores_ks", {"flags": "+ildct"}, "yuv422p10le"),
    Coding("ffv1.mkv", "ffv1", gop=1),
)
ORDERS = {"top first": 0, "bottom first": 1}


def draw(instant: int) -> Luma:
    """Draws the source at this instant, a field's length each."""
    luma = np.full((HEIGHT, WIDTH), 90, np.uint8)
    luma[STILL, 20:170] = np.where(np.arange(50) % 4 < 2, 70, 190)[:, None]
    x = 4 + STEP * instant // 2 % (WIDTH - 60)
    luma[MOVING, x : x + 40] = 220
    luma[32:64, x + 12 : x + 28] = 40
    return luma


def weave(number: int, first: int, *, apart: int = 1) -> Luma:
    """Weaves the fields of a coded picture; `first` is the line at which its first field begins."""
    woven = draw(2 * number)
    woven[1 - first :: 2] = draw(2 * number + apart)[1 - first :: 2]
    return woven


def flag(pictures: Iterator[av.VideoFrame], order: str) -> Iterator[av.VideoFrame]:
    """Flags pictures as interlaced, for which PyAV has no call."""
    graph = Graph()
    source = graph.add_buffer(
        width=WIDTH, height=HEIGHT, format="yuv420p", time_base=Fraction(1, 25)
    )
    sink = graph.add("buffersink")
    graph.link_nodes(source, graph.add("setfield", f"mode={order}"), sink).configure()
    for picture in pictures:
        graph.vpush(picture)
        yield graph.vpull()


def draw_pictures(first: int, apart: int) -> Iterator[av.VideoFrame]:
    for number in range(FRAMES):
        picture = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
        for plane in picture.planes:
            pixels = np.full((plane.height, plane.line_size), 128, np.uint8)
            if plane.width == WIDTH:
                pixels[:, :WIDTH] = weave(number, first, apart=apart)
            plane.update(pixels.tobytes())
        picture.pts, picture.time_base = number, Fraction(1, 25)
        yield picture


def write(path: Path, coding: Coding, first: int, *, apart: int = 1) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream(coding.codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, coding.pixel_format
        stream.options, stream.gop_size = coding.options, coding.gop
        stream.codec_context.max_b_frames = coding.b_frames
        stream.codec_context.thread_count = 1
        for picture in flag(draw_pictures(first, apart), ("tff", "bff")[first]):
            out.mux(stream.encode(picture.reformat(format=coding.pixel_format)))
        out.mux(stream.encode(None))


def measure_combs(luma: npt.NDArray[np.float64]) -> float:
    """Returns how much neighbouring lines differ, as half-resolution waves."""
    return float(np.abs(luma[:-2] + luma[2:] - 2 * luma[1:-1]).mean())


def read(frame_pixels: Luma) -> npt.NDArray[np.float64]:
    """Returns the luma of a grey frame, in the limited range in which it was stored."""
    return frame_pixels.mean(axis=2) * 219 / 255 + 16


def check(video: SampledVideo, *, combs: float = 1.5, still: float = 6.0) -> None:
    for frame in video.frames:
        number = round(frame.pts_s * 25)
        shown = read(frame.pixels)
        distances = {
            instant: np.abs(shown - draw(instant))[MOVING].mean()
            for instant in range(max(0, 2 * number - 2), 2 * number + 3)
        }
        assert min(distances, key=lambda at: distances[at]) == 2 * number, (number, distances)
        right = measure_combs(draw(2 * number).astype(float)[MOVING])
        assert measure_combs(shown[MOVING]) <= right + combs, number
        assert np.abs(shown - draw(2 * number))[STILL].mean() <= still, number


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("coding", CODINGS, ids=lambda coding: coding.name)
def test_frames_of_interlaced_video_show_their_first_field(
    coding: Coding, order: str, tmp_path: Path
) -> None:
    path = tmp_path / coding.name
    write(path, coding, ORDERS[order])
    for count in (3, FRAMES):
        video = sample_frames(path, Sampling(frames=count))
        assert len(video.frames) == count
        check(video)
        assert not video.warnings


def test_combs_would_be_seen() -> None:
    woven = weave(3, 0).astype(float)[MOVING]
    assert measure_combs(woven) > measure_combs(draw(6).astype(float)[MOVING]) + 10


@pytest.mark.parametrize("coding", INTRA, ids=lambda coding: coding.name)
def test_pictures_without_a_decoded_neighbour_lose_detail_and_say_so(
    coding: Coding, tmp_path: Path
) -> None:
    path = tmp_path / coding.name
    write(path, coding, 0)
    sparse = sample_frames(path, Sampling(frames=3))
    assert [warning.code for warning in sparse.warnings] == ["deinterlaced_alone"]
    check(sparse, still=90)


@pytest.mark.parametrize("coding", CODINGS[3:5], ids=lambda coding: coding.name)
def test_progressive_pictures_that_are_flagged_interlaced_stay_as_they_are(
    coding: Coding, tmp_path: Path
) -> None:
    path = tmp_path / coding.name
    write(path, coding, 0, apart=0)
    video = sample_frames(path, Sampling(frames=5))
    for frame in video.frames:
        source = draw(2 * round(frame.pts_s * 25))
        assert np.abs(read(frame.pixels) - source).mean() < 2
    assert not video.warnings


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize("name", ["fields.mkv", "fields.ts"])
def test_fields_that_are_pictures_are_shown_at_full_height(
    name: str, order: str, tmp_path: Path
) -> None:
    """HEVC's encoder takes pictures of half the height for fields, and says so."""
    path = tmp_path / name
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx265", rate=50)
        stream.width, stream.height, stream.pix_fmt = 192, 80, "yuv420p"
        params = f"log-level=none:interlace={order}:bframes=0:pools=1:frame-threads=1"
        stream.options = {"x265-params": params, "preset": "ultrafast"}
        for number in range(4):
            pixels = draw_number(number, 192, 80)
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, 50)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    video = sample_frames(path, Sampling(frames=4))
    assert [frame.pixels.shape for frame in video.frames] == [(160, 192, 3)] * 4
    assert [read_number(frame.pixels) for frame in video.frames] == [0, 1, 2, 3]
    assert [warning.code for warning in video.warnings] == ["fields_apart"]
    assert (video.info.width, video.info.height) == (192, 160)


def draw_colours(number: int, first: int) -> av.VideoFrame:
    """Draws a coded picture: a strip at its top changes from picture to picture, and a box moves in colour alone."""
    picture = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
    luma = np.full((HEIGHT, WIDTH), 90, np.uint8)
    luma[:16] = 30 + 180 * (number % 2)
    woven = np.full((HEIGHT // 2, WIDTH // 2), 110, np.uint8)
    for parity in (first, 1 - first):
        x = 10 + STEP * (2 * number + (parity != first))
        woven[20 + parity : 70 : 2, x : x + 20] = 220
    planes = (luma, np.full_like(woven, 128), woven)
    for plane, values in zip(picture.planes, planes, strict=True):
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[:, : plane.width] = values
        plane.update(padded.tobytes())
    picture.pts, picture.time_base = number, Fraction(1, 25)
    return picture


@pytest.mark.parametrize("order", ORDERS)
def test_a_strip_that_changes_hides_no_combs_elsewhere_nor_in_the_colours(order: str) -> None:
    first = ORDERS[order]
    pictures = (draw_colours(number, first) for number in (1, 2))
    picture, near = flag(pictures, ("tff", "bff")[first])
    shown = Deinterlacer().convert(picture, near, is_adjacent=True)
    colours = [
        frame.to_ndarray()[-HEIGHT // 4 :].reshape(-1, WIDTH // 2) for frame in (picture, shown)
    ]
    woven, single = (measure_combs(plane[22:68].astype(float)) for plane in colours)
    assert woven > 20
    assert single < 6


@pytest.mark.parametrize("order", ORDERS)
def test_the_container_tells_of_fields_where_the_codec_cannot(order: str, tmp_path: Path) -> None:
    options = {"field_order": ("tt", "bb")[ORDERS[order]], "qscale": "2"}
    coding = Coding("mjpeg.mov", "mjpeg", options, "yuvj420p", gop=1)
    path = tmp_path / coding.name
    write(path, coding, ORDERS[order])
    video = sample_frames(path, Sampling(frames=3))
    assert [warning.code for warning in video.warnings] == ["deinterlaced_alone"]
    check(video, still=90)
