"""RowIndex: the few facts that a run remembers of each row, on disk and not in memory.

SQLite's private temporary database: a few MB of cache whatever the number of rows, deleted with the
process. Knows names and numbers only. A row's name is that of its objects in OUTPUT, `object_name`.
"""

from __future__ import annotations

import sqlite3
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from videoqa import errors
from videoqa.bulk.index.output_index import IndexEntry

__all__ = ["FoundLine", "RowIndex"]

_TABLES = """
PRAGMA journal_mode=OFF;
PRAGMA synchronous=OFF;
CREATE TABLE ids (name TEXT PRIMARY KEY, number INTEGER, place TEXT) WITHOUT ROWID;
CREATE TABLE stored (name TEXT PRIMARY KEY, result TEXT, failure TEXT) WITHOUT ROWID;
CREATE TABLE known (
  name TEXT PRIMARY KEY, digest TEXT, result TEXT, result_digest TEXT, result_job_id TEXT,
  failure TEXT, job_id TEXT, subtitles TEXT, code TEXT, message TEXT
) WITHOUT ROWID;
CREATE TABLE lines (
  name TEXT PRIMARY KEY, is_new INTEGER, offset INTEGER, job_id TEXT, ok INTEGER, subtitles TEXT
) WITHOUT ROWID;
CREATE TABLE moved (name TEXT PRIMARY KEY, is_new INTEGER, offset INTEGER) WITHOUT ROWID;
"""
_BY_FILE = "SELECT name, is_new, offset FROM lines ORDER BY is_new, offset"
_BY_NUMBER = """
SELECT lines.name, is_new, offset FROM lines LEFT JOIN ids ON ids.name = lines.name
ORDER BY number IS NULL, number, is_new, offset
"""
_OUTDATED = """
FROM stored LEFT JOIN known ON known.name = stored.name
WHERE (known.name IS NULL OR known.result IS NOT stored.result OR known.failure IS NOT stored.failure)
"""


@dataclass(frozen=True, slots=True)
class FoundLine:
    """A line of results.jsonl, as a reading of the file found it."""

    name: str
    offset: int
    job_id: str | None = None
    ok: bool = False
    subtitles: str = ""
    """Kind and place of the subtitle files that it names."""


class RowIndex:
    """Names of rows, stored objects, outcomes, and offsets of lines; a context manager for one thread."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)  # "": a temporary file of its own
        self._db.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
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

    def find_alike(self) -> tuple[str, str] | None:
        """Returns the places of two rows whose names differ in case or composition only; None: none do."""
        self._db.create_function("fold", 1, _fold, deterministic=True)
        found = self._run(
            "SELECT min(place), max(place) FROM ids GROUP BY fold(name) HAVING count(*) > 1 LIMIT 1"
        ).fetchone()
        return (str(found[0]), str(found[1])) if found else None

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

    # -- what their outcomes are

    def add_known(self, entries: Iterable[IndexEntry]) -> None:
        self._run_many(
            "INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", entries
        )

    def find_known(self, name: str) -> IndexEntry | None:
        """Returns the outcome of a row; None: OUTPUT has none."""
        found = self._run("SELECT * FROM known WHERE name = ?", (name,)).fetchone()
        return IndexEntry(*found) if found else None

    def list_known(self) -> Iterator[IndexEntry]:
        return (IndexEntry(*found) for found in self._run("SELECT * FROM known"))

    def drop_unstored(self) -> None:
        """Forgets outcomes whose objects are gone."""
        self._run("DELETE FROM known WHERE name NOT IN (SELECT name FROM stored)")

    def forget(self, name: str) -> None:
        """Forgets the outcome of a row."""
        self._run("DELETE FROM known WHERE name = ?", (name,))

    def drop_outdated(self) -> None:
        """Forgets outcomes that were made of other objects than the stored ones."""
        self._run(f"DELETE FROM known WHERE name IN (SELECT stored.name {_OUTDATED})")  # noqa: S608

    def drop_unlike_lines(self) -> None:
        """Forgets outcomes that results.jsonl has no line of."""
        self._run(
            "DELETE FROM known WHERE NOT EXISTS (SELECT 1 FROM lines WHERE lines.name = known.name "
            "AND lines.job_id IS known.job_id AND lines.ok = (known.code IS NULL))"
        )

    def count_outdated(self) -> int:
        """Returns the number of `list_outdated`."""
        return int(self._run("SELECT count(*) " + _OUTDATED).fetchone()[0])

    def list_outdated(self) -> Iterator[tuple[str, bool, bool]]:
        """Yields the rows whose stored objects have no outcome, or are not those that it was made of.

        Each is a name, with whether OUTPUT has a result and a failure of it.
        """
        last = ""
        query = (
            "SELECT stored.name, stored.result IS NOT NULL, stored.failure IS NOT NULL "
            f"{_OUTDATED} AND stored.name > ? ORDER BY stored.name LIMIT 1000"
        )
        while found := self._run(query, (last,)).fetchall():
            yield from ((name, bool(result), bool(failure)) for name, result, failure in found)
            last = found[-1][0]

    # -- the lines of results.jsonl

    def add_lines(self, found: Iterable[FoundLine]) -> None:
        """Notes lines that results.jsonl has; of those with equal names the last one counts."""
        self._run_many(
            "INSERT OR REPLACE INTO lines VALUES (?, 0, ?, ?, ?, ?)",
            ((line.name, line.offset, line.job_id, line.ok, line.subtitles) for line in found),
        )

    def add_new_line(self, name: str, offset: int) -> None:
        """Notes the offset of a line that is to be published, in the place of the row's old one."""
        self._run("INSERT OR REPLACE INTO lines VALUES (?, 1, ?, NULL, NULL, NULL)", (name, offset))

    def find_line(self, name: str) -> FoundLine | None:
        """Returns the line of a row in the results.jsonl that was read."""
        found = self._run(
            "SELECT name, offset, job_id, ok, subtitles FROM lines WHERE name = ?", (name,)
        ).fetchone()
        return FoundLine(*found) if found else None

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
        self._run("INSERT INTO lines SELECT *, NULL, NULL, NULL FROM moved")
        self.drop_moves()

    def drop_moves(self) -> None:
        self._run("DELETE FROM moved")


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _temporary_error(error: sqlite3.OperationalError) -> errors.OutputUnavailable:
    return errors.OutputUnavailable(
        f"can't write temporary files into {tempfile.gettempdir()}: {error}; free some space there, or "
        "set TMPDIR to another folder",
        param="output",
    )
