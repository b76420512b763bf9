"""results.parquet: the lines of results.jsonl as a table, a thousand rows at a time.

The only module that knows pyarrow, which the extra `videoqa[parquet]` brings.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from videoqa import errors
from videoqa.bulk.journal import Journal
from videoqa.bulk.place import Place
from videoqa.objects import file_path

__all__ = ["need_parquet", "write_parquet"]

NAME = "results.parquet"
ROWS = 1000


def need_parquet() -> Any:
    """pyarrow, or a word on how to get it.

    Raises:
        ConfigurationError.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise errors.ConfigurationError(
            "--format parquet needs pyarrow; install it with: pip install 'videoqa[parquet]'"
        ) from error
    return pyarrow


def write_parquet(journal: Journal, place: Place) -> str:
    """Writes the table; returns its URL.

    Raises:
        OutputDenied, OutputNotFound, OutputUnavailable
    """
    arrow = need_parquet()
    url = f"{place.url}/{NAME}"
    with tempfile.TemporaryDirectory(
        prefix=".videoqa-", dir=place.folder, ignore_cleanup_errors=True
    ) as folder:
        path = Path(folder) / NAME
        schema = _schema(arrow)
        with arrow.parquet.ParquetWriter(str(path), schema) as writer:
            for rows in _batches(journal.lines()):
                writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
        if place.folder is None:
            place.store.upload(path, url)
        else:
            path.replace(file_path(url))
    return url


def _batches(lines: Iterator[bytes]) -> Iterator[list[dict[str, Any]]]:
    while rows := [_row(json.loads(line)) for line in islice(lines, ROWS)]:
        yield rows


def _row(line: dict[str, Any]) -> dict[str, Any]:
    error = line.pop("error") or {}
    return line | {"error_code": error.get("code"), "error_message": error.get("message")}


def _schema(arrow: Any) -> Any:
    """The columns: a line's fields, with the error flat."""
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
