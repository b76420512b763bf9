"""Scratch: what a run has to remember of each row, on disk and not in memory.

SQLite's private temporary database: a few MB of cache, whatever the number of rows, and gone with
the process. Knows names and numbers only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

__all__ = ["Scratch"]

_TABLES = """
PRAGMA journal_mode=OFF;
PRAGMA synchronous=OFF;
CREATE TABLE ids (custom_id TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID;
CREATE TABLE there (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE lines (number INTEGER PRIMARY KEY, place INTEGER);
"""


class Scratch:
    """A context manager; for one thread."""

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

    def first_seen(self, custom_id: str, number: int) -> int:
        """The number of the row that had this id first: `number` itself if none had."""
        added = self._db.execute("INSERT OR IGNORE INTO ids VALUES (?, ?)", (custom_id, number))
        if added.rowcount:
            return number
        found = self._db.execute("SELECT number FROM ids WHERE custom_id = ?", (custom_id,))
        return int(found.fetchone()[0])

    def put_there(self, names: Iterable[str]) -> None:
        """Notes names of objects that are there already."""
        self._db.executemany("INSERT OR IGNORE INTO there VALUES (?)", ((name,) for name in names))

    def is_there(self, name: str) -> bool:
        found = self._db.execute("SELECT 1 FROM there WHERE name = ?", (name,))
        return found.fetchone() is not None

    def put_line(self, number: int, place: int) -> None:
        """Notes at which byte the line of a row begins."""
        self._db.execute("INSERT OR REPLACE INTO lines VALUES (?, ?)", (number, place))

    def places(self) -> Iterator[int]:
        """Where lines begin, by the numbers of their rows."""
        for (place,) in self._db.execute("SELECT place FROM lines ORDER BY number"):
            yield place
