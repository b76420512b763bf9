"""Reads which coded pictures a HEIF file is made of: tiles, rotation, cropping, alpha and colours (ISO/IEC 23008-12).

This is code of our own because FFmpeg's demuxer gives the tiles as streams without their places in the
picture. Only the header's boxes are read, and none of the pictures' bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from struct import error as StructError  # noqa: N812
from struct import unpack_from

from videoqa_worker.frames.container.boxes import iter_boxes
from videoqa_worker.frames.container.file_cursor import FileCursor
from videoqa_worker.frames.picture.colour.colours import Colours
from videoqa_worker.frames.picture.shape import Crop
from videoqa_worker.frames.sparse_file import SparseFile

__all__ = [
    "CodedItem",
    "HeifError",
    "HeifPicture",
    "Mirroring",
    "QuarterTurns",
    "Tiling",
    "read_heif",
]

_MAX_HEADER_BYTES = 4 << 20
"""Limit on the meta box: that of a phone's picture of 48 tiles has some 4 KB."""
_MAX_FILE_BOXES = 64
_MAX_BOXES = 20_000
_MAX_ITEMS = 4096
_MAX_TILES = 2048
_GRID_BYTES = 12
_ALPHA_TYPES = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")

Extent = tuple[int, int]
"""Offset in the file, and size."""
_Box = tuple[bytes, int, int]
"""Name, and the offsets at which its contents begin and end."""


class HeifError(Exception):
    """The file cannot be read as HEIF; the text completes "got a HEIF image ..."."""


@dataclass(frozen=True)
class CodedItem:
    """One coded picture: a tile, or all of it."""

    codec: str
    """Type of the item: "hvc1", "av01" or "jpeg"."""
    configuration: bytes
    """Contents of its decoder configuration (hvcC, av1C)."""
    extents: tuple[Extent, ...]


@dataclass(frozen=True)
class Tiling:
    """The coded pictures of an image, line by line."""

    items: tuple[CodedItem, ...]
    columns: int
    rows: int
    size: tuple[int, int] | None
    """Size of the whole, to which tiles are cut; None: that of the only one."""


@dataclass(frozen=True)
class QuarterTurns:
    """A rotation of the picture."""

    count: int
    """Turns by 90 degrees, counter-clockwise."""


@dataclass(frozen=True)
class Mirroring:
    """A reflection of the picture."""

    is_horizontal: bool
    """True if left and right are exchanged, False if top and bottom are."""


Transform = Crop | QuarterTurns | Mirroring


@dataclass(frozen=True)
class HeifPicture:
    """The primary picture of a file."""

    colour: Tiling
    alpha: Tiling | None
    premultiplied: bool
    """True if colours are multiplied by alpha already."""
    declared_size: tuple[int, int]
    """Width and height before it is cropped and turned."""
    colours: Colours | None
    profile: bytes | None
    """ICC profile."""
    transforms: tuple[Transform, ...]
    """Steps from the coded picture to the one that is shown, in their order."""
    depth: int = 8
    """Bits a channel."""


def read_heif(file: SparseFile) -> HeifPicture:
    """Reads the description of a file's primary picture.

    Raises:
        HeifError: it has none, or one of a kind that is not supported.
    """
    try:
        return _Meta(_read_meta(file), file).describe()
    except (StructError, IndexError, KeyError, ZeroDivisionError) as error:
        raise HeifError(f"whose header is damaged ({type(error).__name__})") from error


def _read_meta(file: SparseFile) -> bytes:
    """Returns the contents of the file's meta box."""
    for box in islice(iter_boxes(file), _MAX_FILE_BOXES):
        if box.name == b"meta":
            length = box.end - box.body
            if length > _MAX_HEADER_BYTES:
                raise HeifError(f"whose header has {length} bytes, more than {_MAX_HEADER_BYTES}")
            content = _read_part(file, box.body, length)
            if len(content) < length:
                raise HeifError("that ends within its header: the file is truncated")
            return content
    raise HeifError("without a header (meta)")


def _read_part(file: SparseFile, at: int, count: int) -> bytes:
    with closing(FileCursor(file)) as cursor:
        cursor.seek(at)
        return cursor.read_fully(count)


@dataclass
class _Item:
    """An entry of the list of items."""

    type: bytes
    extents: tuple[Extent, ...] = ()
    inline: bool = False
    """True if the extents lie in the header's own data box."""
    properties: list[_Box] = field(default_factory=list)


