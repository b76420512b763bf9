"""The table of architectures: results of their tests, printed at the end of the run, three a line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["PAGE", "Architecture", "read_page"]

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "models.md"


@dataclass(frozen=True)
class Architecture:
    """The result for one architecture."""

    name: str
    """Its row in docs/guide/models.md."""
    path: str
    """`slots` or `generate`; empty where it does not run without an extra."""
    video: str
    """The form in which the model gets a video: `a video` or `images`."""
    needs: str = "-"

    @property
    def cell(self) -> str:
        state = f"{self.path}, {self.video}" if self.path else f"needs {self.needs}"
        return f"{self.name:28} {state}"


def read_page() -> dict[str, Architecture]:
    """Returns the rows of the page's table."""
    cells = re.findall(
        r"^\| `(.+?)` \| (.+?) \| (.+?) \| (.+?) \| .+? \|$", PAGE.read_text(), re.MULTILINE
    )
    return {name: Architecture(name, *rest) for name, *rest in cells}


_ROWS = pytest.StashKey[list[Architecture]]()


@pytest.fixture(scope="session")
def architecture_table(pytestconfig: pytest.Config) -> list[Architecture]:
    return pytestconfig.stash.setdefault(_ROWS, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash.get(_ROWS, [])
    if not rows:
        return
    terminalreporter.section("architectures equal to processor + generate: path, videos")
    for at in range(0, len(rows), 3):
        terminalreporter.write_line(" | ".join(f"{row.cell:48}" for row in rows[at : at + 3]))
    equal = sum(bool(row.path) for row in rows)
    slots = sum(row.path == "slots" for row in rows)
    terminalreporter.write_line(
        f"{len(rows)} architectures: {equal} equal token for token, {slots} of them in slots; "
        f"{len(rows) - equal} need an extra, and name it"
    )
