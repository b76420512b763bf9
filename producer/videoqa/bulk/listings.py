"""Listings: the rows that a SOURCE names, be it a folder, a glob, an S3 prefix or a manifest file.

Yields `SourceLine`s; the manifest checks them against the contract. Holds one line at a time, and
the names of one folder.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote

from videoqa.bulk.manifest_files import (
    SourceLine,
    as_custom_id,
    line_of_name,
    read_csv,
    read_jsonl,
    read_list,
)
from videoqa.errors import InvalidRequest
from videoqa.storage import ObjectStore

__all__ = ["VIDEO_SUFFIXES", "list_rows"]

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts",
    ".wmv", ".flv", ".3gp", ".ogv", ".mxf", ".vob",
)  # fmt: skip
"""The files taken from folders, globs and prefixes; lists and manifests may name any file."""

_MAX_PATH_BYTES = 4096
"""Longest path that Linux opens."""


def list_rows(
    sources: Sequence[str], store: ObjectStore, stdin: IO[bytes] | None
) -> Iterator[SourceLine]:
    """Yields all rows of the sources; the source `-` is read from `stdin`.

    Raises:
        InvalidRequest: there is no such source. OutputError: the prefix cannot be listed.
    """
    if "" in sources:
        raise InvalidRequest(
            "got an empty source, expected a folder, a file, a glob or a URL", param="source"
        )
    if len(sources) != 1:
        return (line_of_name(n, name, Path()) for n, name in enumerate(sources, 1))
    (source,) = sources
    if source == "-" and stdin is not None:
        return read_list(stdin, Path())
    if source.startswith("s3://") and not source.lower().endswith(VIDEO_SUFFIXES):
        return _list_prefix(source if source.endswith("/") else source + "/", store)
    if "://" in source:
        return iter([line_of_name(1, source, Path())])
    return _list_local(source)


def _list_local(source: str) -> Iterator[SourceLine]:
    if len(os.fsencode(source)) > _MAX_PATH_BYTES:
        raise InvalidRequest(
            f"got a source of {len(source)} characters, expected a path, a glob or a URL",
            param="source",
        )
    path = Path(source)
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        return iter([line_of_name(1, source, Path())])
    if path.is_dir():
        return _list_folder(path)
    if path.is_file():
        return _read_manifest_file(path)
    if glob.has_magic(source):
        return _list_glob(source)
    raise InvalidRequest(
        f"there is no {source!r}, expected a folder, a glob in quotes, s3://bucket/prefix/, or a "
        ".jsonl, .csv or .txt file",
        param="source",
    )


def _read_manifest_file(path: Path) -> Iterator[SourceLine]:
    readers = {".jsonl": read_jsonl, ".ndjson": read_jsonl, ".csv": read_csv, ".txt": read_list}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidRequest(
            f"got the file {path}, expected .jsonl, .csv, .txt or a video", param="source"
        )
    with path.open("rb") as file:
        yield from reader(file, path.absolute().parent)


# -- places that hold videos


def _list_folder(folder: Path) -> Iterator[SourceLine]:
    number = 0
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if _is_video(name):
                number += 1
                path = Path(parent, name)
                relative = os.fspath(path.relative_to(folder))
                yield _line_of_video(number, path.absolute().as_uri(), relative)


def _list_glob(pattern: str) -> Iterator[SourceLine]:
    fixed = Path(pattern)
    while glob.has_magic(str(fixed)):
        fixed = fixed.parent
    number = 0
    for name in sorted(glob.iglob(pattern, recursive=True)):
        if _is_video(name) and Path(name).is_file():
            number += 1
            relative = os.path.relpath(name, fixed)
            yield _line_of_video(number, Path(name).absolute().as_uri(), relative)


def _list_prefix(prefix: str, store: ObjectStore) -> Iterator[SourceLine]:
    """Yields the videos below a prefix. Inputs name keys as they are, the store percent-encodes them."""
    bucket, _, start = prefix.removeprefix("s3://").partition("/")
    number = 0
    for url in store.list(f"s3://{bucket}/{quote(start)}"):
        key = unquote(url.removeprefix(f"s3://{bucket}/"))
        if _is_video(key):
            number += 1
            yield _line_of_video(number, f"s3://{bucket}/{key}", key[len(start) :])


def _is_video(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base.lower().endswith(VIDEO_SUFFIXES) and not base.startswith(".")


def _line_of_video(number: int, url: str, name: str) -> SourceLine:
    return SourceLine(number, {"url": url, "custom_id": as_custom_id(name)})
