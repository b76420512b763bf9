"""Identifies a file by its first bytes, for messages and for the choice of a reader.

Knows magic numbers only, and does not try to open the file. Quotes none of its bytes: who may ask about
a file need not be who may read it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

from videoqa_worker.frames.sparse_file import SparseFile

__all__ = [
    "AVIF", "HEIF", "MATROSKA", "MP4", "MPEG_TS", "TEXT", "UNKNOWN", "WEBP", "WINDOWS_MEDIA", "FileType",
    "identify", "identify_head",
]  # fmt: skip

Kind = Literal["video", "image", "audio", "playlist", "other"]


@dataclass(frozen=True)
class FileType:
    """The type of a file; `text` completes the sentence "got ..."."""

    kind: Kind
    text: str
    advice: str = ""
    """The next step where there is one for this type."""
    demuxer: str = ""
    """FFmpeg's name of the format, where the operator may have to allow it."""
    may_move: bool = False
    """True for an image format that also holds animations."""


def _image(text: str) -> FileType:
    return FileType("image", text)


def _still_or_moving(text: str) -> FileType:
    return FileType("image", text, may_move=True)


def _picture_to_convert(text: str, advice: str = "convert it to JPEG or PNG") -> FileType:
    return FileType("other", text, advice)


UNKNOWN, TEXT = FileType("other", "an unknown format"), FileType("other", "text")
_RAW_ADVICE = "develop it, and send the JPEG or PNG"
_GIF = _still_or_moving("a GIF")
_PNG = _still_or_moving("a PNG image")
WEBP = _still_or_moving("a WebP image")
AVIF = _still_or_moving("an AVIF image")
HEIF = _image("a HEIF image")
MP4 = FileType("video", "an MP4 or QuickTime video")
MATROSKA = FileType("video", "a Matroska or WebM video")
MPEG_TS = FileType("video", "an MPEG transport stream")
WINDOWS_MEDIA = FileType("video", "a Windows Media video")
_JPEG_XL = _picture_to_convert("a JPEG XL image")
_RAW = _picture_to_convert("a camera's RAW picture", _RAW_ADVICE)

