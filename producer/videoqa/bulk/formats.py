"""Formats: the tables that a run can make of the lines of results.jsonl, each a file of OUTPUT.

A new format is one entry of `FORMATS`, and a module that turns lines into its file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from videoqa.bulk.parquet import import_pyarrow, write_parquet

__all__ = ["FORMATS", "Format"]


@dataclass(frozen=True)
class Format:
    """One kind of table."""

    file_name: str
    """Name of its file in OUTPUT."""
    check: Callable[[], object]
    """Raises ConfigurationError if the table cannot be written here."""
    write: Callable[[IO[bytes], Iterator[bytes]], None]
    """Writes the table of the lines into a file."""


FORMATS = {"parquet": Format("results.parquet", import_pyarrow, write_parquet)}
