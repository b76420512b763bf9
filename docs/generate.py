"""Writes the tables of the reference that come from definitions in the code.

    python docs/generate.py

Each table stands between `<!-- KIND: NAME -->` and `<!-- end -->`; a test fails where a page is older
than the code.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from videoqa.bulk import ANSWER_COLUMNS, ArchiveRecord, ResultLine, RowFailure
from videoqa.settings import Settings, Variable
from videoqa_worker.settings import WorkerSettings

__all__ = ["PAGES", "render"]

REFERENCE = Path(__file__).parent / "reference"
PAGES = (REFERENCE / "settings.md", REFERENCE / "results.md")
_TABLE = re.compile(r"(<!-- (settings|fields|columns): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_RECORDS = {model.__name__: model for model in (ResultLine, RowFailure, ArchiveRecord)}
_WORDS = {str: "string", int: "integer", float: "number", bool: "boolean"}


def render(text: str) -> str:
    """Returns the page with its tables written anew."""
    makers = {"settings": _list_settings, "fields": _list_fields, "columns": _list_columns}
    return _TABLE.sub(lambda m: f"{m[1]}{makers[m[2]](m[3])}\n{m[4]}", text)


def _list_settings(name: str) -> str:
    both = Settings.table()
    rows = (
        both if name == "Settings" else [row for row in WorkerSettings.table() if row not in both]
    )
    return _draw(("variable", "default", "meaning"), [_list_cells(row) for row in rows])


def _list_cells(row: Variable) -> tuple[str, ...]:
    default = {"": "unset", "()": "none"}.get(row.default, f"`{row.default}`")
    return f"`{row.name}`", default, row.reason


def _list_fields(name: str) -> str:
    rows = [
        (f"`{each}`", _name_type(field.annotation), " ".join((field.description or "").split()))
        for each, field in _RECORDS[name].model_fields.items()
    ]
    return _draw(("field", "type", "meaning"), rows)


def _list_columns(name: str) -> str:
    rows = [(f"`{each.name}`", _name_type(each.kind), each.meaning) for each in ANSWER_COLUMNS]
    return _draw((name, "type", "meaning"), rows)


def _name_type(kind: Any) -> str:
    inner = [each for each in get_args(kind) if each not in (type(None), ...)]
    if get_origin(kind) is tuple:
        return f"list of {_name_type(inner[0])}"
    if get_origin(kind) is Literal:
        return " or ".join(f"`{each}`" for each in inner)
    if inner:
        is_optional = type(None) in get_args(kind)
        return _name_type(inner[0]) + (" or null" if is_optional else "")
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"[{kind.__name__}](contract.md#{kind.__name__.lower()})"
    return _WORDS.get(kind, "time")


def _draw(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [" | ".join(cells) for cells in (head, *rows)]
    lines.insert(1, "|".join(["---"] * len(head)))
    return "\n".join(f"|{line}|" if line.startswith("---") else f"| {line} |" for line in lines)


if __name__ == "__main__":
    changed = 0
    for page in PAGES:
        before = page.read_text()
        after = render(before)
        page.write_text(after)
        changed += before != after
    sys.stderr.write("written\n" if changed else "nothing to write\n")
