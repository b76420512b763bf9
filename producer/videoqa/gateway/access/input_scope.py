"""Input scope: the URLs that a key may have workers read.

Workers read `s3://` and `file://` with their own credentials, so a key names the buckets and folders that it may use,
and has none by default. A URL is compared with a prefix part by part: the scheme, the host and port or the bucket as a
worker takes them from the URL, and whole segments of the path, so that `s3://videos` is not `s3://videos-other`, nor
`/a` a prefix of `/ab`. A path that means another one to some program (`..`, also encoded once or more often) is inside
no prefix.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from videoqa.contract import DEFAULT_PORTS, check_bucket, is_s3_url, parse_s3_url, split_url
from videoqa.errors import InvalidRequest

__all__ = ["ANY_HTTP", "EVERYTHING", "check_prefixes", "is_inside"]

ANY_HTTP = ("http://", "https://")
"""Scope of a key that names none: http(s) URLs of all hosts, which workers read without credentials."""

EVERYTHING = (*ANY_HTTP, "s3://", "file://")
"""Scope of whoever runs the workers, whose own bounds hold then: their credentials and VIDEOQA_FILE_ROOTS."""

_CONTROL = re.compile(r"[\x00-\x20\x7f\\]")
"""Characters that parsers drop, or read as a slash."""
_MOST_DECODINGS = 8
_EXPECTED = "s3://bucket/prefix/, https://host/prefix/, https:// for all hosts, or file:///folder/"


@dataclass(frozen=True)
class _Place:
    """A URL, taken apart as the worker does it."""

    scheme: str
    authority: tuple[str, int | None]
    """Host and port, or the bucket; an empty host in a prefix is any host."""
    segments: tuple[str, ...]


def check_prefixes(prefixes: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the prefixes of a scope as they are.

    Raises:
        InvalidRequest: one is none, or all buckets, or all files of a worker.
    """
    if prefixes != EVERYTHING:
        for prefix in prefixes:
            _check_prefix(prefix)
    return prefixes


def _check_prefix(prefix: str) -> None:
    if prefix in ANY_HTTP:
        return
    try:
        place = _take_apart(prefix)
        if place.scheme != "s3" and re.search("[?#@]", prefix):
            raise ValueError("it has a user, a query or a fragment")
        if not place.authority[0] and place.scheme != "file":
            raise ValueError("it has no bucket, or no host")
        if place.scheme == "file" and not any(place.segments):
            raise ValueError("it is all files of a worker")
    except ValueError as error:
        raise InvalidRequest(
            f"got the input prefix {prefix!r:.200}: {error}; expected {_EXPECTED}", param="inputs"
        ) from error


def is_inside(url: str, prefixes: Sequence[str]) -> bool:
    """Tells if a URL is inside one of the prefixes."""
    try:
        place = _take_apart(url)
    except ValueError:
        return False
    return any(_covers(prefix, place) for prefix in prefixes)


def _covers(prefix: str, place: _Place) -> bool:
    if prefix in EVERYTHING:
        return place.scheme == prefix.partition(":")[0]
    wanted = _take_apart(prefix)
    segments = wanted.segments
    if segments and segments[-1] == "":  # `a/` is `a` and a segment behind it
        segments = segments[:-1]
        if len(place.segments) <= len(segments):
            return False
    return (place.scheme, place.authority) == (wanted.scheme, wanted.authority) and place.segments[
        : len(segments)
    ] == segments


def _take_apart(url: str) -> _Place:
    """Takes a URL apart; raises ValueError for one that programs could read in different ways."""
    if is_s3_url(url):
        return _take_object_apart(url)
    if _CONTROL.search(url):
        raise ValueError("it has a space, a backslash or a control character; write %XX")
    parts = split_url(url)
    scheme = parts.scheme
    if scheme not in ("http", "https", "file"):
        raise ValueError(f"its scheme is {scheme!r:.50}")
    _refuse_dots(parts.path)
    segments = tuple(
        unquote(part, errors="surrogateescape") for part in parts.path.removeprefix("/").split("/")
    )
    if scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise ValueError("it has a host")
        return _Place(scheme, ("", None), segments)
    host = parts.hostname or ""
    if parts.netloc.count("@") > 1 or not host:
        raise ValueError("its host is not clear")
    ascii_host = host if host.isascii() else host.encode("idna").decode()
    authority = ascii_host.lower().removesuffix("."), parts.port or DEFAULT_PORTS[scheme]
    return _Place(scheme, authority, segments)


def _take_object_apart(url: str) -> _Place:
    """Takes an `s3://` URL apart: not quoted, as a worker reads it, so that any character is one of the key."""
    bucket, _, key = url[len("s3://") :].partition("/")
    if key.strip("/"):
        key = parse_s3_url(url).key
    if bucket:
        check_bucket(bucket)
    _refuse_dots(key)
    return _Place("s3", (bucket, None), tuple(key.split("/")))


def _refuse_dots(path: str) -> None:
    """Refuses `.` and `..` between slashes, also if they or the slashes are encoded once or more often."""
    for _ in range(_MOST_DECODINGS):
        segments = re.split(r"[/\\]", path)
        # Some servers drop what is behind a semicolon.
        if any(segment.partition(";")[0] in (".", "..") for segment in segments):
            raise ValueError("its path has a segment '.' or '..'")
        decoded = unquote(path, errors="surrogateescape")
        if decoded == path:
            return
        path = decoded
    raise ValueError("its path is encoded many times")
