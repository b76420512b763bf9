"""Parquet: the lines of results.jsonl as the table results.parquet, a thousand rows at a time.

The only module that knows pyarrow, which the extra `videoqa[parquet]` brings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import IO, Any

from videoqa import errors

__all__ = ["import_pyarrow", "write_parquet"]

ROWS = 1000


def import_pyarrow() -> Any:
    """Returns the module pyarrow, with `pyarrow.parquet` loaded.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise errors.ConfigurationError(
            "results.parquet needs pyarrow; install it in your clone: pip install './producer[parquet]'"
        ) from error
    return pyarrow


def write_parquet(file: IO[bytes], lines: Iterator[bytes]) -> None:
    """Writes the table of the lines of results.jsonl into a file."""
    arrow = import_pyarrow()
    schema = _build_schema(arrow)
    with arrow.parquet.ParquetWriter(file, schema) as writer:
        for rows in _batch_rows(lines):
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))


def _batch_rows(lines: Iterator[bytes]) -> Iterator[list[dict[str, Any]]]:
    while rows := [_flatten_error(json.loads(line)) for line in islice(lines, ROWS)]:
        yield rows


def _flatten_error(line: dict[str, Any]) -> dict[str, Any]:
    error = line.pop("error") or {}
    return line | {"error_code": error.get("code"), "error_message": error.get("message")}


def _build_schema(arrow: Any) -> Any:
    """Returns the columns: a line's fields, with its error as two columns of text."""
    text, integer, number = arrow.string(), arrow.int64(), arrow.float64()
    answer = arrow.struct(
        [
            ("question_id", text), ("question", text), ("text", text), ("finish_reason", text),
            ("input_tokens", integer), ("output_tokens", integer),
        ]
    )  # fmt: skip
    frame = arrow.struct(
        [
            ("input", integer), ("index", integer), ("pts_s", number), ("asked_s", number),
            ("exact", arrow.bool_()),
        ]
    )  # fmt: skip
    source = arrow.struct(
        [
            ("url", text), ("kind", text), ("size_bytes", integer), ("etag", text),
            ("duration_s", number), ("fps", number), ("width", integer), ("height", integer),
        ]
    )  # fmt: skip
    segment = arrow.struct(
        [
            ("number", integer), ("start", number), ("end", number),
            ("answers", arrow.list_(answer)), ("frames", arrow.list_(frame)),
        ]
    )  # fmt: skip
    return arrow.schema(
        [
            ("custom_id", text), ("ok", arrow.bool_()), ("answers", arrow.list_(answer)),
            ("frames", arrow.list_(frame)), ("sources", arrow.list_(source)),
            ("segments", arrow.list_(segment)), ("model", text), ("model_revision", text),
            ("job_id", text), ("result", text), ("subtitles", arrow.list_(text)),
            ("error_code", text), ("error_message", text),
        ]
    )  # fmt: skip
