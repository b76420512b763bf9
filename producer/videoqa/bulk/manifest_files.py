"""Manifest files: the rows that a JSONL file, a CSV file or a list of paths holds.

A generator for each format yields one `SourceLine` at a time, with the fields of a request as they
stand in the file, or with the problem of that line. Relative paths lie below the folder of the file.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from videoqa.contract import as_url, quote_name, redact_url
from videoqa.redaction import redact_text

__all__ = [
    "CSV_COLUMNS",
    "MAX_NAME_BYTES",
    "SourceLine",
    "as_custom_id",
    "is_short_name",
    "line_of_name",
    "object_name",
    "read_csv",
    "read_jsonl",
    "read_list",
]

CSV_COLUMNS = (
    "url", "custom_id", "question", "start", "end", "frames", "fps", "max_new_tokens", "model", "tenant",
)  # fmt: skip
MAX_LINE_BYTES = 2 << 20
"""A request is at most 1 MiB; a line may spell it with escapes."""
MAX_CUSTOM_ID = 256
"""Characters, by the contract."""
MAX_NAME_BYTES = 250
"""Size of a custom_id as a file's name, to which `.json` is added; file systems allow 255."""


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One row as its source gives it, not yet checked against the contract."""

    number: int
    """The line of the file, from 1; in a folder, glob or prefix the number of the video."""
    fields: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    """The reason why `fields` is empty."""


def line_of_name(number: int, name: str, base: Path) -> SourceLine:
    """Returns the row of a bare path or URL; its custom_id is that name without its secret parts."""
    shown = redact_url(name) if "://" in name else name
    if shown != name:
        shown += "#" + _short_digest(name)
    return SourceLine(number, {"url": as_url(name, base), "custom_id": as_custom_id(shown)})


def as_custom_id(name: str) -> str:
    """Returns a path as a custom_id; one too long for a file's name becomes a digest and its end."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    if len(text) <= MAX_CUSTOM_ID and is_short_name(text):
        return text
    end = text
    while not is_short_name(end, MAX_NAME_BYTES - 20):
        end = end[1:]
    return f"{_short_digest(text)}-{end}"


def object_name(custom_id: str) -> str:
    """Returns the name under which OUTPUT holds a row's objects, without the suffix."""
    return unquote(quote_name(custom_id))


def is_short_name(custom_id: str, limit_bytes: int = MAX_NAME_BYTES) -> bool:
    """Returns True if the custom_id fits a file's name."""
    if custom_id.isascii() and 3 * len(custom_id) <= limit_bytes:
        return True  # even if each character becomes a percent sign and two digits
    return len(object_name(custom_id).encode()) <= limit_bytes


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


# -- lists and JSONL


def read_list(file: IO[bytes], base: Path) -> Iterator[SourceLine]:
    """Yields a row for each path or URL; a line that begins with a brace is read as JSONL."""
    for number, text, problem in _read_texts(file):
        if problem:
            yield SourceLine(number, problem=problem)
        elif text.startswith("{"):
            yield _parse_json_line(number, text, base)
        else:
            yield line_of_name(number, text, base)


def read_jsonl(file: IO[bytes], base: Path) -> Iterator[SourceLine]:
    """Yields a row for each JSON object."""
    for number, text, problem in _read_texts(file):
        if problem:
            yield SourceLine(number, problem=problem)
        else:
            yield _parse_json_line(number, text, base)


def _parse_json_line(number: int, text: str, base: Path) -> SourceLine:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        return SourceLine(number, problem=f"is not JSON: {error}")
    if not isinstance(fields, dict):
        return SourceLine(number, problem=f"got {type(fields).__name__}, expected a JSON object")
    if fields.get("custom_id") in (None, ""):
        return SourceLine(
            number, problem="got no custom_id, expected one that no other line has; add it"
        )
    return SourceLine(number, _resolve_paths(fields, base))


