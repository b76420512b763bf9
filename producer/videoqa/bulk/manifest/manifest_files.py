"""Manifest files: the rows that a JSONL file, a CSV file or a list of paths holds.

A generator for each format yields one `SourceLine` at a time, with the fields of a request as they
stand in the file, or with the problem of that line. Relative paths lie below the folder of the file.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any

from videoqa.bulk.manifest.names import canonical_url
from videoqa.contract import MAX_URL
from videoqa.redaction import redact_text

__all__ = [
    "CSV_COLUMNS",
    "SourceLine",
    "line_of_name",
    "read_csv",
    "read_jsonl",
    "read_list",
]

CSV_COLUMNS = (
    "url", "custom_id", "question", "start", "end", "frames", "fps", "max_new_tokens", "model", "tenant",
)  # fmt: skip
_MAX_COLUMNS = 100
"""A job's metadata has 32 entries; each column is compared with the known names."""
MAX_LINE_BYTES = 2 << 20
"""A request is at most 1 MiB; a line may spell it with escapes."""


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One row as its source gives it, not yet checked against the contract."""

    number: int
    """The line of the file, from 1; in a folder, glob or prefix the number of the video."""
    fields: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    """The reason why `fields` is empty."""
    source: str = ""
    """The source that has the line, if there are several."""

    @property
    def place(self) -> str:
        """The line in words, for messages."""
        return f"{self.source}: line {self.number}" if self.source else f"line {self.number}"


def line_of_name(number: int, name: str, base: Path) -> SourceLine:
    """Returns the row of a bare path or URL."""
    if len(name) > MAX_URL:
        return SourceLine(
            number, problem=f"got a name of {len(name)} characters, expected at most {MAX_URL}"
        )
    return SourceLine(number, {"url": canonical_url(name, base)})


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
        fields.pop("custom_id", None)
    return SourceLine(number, _resolve_paths(fields, base))


def _resolve_paths(fields: dict[str, Any], base: Path) -> dict[str, Any]:
    """Turns paths into URLs, in place; values that are no paths are left for the contract to refuse."""
    if isinstance(fields.get("url"), str):
        fields["url"] = canonical_url(fields["url"], base)
    inputs = fields.get("inputs")
    if isinstance(inputs, (str, dict)):
        inputs = [inputs]
    if isinstance(inputs, list):
        fields["inputs"] = [_resolve_input(item, base) for item in inputs]
    return fields


def _resolve_input(item: Any, base: Path) -> Any:
    if isinstance(item, str):
        return canonical_url(item, base)
    if isinstance(item, dict) and isinstance(item.get("url"), str):
        return item | {"url": canonical_url(item["url"], base)}
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
    """Yields a row for each line after the header, which names columns of `CSV_COLUMNS`, and others.

    An empty cell leaves its field to the run's defaults. A column of another name becomes metadata of
    the row's job.
    """
    rows = csv.reader(
        (
            line.decode("utf-8-sig" if n == 0 else "utf-8")
            for n, line in enumerate(_read_bounded_lines(file))
        ),
        strict=True,
    )
    number = 1
    try:
        columns = [name.strip() for name in next(rows, [])]
        problem = _check_columns(columns)
        if problem:
            yield SourceLine(1, problem=problem)
            return
        number = rows.line_num + 1
        for cells in rows:
            if any(cells):
                yield _parse_csv_line(number, columns, cells, base)
            number = rows.line_num + 1
    except (csv.Error, UnicodeDecodeError) as error:
        problem = f"is not CSV in UTF-8: {error}; the rest of the file was not read"
        yield SourceLine(number, problem=problem)


def _read_bounded_lines(file: IO[bytes]) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise csv.Error(f"a line is longer than {MAX_LINE_BYTES} bytes")
        yield line


def _check_columns(columns: list[str]) -> str:
    """Returns the problem of a header; empty: there is none."""
    if len(columns) > _MAX_COLUMNS:
        return f"got {len(columns)} columns, expected at most {_MAX_COLUMNS}"
    if "url" not in columns:
        return (
            f"got the columns {columns}, expected url and perhaps {', '.join(CSV_COLUMNS[1:])}"
            + (_guess_delimiter(columns))
        )
    if len(set(columns)) < len(columns):
        return f"got the columns {columns}, expected each name once"
    for name in columns:
        near = get_close_matches(name.lower(), CSV_COLUMNS, 1, cutoff=0.8)
        if near and name not in CSV_COLUMNS:
            return (
                f"got the column {name!r}, which resembles {near[0]}; correct it, or give it a name that "
                "does not, and it becomes metadata"
            )
    return ""


def _guess_delimiter(columns: list[str]) -> str:
    """Returns the next step if the header seems to be separated by something else than commas."""
    for delimiter, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if any(delimiter in column for column in columns):
            return f"; the file seems to be separated by {name}: save it with commas"
    return ""


def _parse_csv_line(number: int, columns: list[str], cells: list[str], base: Path) -> SourceLine:
    if len(cells) != len(columns):
        return SourceLine(number, problem=f"got {len(cells)} cells, expected {len(columns)}")
    row = {name: cell for name, cell in zip(columns, cells, strict=True) if cell != ""}
    if "url" not in row:
        return SourceLine(number, problem="got no url, expected a path or URL")
    line = line_of_name(number, row["url"], base)
    if line.problem:
        return line
    fields = line.fields
    fields |= {
        name: row[name] for name in row if name in ("custom_id", "model", "tenant", "question")
    }
    metadata = {name: row[name] for name in row if name and name not in CSV_COLUMNS}
    if metadata:
        fields["metadata"] = metadata
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
