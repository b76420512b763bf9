"""The page: one HTML file with style, script and data inside, that asks nothing of any other host.

The texts of videos and models, without hidden characters, are data of the script, which writes them as text; nothing
of them is HTML. The page's own policy allows its one style and its one script by their digests, and pictures beside it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from videoqa.bulk.output.output_dir import OutputDir, translate_disk_errors
from videoqa.bulk.output.records import parse_line
from videoqa.bulk.output.result_table import NAME
from videoqa.bulk.report.pictures import copy_sheets
from videoqa.client import Client
from videoqa.errors import InvalidRequest
from videoqa.palette import read_palette
from videoqa.printable import printable

__all__ = ["ReportCounts", "check_report", "make_page", "write_report"]

MOST_CHARACTERS = 20_000
"""Longest text of one answer in the page; results.jsonl has the rest."""
_MOST_TIMES = 256


def check_report(path: Path) -> None:
    """Raises InvalidRequest if the page cannot be at this path."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise InvalidRequest(
            f"got --report {path}, expected a file with the suffix .html", param="report"
        )
    if not path.absolute().parent.is_dir():
        raise InvalidRequest(
            f"got --report {path}, expected a file in a folder that is there; make the folder first",
            param="report",
        )


@dataclass(frozen=True)
class ReportCounts:
    """The numbers of videos in a page."""

    videos: int
    answered: int
    pictures: int


def write_report(client: Client, output: OutputDir, path: Path) -> ReportCounts:
    """Writes the page of all rows of OUTPUT, and their pictures into a folder beside it.

    Raises:
        OutputDenied, OutputUnavailable: the page or OUTPUT's table cannot be written or read.
    """
    with translate_disk_errors(path.absolute().parent):
        table = output.open_file(NAME)
        lines = table.readlines() if table is not None else []
        if table is not None:
            table.close()
        folder = path.with_name(f"{path.stem}_files")
        rows = [parse_line(line) for line in lines]
        pictures = copy_sheets(client, (row["job_id"] for row in rows if row["ok"]), folder)
        found = {job: f"{quote(folder.name)}/{quote(name)}" for job, name in pictures.items()}
        partial = path.with_name(f".videoqa-{path.name}")
        partial.write_bytes(make_page(rows, found, output.url))
        partial.replace(path)
    return ReportCounts(
        len(rows), sum(row["ok"] for row in rows), sum(row["job_id"] in found for row in rows)
    )


def make_page(rows: Iterable[Mapping[str, Any]], pictures: Mapping[str, str], output: str) -> bytes:
    """Makes the page of lines of results.jsonl.

    Arguments:
        pictures: the address of each job's sheet, relative to the page.
    """
    data = {
        "output": output,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "rows": [_make_row(row, pictures) for row in rows],
    }
    # An HTML parser ends the script at "</script", and reads on after "<!--": there is no "<" in it.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    style, script = read_palette() + _read("report.css"), _read("report.js")
    policy = (
        f"default-src 'none'; img-src 'self' file:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _read("report.html")
    for name, part in (("policy", policy), ("style", style), ("script", script), ("data", text)):
        page = page.replace(f"{{{{ {name} }}}}", part, 1)
    return page.encode(errors="replace")


def _make_row(row: Mapping[str, Any], pictures: Mapping[str, str]) -> dict[str, Any]:
    """Returns what the page shows of a line, under short names; see `report.js`."""
    answers = [_make_answer(answer) for answer in row["answers"]]
    for part in row["segments"]:
        span = {"s": part["start"], "e": part["end"]}
        answers += [_make_answer(answer) | span for answer in part["answers"]]
    frames = row["frames"] or [frame for part in row["segments"] for frame in part["frames"]]
    times = [round(frame["pts_s"], 2) for frame in frames]
    found = {
        "id": printable(row["custom_id"]),
        "in": [printable(url) for url in row["inputs"]],
        "a": answers,
        "t": times[:_MOST_TIMES],
        "n": len(times),
        "w": sorted({warning["code"] for warning in row["warnings"]}),
        "p": pictures.get(row["job_id"] or ""),
        "j": row["job_id"],
    }
    if row["error"]:
        found["x"] = [
            printable(row["error"]["code"]),
            printable(row["error"]["message"][:MOST_CHARACTERS], lines=True),
        ]
    return {name: value for name, value in found.items() if value not in (None, [])}


def _make_answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    text = answer["text"]
    found: dict[str, Any] = {
        "q": printable(answer["question"]),
        "t": printable(text[:MOST_CHARACTERS], lines=True),
    }
    if len(text) > MOST_CHARACTERS:
        found["cut"] = len(text)
    confidence = answer.get("confidence")
    if isinstance(confidence, int | float):
        found["c"] = round(confidence, 4)
    return found


def _read(name: str) -> str:
    return (files("videoqa.bulk.report") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
