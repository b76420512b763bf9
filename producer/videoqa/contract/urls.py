"""URLs from outside: split within bounds, and made of paths."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

__all__ = [
    "DEFAULT_PORTS",
    "IMAGE_SUFFIXES",
    "MAX_URL",
    "MAX_WEBHOOK_URL",
    "S3Address",
    "as_url",
    "check_bucket",
    "guess_kind",
    "is_file_id",
    "is_image_url",
    "is_s3_url",
    "parse_s3_url",
    "split_url",
]

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URL = 8192
MAX_WEBHOOK_URL = 2048
"""Each of a job's calls has it in Redis for days."""
MAX_KEY_BYTES = 1024
"""Longest key of an object, in UTF-8."""
_BUCKET = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?")
_IP_ADDRESS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".apng", ".tif", ".tiff", ".heic", ".heif", ".hif",
    ".avif", ".ico", ".jp2",
)  # fmt: skip
"""Suffixes of picture files."""
MOVING_SUFFIXES = (".gif", ".webp", ".apng")
"""Those that are as often animations: a bare URL is then a video, and a worker reads a still as an image."""
_FILE_ID = re.compile(r"file-[0-9A-Za-z]{24}")
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


@dataclass(frozen=True)
class S3Address:
    """An input's `s3://` URL, taken apart."""

    bucket: str
    key: str
    version_id: str | None


def is_s3_url(url: str) -> bool:
    """Tells if the URL has the scheme s3, in small or capital letters."""
    return url[:5].lower() == "s3://"


def parse_s3_url(url: str) -> S3Address:
    """Takes an input's `s3://` URL apart: it is not quoted, and the key is all between bucket and version.

    Raises:
        ValueError: its bucket or its key is none.
    """
    if len(url) > MAX_URL:
        raise ValueError(f"got a URL of {len(url)} characters, expected at most {MAX_URL}")
    bucket, _, rest = url[len("s3://") :].partition("/")
    key, mark, version_id = rest.partition("?versionId=")
    if not bucket or not key.strip("/"):
        raise ValueError("got no bucket or no key, expected s3://bucket/key")
    check_bucket(bucket)
    if {".", ".."} & set(key.split("/")):
        # HTTP clients resolve them, and would ask for another object.
        raise ValueError("got a key with a segment '.' or '..', expected one without")
    if "\0" in key:
        raise ValueError("got a key with a NUL character in it, expected one without")
    size_bytes = len(key.encode(errors="surrogatepass"))
    if size_bytes > MAX_KEY_BYTES:
        raise ValueError(f"got a key of {size_bytes} bytes, expected {MAX_KEY_BYTES} at most")
    return S3Address(bucket, key, version_id if mark else None)


def check_bucket(name: str) -> None:
    """Raises ValueError for a name that no store takes for a bucket, or that is an access point's ARN.

    Capitals, underscores and more than 63 characters are old buckets of AWS, or those of other stores.
    """
    if "@" in name:
        raise ValueError("got credentials in an s3:// URL, expected s3://bucket/key")
    if name.startswith("arn:"):
        raise ValueError(
            "got the ARN of an access point, expected a bucket's name or the access point's alias, which ends in "
            "-s3alias: s3://alias/key"
        )
    if not _BUCKET.fullmatch(name) or ".." in name or _IP_ADDRESS.fullmatch(name):
        raise ValueError(
            "got something else before the key, expected a bucket's name: s3://bucket/key"
        )


def is_image_url(url: str) -> bool:
    """Returns True if the URL's path, or the key of an object, ends like the name of a picture file."""
    return _has_suffix(url, IMAGE_SUFFIXES)


def guess_kind(url: str) -> Literal["image", "video"]:
    """Returns the kind that a bare URL stands for, by the suffix of its path."""
    return "image" if is_image_url(url) and not _has_suffix(url, MOVING_SUFFIXES) else "video"


def _has_suffix(url: str, suffixes: tuple[str, ...]) -> bool:
    try:
        path = parse_s3_url(url).key if is_s3_url(url) else split_url(url).path
    except ValueError:
        return False
    return path.lower().endswith(suffixes)


def is_file_id(url: str) -> bool:
    """Tells if this is the id of a file that was uploaded to a gateway, in place of a URL."""
    return len(url) < 100 and _FILE_ID.fullmatch(url) is not None


def as_url(name: str, base: Path = Path()) -> str:
    """Turns a path, below `base` if it is relative, into a file:// URL; leaves a URL or a file's id as it is.

    An empty name, which would be the folder itself, stays empty, and the contract refuses it.
    """
    if not name or "://" in name or is_file_id(name):
        return name
    path = (base / name).absolute()
    return (path.resolve() if ".." in path.parts else path).as_uri()
