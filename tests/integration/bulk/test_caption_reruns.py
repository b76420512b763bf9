"""Runs into an OUTPUT that has rows: each replaces its own, and lines, tables and objects agree."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from support.attempts import Model
from support.caption import ROWS, Heard, captioned, working

from videoqa import errors
from videoqa.bulk import (
    Manifest,
    Options,
    OutputDir,
    ProgressReporter,
    RowCounts,
    Subtitles,
    estimate_manifest,
    parse_where,
)
from videoqa.settings import Settings
from videoqa.storage import ObjectStore

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
        flat = pyarrow.parquet.read_table(output / "answers.parquet").to_pylist()
        assert [(row["custom_id"], row["text"], row["error_code"]) for row in flat] == [
            (line["custom_id"], line["answers"][0]["text"], None)
            if line["ok"]
            else (line["custom_id"], None, line["error"]["code"])
            for line in found
        ]
        with (output / "answers.csv").open(newline="") as file:
            assert list(csv.DictReader(file)) == [
                {name: "" if value is None else str(value) for name, value in row.items()}
                for row in flat
            ]
    return by_id


def test_a_part_with_another_question_replaces_its_own_lines_and_no_others(
    settings: Settings, tmp_path: Path
) -> None:
    with working(settings, tmp_path, Model()):
        captioned(settings, tmp_path, formats=("csv", "parquet"))
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


class CountingStore(ObjectStore):
    """Counts the objects of rows that are read."""

    reads = 0

    def read_version(self, url: str) -> tuple[bytes, str]:
        self.reads += "/results/" in url or "/failed/" in url
        return super().read_version(url)


class Failing(Model):
    fails = False

    def answer(self, *args: Any) -> Any:
        if self.fails:
            raise errors.UnsupportedInput("the model is no good")
        return super().answer(*args)


def count_reads(settings: Settings, folder: Path, **options: Any) -> tuple[int, RowCounts]:
    store = CountingStore()
    tally = captioned(settings, folder, store=store, **options)
    return store.reads, tally


def test_a_run_that_goes_on_reads_no_object_unless_its_index_is_lost_or_the_object_changed(
    settings: Settings, tmp_path: Path
) -> None:
    model = Failing()
    with working(settings, tmp_path, model):
        captioned(settings, tmp_path)
        model.fails = True
        captioned(settings, tmp_path, question="Why?", sources=URLS)
        file = tmp_path / "out" / "results.jsonl"
        file.write_text(file.read_text().replace('"subtitles":[]', '"subtitles":["file:///a.vtt"]'))
        before = lines(tmp_path)
        text = file.read_text()
        index = tmp_path / "out" / "index.jsonl"
        reads, tally = count_reads(settings, tmp_path, question="Why?", sources=URLS)
        assert (reads, tally.failed) == (0, len(URLS))
        written = file.stat().st_mtime_ns
        rest = [f"s3://b/{name}" for name in NAMES if name not in PART]
        reads, tally = count_reads(settings, tmp_path, sources=rest)
        assert (reads, tally.skipped) == (0, len(rest))
        assert file.stat().st_mtime_ns == written
        for lost in (index.unlink, lambda: index.write_text(index.read_text()[:-40])):
            lost()
            reads, tally = count_reads(settings, tmp_path, sources=rest)
            assert reads > 0
            assert tally.skipped == len(rest)
            assert file.read_text() == text, "lines with their subtitles stay"
            assert count_reads(settings, tmp_path, sources=rest)[0] == 0
        (tmp_path / "out" / "index.jsonl").unlink()
        count_reads(settings, tmp_path, sources=rest)
        assert (
            count_reads(
                settings, tmp_path, sources=rest, subtitles=Subtitles("vtt", beside_videos=True)
            )[0]
            == 0
        )
        changed = tmp_path / "out" / "results" / f"{NAMES[0]}.json"
        changed.write_text(changed.read_text().replace('"job_id": "', '"job_id": "another_'))
        count_reads(settings, tmp_path, sources=rest)
        after = lines(tmp_path)
        assert {name for name in NAMES if after[name] != before[name]} == {NAMES[0]}
        assert after[NAMES[0]]["job_id"].startswith("another_")


def test_results_whose_index_and_lines_are_of_another_time_are_read_again(
    settings: Settings, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with working(settings, tmp_path, Model()):
        captioned(settings, tmp_path)
        old = (output / "results.jsonl").read_text()
        captioned(settings, tmp_path, question="Why?")
        before = lines(tmp_path)
        (output / "results.jsonl").write_text(old)  # as after a kill, or from a backup
        reads, _ = count_reads(settings, tmp_path, question="Why?", sources=URLS)
        assert reads == ROWS
        assert lines(tmp_path) == before


def test_only_rows_in_the_state_that_is_asked_for_are_asked(
    settings: Settings, tmp_path: Path
) -> None:
    model = Failing()
    with working(settings, tmp_path, model):
        model.fails = True
        captioned(settings, tmp_path, sources=URLS[:2])
        model.fails = False
        captioned(settings, tmp_path, sources=URLS[2:])
        asked = model.asked
        tally = captioned(settings, tmp_path, where=("failed",))
        assert (tally.done, tally.left_out, tally.total) == (2, ROWS - 2, 2)
        assert model.asked == asked + 2
        tally = captioned(settings, tmp_path, question="Why?", where=("new",))
        assert (tally.done, tally.left_out) == (ROWS - len(URLS), len(URLS))
        tally = captioned(settings, tmp_path, question="Why?", where=("changed",))
        assert (tally.done, tally.left_out) == (len(URLS), ROWS - len(URLS))


def test_a_dry_run_tells_what_would_be_asked_and_why(settings: Settings, tmp_path: Path) -> None:
    model = Failing()
    with working(settings, tmp_path, model):
        captioned(settings, tmp_path, sources=URLS[:3])
        model.fails = True
        captioned(settings, tmp_path, sources=URLS[3:])

    def plan(*sources: str, options: Options | None = None, **fields: Any) -> dict[str, Any]:
        output = OutputDir(str(tmp_path / "out"), ObjectStore())
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
        with Manifest(
            sources or URLS, defaults={"questions": ["?"]} | fields, store=ObjectStore(),
            root=output.read_root(),
        ) as manifest:  # fmt: skip
            quiet = ProgressReporter(quiet=True)
            found = estimate_manifest(manifest, None, quiet, output, options)
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
        assert found.videos == found.plan.new + found.plan.again
        return {name: value for name, value in asdict(found.plan).items() if value}

    assert plan(*URLS, "s3://b/x.mp4") == {"new": 1, "done": 3, "failed": 1}
    assert plan(options=Options(retry_failed=True)) == {
        "done": 3, "again": 1, "reasons": {"failed before": 1}
    }  # fmt: skip
    assert plan(questions=["Why?"], model="m", sampling={"frames": 3}) == {
        "again": 4,
        "reasons": {
            "question changed": 4, "model changed": 4, "settings changed": 4, "failed before": 1
        },
    }  # fmt: skip
    line = {"custom_id": PART[0], "url": URLS[0], "start": 1}
    (tmp_path / "m.jsonl").write_text(json.dumps(line))
    assert plan(str(tmp_path / "m.jsonl")) == {"again": 1, "reasons": {"input changed": 1}}
    assert plan(options=Options(where=("failed",))) == {
        "again": 1, "reasons": {"failed before": 1}, "left_out": 3
    }  # fmt: skip
    (tmp_path / "out" / "index.jsonl").unlink()
    assert plan() == {"done": 3, "failed": 1}


def test_names_that_differ_in_case_only_are_refused_where_they_are_one_file(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = ["s3://b/a.mp4", "s3://b/É.mp4", "s3://b/e\u0301.mp4"]
    output = OutputDir(str(tmp_path / "out"), ObjectStore())
    output.write_root("s3://b")
    assert not output.ignores_case(), "a file system of Linux"
    monkeypatch.setattr(OutputDir, "ignores_case", lambda self: True)
    with pytest.raises(errors.ManifestRefused, match=r"É.*which are one file in .*/out"):
        captioned(settings, tmp_path, sources=sources)
    with working(settings, tmp_path, Model()):
        assert captioned(settings, tmp_path, sources=sources[:2]).done == 2


def test_where_is_refused_if_it_is_no_state() -> None:
    assert parse_where("state=failed,new") == ("new", "failed")
    for text in ("failed", "state=", "state=done", "model=failed"):
        with pytest.raises(errors.InvalidRequest, match="state=failed"):
            parse_where(text)


def test_a_row_that_fails_with_another_question_is_one_failed_line_until_it_is_answered(
    settings: Settings, tmp_path: Path
) -> None:
    model = Failing()
    with working(settings, tmp_path, model):
        captioned(settings, tmp_path, formats=("csv", "parquet"))
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
