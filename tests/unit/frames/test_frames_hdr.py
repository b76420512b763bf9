"""HDR pictures come as the SDR that they were made from, and highlights beyond it roll off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from kinds.hdr import HDR, HLG, PQ
from kinds.surgery import dolby_vision
from support.hdr import Grade, encode_light, make_picture, paint, read_exactly
from support.videos import Recipe, draw_number

from videoqa.contract import Sampling
from videoqa_worker.frames import CompleteFile, SampledVideo, sample_frames
from videoqa_worker.frames.container.elements import read_track_videos
from videoqa_worker.frames.picture.colour.colour_converter import ColourConverter
from videoqa_worker.frames.picture.converter import RgbConverter
from videoqa_worker.frames.picture.shape import DeclaredShape, ShapeRule
from videoqa_worker.settings import FrameLimits, WorkerSettings

Pixels = npt.NDArray[np.uint8]
MakeClip = Callable[[Recipe], Path]
TAGS = {"pq": 16, "hlg": 18, "sdr": 14}


def convert(
    picture: av.VideoFrame, grade: Grade, converter: ColourConverter | None = None
) -> npt.NDArray[np.float64]:
    picture.color_trc, picture.color_primaries = TAGS[grade.transfer], grade.primaries
    picture.colorspace = grade.matrix
    return (converter or ColourConverter()).convert(picture).to_ndarray().astype(np.float64)


def draw_scene(width: int = 384, height: int = 216) -> Pixels:
    """Draws gradients in all three components, and a red disc."""
    y, x = np.mgrid[0:height, 0:width]
    scene = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], axis=-1)
    scene[(x - 0.2 * width) ** 2 + (y - 0.6 * height) ** 2 < (height / 6) ** 2] = (230, 40, 40)
    return scene.astype(np.uint8)


@pytest.mark.parametrize(
    ("grade", "pixel_format"),
    [
        (HLG, "yuv420p10le"),
        (PQ, "yuv420p10le"),
        (PQ, "yuv420p12le"),
        (HLG, "yuv422p10le"),
        (PQ, "yuv444p10le"),
        (replace(PQ, matrix=0), "gbrp10le"),
        (replace(HLG, full_range=True), "yuv420p10le"),
        (Grade("sdr"), "yuv420p10le"),
        (Grade("sdr", primaries=12), "yuv420p"),
    ],
)
@pytest.mark.parametrize("size", [(384, 216), (385, 217)])
def test_pictures_graded_in_sdr_come_back(
    grade: Grade, pixel_format: str, size: tuple[int, int]
) -> None:
    scene = draw_scene(*size)
    pixels = convert(make_picture(scene, grade, pixel_format), grade)
    assert np.abs(pixels - scene).mean() < 3
    disc = pixels[int(0.6 * size[1]), int(0.2 * size[0])]
    assert np.abs(disc - (230, 40, 40)).max() <= 5


SATURATED = [
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255),
    (230, 40, 40), (255, 20, 140), (120, 20, 255), (40, 255, 80), (128, 0, 0), (20, 0, 120),
]  # fmt: skip


@pytest.mark.parametrize("grade", [HLG, PQ, Grade("sdr"), Grade("pq", full_range=True)])
def test_saturated_colours_come_back(grade: Grade) -> None:
    """Each is what its codes of 10 bits are by the formulas, of which one step moves zero by up to 26 of 255."""
    scene = draw_scene()
    places = {
        colour: ((n % 6) * 64 + 32, (n // 6) * 100 + 50) for n, colour in enumerate(SATURATED)
    }
    for colour, (x, y) in places.items():
        scene[y - 30 : y + 30, x - 30 : x + 30] = colour
    picture = make_picture(scene, grade)
    pixels = convert(picture, grade)
    for colour, (x, y) in places.items():
        exact = read_exactly(picture, grade, x, y)
        assert np.abs(pixels[y, x] - exact).max() <= 3, colour
        assert np.abs(pixels[y, x] - colour).mean() <= 9, colour
    assert np.abs(pixels - scene).mean() < 3


CODED = [
    Grade("pq", matrix=14, coded="ictcp"),
    Grade("hlg", matrix=14, coded="ictcp"),
    Grade("pq", matrix=8, coded="ycgco"),
    Grade("hlg", matrix=8, coded="ycgco"),
    Grade("pq", matrix=12),
    Grade("pq", matrix=15, coded="ipt"),
]


@pytest.mark.parametrize("grade", CODED)
def test_other_matrices_are_exact(grade: Grade) -> None:
    scene = draw_scene()
    converter = ColourConverter()
    pixels = convert(make_picture(scene, grade), grade, converter)
    assert np.abs(pixels - scene).mean() < 3
    assert not converter.warnings


@pytest.mark.parametrize(
    "tags",
    [
        *((transfer, 9, matrix) for transfer in (16, 18) for matrix in (0, 3, 10, 11, 13, 16, 17)),
        *((transfer, primaries, 9) for transfer in (16, 18) for primaries in (0, 3, 10, 23)),
        (18, 9, 15),
        *((14, 9, matrix) for matrix in (10, 11, 14, 15)),
    ],
)
def test_unknown_colours_are_warned_of(tags: tuple[int, int, int]) -> None:
    transfer, primaries, matrix = tags
    grade = Grade({16: "pq", 18: "hlg", 14: "sdr"}[transfer], primaries, matrix)  # type: ignore[arg-type]
    converter = ColourConverter()
    pixels = convert(make_picture(draw_scene(), grade), grade, converter)
    assert [warning.code for warning in converter.warnings] == ["colours_approximated"]
    assert np.abs(pixels - draw_scene()).mean() < 20


@pytest.mark.parametrize("transfer", range(19))
def test_transfers_that_no_display_has_are_warned_of(transfer: int) -> None:
    picture = av.VideoFrame(16, 16, "yuv420p")
    picture.color_trc = transfer
    converter = ColourConverter()
    converter.convert(picture)
    codes = [warning.code for warning in converter.warnings]
    assert codes == (["colours_approximated"] if transfer in (8, 9, 10, 17) else [])


@pytest.mark.parametrize("name", HDR)
def test_the_colours_of_hdr_clips_are_right(name: str, tmp_path: Path) -> None:
    kind = HDR[name]
    video = sample_frames(kind.make(tmp_path), Sampling(frames=2))
    for frame in video.frames:
        assert frame.index is not None
        wanted = paint(draw_number(frame.index, *kind.recipe.size))
        assert np.abs(frame.pixels.astype(float) - wanted).mean() < 6
    grade = kind.recipe.grade
    assert grade is not None
    assert video.info.dynamic_range == grade.transfer
    assert video.info.tone_mapped == (grade.transfer != "sdr")
    assert tuple(warning.code for warning in video.warnings) == kind.warned


def test_dolby_vision_is_found_in_matroska(tmp_path: Path) -> None:
    """The mapping names "dvcC", which is 1685480259 as a number (RFC 9559, 5.1.4.1.17)."""

    def element(name: str, body: bytes) -> bytes:
        return bytes.fromhex(name) + bytes([0x80 | len(body)]) + body

    configuration = dolby_vision(5, 0)
    mapping = element("41e7", b"dvcC") + element("41ed", configuration)
    track = element("ae", element("e0", element("b0", b"\x40")) + element("41e4", mapping))
    path = tmp_path / "clip.mkv"
    path.write_bytes(element("1a45dfa3", b"") + element("18538067", element("1654ae6b", track)))
    (found,) = read_track_videos(CompleteFile(path))
    assert found.dolby_vision == configuration


@pytest.mark.parametrize("grade", [HLG, PQ])
def test_highlights_roll_off(grade: Grade) -> None:
    """White and a red of up to 900 cd/m2: brighter stays brighter, and red stays as red as it was."""
    light = np.repeat(np.geomspace(0.1, 900 / 203, 64), 4)[None, :, None] * np.ones((32, 1, 3))
    white = convert(encode_light(light, grade), grade)[16, 2::4]
    assert (white.max(axis=1) - white.min(axis=1)).max() <= 3
    steps = np.diff(white.mean(axis=1))
    assert steps.min() >= 0
    assert white[-1].mean() >= 240
    beyond = np.geomspace(0.1, 900 / 203, 64) > 1
    assert np.ptp(white[beyond].mean(axis=1)) > 12, "highlights are not cut off"

    red = convert(encode_light(light * (1, 0.2, 0.2), grade, "yuv444p10le"), grade)[16, 2::4]
    share = (red[:, 1:] / 255) ** 2.4 / ((red[:, :1] / 255) ** 2.4)
    assert np.abs(share[beyond] - 0.2).max() < 0.03


def test_a_picture_without_highlights_is_not_darkened_by_what_metadata_allow() -> None:
    scene = np.full((32, 32, 3), 255, np.uint8)
    assert convert(make_picture(scene, PQ), PQ).min() >= 253


def sample(path: Path, hdr: str) -> SampledVideo:
    return sample_frames(path, Sampling(frames=1), limits=FrameLimits(hdr=hdr))  # type: ignore[arg-type]


def test_without_tone_mapping_a_warning_says_so(make_clip: MakeClip) -> None:
    path = make_clip(HDR["PQ, HEVC"].recipe)
    video = sample(path, "off")
    assert [each.code for each in video.warnings] == ["hdr_not_mapped"]
    assert "VIDEOQA_HDR=tonemap" in video.warnings[0].message
    assert (video.info.dynamic_range, video.info.tone_mapped) == ("pq", False)
    mapped = sample(path, "tonemap")
    assert not mapped.warnings
    assert (video.frames[0].pixels != mapped.frames[0].pixels).any()


def test_wide_primaries_in_sdr_are_converted_whatever_is_done_with_hdr(make_clip: MakeClip) -> None:
    path = make_clip(HDR["BT.2020 in SDR, HEVC"].recipe)
    off, on = sample(path, "off"), sample(path, "tonemap")
    assert not off.warnings
    assert (off.frames[0].pixels == on.frames[0].pixels).all()


@pytest.mark.parametrize("grade", [PQ, HLG])
@pytest.mark.parametrize("pixel_format", ["yuva444p10le", "yuva422p12le", "yuva420p10le"])
def test_alpha_of_hdr_stays(grade: Grade, pixel_format: str) -> None:
    scene = draw_scene(96, 64)
    picture = make_picture(scene, grade, pixel_format)
    alpha = picture.planes[3]
    codes = np.frombuffer(alpha, np.uint16).reshape(alpha.height, -1)
    most = 2 ** picture.format.components[3].bits - 1
    codes[:, :48], codes[:, 48:] = most, 0
    picture.color_trc, picture.color_primaries = TAGS[grade.transfer], 9
    picture.colorspace = 9
    converter = RgbConverter(ShapeRule(DeclaredShape(), 10**6), ColourConverter())
    pixels = converter.convert(picture).astype(int)
    assert (pixels[:, 49:] == 255).all()
    assert np.abs(pixels[:, :47] - scene[:, :47]).mean() < 4


@pytest.mark.parametrize("grade", [PQ, HLG, replace(PQ, full_range=True)])
@pytest.mark.parametrize("pixel_format", ["gray10le", "gray12le", "gray16be"])
def test_grey_hdr_comes_back(grade: Grade, pixel_format: str) -> None:
    ramp = np.repeat(np.arange(0, 256, 2, dtype=np.uint8)[None, :, None], 3, axis=2)
    scene = np.repeat(ramp, 32, axis=0)
    coloured = make_picture(scene, grade)
    picture = av.VideoFrame(128, 32, pixel_format)
    luma = np.frombuffer(coloured.planes[0], np.uint16).reshape(32, -1)[:, :128]
    luma = luma << (picture.format.components[0].bits - 10)
    rows = np.frombuffer(picture.planes[0], np.uint16).reshape(32, -1)
    rows[:, :128] = luma.byteswap() if pixel_format.endswith("be") else luma
    picture.color_range = coloured.color_range
    assert np.abs(convert(picture, grade) - scene).max() <= 3


@pytest.mark.parametrize("pixel_format", ["yuv422p10le", "yuv420p12le", "yuv444p12le"])
def test_full_range_of_other_layouts_comes_back(pixel_format: str) -> None:
    grade = replace(PQ, full_range=True)
    scene = draw_scene(96, 64)
    assert np.abs(convert(make_picture(scene, grade, pixel_format), grade) - scene).mean() < 3


def test_sdr_is_converted_as_before(make_clip: MakeClip) -> None:
    path = make_clip(Recipe(frames=1))
    video = sample(path, "tonemap")
    assert (video.info.dynamic_range, video.info.tone_mapped) == ("sdr", False)
    assert (video.frames[0].pixels == sample(path, "off").frames[0].pixels).all()


def test_answers_about_other_pixels_are_not_found_again() -> None:
    on, off = (
        WorkerSettings(frames=FrameLimits(hdr=mode)).answer_settings for mode in ("tonemap", "off")
    )
    assert on != off
