"""Still pictures become one upright frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kinds.stills import STORED
from PIL import Image
from support.videos import draw_number, read_number

from videoqa.errors import NotAVideo, VideoTooLarge, VideoTruncated
from videoqa_worker.frames import read_image
from videoqa_worker.settings import FrameLimits

NUMBER = 0b100_110_010_111


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(draw_number(NUMBER, 96, 72))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "tiff"])
def test_each_common_format_is_read(suffix: str, picture: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{suffix}"
    picture.save(path)
    video = read_image(path)
    (frame,) = video.frames
    assert read_number(frame.pixels) == NUMBER
    assert frame.pixels.dtype == np.uint8
    assert frame.pixels.flags.c_contiguous
    assert (frame.index, frame.pts_s, frame.exact) == (0, 0.0, True)
    assert (video.info.width, video.info.height) == (96, 72)
    assert (video.info.duration_s, video.info.fps) == (None, None)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "LA"])
def test_each_colour_mode_becomes_rgb(mode: str, picture: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "picture.tiff"
    picture.convert(mode).save(path)
    assert read_number(read_image(path).frames[0].pixels) == NUMBER


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_greys_of_16_bits_keep_their_shades(suffix: str, tmp_path: Path) -> None:
    shades = np.arange(0, 1 << 16, 16, dtype=np.uint16).reshape(64, 64)
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(shades).save(path)
    (frame,) = read_image(path).frames
    assert np.array_equal(frame.pixels, np.repeat((shades >> 8)[:, :, None], 3, axis=2))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_numbers_without_a_range_are_no_picture(kind: type, tmp_path: Path) -> None:
    path = tmp_path / "picture.tiff"
    Image.fromarray(np.ones((64, 64), dtype=kind)).save(path)
    with pytest.raises(NotAVideo, match="without a range"):
        read_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(
    orientation: int, picture: Image.Image, tmp_path: Path
) -> None:
    stored = picture.transpose(STORED[orientation]) if orientation > 1 else picture
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "picture.jpg"
    stored.save(path, exif=exif)
    video = read_image(path)
    assert read_number(video.frames[0].pixels) == NUMBER
    assert (video.info.width, video.info.height) == (96, 72)


def test_a_picture_is_turned_though_its_other_exif_data_is_odd(
    picture: Image.Image, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 3, "seven"
    path = tmp_path / "picture.jpg"
    picture.transpose(Image.Transpose.ROTATE_180).save(path, exif=exif)
    # The description becomes a ResolutionUnit, which is to be a number.
    path.write_bytes(path.read_bytes().replace(b"\x01\x0e\0\2", b"\x01\x28\0\2"))
    assert read_number(read_image(path).frames[0].pixels) == NUMBER


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_of_an_animation_the_first_picture_comes(suffix: str, tmp_path: Path) -> None:
    pictures = [Image.fromarray(draw_number(number, 96, 72)) for number in (5, 6, 7)]
    path = tmp_path / f"moving.{suffix}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    video = read_image(path)
    assert len(video.frames) == 1
    assert read_number(video.frames[0].pixels) == 5


def test_a_large_picture_is_refused_before_it_is_decoded(
    picture: Image.Image, tmp_path: Path
) -> None:
    path = tmp_path / "picture.png"
    picture.save(path)
    with pytest.raises(VideoTooLarge, match=r"96x72.*VIDEOQA_MAX_IMAGE_PIXELS"):
        read_image(path, limits=FrameLimits(max_image_pixels=96 * 71))
    bomb = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(bomb)
    with pytest.raises(VideoTooLarge):
        read_image(bomb)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(b"<html>Sign in</html>")
    with pytest.raises(NotAVideo, match="a web page"):
        read_image(path)
    path.write_bytes(b"\x1aE\xdf\xa3" + bytes(200))
    with pytest.raises(NotAVideo, match="send it as a video"):
        read_image(path)
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(NotAVideo):
        read_image(path)


def test_a_picture_that_breaks_off_says_so(picture: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    picture.save(path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(VideoTruncated, match="a JPEG image that ends before its last line"):
        read_image(path)
