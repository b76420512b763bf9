"""Names of rows: their custom_ids, the names of their objects in OUTPUT, and the URLs of their videos."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import quote, unquote, unquote_to_bytes

from videoqa.contract import MAX_URL, quote_name, split_url

__all__ = [
    "MAX_NAME_BYTES",
    "as_custom_id",
    "canonical_url",
    "decode_path",
    "is_short_name",
    "local_path",
    "object_name",
    "short_digest",
]

MAX_CUSTOM_ID = 256
"""Characters, by the contract."""
MAX_NAME_BYTES = 250
"""Size of a custom_id as a file's name, to which `.json` is added; file systems allow 255."""


def local_path(url: str) -> Path:
    """Returns the path of an input's file:// URL, whose bytes may be those of any name."""
    return Path(os.fsdecode(unquote_to_bytes(split_url(url).path)))


def decode_path(path: str | os.PathLike[str]) -> str:
    """Returns a path as text that has a UTF-8: bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def as_custom_id(name: str) -> str:
    """Returns a path as a custom_id; one too long for a file's name becomes a digest and its end."""
    text = decode_path(name)
    if len(text) <= MAX_CUSTOM_ID and is_short_name(text):
        return text
    end = text[-MAX_NAME_BYTES:]  # each turn below looks at all of it
    while not is_short_name(end, MAX_NAME_BYTES - 20):
        end = end[1:]
    return f"{short_digest(text)}-{end}"


def object_name(custom_id: str) -> str:
    """Returns the name under which OUTPUT holds a row's objects, without the suffix."""
    return unquote(quote_name(custom_id))


def is_short_name(custom_id: str, limit_bytes: int = MAX_NAME_BYTES) -> bool:
    """Returns True if the custom_id fits a file's name."""
    if custom_id.isascii() and 3 * len(custom_id) <= limit_bytes:
        return True  # even if each character becomes a percent sign and two digits
    return len(object_name(custom_id).encode()) <= limit_bytes


def short_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def canonical_url(name: str, base: Path = Path()) -> str:
    """Returns the one URL of a path or `file://` URL, whether it is relative, or has dots or double slashes.

    Other URLs stay as they are. An empty name, which would be the folder itself, stays empty.
    """
    if len(name) > MAX_URL:
        return name  # the contract refuses it
    if name.startswith("file:///"):
        path = local_path(name)
    elif not name or "://" in name:
        return name
    else:
        path = base / name
    if ".." in path.parts:
        path = _resolve_dots(path)
    return "file://" + quote(os.fsencode(path.absolute()))


def _resolve_dots(path: Path) -> Path:
    """Resolves a path up to its last `..`: behind a symbolic link, that is not the folder before it."""
    parts = path.parts
    last = len(parts) - parts[::-1].index("..")
    return Path(os.path.realpath(Path(*parts[:last])), *parts[last:])
