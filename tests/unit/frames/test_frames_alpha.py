"""Still pictures with transparency are put on white; the kinds of `tests/kinds/transparent.py` are the videos."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.videos import draw_number, read_number

from videoqa_worker.frames import read_image

NUMBER = 0b1011_0010_1101


def make_picture() -> Image.Image:
    """Returns a picture whose bright blocks are transparent black."""
    grey = draw_number(NUMBER, 96, 72)[:, :, :1]
    return Image.fromarray(np.pad(255 - grey, ((0, 0), (0, 0), (3, 0))))


STORED: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("RGBA", {}),
    "grey.png": ("LA", {}),
    "lossless.webp": ("RGBA", {"lossless": True}),
    "webp": ("RGBA", {"quality": 90}),
    "tiff": ("RGBA", {}),
    "deflated.tiff": ("RGBA", {"compression": "tiff_deflate"}),
    "grey.tiff": ("LA", {}),
}


@pytest.mark.parametrize("name", STORED)
def test_transparent_pictures_are_put_on_white(name: str, tmp_path: Path) -> None:
    mode, options = STORED[name]
    path = tmp_path / f"picture.{name}"
    make_picture().convert(mode).save(path, **options)
    assert read_number(read_image(path).frames[0].pixels) == NUMBER


@pytest.mark.parametrize("name", ["palette.png", "palette.gif", "palette.webp"])
def test_transparent_colours_of_a_palette_are_put_on_white(name: str, tmp_path: Path) -> None:
    blocks = Image.fromarray(draw_number(NUMBER, 96, 72)[:, :, 0] // 255, "P")
    blocks.putpalette([0, 0, 0, 10, 0, 0])
    blocks.info["transparency"] = 1
    path = tmp_path / name
    blocks.save(path)
    assert read_number(read_image(path).frames[0].pixels) == NUMBER


def test_half_transparent_colours_are_mixed_as_by_browsers(tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    Image.new("RGBA", (4, 4), (200, 0, 100, 64)).save(path)
    expected = [round((value * 64 + 255 * 191) / 255) for value in (200, 0, 100)]
    pixels = read_image(path).frames[0].pixels.astype(int)
    assert np.abs(pixels - expected).max() <= 1


UNASSOCIATED = b"\x52\1\3\0\1\0\0\0\2"
"""Tag ExtraSamples (TIFF 6.0, section 18) with the value that Pillow writes; 1 is associated alpha."""


def test_premultiplied_colours_of_a_tiff_are_not_multiplied_again(tmp_path: Path) -> None:
    path = tmp_path / "picture.tiff"
    Image.new("RGBA", (4, 4), (100, 0, 50, 128)).save(path)
    content = path.read_bytes()
    assert content.count(UNASSOCIATED) == 1
    path.write_bytes(content.replace(UNASSOCIATED, UNASSOCIATED[:-1] + b"\1"))
    pixels = read_image(path).frames[0].pixels.astype(int)
    assert np.abs(pixels - [100 + 127, 127, 50 + 127]).max() <= 2


def write_png(path: Path, depth: int, colours: int, row: bytes, transparent: bytes) -> None:
    """Writes a PNG of one row with a transparent colour (ISO/IEC 15948, 11.3.2.1)."""
    width = len(row) * 8 // depth // colours
    header = struct.pack(">IIBBBBB", width, 1, depth, 0 if colours == 1 else 2, 0, 0, 0)
    parts = (
        (b"IHDR", header),
        (b"tRNS", transparent),
        (b"IDAT", zlib.compress(b"\0" + row)),
        (b"IEND", b""),
    )
    chunks = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@pytest.mark.parametrize(
    ("depth", "colours", "row", "transparent"),
    [
        (1, 1, b"\x0f", b"\0\0"),
        (2, 1, b"\x5a", b"\0\1"),
        (4, 1, b"\x5a", b"\0\5"),
        (8, 1, b"\x05\x80", b"\0\5"),
        (16, 1, b"\x12\x34\x80\0", b"\x12\x34"),
        (8, 3, b"\1\2\3\x80\x80\x80", b"\0\1\0\2\0\3"),
        (16, 3, b"\x12\x34\x12\x34\x12\x34" + b"\x80\0" * 3, b"\x12\x34" * 3),
    ],
)
def test_one_transparent_colour_of_a_png_is_white(
    depth: int, colours: int, row: bytes, transparent: bytes, tmp_path: Path
) -> None:
    """The first pixels have that colour, the last ones another."""
    path = tmp_path / "picture.png"
    write_png(path, depth, colours, row, transparent)
    (pixels,) = read_image(path).frames[0].pixels
    assert pixels[0].tolist() == [255, 255, 255]
    assert depth == 1 or pixels[-1].tolist() != [255, 255, 255]


def test_a_bitmap_whose_fourth_bytes_are_unused_is_opaque(tmp_path: Path) -> None:
    path = tmp_path / "picture.bmp"
    colour = Image.new("RGBA", (4, 4), (200, 0, 100, 0))
    colour.save(path)
    assert (read_image(path).frames[0].pixels == (200, 0, 100)).all()
