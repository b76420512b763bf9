"""What a SOURCE names, line by line: a folder, a glob, an S3 prefix, JSONL, CSV or a list.

Yields the fields of requests as they stand there, or what is wrong with a line; whether the
fields make a request is the manifest's to say. Holds one line at a time, and the names of one folder.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote

from videoqa.bulk.line import Line, fitting, named
from videoqa.bulk.listed import read_csv, read_jsonl, read_list
from videoqa.errors import InvalidRequest
from videoqa.storage import ObjectStore

__all__ = ["VIDEO_SUFFIXES", "lines_of"]

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts",
    ".wmv", ".flv", ".3gp", ".ogv", ".mxf", ".vob",
)  # fmt: skip
"""What is taken from folders and prefixes; lists and manifests may name anything."""


def lines_of(sources: Sequence[str], store: ObjectStore, stdin: IO[bytes] | None) -> Iterator[Line]:
    """All rows; `stdin` is what `-` stands for.

    Raises:
        InvalidRequest: there is no such source. OutputError: the prefix cannot be listed.
    """
    if "" in sources:
        raise InvalidRequest(
            "got an empty source, expected a folder, a file, a glob or a URL", param="source"
        )
    if len(sources) != 1:
        return (named(n, name, Path()) for n, name in enumerate(sources, 1))
    (source,) = sources
    if source == "-" and stdin is not None:
        return read_list(stdin, Path())
    if source.startswith("s3://") and not source.lower().endswith(VIDEO_SUFFIXES):
        return _prefix(source if source.endswith("/") else source + "/", store)
    path = Path(source)
    if "://" in source or (path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()):
        return iter([named(1, source, Path())])
    for fits, read in ((path.is_dir, _folder), (path.is_file, _file)):
        if fits():
            return read(path)
    if glob.has_magic(source):
        return _glob(source)
    raise InvalidRequest(
        f"there is no {source!r}, expected a folder, a glob in quotes, s3://bucket/prefix/, or a "
        ".jsonl, .csv or .txt file",
        param="source",
    )


def _file(path: Path) -> Iterator[Line]:
    readers = {".jsonl": read_jsonl, ".ndjson": read_jsonl, ".csv": read_csv, ".txt": read_list}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidRequest(
            f"got the file {path}, expected .jsonl, .csv, .txt or a video", param="source"
        )
    with path.open("rb") as file:
        yield from reader(file, path.absolute().parent)


# -- places that hold videos


def _folder(folder: Path) -> Iterator[Line]:
    number = 0
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if _is_video(name):
                number += 1
                path = Path(parent, name)
                yield _video(number, path.absolute().as_uri(), os.fspath(path.relative_to(folder)))


def _glob(pattern: str) -> Iterator[Line]:
    fixed = Path(pattern)
    while glob.has_magic(str(fixed)):
        fixed = fixed.parent
    number = 0
    for name in sorted(glob.iglob(pattern, recursive=True)):
        if _is_video(name) and Path(name).is_file():
            number += 1
            relative = os.path.relpath(name, fixed)
            yield _video(number, Path(name).absolute().as_uri(), relative)


def _prefix(prefix: str, store: ObjectStore) -> Iterator[Line]:
    """Inputs name keys as they are, objects of the store with percents."""
    bucket, _, start = prefix.removeprefix("s3://").partition("/")
    number = 0
    for url in store.list(f"s3://{bucket}/{quote(start)}"):
        key = unquote(url.removeprefix(f"s3://{bucket}/"))
        if _is_video(key):
            number += 1
            yield _video(number, f"s3://{bucket}/{key}", key[len(start) :])


def _is_video(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base.lower().endswith(VIDEO_SUFFIXES) and not base.startswith(".")


def _video(number: int, url: str, name: str) -> Line:
    return Line(number, {"url": url, "custom_id": fitting(name)})
