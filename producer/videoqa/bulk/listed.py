"""Rows that a file lists: JSONL, CSV, or a path or URL a line.

A generator for each; they hold one line at a time and say what is wrong with it. Relative paths
lie below the folder of the file.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from videoqa.bulk.line import Line, named
from videoqa.contract import as_url

__all__ = ["CSV_COLUMNS", "read_csv", "read_jsonl", "read_list"]

CSV_COLUMNS = (
    "url", "custom_id", "question", "start", "end", "frames", "fps", "max_new_tokens", "model", "tenant",
)  # fmt: skip
MAX_LINE = 2 << 20
"""Bytes; a request is at most 1 MiB."""


def read_list(file: IO[bytes], base: Path) -> Iterator[Line]:
    """A path or URL a line; a line that begins with a brace is one of JSONL."""
    for number, text, problem in _texts(file):
        if problem:
            yield Line(number, problem=problem)
        elif text.startswith("{"):
            yield _json_line(number, text, base)
        else:
            yield named(number, text, base)


def read_jsonl(file: IO[bytes], base: Path) -> Iterator[Line]:
    for number, text, problem in _texts(file):
        yield Line(number, problem=problem) if problem else _json_line(number, text, base)


def _json_line(number: int, text: str, base: Path) -> Line:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Line(number, problem=f"is not JSON: {error}")
    if not isinstance(fields, dict):
        return Line(number, problem=f"got {type(fields).__name__}, expected a JSON object")
    if fields.get("custom_id") in (None, ""):
        return Line(number, problem="got no custom_id, expected one, unlike all others")
    return Line(number, _resolved_fields(fields, base))


def _resolved_fields(fields: dict[str, Any], base: Path) -> dict[str, Any]:
    """Paths become URLs; whatever is no path is for the contract to refuse."""
    found = dict(fields)
    if isinstance(found.get("url"), str):
        found["url"] = as_url(found["url"], base)
    inputs = found.get("inputs")
    if isinstance(inputs, (str, dict)):
        inputs = [inputs]
    if isinstance(inputs, list):
        found["inputs"] = [_resolved_input(item, base) for item in inputs]
    return found


def _resolved_input(item: Any, base: Path) -> Any:
    if isinstance(item, str):
        return as_url(item, base)
    if isinstance(item, dict) and isinstance(item.get("url"), str):
        return item | {"url": as_url(item["url"], base)}
    return item


def _texts(file: IO[bytes]) -> Iterator[tuple[int, str, str]]:
    """Number, text and problem of each line that is not blank."""
    number = 0
    while content := file.readline(MAX_LINE + 1):
        number += 1
        if len(content) > MAX_LINE:
            while content and not content.endswith(b"\n"):
                content = file.readline(MAX_LINE)
            yield number, "", f"is longer than {MAX_LINE} bytes"
            continue
        try:
            text = content.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            yield number, "", f"is not UTF-8: byte {error.start} is {content[error.start]:#04x}"
            continue
        if text:
            yield number, text, ""


def read_csv(file: IO[bytes], base: Path) -> Iterator[Line]:
    """The first line names columns of `CSV_COLUMNS`; an empty cell is the run's default."""
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
            yield Line(1, problem=f"got the columns {columns}, expected url and some of {names}")
            return
        number = rows.line_num + 1
        for cells in rows:
            if any(cells):
                yield _csv_line(number, columns, cells, base)
            number = rows.line_num + 1
    except (csv.Error, UnicodeDecodeError) as error:
        yield Line(number, problem=f"is not CSV in UTF-8: {error}; what follows was not read")


def _csv_line(number: int, columns: list[str], cells: list[str], base: Path) -> Line:
    if len(cells) != len(columns):
        return Line(number, problem=f"got {len(cells)} cells, expected {len(columns)}")
    row = {name: cell for name, cell in zip(columns, cells, strict=True) if cell != ""}
    if "url" not in row:
        return Line(number, problem="got no url, expected a path or URL")
    line = named(number, row["url"], base)
    found: dict[str, Any] = line.fields
    found |= {
        name: row[name] for name in row if name in ("custom_id", "model", "tenant", "question")
    }
    try:
        found |= {name: float(row[name]) for name in ("start", "end") if name in row}
        sampling: dict[str, Any] = {}
        if "frames" in row:
            sampling["frames"] = int(row["frames"])
        if "fps" in row:
            sampling |= {"method": "fps", "fps": float(row["fps"])}
        if "max_new_tokens" in row:
            found["generation"] = {"max_new_tokens": int(row["max_new_tokens"])}
    except ValueError as error:
        return Line(number, problem=f"got a cell that is no number: {error}")
    return Line(number, found | ({"sampling": sampling} if sampling else {}))
