"""Identifies a file by its first bytes, for messages and for the choice of error.

Knows magic numbers only, and does not try to open the file. Quotes none of its bytes: who may ask about
a file need not be who may read it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from videoqa_worker.frames.sparse_file import SparseFile

__all__ = ["FileType", "identify"]

Kind = Literal["video", "image", "audio", "playlist", "other"]


@dataclass(frozen=True)
class FileType:
    """The type of a file; `text` completes the sentence "got ..."."""

    kind: Kind
    text: str


_VIDEO = {
    b"\x1aE\xdf\xa3": "a Matroska or WebM video",
    b"FLV\x01": "an FLV video",
    b"\x00\x00\x01\xba": "an MPEG video",
    b"\x00\x00\x01\xb3": "an MPEG video",
    b"GIF8": "a GIF",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "a Windows Media video",
}
_IMAGE = {
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG\r\n\x1a\n": "a PNG image",
    b"BM": "a BMP image",
    b"II*\x00": "a TIFF image",
    b"MM\x00*": "a TIFF image",
}
_AUDIO = {
    b"ID3": "an MP3 sound file",
    b"\xff\xfb": "an MP3 sound file",
    b"\xff\xf3": "an MP3 sound file",
    b"\xff\xf1": "an AAC sound file",
    b"fLaC": "a FLAC sound file",
}
_OTHER = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
}
_PLAYLIST = {
    b"#EXTM3U": "an HLS playlist, not the video itself",
    b"ffconcat": "a concat list of other files, not a video",
    b"v=0": "an SDP session description, not a video",
    b"<MPD": "a DASH manifest, not the video itself",
}
_TABLES: tuple[tuple[Kind, dict[bytes, str]], ...] = (
    ("video", _VIDEO),
    ("image", _IMAGE),
    ("audio", _AUDIO),
    ("other", _OTHER),
)
_BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"styp", b"pnot")
_RIFF: dict[bytes, FileType] = {
    b"AVI ": FileType("video", "an AVI video"),
    b"WAVE": FileType("audio", "a WAV sound file"),
    b"WEBP": FileType("image", "a WebP image"),
}


def identify(file: SparseFile) -> FileType:
    """Identifies the file by its first 1,024 bytes."""
    descriptor = file.open_file()
    try:
        head = os.pread(descriptor, 1024, 0)
    finally:
        os.close(descriptor)
    if not head:
        return FileType("other", "an empty file")
    return (
        _match_boxes(head)
        or _match_magic(head)
        or _match_text(head)
        or FileType("other", "an unknown format")
    )


def _match_boxes(head: bytes) -> FileType | None:
    if head[4:8] in _BOXES:
        if head[8:12] in (b"avif", b"heic", b"heix", b"mif1"):
            return FileType("image", "a HEIF or AVIF image")
        return FileType("video", "an MP4 or QuickTime video")
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return FileType("video", "an MPEG transport stream")
    if head[:4] == b"OggS":
        return FileType("video", "an Ogg file")
    return None


def _match_magic(head: bytes) -> FileType | None:
    for kind, table in _TABLES:
        for magic, text in table.items():
            if head.startswith(magic):
                return FileType(kind, text)
    return None


def _match_text(head: bytes) -> FileType | None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, text in _PLAYLIST.items():
        if start.startswith(magic) or (magic == b"<MPD" and magic in start):
            return FileType("playlist", text)
    if start[:14].lower().startswith((b"<!doctype html", b"<html", b"<head")):
        return FileType("other", "a web page")
    if start.startswith((b"<?xml", b"<")):
        return FileType("other", "an XML document (an error message of the storage?)")
    if start.startswith((b"{", b"[")):
        return FileType("other", "JSON")
    if all(byte >= 0x20 or byte in b"\t\r\n\f" for byte in head):
        return FileType("other", "text")
    return None