_MAGIC: dict[bytes, FileType] = {
    b"\x1aE\xdf\xa3": MATROSKA,
    b"OggS": FileType("video", "an Ogg file"),
    b"FLV\x01": FileType("video", "an FLV video"),
    b"KDK\0": FileType("video", "an FLV video of KuKu", demuxer="kux"),
    b"\x00\x00\x01\xba": FileType("video", "an MPEG video"),
    b"\x00\x00\x01\xb3": FileType("video", "an MPEG video"),
    b"\x00\x00\x01\xb0": FileType("video", "an MPEG-4 video stream", demuxer="m4v"),
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": WINDOWS_MEDIA,
    b"\xb7\xd8\x00\x20\x37\x49\xda\x11": FileType(
        "video", "a Windows TV recording (WTV)", demuxer="wtv"
    ),
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02": FileType(
        "video", "an MXF video", demuxer="mxf"
    ),
    b"\x1f\x07\x00": FileType("video", "a DV video", demuxer="dv"),
    b"DKIF": FileType("video", "an IVF video", demuxer="ivf"),
    b"\x12\x00\x0a": FileType("video", "an AV1 stream (OBU)", demuxer="obu"),
    b".RMF": FileType("video", "a RealMedia video", demuxer="rm"),
    b"nut/multimedia container": FileType("video", "a NUT video", demuxer="nut"),
    b"YUV4MPEG2 ": FileType("video", "a YUV4MPEG2 (Y4M) video", demuxer="yuv4mpegpipe"),
    b"SMK2": FileType("video", "a Smacker video", demuxer="smk"),
    b"SMK4": FileType("video", "a Smacker video", demuxer="smk"),
    b"BIKi": FileType("video", "a Bink video", demuxer="bink"),
    b"KB2": FileType("video", "a Bink video", demuxer="bink"),
    b"\x00\x00\x00\x00\x01\xbc": FileType("video", "a GXF video", demuxer="gxf"),
    b"NSVf": FileType("video", "a Nullsoft video (NSV)", demuxer="nsv"),
    b"NSVs": FileType("video", "a Nullsoft video (NSV)", demuxer="nsv"),
    b"NuppelVideo": FileType("video", "a NuppelVideo recording", demuxer="nuv"),
    b"MythTVVideo": FileType("video", "a NuppelVideo recording", demuxer="nuv"),
    b"\x84\x10\xff\xff\xff\xff": FileType("video", "an id RoQ video", demuxer="roq"),
    b"FILM": FileType("video", "a Sega FILM video", demuxer="film_cpk"),
    b"\x00\x0aSMJPEG": FileType("video", "an SMJPEG video", demuxer="smjpeg"),
    b"DHAV": FileType("video", "a Dahua camera's recording (DHAV)", demuxer="dhav"),
    b"DHII": FileType("video", "a Dahua camera's recording (DHAV)", demuxer="dhav"),
    b"MLVI": FileType("video", "a Magic Lantern RAW video (MLV)", demuxer="mlv"),
    b"FWS": FileType("video", "a Flash animation (SWF)", demuxer="swf"),
    b"CWS": FileType("video", "a Flash animation (SWF)", demuxer="swf"),
    b"GIF8": _GIF,
    b"\xff\xd8\xff": _still_or_moving("a JPEG image"),
    b"\x89PNG\r\n\x1a\n": _PNG,
    b"BM": _image("a BMP image"),
    b"\x00\x00\x00\x0cjP  \r\n\x87\n": _image("a JPEG 2000 image"),
    b"\xff\x4f\xff\x51": _image("a JPEG 2000 image"),
    b"IIRO": _RAW,
    b"IIRS": _RAW,
    b"MMOR": _RAW,
    b"IIU\0": _RAW,
    b"FUJIFILMCCD-RAW": _RAW,
    b"FOVb": _RAW,
    b"\0MRM": _RAW,
    b"II*\0\x10\0\0\0CR": _RAW,
    b"II*\x00": _image("a TIFF image"),
    b"MM\x00*": _image("a TIFF image"),
    b"II+\x00": _image("a TIFF image"),
    b"MM\x00+": _image("a TIFF image"),
    b"\xff\x0a": _JPEG_XL,
    b"\x00\x00\x00\x0cJXL \r\n\x87\n": _JPEG_XL,
    b"8BPS": _picture_to_convert("a Photoshop document"),
    b"gimp xcf": _picture_to_convert("a GIMP document"),
    b"\x76\x2f\x31\x01": _picture_to_convert("an OpenEXR image"),
    b"#?RADIANCE": _picture_to_convert("a Radiance HDR image"),
    b"DDS ": _picture_to_convert("a DDS texture"),
    b"qoif": _picture_to_convert("a QOI image"),
    b"\x0a\x05\x01\x08": _picture_to_convert("a PCX image"),
    b"P4\n": _picture_to_convert("a PBM image"),
    b"P5\n": _picture_to_convert("a PGM image"),
    b"P6\n": _picture_to_convert("a PPM image"),
    b"P7\n": _picture_to_convert("a PAM image"),
    b"BPG\xfb": _picture_to_convert("a BPG image"),
    b"AT&TFORM": _picture_to_convert("a DjVu document", "send its pages as PNG"),
    b"%!PS": _picture_to_convert("a PostScript document", "send its pages as PNG"),
    b"%PDF": FileType("other", "a PDF document", "send its pages as PNG images"),
    b"ID3": FileType("audio", "an MP3 sound file"),
    b"\xff\xfb": FileType("audio", "an MP3 sound file"),
    b"\xff\xf3": FileType("audio", "an MP3 sound file"),
    b"\xff\xf1": FileType("audio", "an AAC sound file"),
    b"fLaC": FileType("audio", "a FLAC sound file"),
    b"#!AMR": FileType("audio", "an AMR sound file"),
    b"PK\x03\x04": FileType("other", "a ZIP archive", "unpack it first"),
    b"\x1f\x8b": FileType("other", "a gzip archive", "unpack it first"),
    b"7z\xbc\xaf": FileType("other", "a 7z archive", "unpack it first"),
    b"Rar!": FileType("other", "a RAR archive", "unpack it first"),
    b"BZh": FileType("other", "a bzip2 archive", "unpack it first"),
    b"\xfd7zXZ\0": FileType("other", "an xz archive", "unpack it first"),
    b"\x28\xb5\x2f\xfd": FileType("other", "a Zstandard archive", "unpack it first"),
}
"""Types by the first bytes; of two that fit, the first one holds."""
_HLS = FileType(
    "playlist", "an HLS playlist, not the video itself",
    "download the video with a tool that joins its parts, and send the file",
)  # fmt: skip
_DASH = FileType(
    "playlist", "a DASH manifest, not the video itself",
    "download the video with a tool that joins its parts, and send the file",
)  # fmt: skip
_TEXTS: dict[bytes, FileType] = {
    b"#EXTM3U": _HLS,
    b"ffconcat": FileType("playlist", "a concat list of other files, not a video"),
    b"v=0": FileType("playlist", "an SDP session description, not a video"),
    b"[playlist]": FileType("playlist", "a playlist (PLS), not the video itself"),
    b"[Reference]": FileType("playlist", "a playlist (ASX), not the video itself"),
    b"WEBVTT": FileType("other", "WebVTT subtitles", "send the video"),
}
_MANIFESTS = {
    b"<MPD": _DASH,
    b"<SmoothStreamingMedia": FileType(
        "playlist", "a Smooth Streaming manifest, not the video itself", _DASH.advice
    ),
    b"<smil": FileType("playlist", "a SMIL playlist, not the video itself"),
    b"<asx": FileType("playlist", "a playlist (ASX), not the video itself"),
    b"<svg": _picture_to_convert("an SVG drawing", "rasterise it: export it as PNG"),
}
"""Kinds of XML, by an element that the file's beginning has."""
_PAGE = FileType(
    "other", "a web page",
    "open the URL in a browser: a site's page is not its video, whose own address or file is needed",
)  # fmt: skip
_VIDEO_SITE = re.compile(
    rb"og:video|twitter:player|<video[\s>]|schema\.org/VideoObject|ytInitialPlayerResponse"
    rb"|youtube\.com|youtu\.be|vimeo\.com|tiktok\.com|dailymotion\.com|twitch\.tv|bilibili\.com",
    re.IGNORECASE,
)  # fmt: skip
_VIDEO_PAGE = FileType(
    "other", "a web page that shows a video, not the video itself",
    "send the address of the video file, or download it and send the file",
)  # fmt: skip
_BOXES = (
    b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"styp", b"pnot", b"sidx", b"uuid", b"meta",
)  # fmt: skip
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"miaf"}
_MOVING_HEIF_BRANDS = {b"hevc", b"hevx", b"hevm", b"hevs", b"msf1"}
_RIFF: dict[bytes, FileType] = {
    b"AVI ": FileType("video", "an AVI video"),
    b"AMV ": FileType("video", "an AMV video"),
    b"WAVE": FileType("audio", "a WAV sound file"),
    b"WEBP": WEBP,
}
_ICONS = {b"\0\0\1\0": _image("an icon (ICO)"), b"\0\0\2\0": _image("a cursor (CUR)")}
"""Icons have a count of pictures behind these bytes, with which an MPEG stream may begin as well."""
_HEAD_BYTES = 4096
_UPLOAD_FRAME = re.compile(rb"[0-9A-Fa-f]{1,16}(;chunk-signature=[0-9a-f]{64})?\r\n")
_RUN_IN_MAGIC = b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02"
"""The partition key with which an MXF file begins, after a run-in of up to 64 KB (SMPTE ST 377-1, 6.5)."""


