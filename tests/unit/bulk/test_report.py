"""The page of an archive: its data, which no text breaks out of, and the pictures beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest

from videoqa.bulk import OutputDir, ReportCounts, check_report, write_report
from videoqa.bulk.report.page import MOST_CHARACTERS, make_page
from videoqa.client import Client
from videoqa.errors import InvalidRequest, SheetNotKept
from videoqa.storage import ObjectStore

HOSTILE = "</script><script>alert(1)</script><!--\u202egpj.exe"
SHEET = b"\xff\xd8 a sheet"


def make_line(custom_id: str, text: str, **others: Any) -> dict[str, Any]:
    answer = {"question_id": "q1", "question": "What?", "text": text}
    return {
        "custom_id": custom_id, "ok": True, "inputs": [], "answers": [answer], "job_id": "job_1", "error": None,
        "frames": [{"pts_s": 0.5}], "segments": [], "warnings": [], **others,
    }  # fmt: skip


def read_data(page: bytes) -> dict[str, Any]:
    found = re.search(rb'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return cast(dict[str, Any], json.loads(found[1]))


class Sheets:
    """A client with the sheet of one job."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def sheet(self, job_id: str) -> bytes:
        self.asked.append(job_id)
        if job_id != "job_1":
            raise SheetNotKept("none")
        return SHEET


def test_hostile_texts_are_data_and_long_ones_are_cut() -> None:
    long = make_line("long", "x" * (MOST_CHARACTERS + 5))
    page = make_page([make_line(HOSTILE, HOSTILE, inputs=[HOSTILE]), long], {}, HOSTILE)
    assert page.count(b"</script>") == 2  # the page's own
    first, second = read_data(page)["rows"]
    assert first["id"] == HOSTILE.replace("\u202e", "\\u202e") == first["a"][0]["t"]
    assert (len(second["a"][0]["t"]), second["a"][0]["cut"]) == (
        MOST_CHARACTERS,
        MOST_CHARACTERS + 5,
    )


def test_segments_failures_and_confidence_are_in_the_data() -> None:
    answer = {"question_id": "q1", "question": "What?", "text": "yes", "confidence": 0.81234567}
    part = {"start": 1.0, "end": 2.5, "answers": [answer], "frames": [{"pts_s": 1.25}]}
    failed = {"code": "video_corrupt", "message": "it is"}
    rows = [
        make_line("a", "", answers=[], frames=[], segments=[part]),
        make_line("b", "", answers=[], ok=False, error=failed),
    ]
    first, second = read_data(make_page(rows, {"job_1": "x_files/job_1.jpg"}, "out"))["rows"]
    assert first["a"] == [{"q": "What?", "t": "yes", "c": 0.8123, "s": 1.0, "e": 2.5}]
    assert (first["t"], first["p"]) == ([1.25], "x_files/job_1.jpg")
    assert second["x"] == ["video_corrupt", "it is"]


def test_sheets_lie_beside_the_page_and_are_copied_once(tmp_path: Path) -> None:
    output = OutputDir(str(tmp_path / "out"), ObjectStore())
    lines = [
        make_line("a", "yes"),
        make_line("b", "no", job_id="job_2"),
        make_line("c", "", job_id="../x"),
    ]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page, sheets = tmp_path / "my report.html", Sheets()
    client = cast(Client, sheets)
    assert write_report(client, output, page) == ReportCounts(videos=3, answered=3, pictures=1)
    assert (tmp_path / "my report_files/job_1.jpg").read_bytes() == SHEET
    assert sorted(sheets.asked) == ["job_1", "job_2"]
    assert [row.get("p") for row in read_data(page.read_bytes())["rows"]] == [
        "my%20report_files/job_1.jpg", None, None,
    ]  # fmt: skip
    assert write_report(client, output, page) == ReportCounts(videos=3, answered=3, pictures=1)
    assert sorted(sheets.asked) == ["job_1", "job_2", "job_2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "my report.html",
        "my report_files",
        "out",
    ]


@pytest.mark.parametrize("name", ["report", "nowhere/report.html"])
def test_a_page_that_cannot_be_there_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="--report"):
        check_report(tmp_path / name)
