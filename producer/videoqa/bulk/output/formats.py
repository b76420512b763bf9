"""Formats: the tables that a run can make of the lines of results.jsonl, each a file of OUTPUT.

A new format is one entry of `FORMATS`, and a module that turns lines into its files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from videoqa.bulk.output.answers import write_csv
from videoqa.bulk.output.parquet import import_pyarrow, write_answers, write_results

__all__ = ["FORMATS", "Table"]


@dataclass(frozen=True)
class Table:
    """One kind of table."""

    file_name: str
    """Name of its file in OUTPUT."""
    write: Callable[[IO[bytes], Iterator[bytes]], None]
    """Writes the table of the lines into a file."""
    check: Callable[[], object] = lambda: None
    """Raises ConfigurationError if the table cannot be written here."""


FORMATS = {
    "csv": (Table("answers.csv", write_csv),),
    "parquet": (
        Table("answers.parquet", write_answers, import_pyarrow),
        Table("results.parquet", write_results, import_pyarrow),
    ),
}
"""Tables of each format."""
