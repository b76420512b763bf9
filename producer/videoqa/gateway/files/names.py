"""Names: ids of files, which sort by time, and the names that callers and stores give them."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from videoqa.contract import IMAGE_SUFFIXES
from videoqa.errors import InvalidRequest
from videoqa.gateway.base62 import ALPHABET, draw

__all__ = ["FILE_ID", "check_filename", "draw_id", "name_object", "read_time_ms", "show_filename"]

_TIME_DIGITS, _RANDOM_DIGITS = 8, 16
FILE_ID = rf"file-[0-9A-Za-z]{{{_TIME_DIGITS + _RANDOM_DIGITS}}}"
"""Pattern of a file's id."""
_ID = re.compile(rf"[a-z]+[-_]([0-9A-Za-z]{{{_TIME_DIGITS}}})[0-9A-Za-z]{{{_RANDOM_DIGITS}}}")
_MOST_NAME_BYTES = 255
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
_PICTURES = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"GIF87a", ".gif"),
    (b"GIF89a", ".gif"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
)
_HEIF_SUFFIXES = dict.fromkeys((b"heic", b"heix", b"mif1"), ".heic") | {b"avif": ".avif"}
_UNMARKED = (".bmp", ".heic", ".heif", ".hif", ".avif", ".ico", ".jp2")
"""Suffixes of pictures that more than these bytes may mark."""


def draw_id(now_s: float, kind: str = "file-") -> str:
    """Returns an id with the time in its first digits and 95 random bits behind it."""
    value, digits = int(now_s * 1000), ""
    for _ in range(_TIME_DIGITS):
        value, digit = divmod(value, 62)
        digits = ALPHABET[digit] + digits
    return kind + digits + draw(_RANDOM_DIGITS)


def read_time_ms(given: str) -> int:
    """Returns the time in an id; raises ValueError for what is none."""
    match = _ID.fullmatch(given) if len(given) < 100 else None
    if match is None:
        raise ValueError("it is no id")
    value = 0
    for digit in match[1]:
        value = value * 62 + ALPHABET.index(digit)
    return value


def check_filename(name: str, param: str = "file") -> str:
    """Returns a caller's name of a file as it is.

    Raises:
        InvalidRequest: it is empty, a path, or has characters that a header or a terminal would obey.
    """
    if (
        not name
        or name in (".", "..")
        or not name.isprintable()
        or "/" in name
        or "\\" in name
        or len(name.encode(errors="replace")) > _MOST_NAME_BYTES
    ):
        raise InvalidRequest(
            f"got the file name {name!r:.100}, expected 1 to {_MOST_NAME_BYTES} bytes without a slash, a backslash and "
            "control characters",
            param=param,
        )
    return name


def show_filename(name: str) -> str:
    """Returns a file's name for the header Content-Disposition: in ASCII, and whole after RFC 8187."""
    from urllib.parse import quote

    plain = re.sub(r'[^ !#-\[\]-~]|[";%]', "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def name_object(filename: str, beginning: bytes) -> str:
    """Returns the name of a file's object, whose suffix says if it is a picture or a video.

    Pictures are known by their first bytes, so that one without a suffix, or with another one, is taken for what it is.
    """
    for mark, suffix in _PICTURES:
        if beginning.startswith(mark):
            return f"content{suffix}"
    if beginning[:4] == b"RIFF" and beginning[8:12] == b"WEBP":
        return "content.webp"
    if beginning[4:8] == b"ftyp" and beginning[8:12] in _HEIF_SUFFIXES:
        return f"content{_HEIF_SUFFIXES[beginning[8:12]]}"
    suffix = PurePosixPath(filename).suffix.lower()
    if (
        suffix in IMAGE_SUFFIXES and suffix not in _UNMARKED
    ):  # the bytes are not those of such a picture
        suffix = ""
    return f"content{suffix}" if _SUFFIX.fullmatch(suffix) else "content"
