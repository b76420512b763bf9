"""Answers: the flat table of an archive, with one row for each answer, as answers.csv and answers.parquet.

A row is about one question and one video, or one segment of it. A video without a result has one row,
with an error code. The columns are `COLUMNS`, in each of the files.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from videoqa.bulk.output.records import parse_line

__all__ = ["COLUMNS", "Column", "list_answers", "spell_value", "write_csv"]


@dataclass(frozen=True)
class Column:
    """One column of the table."""

    name: str
    kind: type[str | int | float]
    meaning: str


COLUMNS = (
    Column("custom_id", str, "The row of the archive: the video's path below the root, or its own id."),
    Column("video", str, "URL of the video, or of the first of several inputs."),
    Column("question_id", str, "Id of the question; `summary` for a summary of segments."),
    Column("question", str, "Text of the question."),
    Column("text", str, "The answer."),
    Column("value", str, "The value of an answer of a form, as JSON; empty: free text, or it was cut off."),
    Column(
        "start", float,
        "Start of the segment or clip that the answer is about, in seconds; empty: the video's beginning.",
    ),
    Column("end", float, "End of it; empty: the video's end."),
    Column("segment", int, "Number of the segment, from 0; empty: no segment."),
    Column("finish_reason", str, "`stop`, `length` or `stop_string`."),
    Column("input_tokens", int, "Tokens of the prompt."),
    Column("output_tokens", int, "Tokens of the answer."),
    Column("warnings", str, "Codes of the warnings about the video's answers, separated by spaces."),
    Column("model", str, "The model that answered."),
    Column("model_revision", str, "Commit of its checkpoint, if known."),
    Column("job_id", str, "The job; empty: its request was refused."),
    Column("result", str, "URL of the result object."),
    Column("error_code", str, "Code of the failure of a video without a result; empty: it has one."),
    Column("error_message", str, "Its message."),
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001
"""Beginnings of a text that a spreadsheet may run as a formula."""


def list_answers(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """Yields the rows of the lines of results.jsonl, in their order; what a row lacks is not in it."""
    for line in lines:
        found = parse_line(line)
        error = found["error"] or {}
        row = {name: found[name] for name in ("custom_id", "model", "model_revision", "job_id")}
        row |= {"video": next(iter(found["inputs"]), None), "result": found["result"]}
        row["warnings"] = " ".join(warning["code"] for warning in found["warnings"]) or None
        if error:
            yield row | {"error_code": error["code"], "error_message": error["message"]}
        for part in found["segments"]:
            span = {"start": part["start"], "end": part["end"], "segment": part["number"]}
            yield from (row | spell_value(answer) | span for answer in part["answers"])
        clip = _find_clip(found["sources"])
        yield from (row | spell_value(answer) | clip for answer in found["answers"])


def spell_value(answer: dict[str, Any]) -> dict[str, Any]:
    """Returns an answer whose value is JSON text, so that all rows have one type."""
    value = answer.get("value")
    text = None if value is None else json.dumps(value, ensure_ascii=False)
    return answer | {"value": text}


def _find_clip(sources: list[dict[str, Any]]) -> dict[str, Any]:
    if len(sources) != 1:
        return {}
    return {name: sources[0].get(name) for name in ("start", "end")}


def write_csv(file: IO[bytes], lines: Iterator[bytes]) -> None:
    """Writes the table as RFC 4180 has it, in UTF-8; texts that may be formulas begin with an apostrophe."""
    names = [column.name for column in COLUMNS]
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    try:
        table = csv.writer(text, lineterminator="\r\n")
        table.writerow(names)
        for row in list_answers(lines):
            table.writerow([_protect(row.get(name)) for name in names])
    finally:
        text.detach()


def _protect(value: Any) -> Any:
    is_formula = isinstance(value, str) and value.startswith(_FORMULA)
    return f"'{value}" if is_formula else value
