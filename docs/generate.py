"""Writes the tables of settings into the reference, from the settings' own definitions.

    python docs/generate.py

Each table stands between `<!-- settings: CLASS -->` and `<!-- end -->`; a test fails where a page
is older than the code.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from videoqa.settings import Settings, Variable
from videoqa_worker.settings import WorkerSettings

__all__ = ["PAGE", "render"]

PAGE = Path(__file__).parent / "reference" / "settings.md"
_TABLE = re.compile(r"(<!-- settings: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def render(text: str) -> str:
    """Returns the page with its tables written anew."""
    both = Settings.table()
    tables = {
        "Settings": both,
        "WorkerSettings": [row for row in WorkerSettings.table() if row not in both],
    }
    return _TABLE.sub(lambda m: f"{m[1]}{_table(tables[m[2]])}\n{m[3]}", text)


def _table(rows: list[Variable]) -> str:
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for row in rows:
        default = {"": "unset", "()": "none"}.get(row.default, f"`{row.default}`")
        lines.append(f"| `{row.name}` | {default} | {row.reason} |")
    return "\n".join(lines)


if __name__ == "__main__":
    before = PAGE.read_text()
    PAGE.write_text(render(before))
    sys.stderr.write("written\n" if render(before) != before else "nothing to write\n")