class _Meta:
    """The boxes of a meta box, and the items that they describe."""

    def __init__(self, data: bytes, file: SparseFile) -> None:
        self._data, self._file = data, file
        self._left = iter(range(_MAX_BOXES))
        self._items: dict[int, _Item] = {}
        self._references: list[tuple[bytes, int, tuple[int, ...]]] = []
        self._inline: Extent = (0, 0)
        self._primary = 0
        boxes = {name: (start, end) for name, start, end in self._iter_boxes(4, len(data))}
        self._primary = self._read_primary(*boxes[b"pitm"])
        self._read_items(*boxes[b"iinf"])
        if b"iloc" in boxes:
            self._read_locations(*boxes[b"iloc"])
        if b"idat" in boxes:
            start, end = boxes[b"idat"]
            self._inline = start, end - start
        if b"iref" in boxes:
            self._read_references(*boxes[b"iref"])
        if b"iprp" in boxes:
            self._read_properties(*boxes[b"iprp"])

    # -- boxes

    def _iter_boxes(self, at: int, end: int) -> Iterator[_Box]:
        end = min(end, len(self._data))
        while at + 8 <= end:
            if next(self._left, None) is None:
                raise HeifError(f"whose header has more than {_MAX_BOXES} parts")
            size, name = unpack_from(">I4s", self._data, at)
            body = at + 8
            if size == 1:
                (size,) = unpack_from(">Q", self._data, body)
                body += 8
            stop = end if size == 0 else at + size
            if stop < body or stop > end:
                return
            yield name, body, stop
            at = stop

    def _number(self, at: int, size: int) -> int:
        if at + size > len(self._data):
            raise IndexError
        return int.from_bytes(self._data[at : at + size], "big")

    def _read_primary(self, start: int, _: int) -> int:
        return self._number(start + 4, 4 if self._data[start] else 2)

    def _read_items(self, start: int, end: int) -> None:
        first = start + (8 if self._data[start] else 6)
        for name, at, _ in self._iter_boxes(first, end):
            if name != b"infe" or self._data[at] < 2 or len(self._items) >= _MAX_ITEMS:
                continue
            width = 4 if self._data[at] >= 3 else 2
            number = self._number(at + 4, width)
            self._items[number] = _Item(self._data[at + 6 + width : at + 10 + width])

    def _read_locations(self, start: int, end: int) -> None:
        """Reads iloc (ISO/IEC 14496-12, 8.11.3)."""
        version = self._data[start]
        sizes, more = self._data[start + 4], self._data[start + 5]
        offset_size, length_size, base_size = sizes >> 4, sizes & 15, more >> 4
        index_size = more & 15 if version else 0
        wide = 4 if version == 2 else 2
        count = self._number(start + 6, wide)
        at = start + 6 + wide
        for _ in range(min(count, _MAX_ITEMS)):
            number = self._number(at, wide)
            at += wide
            method = self._number(at, 2) & 15 if version else 0
            at += (2 if version else 0) + 2
            base = self._number(at, base_size)
            at += base_size
            extents = []
            pieces = self._number(at, 2)
            at += 2
            for _ in range(min(pieces, _MAX_ITEMS)):
                if at > end:
                    raise IndexError
                at += index_size
                offset = self._number(at, offset_size)
                length = self._number(at + offset_size, length_size)
                at += offset_size + length_size
                extents.append((base + offset, length))
            if number in self._items and method <= 1:
                self._items[number].extents = tuple(extents)
                self._items[number].inline = method == 1

    def _read_references(self, start: int, end: int) -> None:
        width = 4 if self._data[start] else 2
        for name, at, _ in self._iter_boxes(start + 4, end):
            count = min(self._number(at + width, 2), _MAX_ITEMS)
            first = at + width + 2
            targets = tuple(self._number(first + n * width, width) for n in range(count))
            self._references.append((name, self._number(at, width), targets))
            if len(self._references) > _MAX_ITEMS:
                raise HeifError("whose parts refer to each other more often than allowed")

    def _read_properties(self, start: int, end: int) -> None:
        known: list[_Box] = []
        for name, a, b in self._iter_boxes(start, end):
            if name == b"ipco":
                known = list(self._iter_boxes(a, b))
            elif name == b"ipma":
                self._associate(a, known)

    def _associate(self, start: int, known: list[_Box]) -> None:
        version, wide_index = self._data[start], self._data[start + 3] & 1
        wide = 4 if version else 2
        entries, at, left = self._number(start + 4, 4), start + 8, _MAX_BOXES
        for _ in range(min(entries, _MAX_ITEMS)):
            item, count = self._items.get(self._number(at, wide)), self._number(at + wide, 1)
            at += wide + 1
            for _ in range(count):
                left -= 1
                if left < 0:
                    raise HeifError("whose pictures have too many properties")
                size = 2 if wide_index else 1
                index = self._number(at, size) & (0x7FFF if wide_index else 0x7F)
                at += size
                if item is not None and 0 < index <= len(known):
                    item.properties.append(known[index - 1])

    # -- pictures

    def describe(self) -> HeifPicture:
        """Describes the primary picture."""
        number = self._primary
        item = self._items[number]
        alpha = self._find_alpha(number)
        premultiplied = any(
            name == b"prem" and first == number for name, first, _ in self._references
        )
        colours, profile = self._read_colours(item)
        tiling = self._describe_tiling(number)
        if colours is None and profile is None and item.type == b"grid":
            colours, profile = self._read_colours(self._items[self._find_tiles(number)[0]])
        declared = self._find(item, b"ispe")
        size = (
            (self._number(declared[1] + 4, 4), self._number(declared[1] + 8, 4))
            if declared
            else tiling.size or (0, 0)
        )
        first = item if item.type != b"grid" else self._items[self._find_tiles(number)[0]]
        pixels = self._find(first, b"pixi")
        depth = self._data[pixels[1] + 5] if pixels and self._data[pixels[1] + 4] else 8
        return HeifPicture(
            tiling,
            None if alpha is None else self._describe_tiling(alpha),
            premultiplied,
            size,
            colours,
            profile,
            tuple(self._iter_transforms(item, size)),
            depth,
        )

    def _find(self, item: _Item, name: bytes) -> _Box | None:
        return next((box for box in item.properties if box[0] == name), None)

    def _find_tiles(self, number: int) -> tuple[int, ...]:
        return next(
            (to for name, first, to in self._references if name == b"dimg" and first == number), ()
        )

    def _find_alpha(self, number: int) -> int | None:
        for name, first, to in self._references:
            if name != b"auxl" or number not in to or first not in self._items:
                continue
            kind = self._find(self._items[first], b"auxC")
            if kind and self._data[kind[1] + 4 : kind[2]].split(b"\0")[0] in _ALPHA_TYPES:
                return first
        return None

    def _describe_tiling(self, number: int) -> Tiling:
        item = self._items[number]
        if item.type == b"iden":
            raise HeifError("that is derived from another picture (iden), which is not supported")
        if item.type != b"grid":
            return Tiling((self._describe_item(item),), 1, 1, None)
        offset = item.extents[0][0]
        if item.inline:
            at = self._inline[0] + offset
            grid = self._data[at : at + _GRID_BYTES]
        else:
            grid = _read_part(self._file, offset, _GRID_BYTES)
        rows, columns = grid[2] + 1, grid[3] + 1
        size = unpack_from(">II" if grid[1] & 1 else ">HH", grid, 4)
        tiles = self._find_tiles(number)
        if len(tiles) != rows * columns or len(tiles) > _MAX_TILES:
            raise HeifError(f"whose grid of {columns}x{rows} tiles has {len(tiles)}")
        items = tuple(self._describe_item(self._items[tile]) for tile in tiles)
        return Tiling(items, columns, rows, size)

    def _describe_item(self, item: _Item) -> CodedItem:
        names = {b"hvc1": b"hvcC", b"av01": b"av1C", b"jpeg": b""}
        if item.type not in names:
            kind = item.type.decode("ascii", "replace")
            raise HeifError(f"that is coded as {kind!r}, which is not supported")
        found = self._find(item, names[item.type])
        if found is None and item.type != b"jpeg":
            raise HeifError("without the configuration of its decoder")
        configuration = self._data[found[1] : found[2]] if found else b""
        return CodedItem(item.type.decode(), configuration, self._locate(item))

    def _locate(self, item: _Item) -> tuple[Extent, ...]:
        if item.inline:
            raise HeifError("whose pictures lie in its header")
        if not item.extents:
            raise HeifError("without the place of its pictures")
        return item.extents

    def _read_colours(self, item: _Item) -> tuple[Colours | None, bytes | None]:
        colours: Colours | None = None
        profile = None
        for name, start, end in item.properties:
            kind = self._data[start : start + 4]
            if name == b"colr" and kind == b"nclx":
                primaries, transfer, matrix, flags = unpack_from(">HHHB", self._data, start + 4)
                colours = Colours(transfer, primaries, matrix, bool(flags & 0x80))
            elif name == b"colr" and kind in (b"prof", b"rICC"):
                profile = self._data[start + 4 : end]
        return colours, profile

    def _iter_transforms(self, item: _Item, size: tuple[int, int]) -> Iterator[Transform]:
        for name, start, _ in item.properties:
            if name == b"irot":
                yield QuarterTurns(self._data[start] & 3)
            elif name == b"imir":
                yield Mirroring(is_horizontal=bool(self._data[start] & 1))
            elif name == b"clap":
                wide, wide_n, high, high_n, x, x_n, y, y_n = unpack_from(
                    ">IIIIiIiI", self._data, start
                )
                width, height = Fraction(wide, wide_n), Fraction(high, high_n)
                left = (size[0] - width) / 2 + Fraction(x, x_n)
                top = (size[1] - height) / 2 + Fraction(y, y_n)
                yield Crop(round(left), round(top), round(width), round(height))
