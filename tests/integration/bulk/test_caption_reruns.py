"""Runs into an OUTPUT that has rows: each replaces its own, and lines, tables and objects agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
from support.attempts import Model
from support.caption import ROWS, Heard, captioned, working

from videoqa import errors
from videoqa.settings import Settings

NAMES = [f"{n:02}.mp4" for n in range(ROWS)]
PART = NAMES[3:7]
URLS = [f"s3://b/{name}" for name in PART]


def lines(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the lines by custom_id, after checking that table and objects agree with them."""
    output = folder / "out"
    found = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    by_id = {line["custom_id"]: line for line in found}
    assert len(by_id) == len(found)
    results = [json.loads(path.read_text()) for path in (output / "results").iterdir()]
    failed = [json.loads(path.read_text()) for path in (output / "failed").glob("*")]
    assert {name for name, line in by_id.items() if not line["ok"]} == {
        failure["custom_id"] for failure in failed
    }
    jobs = {result["custom_id"]: result["job_id"] for result in results}
    assert {name: line["job_id"] for name, line in by_id.items() if line["ok"]} == {
        name: job_id for name, job_id in jobs.items() if by_id[name]["ok"]
    }
    if (output / "results.parquet").exists():
        table = pyarrow.parquet.read_table(output / "results.parquet").to_pylist()
        assert [(row["custom_id"], row["job_id"]) for row in table] == [
            (line["custom_id"], line["job_id"]) for line in found
        ]
    return by_id


def test_a_part_with_another_question_replaces_its_own_lines_and_no_others(
    settings: Settings, tmp_path: Path
) -> None:
    with working(settings, tmp_path, Model()):
        captioned(settings, tmp_path, formats=("parquet",))
        before = lines(tmp_path)
        tally = captioned(settings, tmp_path, question="Why?", sources=URLS)
        after = lines(tmp_path)
        assert (tally.done, len(before)) == (len(PART), ROWS)
        kept = [name for name in before if name not in PART]
        assert list(after)[: len(kept)] == kept
        assert set(list(after)[len(kept) :]) == set(PART)
        assert {name for name in NAMES if after[name] != before[name]} == set(PART)
        captioned(settings, tmp_path, question="Why?", sources=URLS[::-1], order="input")
        assert list(lines(tmp_path))[: len(PART)] == PART[::-1]
        assert lines(tmp_path) == after


def test_a_row_that_fails_with_another_question_is_one_failed_line_until_it_is_answered(
    settings: Settings, tmp_path: Path
) -> None:
    class Failing(Model):
        fails = False

        def answer(self, *args: Any) -> Any:
            if self.fails:
                raise errors.UnsupportedInput("the model is no good")
            return super().answer(*args)

    model = Failing()
    with working(settings, tmp_path, model):
        captioned(settings, tmp_path, formats=("parquet",))
        before = lines(tmp_path)
        model.fails = True
        assert captioned(settings, tmp_path, question="Why?", sources=URLS).failed == len(PART)
        after = lines(tmp_path)
        assert {name for name in NAMES if not after[name]["ok"]} == set(PART)
        tally = captioned(settings, tmp_path)
        assert (tally.skipped, tally.failed) == (ROWS, 0)
        assert lines(tmp_path) == before


def test_lost_lines_are_made_of_the_objects_again_those_of_other_rows_as_well(
    settings: Settings, tmp_path: Path
) -> None:
    with working(settings, tmp_path, Model()):
        captioned(settings, tmp_path)
        before = lines(tmp_path)
        file = tmp_path / "out" / "results.jsonl"
        text = file.read_text().splitlines(keepends=True)
        file.write_text("".join(text[:5]) + text[5][:100])
        (tmp_path / "out" / "results" / "foreign.json").write_text("{}")
        heard = Heard()
        assert captioned(settings, tmp_path, heard, sources=URLS[:2]).skipped == 2
        (tmp_path / "out" / "results" / "foreign.json").unlink()
        assert lines(tmp_path) == before
