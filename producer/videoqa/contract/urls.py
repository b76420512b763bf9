"""URLs from outside: split within bounds, and made of paths."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

__all__ = ["MAX_URL", "as_url", "is_image_url", "split_url"]

MAX_URL = 8192
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_LONG_HOST = re.compile(r"[^/?#]*//[^/?#]{1025}")
"""`urlsplit` takes quadratic time for accents in a host: 5 seconds for 100 kB of them."""


def split_url(url: str) -> SplitResult:
    """Splits a URL; every one that somebody else wrote is split here.

    Raises:
        ValueError: it is too long, or its host cannot be read.
    """
    if len(url) > MAX_URL or _LONG_HOST.match(url):
        raise ValueError(
            f"got a URL of {len(url)} characters, expected at most {MAX_URL}, and 1024 in its host"
        )
    try:
        return urlsplit(url)
    except ValueError:  # whose message may quote a password
        raise ValueError("got no valid host, expected scheme://host/path") from None


def is_image_url(url: str) -> bool:
    """Returns True if the URL's path ends like that of a picture file."""
    try:
        return split_url(url).path.lower().endswith(IMAGE_SUFFIXES)
    except ValueError:
        return False


def as_url(name: str, base: Path = Path()) -> str:
    """Turns a path, below `base` if it is relative, into a file:// URL; leaves a URL as it is.

    An empty name, which would be the folder itself, stays empty, and the contract refuses it.
    """
    if not name or "://" in name:
        return name
    path = (base / name).absolute()
    return (path.resolve() if ".." in path.parts else path).as_uri()
