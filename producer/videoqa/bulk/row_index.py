"""RowIndex: the few facts that a run remembers of each row, on disk and not in memory.

SQLite's private temporary database: a few MB of cache whatever the number of rows, deleted with the
process. Knows names and numbers only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

__all__ = ["RowIndex"]

_TABLES = """
PRAGMA journal_mode=OFF;
PRAGMA synchronous=OFF;
CREATE TABLE ids (custom_id TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID;
CREATE TABLE stored (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE lines (number INTEGER PRIMARY KEY, offset INTEGER);
"""


class RowIndex:
    """Custom_ids, names of stored objects and offsets of lines; a context manager for one thread."""

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

    def add_id(self, custom_id: str, number: int) -> int:
        """Returns the number of the first row with this custom_id: `number` itself if it is new."""
        added = self._db.execute("INSERT OR IGNORE INTO ids VALUES (?, ?)", (custom_id, number))
        if added.rowcount:
            return number
        found = self._db.execute("SELECT number FROM ids WHERE custom_id = ?", (custom_id,))
        return int(found.fetchone()[0])

    def add_stored(self, names: Iterable[str]) -> None:
        """Notes the names of objects that OUTPUT holds already."""
        self._db.executemany("INSERT OR IGNORE INTO stored VALUES (?)", ((name,) for name in names))

    def is_stored(self, name: str) -> bool:
        """Returns True if OUTPUT held an object of this name when the run began."""
        found = self._db.execute("SELECT 1 FROM stored WHERE name = ?", (name,))
        return found.fetchone() is not None

    def add_line(self, number: int, offset: int) -> None:
        """Notes the byte at which the line of a row begins."""
        self._db.execute("INSERT OR REPLACE INTO lines VALUES (?, ?)", (number, offset))

    def line_offsets(self) -> Iterator[int]:
        """Yields where lines begin, ordered by the numbers of their rows."""
        for (offset,) in self._db.execute("SELECT offset FROM lines ORDER BY number"):
            yield offset
