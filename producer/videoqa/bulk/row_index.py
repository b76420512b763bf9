"""RowIndex: the few facts that a run remembers of each row, on disk and not in memory.

SQLite's private temporary database: a few MB of cache whatever the number of rows, deleted with the
process. Knows names and numbers only. A row's name is that of its objects in OUTPUT, `object_name`.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from videoqa import errors

__all__ = ["RowIndex", "StoredObjects"]

_TABLES = """
PRAGMA journal_mode=OFF;
PRAGMA synchronous=OFF;
CREATE TABLE ids (name TEXT PRIMARY KEY, number INTEGER, place TEXT) WITHOUT ROWID;
CREATE TABLE stored (name TEXT PRIMARY KEY, result TEXT, failure TEXT) WITHOUT ROWID;
CREATE TABLE lines (name TEXT PRIMARY KEY, is_new INTEGER, offset INTEGER) WITHOUT ROWID;
CREATE TABLE moved (name TEXT PRIMARY KEY, is_new INTEGER, offset INTEGER) WITHOUT ROWID;
"""
_BY_FILE = "SELECT name, is_new, offset FROM lines ORDER BY is_new, offset"
_BY_NUMBER = """
SELECT lines.name, is_new, offset FROM lines LEFT JOIN ids ON ids.name = lines.name
ORDER BY number IS NULL, number, is_new, offset
"""
_WITHOUT_LINE = """
SELECT stored.name FROM stored LEFT JOIN lines ON lines.name = stored.name
LEFT JOIN ids ON ids.name = stored.name WHERE lines.name IS NULL AND ids.name IS NULL
"""


@dataclass(frozen=True)
class StoredObjects:
    """Versions of a row's objects, as OUTPUT listed them when the run began; None: there is none."""

    result: str | None = None
    failure: str | None = None


class RowIndex:
    """Names of rows, versions of stored objects, and offsets of lines; a context manager for one thread."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)  # "": a temporary file of its own
        self._db.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._db.close()

    def _run(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise _temporary_error(error) from error

    def _run_many(self, statement: str, values: Iterable[tuple[Any, ...]]) -> None:
        try:
            self._db.executemany(statement, values)
        except sqlite3.OperationalError as error:
            raise _temporary_error(error) from error

    # -- the rows of this run

    def add_id(self, name: str, number: int, place: str) -> str | None:
        """Notes a row; returns the place of an earlier one with the same name, None if it is the first."""
        if self._run("INSERT OR IGNORE INTO ids VALUES (?, ?, ?)", (name, number, place)).rowcount:
            return None
        found = self._run("SELECT place FROM ids WHERE name = ?", (name,))
        return str(found.fetchone()[0])

    # -- the objects of OUTPUT

    def add_results(self, found: Iterable[tuple[str, str]]) -> None:
        """Notes names and versions of result objects that OUTPUT holds already."""
        self._run_many("INSERT OR REPLACE INTO stored VALUES (?, ?, NULL)", found)

    def add_failures(self, found: Iterable[tuple[str, str]]) -> None:
        """Notes names and versions of failures that OUTPUT holds already."""
        self._run_many(
            "INSERT INTO stored VALUES (?, NULL, ?) "
            "ON CONFLICT (name) DO UPDATE SET failure = excluded.failure",
            found,
        )

    def find_stored(self, name: str) -> StoredObjects:
        """Returns the versions of the row's objects when the run began."""
        found = self._run("SELECT result, failure FROM stored WHERE name = ?", (name,)).fetchone()
        return StoredObjects(*found) if found else StoredObjects()

    # -- the lines of results.jsonl

    def add_lines(self, found: Iterable[tuple[str, int]]) -> None:
        """Notes names and offsets of lines that results.jsonl has; of equal names the last one counts."""
        self._run_many("INSERT OR REPLACE INTO lines VALUES (?, 0, ?)", found)

    def add_new_line(self, name: str, offset: int) -> None:
        """Notes the offset of a line that is to be published, in the place of the row's old one."""
        self._run("INSERT OR REPLACE INTO lines VALUES (?, 1, ?)", (name, offset))

    def list_lines(self, *, by_number: bool) -> Iterator[tuple[str, bool, int]]:
        """Yields name, newness and offset of each line.

        Arguments:
            by_number: the rows of this run come first, in the order of their numbers; else new lines
                come after the others.
        """
        for name, is_new, offset in self._run(_BY_NUMBER if by_number else _BY_FILE):
            yield name, bool(is_new), offset

    def move_line(self, name: str, offset: int) -> None:
        """Notes a line's offset in the next results.jsonl, which holds from `commit_moves` on."""
        self._run("INSERT INTO moved VALUES (?, 0, ?)", (name, offset))

    def commit_moves(self) -> None:
        self._run("DELETE FROM lines")
        self._run("INSERT INTO lines SELECT * FROM moved")
        self.drop_moves()

    def drop_moves(self) -> None:
        self._run("DELETE FROM moved")

    def list_without_line(self) -> Iterator[str]:
        """Yields the names of stored objects that have no line, and are no rows of this run."""
        names = self._run(_WITHOUT_LINE)
        while found := names.fetchmany(1000):
            yield from (name for (name,) in found)


def _temporary_error(error: sqlite3.OperationalError) -> errors.OutputUnavailable:
    return errors.OutputUnavailable(
        f"can't write temporary files into {tempfile.gettempdir()}: {error}; free some space there, or "
        "set TMPDIR to another folder",
        param="output",
    )