def identify(file: SparseFile) -> FileType:
    """Identifies the file by its first 4,096 bytes."""
    descriptor = file.open_file()
    try:
        head = os.pread(descriptor, _HEAD_BYTES, 0)
    finally:
        os.close(descriptor)
    return identify_head(head)


def identify_head(head: bytes) -> FileType:
    """Identifies a file whose first bytes are at hand; see `identify`."""
    if not head:
        return FileType(
            "other", "an empty file", "check that its upload or the program that wrote it has ended"
        )
    return (
        _match_structure(head)
        or _match_magic(head)
        or _match_framing(head)
        or _match_text(head)
        or _match_run_in(head)
        or UNKNOWN
    )


def _match_structure(head: bytes) -> FileType | None:
    if head[4:8] in _BOXES:
        return _match_brands(head) if head[4:8] == b"ftyp" else MP4
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if _has_sync_bytes(head, 0, 188) or _has_sync_bytes(head, 4, 192):
        return MPEG_TS
    if head[257:262] == b"ustar":
        return FileType("other", "a tar archive", "unpack it first")
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return FileType("audio", "an AIFF sound file")
    pictures = int.from_bytes(head[4:6], "little")
    return _ICONS.get(head[:4]) if 0 < pictures <= 256 and head[9:10] == b"\0" else None


