"""Listings: the rows that SOURCEs name, be they folders, globs, S3 prefixes, manifest files or videos.

Yields `SourceLine`s; the manifest checks them against the contract. Holds one line at a time, and
the names of one folder.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote

from videoqa.bulk.manifest.folders import FolderWalker, fixed_folder
from videoqa.bulk.manifest.manifest_files import (
    SourceLine,
    line_of_name,
    read_csv,
    read_jsonl,
    read_list,
)
from videoqa.bulk.manifest.names import canonical_url, decode_path, local_path
from videoqa.contract import VIDEO_SUFFIXES
from videoqa.errors import InvalidRequest
from videoqa.storage import ObjectStore

__all__ = ["find_place", "list_rows"]

_MAX_PATH_BYTES = 4096
"""Longest path that Linux opens."""


def list_rows(
    sources: Sequence[str], store: ObjectStore, stdin: IO[bytes] | None, walker: FolderWalker
) -> Iterator[SourceLine]:
    """Yields all rows of the sources; the source `-` is read from `stdin`.

    Raises:
        InvalidRequest: there is no such source, or it cannot be read. OutputError: the prefix cannot be
            listed.
    """
    if "" in sources:
        raise InvalidRequest(
            "got an empty source, expected a folder, a file, a glob or a URL", param="source"
        )
    walker.begin()
    for source in sources:
        try:
            for line in _list_source(source, store, stdin, walker):
                # With several sources, the number of a line does not tell where it stands.
                yield replace(line, source=decode_path(source)) if len(sources) > 1 else line
        except OSError as error:
            raise InvalidRequest(
                f"can't read {decode_path(source)}: {error.strerror or error}; check its permissions",
                param="source",
            ) from error


def find_place(source: str) -> str:
    """Returns the folder that holds a source's videos, absolute, or the prefix, which ends in a slash."""
    if source.startswith("s3://"):
        is_video = source.lower().endswith(VIDEO_SUFFIXES)
        return (source.rpartition("/")[0] if is_video else source.rstrip("/")) + "/"
    if source == "-":
        return os.getcwd()
    if "://" in source and not source.startswith("file:///"):
        return source.rpartition("/")[0] + "/"
    path = local_path(canonical_url(source))
    if not os.path.isdir(path):
        path = fixed_folder(os.fspath(path)) if glob.has_magic(source) else path.parent
    return os.fspath(path)


def _list_source(
    source: str, store: ObjectStore, stdin: IO[bytes] | None, walker: FolderWalker
) -> Iterable[SourceLine]:
    if source == "-" and stdin is not None:
        return read_list(stdin, Path())
    if source.startswith("s3://") and not source.lower().endswith(VIDEO_SUFFIXES):
        return _list_prefix(source if source.endswith("/") else source + "/", store, walker)
    if "://" in source:
        return [line_of_name(1, source, Path())]
    return _list_local(source, walker)


def _list_local(source: str, walker: FolderWalker) -> Iterable[SourceLine]:
    if len(os.fsencode(source)) > _MAX_PATH_BYTES:
        raise InvalidRequest(
            f"got a source of {len(source)} characters, expected a path, a glob or a URL",
            param="source",
        )
    path = Path(source)
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        return [line_of_name(1, source, Path())]
    if path.is_dir():
        return _number_videos(walker.walk(path), walker)
    if path.is_file():
        return _read_manifest_file(path)
    if glob.has_magic(source):
        return _number_videos(walker.expand(source), walker)
    raise InvalidRequest(
        f"there is no {decode_path(source)!r}, expected a folder, a glob in quotes, s3://bucket/prefix/, "
        "or a .jsonl, .csv or .txt file",
        param="source",
    )


def _read_manifest_file(path: Path) -> Iterator[SourceLine]:
    readers = {".jsonl": read_jsonl, ".ndjson": read_jsonl, ".csv": read_csv, ".txt": read_list}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidRequest(
            f"got the file {decode_path(path)}, expected .jsonl, .csv, .txt or a video",
            param="source",
        )
    with path.open("rb") as file:
        yield from reader(file, path.absolute().parent)


# -- places that hold videos


def _number_videos(paths: Iterator[Path], walker: FolderWalker) -> Iterator[SourceLine]:
    videos = (path for path in paths if _is_video(path.name, walker))
    for number, path in enumerate(videos, 1):
        yield SourceLine(number, {"url": canonical_url(os.fspath(path))})


def _list_prefix(prefix: str, store: ObjectStore, walker: FolderWalker) -> Iterator[SourceLine]:
    """Yields the videos below a prefix. Inputs name keys as they are, the store percent-encodes them."""
    bucket, _, start = prefix.removeprefix("s3://").partition("/")
    number = 0
    for url in store.list(f"s3://{bucket}/{quote(start)}"):
        key = unquote(url.removeprefix(f"s3://{bucket}/"))
        if _is_video(key.rpartition("/")[2], walker):
            number += 1
            yield SourceLine(number, {"url": f"s3://{bucket}/{key}"})


def _is_video(name: str, walker: FolderWalker) -> bool:
    """Returns True for the name of a video; `walker` counts the others, but for hidden files."""
    if not name or name.startswith("."):
        return False
    is_video = name.lower().endswith(VIDEO_SUFFIXES)
    if not is_video:
        walker.count_other(name)
    return is_video
