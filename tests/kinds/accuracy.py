"""The accuracy table: the results of the tests of kinds, printed at the end of the run.

Compact, three kinds a line; `-v` gives a line each.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

__all__ = ["Row", "Table"]


@dataclass(frozen=True)
class Row:
    """The result of one kind."""

    name: str
    right: int = 0
    asked: int = 0
    exact: int = 0
    """Number of pictures that were marked exact."""
    indexed: int = 0
    """Number of pictures whose index is known."""
    refused: str = ""
    """Code of the error, for files to be refused and for the missing part of a cut-off file."""

    @property
    def counts(self) -> str:
        return f"{self.right}/{self.asked}" if self.asked else "refused"

    @property
    def remark(self) -> str:
        if not self.asked:
            return self.refused
        exact = {0: "inexact, said so", self.asked: "exact"}.get(
            self.exact, f"{self.exact} exact, rest said to be not"
        )
        index = {0: "index unknown", self.asked: "index known"}.get(
            self.indexed, f"index known of {self.indexed}"
        )
        return f"{exact}; {index}" + (f"; beyond: {self.refused}" if self.refused else "")


class Table:
    """The rows of the table, in the order in which tests add them."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        self.rows.append(row)

    def full(self) -> list[str]:
        return [f"{row.name:36} {row.counts:>8}  {row.remark}" for row in self.rows]

    def compact(self) -> list[str]:
        cells = [f"{row.name[:28]:28} {row.counts:>7}{_mark(row)}" for row in self.rows]
        return [" | ".join(cells[at : at + 3]) for at in range(0, len(cells), 3)]

    def sums(self) -> str:
        right, asked = (sum(getattr(row, name) for row in self.rows) for name in ("right", "asked"))
        said = sum(row.asked > row.exact for row in self.rows)
        refused = sum(not row.asked for row in self.rows)
        return (
            f"{len(self.rows)} kinds: {right} of {asked} pictures right, each other one said to be "
            f"inexact; ~ {said} kinds inexact, and said so; {refused} refused as they must be"
        )


def _mark(row: Row) -> str:
    return "~" if row.asked > row.exact else " "


_TABLE = pytest.StashKey[Table]()


@pytest.fixture(scope="session")
def accuracy_table(pytestconfig: pytest.Config) -> Table:
    return pytestconfig.stash.setdefault(_TABLE, Table())


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    table = config.stash.get(_TABLE, Table())
    if not table.rows:
        return
    terminalreporter.section("pictures right / asked for, by kind of video")
    for line in table.full() if config.get_verbosity() > 0 else table.compact():
        terminalreporter.write_line(line)
    terminalreporter.write_line(table.sums())