def _resolve_paths(fields: dict[str, Any], base: Path) -> dict[str, Any]:
    """Turns paths into URLs, in place; values that are no paths are left for the contract to refuse."""
    if isinstance(fields.get("url"), str):
        fields["url"] = as_url(fields["url"], base)
    inputs = fields.get("inputs")
    if isinstance(inputs, (str, dict)):
        inputs = [inputs]
    if isinstance(inputs, list):
        fields["inputs"] = [_resolve_input(item, base) for item in inputs]
    return fields


def _resolve_input(item: Any, base: Path) -> Any:
    if isinstance(item, str):
        return as_url(item, base)
    if isinstance(item, dict) and isinstance(item.get("url"), str):
        return item | {"url": as_url(item["url"], base)}
    return item


def _read_texts(file: IO[bytes]) -> Iterator[tuple[int, str, str]]:
    """Yields number, text and problem of each line that is not blank."""
    number = 0
    while content := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(content) > MAX_LINE_BYTES:
            while content and not content.endswith(b"\n"):
                content = file.readline(MAX_LINE_BYTES)
            yield number, "", f"is longer than {MAX_LINE_BYTES} bytes"
            continue
        try:
            text = content.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            yield number, "", f"is not UTF-8: byte {error.start} is {content[error.start]:#04x}"
            continue
        if text:
            yield number, text, ""


# -- CSV


def read_csv(file: IO[bytes], base: Path) -> Iterator[SourceLine]:
    """Yields a row for each line after the header, which names columns of `CSV_COLUMNS`.

    An empty cell leaves its field to the run's defaults.
    """
    rows = csv.reader(
        (line.decode("utf-8-sig" if n == 0 else "utf-8") for n, line in enumerate(file)),
        strict=True,
    )
    number = 1
    try:
        columns = [name.strip() for name in next(rows, [])]
        unknown = sorted(set(columns) - set(CSV_COLUMNS))
        if unknown or "url" not in columns or len(set(columns)) < len(columns):
            names = ", ".join(CSV_COLUMNS)
            yield SourceLine(
                1, problem=f"got the columns {columns}, expected url and some of {names}"
            )
            return
        number = rows.line_num + 1
        for cells in rows:
            if any(cells):
                yield _parse_csv_line(number, columns, cells, base)
            number = rows.line_num + 1
    except (csv.Error, UnicodeDecodeError) as error:
        problem = f"is not CSV in UTF-8: {error}; the rest of the file was not read"
        yield SourceLine(number, problem=problem)


def _parse_csv_line(number: int, columns: list[str], cells: list[str], base: Path) -> SourceLine:
    if len(cells) != len(columns):
        return SourceLine(number, problem=f"got {len(cells)} cells, expected {len(columns)}")
    row = {name: cell for name, cell in zip(columns, cells, strict=True) if cell != ""}
    if "url" not in row:
        return SourceLine(number, problem="got no url, expected a path or URL")
    fields = line_of_name(number, row["url"], base).fields
    fields |= {
        name: row[name] for name in row if name in ("custom_id", "model", "tenant", "question")
    }
    try:
        fields |= _parse_numbers(row)
    except ValueError as error:
        return SourceLine(
            number, problem=f"got a cell that is not a number: {redact_text(str(error))}"
        )
    return SourceLine(number, fields)


def _parse_numbers(row: dict[str, str]) -> dict[str, Any]:
    """Returns the fields that a row's numeric cells stand for; raises ValueError."""
    found: dict[str, Any] = {name: float(row[name]) for name in ("start", "end") if name in row}
    sampling: dict[str, Any] = {}
    if "frames" in row:
        sampling["frames"] = int(row["frames"])
    if "fps" in row:
        sampling |= {"method": "fps", "fps": float(row["fps"])}
    if sampling:
        found["sampling"] = sampling
    if "max_new_tokens" in row:
        found["generation"] = {"max_new_tokens": int(row["max_new_tokens"])}
    return found
