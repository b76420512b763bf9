"""Parquet: the lines of results.jsonl as results.parquet, and their answers as answers.parquet.

The only module that knows pyarrow, which the extra `videoqa[parquet]` brings. The columns of
results.parquet are the fields of `ResultLine`, with its error as two columns of text.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import IO, Any, Literal, get_args, get_origin

from pydantic import BaseModel, JsonValue

from videoqa import errors
from videoqa.bulk.output.answers import COLUMNS, list_answers, spell_value
from videoqa.bulk.output.records import ResultLine, parse_line

__all__ = ["import_pyarrow", "write_answers", "write_results"]

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
            "Parquet needs pyarrow; install it in your clone: pip install './producer[parquet]'"
        ) from error
    return pyarrow


def write_results(file: IO[bytes], lines: Iterator[bytes]) -> None:
    """Writes one row for each line of results.jsonl."""
    arrow = import_pyarrow()
    fields = list(_build_struct(ResultLine, arrow))
    text = arrow.string()
    columns = [field for field in fields if field.name != "error"]
    schema = arrow.schema([*columns, ("error_code", text), ("error_message", text)])
    _write(file, schema, map(_flatten_error, lines))


def write_answers(file: IO[bytes], lines: Iterator[bytes]) -> None:
    """Writes one row for each answer."""
    arrow = import_pyarrow()
    schema = arrow.schema([(column.name, _find_type(column.kind, arrow)) for column in COLUMNS])
    _write(file, schema, list_answers(lines))


def _write(file: IO[bytes], schema: Any, rows: Iterator[dict[str, Any]]) -> None:
    arrow = import_pyarrow()
    with arrow.parquet.ParquetWriter(file, schema) as writer:
        while batch := list(islice(rows, ROWS)):
            writer.write_table(arrow.Table.from_pylist(batch, schema=schema))


def _flatten_error(line: bytes) -> dict[str, Any]:
    found = parse_line(line)
    error = found["error"] or {}
    found["answers"] = [spell_value(answer) for answer in found["answers"]]
    found["segments"] = [
        part | {"answers": [spell_value(answer) for answer in part["answers"]]}
        for part in found["segments"]
    ]
    return found | {"error_code": error.get("code"), "error_message": error.get("message")}


def _build_struct(model: type[BaseModel], arrow: Any) -> Any:
    return arrow.struct(
        [(name, _find_type(field.annotation, arrow)) for name, field in model.model_fields.items()]
    )


def _find_type(kind: Any, arrow: Any) -> Any:
    """Returns the column's type for the type of a model's field."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal or kind is JsonValue:  # as JSON text
        return arrow.string()
    if origin is tuple:
        return arrow.list_(_find_type(inner[0], arrow))
    if inner:  # X | None
        return _find_type(inner[0], arrow)
    if issubclass(kind, BaseModel):
        return _build_struct(kind, arrow)
    return {str: arrow.string(), int: arrow.int64(), float: arrow.float64(), bool: arrow.bool_()}[
        kind
    ]
