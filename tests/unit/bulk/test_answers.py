"""The flat tables of an archive: one row for each answer, alike in CSV and Parquet, and no formula in it."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import pyarrow.parquet
import pytest

from videoqa.bulk.output.answers import COLUMNS, list_answers, write_csv
from videoqa.bulk.output.parquet import write_answers, write_results
from videoqa.bulk.output.records import ResultLine, RowFailure, failed_line
from videoqa.contract import Failure

CLIP = {"url": "s3://b/a.mp4", "kind": "video", "size_bytes": 1, "width": 2, "height": 2}


def answer(text: str, question_id: str = "q1") -> dict[str, Any]:
    return {
        "question_id": question_id, "question": "What?", "text": text, "finish_reason": "stop",
        "input_tokens": 5, "output_tokens": 2,
    }  # fmt: skip


def line(**fields: Any) -> bytes:
    found = {
        "custom_id": "a.mp4",
        "ok": True,
        "inputs": ["s3://b/a.mp4"],
        "sources": [CLIP],
        **fields,
    }
    return ResultLine.model_validate(found).model_dump_json().encode() + b"\n"


def failed() -> bytes:
    failure = RowFailure(
        custom_id="bad.mp4", inputs=("s3://b/bad.mp4",), digest="d",
        failure=Failure(code="not_a_video", message="no\nvideo", attempt=1),
        failed_at=datetime.now(UTC),
    )  # fmt: skip
    return failed_line(failure).model_dump_json().encode() + b"\n"


SEGMENTS = [
    {"number": n, "start": 30.0 * n, "end": 30.0 * n + 30, "answers": [answer(f"part {n}")],
     "frames": [{"input": 0, "index": n, "pts_s": 30.0 * n}]}
    for n in range(2)
]  # fmt: skip
LINES = [
    line(
        answers=[answer("A cat."), answer("-5", "q2")], model="m",
        warnings=[{"code": "fewer_frames", "message": "3"}, {"code": "clip_shortened", "message": "2"}],
    ),
    line(custom_id="clip", sources=[CLIP | {"start": 5.0, "end": 9.5}], answers=[answer("é, \"x\"\n1")]),
    line(custom_id="long", segments=SEGMENTS, answers=[answer("all", "summary")]),
    failed(),
]  # fmt: skip


def test_each_question_segment_and_failure_is_a_row() -> None:
    rows = list(list_answers(iter(LINES)))
    shown = ("custom_id", "video", "question_id", "text", "start", "end", "segment", "error_code")
    assert [tuple(row.get(name) for name in shown) for row in rows] == [
        ("a.mp4", "s3://b/a.mp4", "q1", "A cat.", None, None, None, None),
        ("a.mp4", "s3://b/a.mp4", "q2", "-5", None, None, None, None),
        ("clip", "s3://b/a.mp4", "q1", 'é, "x"\n1', 5.0, 9.5, None, None),
        ("long", "s3://b/a.mp4", "q1", "part 0", 0.0, 30.0, 0, None),
        ("long", "s3://b/a.mp4", "q1", "part 1", 30.0, 60.0, 1, None),
        ("long", "s3://b/a.mp4", "summary", "all", None, None, None, None),
        ("bad.mp4", "s3://b/bad.mp4", None, None, None, None, None, "not_a_video"),
    ]


def test_warnings_are_told_by_their_codes() -> None:
    rows = list(list_answers(iter(LINES)))
    assert [row["warnings"] for row in rows[1:3]] == ["fewer_frames clip_shortened", None]


def test_csv_and_parquet_hold_the_same_but_for_an_apostrophe_before_formulas() -> None:
    flat, table = io.BytesIO(), io.BytesIO()
    write_csv(flat, iter(LINES))
    write_answers(table, iter(LINES))
    found = pyarrow.parquet.read_table(table).to_pylist()
    lines = flat.getvalue().split(b"\r\n")
    assert lines[0].decode() == ",".join(column.name for column in COLUMNS)
    assert len(lines) == len(found) + 2
    assert "é, \"\"x\"\"\n1" in flat.getvalue().decode()  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(flat.getvalue().decode(), newline="")))
    assert [row.pop("text") for row in rows] == [
        "A cat.", "'-5", 'é, "x"\n1', "part 0", "part 1", "all", ""
    ]  # fmt: skip
    assert [row.pop("text") for row in found][1] == "-5"
    assert rows == [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in found
    ]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"])  # noqa: RUF001
@pytest.mark.parametrize("field", ["custom_id", "question", "text"])
def test_no_text_is_a_formula(field: str, text: str) -> None:
    fields = {"custom_id": "a"} | {"answers": [answer("x")]}
    if field == "custom_id":
        fields["custom_id"] = text
    else:
        fields["answers"] = [answer("x") | {field: text}]
    file = io.BytesIO()
    write_csv(file, iter([line(**fields)]))
    (row,) = csv.DictReader(io.StringIO(file.getvalue().decode(), newline=""))
    assert row[field] == f"'{text}"


def test_results_parquet_has_each_field_of_a_line() -> None:
    table = io.BytesIO()
    write_results(table, iter([*LINES, b'{"custom_id": "of an earlier release"}\n']))
    *rows, short = pyarrow.parquet.read_table(table).to_pylist()
    assert short["custom_id"] == "of an earlier release"
    for row, text in zip(rows, LINES, strict=True):
        found = json.loads(text)
        error = found.pop("error") or {"code": None, "message": None}
        assert row == found | {"error_code": error["code"], "error_message": error["message"]}
