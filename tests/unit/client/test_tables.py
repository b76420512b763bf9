"""Tables of the command line: a terminal's width is kept, and no job's id is ever cut."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len

from videoqa.cli.tables import _list_dead_columns, _list_job_columns, format_age, format_table
from videoqa.contract import Failure, Job, JobRequest

ID = "job_1a2086f5bda31de472ef0da6487"


def make_job(**fields: object) -> Job:
    request = JobRequest(
        inputs=("s3://videos/2026/november/front-door/visit-000123.mp4",) * 2,  # type: ignore[arg-type]
        questions=("Who stands before the door,\nand what is in their hands?",),  # type: ignore[arg-type]
    )
    known = {"id": ID, "state": "failed", "created_at": datetime.now(UTC), "request": request}
    return Job.model_validate(known | fields)


FAILED = make_job(
    failure=Failure(code="video_corrupt", message="no frame could be decoded", attempt=1),
    custom_id="visit-000123",
)


@pytest.mark.parametrize("columns", [_list_job_columns(), _list_dead_columns()])
@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_a_table_fits_its_terminal_and_shows_ids_whole(columns: list, width: int) -> None:  # type: ignore[type-arg]
    lines = format_table(columns, [FAILED, make_job()], width=width)
    assert all(cell_len(line) <= width for line in lines)
    assert all(line.startswith(ID) for line in lines[1:])


def test_a_terminal_without_room_for_one_cut_cell_shows_none() -> None:
    head, row = format_table(_list_job_columns(), [FAILED], width=48)
    assert head.split() == ["JOB", "STATE", "AGE"]
    assert "…" not in row


def test_a_long_cell_is_cut_with_an_ellipsis_where_it_tells_least() -> None:
    head, row = format_table(_list_job_columns(), [make_job()], width=80)
    assert head.split() == ["JOB", "STATE", "AGE", "INPUT", "QUESTION"]
    assert row.split(maxsplit=3)[3] == "…t-000123.mp4 +1  Who stands befo…"
    head, row = format_table(_list_job_columns(), [FAILED], width=140)
    assert head.split()[-1] == "FAILURE"
    assert "video_corrupt: " in row
    (_, row) = format_table(_list_dead_columns(), [FAILED], width=80)
    assert "video_corrupt: no frame" in row


def test_without_a_width_and_with_wide_nothing_is_cut() -> None:
    for wide in (False, True):
        head, row = format_table(_list_job_columns(), [FAILED], width=None, wide=wide)
        assert "s3://videos/2026/november/front-door/visit-000123.mp4 +1" in row
        assert row.endswith("video_corrupt: no frame could be decoded")
        assert ("ATTEMPT" in head) is wide


def test_letters_of_two_columns_are_counted_as_two() -> None:
    wide = make_job(request=None, custom_id="門" * 40)
    lines = format_table(_list_job_columns(), [wide, FAILED], width=90)
    assert all(cell_len(line) <= 90 for line in lines)


def test_an_age_has_its_largest_unit() -> None:
    now = datetime.now(UTC)
    ages = {0: "0s", 59: "59s", 60: "1m", 7199: "1h", 3 * 86_400 + 5: "3d", -5: "0s"}
    for seconds, text in ages.items():
        assert format_age(now - timedelta(seconds=seconds)) == text