def _has_sync_bytes(head: bytes, first: int, apart: int) -> bool:
    """Returns True if each of the first three packets of a transport stream begins as it must."""
    return len(head) > first + 2 * apart and all(
        head[first + n * apart] == 0x47 for n in range(3)
    )  # fmt: skip


def _match_brands(head: bytes) -> FileType:
    """Tells pictures from videos by the brands of the file type box (ISO/IEC 23008-12, 10)."""
    size = min(max(16, int.from_bytes(head[:4], "big")), 1024)
    major, others = head[8:12], {head[at : at + 4] for at in range(16, size - 3, 4)}
    brands = {major} | others
    if major in (b"crx ", b"CR3 "):
        return _RAW
    if major in _AVIF_BRANDS or (major in (b"mif1", b"msf1") and brands & _AVIF_BRANDS):
        return AVIF
    if major in _HEIF_BRANDS:
        return HEIF
    if major in _MOVING_HEIF_BRANDS:
        return FileType("video", "a HEIF image sequence")
    return MP4


def _match_magic(head: bytes) -> FileType | None:
    return next((known for magic, known in _MAGIC.items() if head.startswith(magic)), None)


def _match_framing(head: bytes) -> FileType | None:
    """Tells an upload whose frames a store has kept with the content: AWS' clients send `SIZE;chunk-signature=...`."""
    frame = _UPLOAD_FRAME.match(head)
    if frame is None:
        return None
    if not frame[1]:  # a size alone is a number in a text as well
        inner = head[frame.end() :]
        if (_match_structure(inner) or _match_magic(inner)) is None:
            return None
    return FileType(
        "other",
        "an upload with the frames of aws-chunked among its bytes, which its store did not take out",
        "upload it again without (AWS_REQUEST_CHECKSUM_CALCULATION=when_required, or a newer store)",
    )


def _match_text(head: bytes) -> FileType | None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, known in _TEXTS.items():
        if start.startswith(magic):
            return known
    if start.startswith(b"<"):
        return _match_markup(start)
    if start.startswith((b"{", b"[")):
        return FileType("other", "JSON")
    if all(byte >= 0x20 or byte in b"\t\r\n\f" for byte in head[:1024]):
        return TEXT
    return None


def _match_markup(start: bytes) -> FileType:
    beginning = start[:1024].lower()
    if beginning.startswith((b"<!doctype html", b"<html", b"<head")) or b"<html" in beginning:
        return _VIDEO_PAGE if _VIDEO_SITE.search(start) else _PAGE
    for element, known in _MANIFESTS.items():
        if element in start:
            return known
    return FileType("other", "an XML document (an error message of the storage?)")


def _match_run_in(head: bytes) -> FileType | None:
    return _MAGIC[_RUN_IN_MAGIC] if _RUN_IN_MAGIC in head else None
