"""Writes HEIF files: PyAV has HEVC's encoder, and no muxer for still pictures."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["Property", "write_heif"]

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Property:
    """A property of the primary picture: a box."""

    name: bytes
    body: bytes

    @classmethod
    def turn(cls, quarters: int) -> Property:
        return cls(b"irot", bytes([quarters]))

    @classmethod
    def mirror(cls, axis: int) -> Property:
        return cls(b"imir", bytes([axis]))

    @classmethod
    def crop(cls, width: int, height: int, right: int, down: int) -> Property:
        """A clean aperture, whose middle lies so many half pixels off the picture's."""
        return cls(b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, right, 2, down, 2))

    @classmethod
    def colours(cls, primaries: int, transfer: int, matrix: int, *, full: bool) -> Property:
        return cls(b"colr", b"nclx" + struct.pack(">HHHB", primaries, transfer, matrix, full << 7))

    @classmethod
    def profile(cls, icc: bytes) -> Property:
        return cls(b"colr", b"prof" + icc)


def write_heif(
    pixels: Pixels,
    *properties: Property,
    tiles: tuple[int, int] = (1, 1),
    alpha: Pixels | None = None,
    pixel_format: str = "yuv420p",
    exif: bytes | None = None,
    kind: bytes = b"hvc1",
    inline: bool = True,
) -> bytes:
    """Returns the file's bytes.

    Arguments:
        tiles: columns and rows of tiles.
        inline: False: the description of the grid stands beside the pictures.
    """
    height, width = pixels.shape[:2]
    columns, rows = tiles
    tile_width, tile_height = width, height
    if columns > 1 or rows > 1:
        tile_width, tile_height = -(-width // columns // 16) * 16, -(-height // rows // 16) * 16
    padded = np.pad(
        pixels,
        ((0, tile_height * rows - height), (0, tile_width * columns - width), (0, 0)),
        mode="edge",
    )
    items: list[_Item] = []
    for row in range(rows):
        for column in range(columns):
            tile = padded[row * tile_height :, column * tile_width :][:tile_height, :tile_width]
            items.append(_encode(tile, pixel_format, kind))
    primary, references = 1, b""
    if len(items) > 1:
        grid = bytes([0, 0, rows - 1, columns - 1]) + struct.pack(">HH", width, height)
        items.append(_Item(b"grid", grid, [], inline))
        primary = len(items)
        references += _reference(b"dimg", primary, range(1, primary))
    items[primary - 1].properties += [_size(width, height), *properties]
    if alpha is not None:
        items.append(_encode(np.repeat(alpha[:, :, None], 3, axis=2), "gray", kind))
        name = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"
        items[-1].properties += [_size(width, height), Property(b"auxC", bytes(4) + name)]
        references += _reference(b"auxl", len(items), [primary])
    if exif is not None:
        items.append(_Item(b"Exif", bytes(4) + exif, []))
        references += _reference(b"cdsc", len(items), [primary])
    return _assemble(items, primary, references)


@dataclass
class _Item:
    type: bytes
    content: bytes
    properties: list[Property]
    inline: bool = False


def _encode(pixels: Pixels, pixel_format: str, kind: bytes) -> _Item:
    if kind == b"jpeg":
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG")
        return _Item(kind, out.getvalue(), [])
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx265", rate=Fraction(1))
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = pixel_format
        stream.options = {
            "x265-params": "log-level=none:pools=1:frame-threads=1:bframes=0:keyint=1"
        }
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        picture = picture.reformat(format=pixel_format, dst_color_range="MPEG")
        if pixel_format == "gray":
            picture = av.VideoFrame.from_ndarray(pixels[:, :, 0].copy(), format="gray")
        picture.pts, picture.time_base = 0, Fraction(1)
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        stream = container.streams.video[0]
        configuration = bytes(stream.codec_context.extradata or b"")
        content = b"".join(bytes(packet) for packet in container.demux(stream) if packet.size)
    return _Item(kind, content, [Property(b"hvcC", configuration)])


def _size(width: int, height: int) -> Property:
    return Property(b"ispe", bytes(4) + struct.pack(">II", width, height))


def _box(name: bytes, *bodies: bytes) -> bytes:
    body = b"".join(bodies)
    return struct.pack(">I", len(body) + 8) + name + body


def _reference(name: bytes, first: int, to: Sequence[int]) -> bytes:
    return _box(name, struct.pack(f">HH{len(to)}H", first, len(to), *to))


def _assemble(items: list[_Item], primary: int, references: bytes) -> bytes:
    properties: list[Property] = []
    associations = b""
    for number, item in enumerate(items, 1):
        indices = []
        for one in item.properties:
            properties.append(one)
            indices.append(len(properties))
        associations += struct.pack(f">HB{len(indices)}B", number, len(indices), *indices)
    entries = [_box(b"infe", bytes([2, 0, 0, 0]), struct.pack(">HH4s", n, 0, item.type), b"\0")
               for n, item in enumerate(items, 1)]  # fmt: skip
    inline = b"".join(item.content for item in items if item.inline)

    def meta(first: int) -> bytes:
        locations, at, in_idat = b"", first, 0
        for number, item in enumerate(items, 1):
            size = len(item.content)
            locations += struct.pack(
                ">HHHHII", number, item.inline, 0, 1, in_idat if item.inline else at, size
            )
            at, in_idat = at + size * (not item.inline), in_idat + size * item.inline
        return _box(
            b"meta",
            bytes(4),
            _box(b"hdlr", bytes(8), b"pict", bytes(13)),
            _box(b"pitm", bytes(4), struct.pack(">H", primary)),
            _box(b"iinf", bytes(4), struct.pack(">H", len(items)), *entries),
            _box(b"iref", bytes(4), references) if references else b"",
            _box(
                b"iprp",
                _box(b"ipco", *(_box(one.name, one.body) for one in properties)),
                _box(b"ipma", bytes(4), struct.pack(">I", len(items)), associations),
            ),
            _box(b"idat", inline) if inline else b"",
            _box(b"iloc", bytes([1, 0, 0, 0, 0x44, 0]), struct.pack(">H", len(items)), locations),
        )

    head = _box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    start = len(head) + len(meta(0)) + 8
    content = b"".join(item.content for item in items if not item.inline)
    return head + meta(start) + _box(b"mdat", content)
