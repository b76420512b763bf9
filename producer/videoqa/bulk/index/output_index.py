"""The index of OUTPUT: for each row, which objects its line was made of, and which request they answer.

One file, index.jsonl, so that a run that goes on reads it and the listing of OUTPUT, and no object. An
entry counts only for the versions of the objects that it names: whatever else is read again. So the
index may be old or lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple

__all__ = ["INDEX_NAME", "IndexEntry", "dump_index", "parse_index"]

INDEX_NAME = "index.jsonl"


class IndexEntry(NamedTuple):
    """The outcome of one row, as its objects tell it."""

    name: str
    """`object_name` of the row."""
    digest: str
    """Digest of the request that the outcome belongs to."""
    result: str | None = None
    """Version of the result object; None: there is none."""
    result_digest: str | None = None
    """Digest of the request that the result object answers."""
    result_job_id: str | None = None
    """Job of the result object, which the row's next job replaces."""
    failure: str | None = None
    """Version of the failure's object; None: there is none."""
    job_id: str | None = None
    subtitles: str = ""
    """Kind and place of the subtitle files that were written, as `str(Subtitles)`."""
    code: str | None = None
    """Error code of the failure, if that is the outcome; None: the result is."""
    message: str | None = None


def dump_index(file: IO[bytes], lines_version: str | None, entries: Iterable[IndexEntry]) -> None:
    """Writes the index of a results.jsonl of this version."""
    file.write(json.dumps({"results.jsonl": lines_version}).encode() + b"\n")
    for entry in entries:
        file.write(json.dumps(_shorten(entry)).encode() + b"\n")


def parse_index(file: IO[bytes]) -> tuple[str | None, Iterator[IndexEntry]]:
    """Returns the version of the results.jsonl that the index belongs to, and its entries."""
    try:
        version = json.loads(file.readline())["results.jsonl"]
    except (ValueError, KeyError, TypeError):
        return None, iter(())
    return version, _parse_entries(file)


def _parse_entries(file: IO[bytes]) -> Iterator[IndexEntry]:
    for line in file:
        try:
            values = json.loads(line)
        except ValueError:  # torn, or some other file: the rest is read from the objects
            return
        if isinstance(values, list) and len(values) == len(IndexEntry._fields):
            yield _lengthen(IndexEntry(*values))


def _shorten(entry: IndexEntry) -> IndexEntry:
    """Leaves out what stands twice in the entry of a row with a result."""
    return entry if entry.code else entry._replace(result_digest=None, result_job_id=None)


def _lengthen(entry: IndexEntry) -> IndexEntry:
    if entry.code:
        return entry
    return entry._replace(result_digest=entry.digest, result_job_id=entry.job_id)
