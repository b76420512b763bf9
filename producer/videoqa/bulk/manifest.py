"""Manifest: where the videos of an archive come from, a row each.

A folder, a glob, an `s3://bucket/prefix/`, a `.jsonl`, `.csv` or `.txt` file, or `-` for lines of stdin.
Read row by row, so that its length does not matter; knows nothing of jobs that run.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from glob import glob, has_magic
from hashlib import blake2b
from pathlib import Path
from typing import Any

from videoqa import errors
from videoqa.arguments import as_url
from videoqa.objects import ObjectStore
from videoqa.request import JobRequest, parse_request

__all__ = ["Row", "checked", "read_rows"]

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".ts", ".m2ts", ".mts", ".mpg",
    ".mpeg", ".wmv", ".ogv", ".3gp", ".gif",
)  # fmt: skip
COLUMNS = ("url", "custom_id", "question", "start", "end")
SHOWN = 20


@dataclass(frozen=True)
class Row:
    """One video of the archive."""

    number: int
    """Line of the manifest, or place in the listing, from 1."""
    custom_id: str
    fields: Mapping[str, Any]
    """Of its request, over the run's defaults."""
    problem: str = ""
    """Why it is no row."""

    def request(self, defaults: Mapping[str, Any]) -> JobRequest:
        """Raises RequestError."""
        return parse_request({**defaults, **self.fields, "custom_id": self.custom_id})


def read_rows(source: str, objects: ObjectStore) -> Iterator[Row]:
    """The rows of a source, in its order.

    Raises:
        InvalidRequest: there is no such source, or it is none of the kinds.
    """
    if source == "-":
        return _lines(sys.stdin, Path.cwd())
    if source.startswith("s3://") and source.endswith("/"):
        return _listed(
            (url, url.removeprefix(source)) for url in objects.list(source) if _is_video(url)
        )
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and _is_video(file.name))
        return _listed((as_url(str(file)), file.relative_to(path).as_posix()) for file in files)
    if has_magic(source) and not path.exists():
        return _listed((as_url(name), name) for name in sorted(glob(source, recursive=True)))
    readers = {".jsonl": _jsonl, ".csv": _csv, ".txt": _text}
    if path.suffix.lower() not in readers or not path.is_file():
        raise errors.InvalidRequest(
            f"got {source!r}, expected a folder, a glob, s3://bucket/prefix/, a .jsonl, .csv or .txt "
            "file, or - for lines of stdin",
            param="source",
        )
    return readers[path.suffix.lower()](path)


def checked(rows: Iterable[Row], defaults: Mapping[str, Any]) -> int:
    """How many rows there are.

    Raises:
        InvalidRequest: some are wrong, or name their job as another one does; says which.
    """
    count, problems = 0, []
    seen: set[bytes] = set()
    for row in rows:
        count += 1
        problem = row.problem or _problem(row, defaults)
        name = blake2b(row.custom_id.encode(errors="replace"), digest_size=8).digest()
        if not problem and name in seen:
            problem = f"custom_id {row.custom_id!r} came before, expected each once"
        seen.add(name)
        if problem:
            problems.append(f"  {row.number}: {problem}")
    if problems:
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise errors.InvalidRequest(
            f"{len(problems)} of {count} rows are wrong, nothing was started:\n"
            + "\n".join(problems[:SHOWN])
            + more,
            param="source",
        )
    if not count:
        raise errors.InvalidRequest("got no video, expected at least one", param="source")
    return count


def _problem(row: Row, defaults: Mapping[str, Any]) -> str:
    try:
        row.request(defaults)
    except errors.RequestError as error:
        return error.message
    return ""


def _is_video(name: str) -> bool:
    return name.lower().endswith(VIDEO_SUFFIXES)


def _listed(found: Iterable[tuple[str, str]]) -> Iterator[Row]:
    for number, (url, custom_id) in enumerate(found, 1):
        yield Row(number, custom_id, {"inputs": [url]})


def _text(path: Path) -> Iterator[Row]:
    with path.open() as file:
        yield from _lines(file, path.parent)


def _lines(lines: Iterable[str], folder: Path) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if name and not name.startswith("#"):
            yield Row(number, name, {"inputs": [_resolved(name, folder)]})


def _resolved(name: str, folder: Path) -> str:
    """Paths are relative to the manifest's folder."""
    return name if "://" in name else as_url(str(folder / name))


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open() as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _json_row(number, line, path.parent)


def _json_row(number: int, line: str, folder: Path) -> Row:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Row(number, f"line {number}", {}, f"no JSON: {error}")
    if not isinstance(fields, dict):
        return Row(number, f"line {number}", {}, f"got {type(fields).__name__}, expected an object")
    custom_id = fields.pop("custom_id", None)
    if not isinstance(custom_id, str):
        return Row(number, f"line {number}", {}, "got no custom_id, expected a name for the row")
    if isinstance(url := fields.pop("url", None), str):
        fields["inputs"] = [_resolved(url, folder)]
    if isinstance(question := fields.pop("question", None), str):
        fields["questions"] = [question]
    return Row(number, custom_id, fields)


def _csv(path: Path) -> Iterator[Row]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        unknown = sorted(set(reader.fieldnames or ()) - set(COLUMNS))
        if unknown or "url" not in (reader.fieldnames or ()):
            problem = f"got the columns {reader.fieldnames}, expected url and some of {COLUMNS[1:]}"
            yield Row(1, "line 1", {}, problem)
            return
        for line in reader:
            yield _csv_row(reader.line_num, line, path.parent)


def _csv_row(number: int, line: Mapping[str, str | None], folder: Path) -> Row:
    url = line.get("url") or ""
    video = {"url": _resolved(url, folder)} | {
        name: line[name] for name in ("start", "end") if line.get(name)
    }
    fields: dict[str, Any] = {"inputs": [video]}
    if line.get("question"):
        fields["questions"] = [line["question"]]
    return Row(number, line.get("custom_id") or url, fields, "" if url else "got no url")
