"""Line: a row as it stands in its source, and the ids and URLs that names of files become."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from videoqa.contract import as_url, redact_url
from videoqa.storage import quote_name

__all__ = ["MAX_NAME", "Line", "fitting", "named"]

MAX_NAME = 250
"""Bytes of a custom_id as a file's name, to which `.json` comes."""


@dataclass(frozen=True)
class Line:
    """A row as it stands in its source."""

    number: int
    """Of the line from 1; of a folder, a glob or a prefix: of the video."""
    fields: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    """Why there are no fields."""


def named(number: int, name: str, base: Path) -> Line:
    """A path or URL; its id is itself, without what may be secret in it."""
    shown = redact_url(name) if "://" in name else name
    if shown != name:
        shown += "#" + digest_of(name)
    return Line(number, {"url": as_url(name, base), "custom_id": fitting(shown)})


def fitting(name: str) -> str:
    """An id out of a path: text, and short enough to be a file's name; else its end and a digest."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    if len(text) <= 256 and len(unquote(quote_name(text)).encode()) <= MAX_NAME:
        return text
    end = text
    while len(unquote(quote_name(end)).encode()) > MAX_NAME - 20:
        end = end[1:]
    return f"{digest_of(text)}-{end}"


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
