"""Kinds of still pictures: each shows one number, upright, whichever way it is sent."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms
from support.videos import draw_number

from kinds.heif_writer import Property, write_heif

__all__ = ["NUMBER", "REFUSED_STILLS", "SIZE", "STILLS", "STORED", "Still"]

NUMBER = 0b100_110_010_111
SIZE = 96, 72
Pixels = npt.NDArray[np.uint8]
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""Transposes that make the stored picture of each EXIF orientation."""


@dataclass(frozen=True)
class Still:
    """A kind of still picture; `write` returns the file's bytes."""

    write: Callable[[], bytes]
    name: str = "picture"
    """Name of the file; most have none that says what they are."""
    warns: tuple[str, ...] = ()
    """Codes of the warnings that come with it."""
    size: tuple[int, int] = SIZE

    def make(self, folder: Path) -> Path:
        path = folder / self.name
        path.write_bytes(self.write())
        return path


def picture(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    return Image.fromarray(draw_number(NUMBER, *size)).convert(mode)


def saved(form: str, image: Image.Image | None = None, **options: object) -> Callable[[], bytes]:
    def write() -> bytes:
        out = io.BytesIO()
        (image or picture()).save(out, form, **options)  # type: ignore[arg-type]
        return out.getvalue()

    return write


def turned(form: str, orientation: int) -> Callable[[], bytes]:
    """Returns a picture that is stored turned, with the EXIF orientation that undoes it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(form, picture().transpose(STORED[orientation]), exif=exif)


def with_profile(form: str, image: Image.Image, profile: bytes) -> Callable[[], bytes]:
    return saved(form, image, icc_profile=profile)


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def one_frame(form: str, image: Image.Image | None = None) -> Callable[[], bytes]:
    """Returns a file that could hold an animation and has one picture."""
    return saved(form, image, save_all=True)


def several(form: str) -> Callable[[], bytes]:
    """Returns a file of three pictures that are no animation: pages, or one scene at several exposures."""
    others = [Image.fromarray(draw_number(number, *SIZE)) for number in (5, 6)]
    return saved(form, picture(), save_all=True, append_images=others)


def sixteen_bit(form: str) -> Callable[[], bytes]:
    grey = np.asarray(picture("L")).astype(np.uint16) * 257
    return saved(form, Image.fromarray(grey))


def jpeg_2000() -> bytes:
    return saved("JPEG2000")()


def heic(
    *properties: Property, stored: Pixels | None = None, **options: object
) -> Callable[[], bytes]:
    """Returns a HEIF file whose stored picture is drawn by default."""
    pixels = draw_number(NUMBER, *SIZE) if stored is None else stored
    return lambda: write_heif(pixels, *properties, **options)  # type: ignore[arg-type]


def framed() -> Pixels:
    """Returns the picture with a border of noise: 16 pixels on the left and 8 at the top, half of it elsewhere."""
    noise = np.random.default_rng(3).integers(0, 256, (84, 120, 3), dtype=np.uint8)
    noise[8:80, 16:112] = draw_number(NUMBER, *SIZE)
    return noise


def exif_turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


DRAWN = draw_number(NUMBER, *SIZE)
HEIC = {
    "HEIC": Still(heic()),
    "HEIC, 2x2 tiles": Still(heic(tiles=(2, 2))),
    "HEIC, 3x2 tiles, cut at the edge": Still(heic(stored=draw_number(NUMBER, 100, 70), tiles=(3, 2)), size=(100, 70)),
    "HEIC, tiles described beside them": Still(heic(tiles=(2, 1), inline=False)),
    "HEIC, 10 bit": Still(heic(pixel_format="yuv420p10le")),
    "HEIC, 4:4:4": Still(heic(pixel_format="yuv444p")),
    "HEIC, coded as JPEG": Still(heic(kind=b"jpeg")),
    "HEIC, tagged full range, BT.709": Still(heic(
        Property.colours(1, 13, 1, full=True), pixel_format="yuvj420p")),
    **{f"HEIC, turned {90 * n}": Still(heic(Property.turn(n), stored=np.rot90(DRAWN, -n))) for n in (1, 2, 3)},
    "HEIC, tiles, turned": Still(heic(Property.turn(1), stored=np.rot90(DRAWN, -1), tiles=(2, 2))),
    "HEIC, mirrored": Still(heic(Property.mirror(1), stored=DRAWN[:, ::-1])),
    "HEIC, top and bottom exchanged": Still(heic(Property.mirror(0), stored=DRAWN[::-1])),
    "HEIC, turned and mirrored": Still(heic(
        Property.turn(1), Property.mirror(1), stored=np.rot90(DRAWN[:, ::-1], -1))),
    "HEIC, turned, and by EXIF as well": Still(heic(
        Property.turn(3), stored=np.rot90(DRAWN, -3), exif=exif_turned())),
    "HEIC, EXIF alone says turned": Still(heic(exif=exif_turned())),
    "HEIC, clean aperture": Still(heic(Property.crop(96, 72, 8, 4), stored=framed())),
    "HEIC with an sRGB profile": Still(heic(Property.profile(srgb_profile()))),
    "HEIC named .mp4": Still(heic(), name="clip.mp4"),
}  # fmt: skip


STILLS = {
    "JPEG": Still(saved("JPEG")),
    "JPEG, progressive": Still(saved("JPEG", progressive=True)),
    "JPEG, grey": Still(saved("JPEG", picture("L"))),
    "JPEG, CMYK": Still(saved("JPEG", picture("CMYK"))),
    "JPEG, several pictures (MPO)": Still(several("MPO")),
    "JPEG named .mp4": Still(saved("JPEG"), name="clip.mp4"),
    "JPEG with an sRGB profile": Still(with_profile("JPEG", picture(), srgb_profile())),
    "JPEG, a profile of noise": Still(
        with_profile("JPEG", picture(), 40 * b"noise"), warns=("colour_profile_ignored",)
    ),
    "JPEG, grey with an RGB profile": Still(
        with_profile("JPEG", picture("L"), srgb_profile()), warns=("colour_profile_ignored",)
    ),
    **{f"JPEG, EXIF orientation {n}": Still(turned("JPEG", n)) for n in range(2, 9)},
    "PNG": Still(saved("PNG")),
    "PNG, palette": Still(saved("PNG", picture("P"))),
    "PNG, 1 bit": Still(saved("PNG", picture("1"))),
    "PNG, 16 bit grey": Still(sixteen_bit("PNG")),
    "PNG, EXIF orientation 6": Still(turned("PNG", 6)),
    "PNG named .webm": Still(saved("PNG"), name="clip.webm"),
    "APNG of one picture": Still(one_frame("PNG")),
    "WebP": Still(saved("WEBP")),
    "WebP, lossless": Still(saved("WEBP", lossless=True)),
    "WebP, EXIF orientation 8": Still(turned("WEBP", 8)),
    "WebP of one picture": Still(one_frame("WEBP")),
    "AVIF": Still(saved("AVIF")),
    "AVIF, 4:4:4": Still(saved("AVIF", subsampling="4:4:4")),
    "AVIF, grey": Still(saved("AVIF", picture("L"))),
    **{f"AVIF, orientation {n}": Still(turned("AVIF", n)) for n in range(2, 9)},
    "GIF of one picture": Still(one_frame("GIF")),
    "BMP": Still(saved("BMP")),
    "TIFF": Still(saved("TIFF")),
    "TIFF, several pages": Still(several("TIFF")),
    "TIFF, 16 bit grey": Still(sixteen_bit("TIFF")),
    "TIFF, CIELAB": Still(saved("TIFF", ImageCms.profileToProfile(
        picture(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    ))),
    "TIFF, LZW, EXIF orientation 3": Still(turned("TIFF", 3)),
    "icon (ICO)": Still(saved("ICO", sizes=[SIZE])),
    "JPEG 2000": Still(jpeg_2000),
    **HEIC,
}  # fmt: skip


def cut(write: Callable[[], bytes], share: float, fill: bytes = b"") -> Callable[[], bytes]:
    """Returns a file that breaks off, or whose rest is filled with a byte."""

    def cut_off() -> bytes:
        content = write()
        kept = content[: int(len(content) * share)]
        return kept + fill * (len(content) - len(kept))

    return cut_off


def raw_tiff(*, dng: bool) -> bytes:
    """A camera's RAW file as far as its first directory goes, which shows a thumbnail."""
    tags = {254: 1, 330: 8}
    if dng:
        tags[50706] = 1
    out = io.BytesIO()
    picture().save(out, "TIFF", tiffinfo=tags)
    return out.getvalue()


def refused_heic(old: bytes, new: bytes) -> Callable[[], bytes]:
    return lambda: heic()().replace(old, new, 1)


REFUSED_STILLS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "JPEG, cut": (cut(saved("JPEG"), 0.7), "video_truncated", "ends before its last line"),
    "JPEG, zeros at the end": (
        cut(saved("JPEG", quality=100), 0.95, b"\0"), "video_truncated", "ends before its last line",
    ),
    "JPEG, progressive, cut": (
        cut(saved("JPEG", progressive=True), 0.6), "video_truncated", "ends before",
    ),
    "PNG, cut": (cut(saved("PNG"), 0.7), "video_truncated", "ends before its last line"),
    "WebP, cut": (cut(saved("WEBP"), 0.7), "video_corrupt", "WebP"),
    "AVIF, cut": (cut(saved("AVIF"), 0.7), "video_corrupt", "AVIF"),
    "HEIC, cut": (cut(heic(kind=b"jpeg"), 0.8), "video_truncated", "ends before"),
    "HEIC, cut in its header": (cut(heic(), 0.1), "video_truncated", "ends before"),
    "HEIC, coded as VVC": (refused_heic(b"hvc1", b"vvc1"), "video_corrupt", "coded as 'vvc1'"),
    "camera RAW (DNG)": (lambda: raw_tiff(dng=True), "not_a_video", "RAW picture"),
    "camera RAW (NEF)": (lambda: raw_tiff(dng=False), "not_a_video", "RAW picture"),
    "camera RAW (CR3)": (lambda: b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "not_a_video", "RAW picture"),
    "SVG": (lambda: b'<?xml version="1.0"?><svg xmlns="x"/>', "not_a_video", "an SVG drawing.*PNG"),
    "Photoshop": (lambda: b"8BPS\0\1" + bytes(60), "not_a_video", "a Photoshop document.*convert"),
    "JPEG XL": (lambda: b"\xff\x0a" + bytes(60), "not_a_video", "a JPEG XL image.*convert"),
    "PDF": (lambda: b"%PDF-1.7", "not_a_video", "a PDF document.*pages"),
}  # fmt: skip
