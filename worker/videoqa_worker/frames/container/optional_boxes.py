"""Finds the boxes of an MP4 that showing its pictures does not need, so that they can be read as `free`.

FFmpeg refuses a whole file for one malformed box, though the box be a place's name. Each stage leaves out
more; the boxes to keep are named, since those that anybody may add are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from videoqa.contract import Warn
from videoqa_worker.frames.container.boxes import Box, iter_boxes
from videoqa_worker.frames.container.file_cursor import FileCursor
from videoqa_worker.frames.sparse_file import SparseFile

__all__ = ["LeftOut", "find_optional_boxes"]

_MOST_BOXES = 2000
"""Limit on the boxes of the walk, each of which takes some 10 us."""
_MOST_FRAGMENTS = 100
_ENTRY_FIELDS_BYTES = 78
"""Size of a visual sample entry's fields, after which its boxes begin (ISO/IEC 14496-12, 12.1.3)."""
_FREE = b"free"

_KEPT: dict[bytes, frozenset[bytes]] = {
    b"": frozenset((b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide")),
    b"moov": frozenset((b"mvhd", b"trak", b"mvex")),
    b"trak": frozenset((b"tkhd", b"edts", b"mdia")),
    b"edts": frozenset((b"elst",)),
    b"mdia": frozenset((b"mdhd", b"hdlr", b"minf")),
    b"minf": frozenset((b"vmhd", b"smhd", b"nmhd", b"gmhd", b"hdlr", b"dinf", b"stbl")),
    b"stbl": frozenset(
        (b"stsd", b"stts", b"ctts", b"stss", b"stps", b"stsc", b"stsz", b"stz2", b"stco", b"co64")
    ),
    b"mvex": frozenset((b"trex",)),
    b"moof": frozenset((b"mfhd", b"traf")),
    b"traf": frozenset((b"tfhd", b"tfdt", b"trun")),
}  # fmt: skip
"""Boxes to keep by the box around them; those that are a key themselves are looked into."""
_KEPT_OF_ENTRIES = frozenset(
    (
        b"avcC", b"hvcC", b"vvcC", b"evcC", b"esds", b"glbl", b"d263", b"jp2h", b"dvc1", b"strf", b"SMI ",
        b"ACLR", b"ARES", b"APRG", b"AALP",
    )
)  # fmt: skip
"""Boxes of a video's sample entry that its decoder needs."""
_SHAPING = frozenset(
    (
        b"colr", b"pasp", b"clap", b"fiel", b"gama", b"mdcv", b"clli", b"SmDm", b"CoLL", b"cclv", b"amve",
        b"vpcC", b"av1C",
    )
)  # fmt: skip
"""Boxes of a video's sample entry that say how its pictures are to be shown."""


@dataclass(frozen=True)
class LeftOut:
    """The boxes that one stage leaves out."""

    replaced: dict[int, bytes]
    """Names to read in place of the file's, by their offset."""
    shaping: tuple[str, ...] = ()
    """Names of those among them that say how pictures are to be shown."""

    @property
    def warnings(self) -> tuple[Warn, ...]:
        if not self.shaping:
            return ()
        message = (
            f"the file cannot be opened with its boxes {', '.join(self.shaping)}, of which one or more are "
            "malformed: they were left out, so shape, colours or fields may differ from what the file means; "
            "write it anew"
        )
        return (Warn(code="boxes_ignored", message=message),)


def find_optional_boxes(file: SparseFile) -> Iterator[LeftOut]:
    """Yields what each stage leaves out; a stage that leaves out no more than the one before is passed over.

    Left out are boxes that nothing needs, then all tracks but those of pictures, then also what shapes pictures.
    """
    walk = _Walk(file)
    walk.look_into(Box(b"", 0, 0, file.size_bytes))
    stages = (walk.unneeded, walk.other_tracks, walk.shaping)
    names: dict[int, bytes] = {}
    for number, found in enumerate(stages):
        if found:
            names |= {box.start + 4: _FREE for box in found}
            shaping = tuple(sorted({box.name.decode() for box in walk.shaping}))
            yield LeftOut(dict(names), shaping if number == 2 else ())


class _Walk:
    """A walk over the boxes around a video's tables, which sorts those that are not needed."""

    def __init__(self, file: SparseFile) -> None:
        self.unneeded: list[Box] = []
        self.other_tracks: list[Box] = []
        self.shaping: list[Box] = []
        self._file = file
        self._left = iter(range(_MOST_BOXES))
        self._fragments = 0

    def look_into(self, parent: Box) -> None:
        """Sorts the boxes in this one."""
        kept = _KEPT[parent.name]
        for found in iter_boxes(self._file, parent.body, parent.end, self._left):
            box = replace(found, end=min(found.end, parent.end))
            if box.name == b"moof" and not parent.name:
                self._fragments += 1
                if self._fragments > _MOST_FRAGMENTS or not self._file.present.covers(
                    box.start, box.end
                ):
                    return
            if box.name not in kept:
                self.unneeded.append(box)
            elif box.name == b"trak":
                self._look_into_track(box)
            elif box.name in _KEPT:
                self.look_into(box)

    def _look_into_track(self, track: Box) -> None:
        """Sorts the boxes of a track, and the track itself if it is none of pictures."""
        self.look_into(track)
        media = self._find(track, b"mdia")
        handler = media and self._find(media, b"hdlr")
        if media is None or handler is None or self._read(handler, 8, 12) != b"vide":
            self.other_tracks.append(track)
            return
        table: Box | None = media
        for name in (b"minf", b"stbl", b"stsd"):
            table = table and self._find(table, name)
        if table is None:
            return
        for entry in iter_boxes(self._file, table.body + 8, table.end, self._left):
            end = min(entry.end, table.end)
            for box in iter_boxes(self._file, entry.body + _ENTRY_FIELDS_BYTES, end, self._left):
                if box.name in _SHAPING:
                    self.shaping.append(box)
                elif box.name not in _KEPT_OF_ENTRIES:
                    self.unneeded.append(box)

    def _find(self, parent: Box, name: bytes) -> Box | None:
        """Finds the first box of this name in another one."""
        for box in iter_boxes(self._file, parent.body, parent.end, self._left):
            if box.name == name:
                return replace(box, end=min(box.end, parent.end))
        return None

    def _read(self, box: Box, start: int, end: int) -> bytes:
        """Reads bytes of a box's contents."""
        with FileCursor(self._file) as cursor:
            cursor.seek(box.body + start)
            return (
                cursor.read(min(end, box.end - box.body) - start)
                if box.end > box.body + start
                else b""
            )
