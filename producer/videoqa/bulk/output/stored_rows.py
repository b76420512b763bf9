"""The rows that OUTPUT holds: from its listing and its index, and from the objects that these do not explain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from videoqa.bulk.index.output_index import INDEX_NAME, parse_index
from videoqa.bulk.index.row_index import RowIndex
from videoqa.bulk.output.outcomes import Outcome, make_outcome
from videoqa.bulk.output.output_dir import OutputDir
from videoqa.bulk.output.result_table import ResultTable

__all__ = ["load_stored_rows"]

T = TypeVar("T")
MANY = 1000
"""Least number of objects of which it is told that they are read."""


def load_stored_rows(
    output: OutputDir,
    index: RowIndex,
    table: ResultTable | None,
    *,
    readers: int,
    note: Callable[[str], None],
) -> None:
    """Fills the index with an entry for each row that has objects.

    Arguments:
        table: gets the lines that it lacks; None: only the index is wanted.
        readers: objects that are read at the same time.
        note: called with a sentence if that takes long.
    """
    lines_version = _load_index(output, index)
    if table is not None:
        table.load(lines_version)
    index.add_results(output.list_results())
    index.add_failures(output.list_failures())
    index.drop_unstored()
    index.drop_outdated()

    def read(row: tuple[str, bool, bool]) -> Outcome | None:
        """Returns the outcome of a row by its objects alone; None: they are not a row's."""
        name, has_result, has_failure = row
        stored = output.read_stored(name, has_result=has_result, has_failure=has_failure)
        outcome = make_outcome(output, stored)
        return outcome if outcome and outcome.entry.name == name else None

    count = index.count_outdated()
    if count >= MANY:
        note(f"reading {count} results in {output.url}, about which {INDEX_NAME} does not tell")
    with ThreadPoolExecutor(readers, thread_name_prefix="stored") as pool:
        for rows in _split(index.list_outdated(), 8 * readers):
            for outcome in pool.map(read, rows):
                if outcome is not None and table is not None:
                    table.restore(outcome)
                elif outcome is not None:
                    index.add_known([outcome.entry])


def _load_index(output: OutputDir, index: RowIndex) -> str | None:
    """Loads index.jsonl, if there is one; returns the version of the results.jsonl that it belongs to."""
    file = output.open_file(INDEX_NAME)
    if file is None:
        return None
    with file:
        version, entries = parse_index(file)
        index.add_known(entries)
        return version


def _split(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while chunk := list(islice(items, size)):
        yield chunk
