"""Subtitle files of an archive's rows: one for each video, and none replaces another's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from videoqa.bulk import OutputDir, Row
from videoqa.bulk.output.subtitle_files import (
    SubtitleFormat,
    Subtitles,
    find_written,
    write_subtitles,
)
from videoqa.contract import JobRequest, Result
from videoqa.storage import ObjectStore, file_path

KINDS: tuple[SubtitleFormat, ...] = ("vtt", "srt")


@pytest.fixture
def place(tmp_path: Path) -> OutputDir:
    return OutputDir(str(tmp_path / "out"), ObjectStore())


def write(
    place: OutputDir,
    kind: SubtitleFormat,
    custom_id: str,
    *clips: dict[str, Any],
    beside: bool = True,
) -> list[str]:
    """Writes the files of a row, and returns their texts once all are written."""
    request = JobRequest.model_validate({"inputs": clips, "questions": ["What?"]})
    fields: dict[str, Any] = {
        "job_id": "job_1", "frames": [], "model": "m", "sampling": {}, "generation": {},
        "usage": {}, "attempt": 1, "created_at": "2026-01-01T00:00:00Z",
        "finished_at": "2026-01-01T00:00:00Z",
        "answers": [{
            "question_id": "q1", "question": "What?", "text": f"by {custom_id}",
            "finish_reason": "stop", "input_tokens": 1, "output_tokens": 1,
        }],
        "sources": [
            {"kind": "video", "size_bytes": 1, "width": 2, "height": 2, **clip} for clip in clips
        ],
    }  # fmt: skip
    row = Row(custom_id, request, "digest")
    subtitles = Subtitles(kind, beside)
    urls = write_subtitles(row, Result.model_validate(fields), subtitles, place)
    assert find_written([], place.url) == ""
    if beside == any("/out/" not in url for url in urls):
        assert find_written(list(urls), place.url) == str(subtitles)
    return [file_path(url).read_text() for url in urls]


def clip(video: Path, start: float) -> dict[str, Any]:
    return {"url": video.as_uri(), "start": start, "end": start + 5}


@pytest.mark.parametrize("kind", KINDS)
def test_subtitles_go_to_output_unless_their_place_is_beside_the_videos(
    kind: SubtitleFormat, place: OutputDir, tmp_path: Path
) -> None:
    clips = [clip(tmp_path / f"{name}.mp4", 0) for name in ("film", "other")]
    write(place, kind, "holiday/film 1.mp4", *clips, beside=False)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob(f"*.{kind}")}
    assert files == {
        f"out/subtitles/holiday--film 1.mp4.{kind}",
        f"out/subtitles/holiday--film 1.mp4==2.{kind}",
    }
    write(place, kind, "holiday/film 1.mp4", *clips)
    assert {path.stem for path in tmp_path.glob(f"*.{kind}")} == {"film", "other"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("later", ["clip-1", "clip-10", "clip", "lip-10"])
def test_two_rows_about_one_video_keep_a_file_each(
    kind: SubtitleFormat, later: str, place: OutputDir, tmp_path: Path
) -> None:
    video = tmp_path / "film.mp4"
    (first,) = write(place, kind, "clip-10x", clip(video, 0))
    (second,) = write(place, kind, later, clip(video, 5))
    assert f"by {later}\n" in second
    assert (tmp_path / f"film.{kind}").read_text() == first


@pytest.mark.parametrize("kind", KINDS)
def test_two_clips_of_one_video_in_a_row_have_a_file_each(
    kind: SubtitleFormat, place: OutputDir, tmp_path: Path
) -> None:
    clips = [clip(tmp_path / "film.mp4", start) for start in (0, 5)]
    for _ in range(2):  # the second time, the row's files are replaced
        texts = write(place, kind, "both", *clips)
        assert ["00:00:05" in text.partition("-->")[0] for text in texts] == [False, True]
        (beside,) = tmp_path.glob(f"film.{kind}")
        assert beside.read_text() == texts[0]
        assert len(list(tmp_path.rglob(f"*.{kind}"))) == 2


def test_no_custom_id_has_the_name_of_another_rows_second_video(
    place: OutputDir, tmp_path: Path
) -> None:
    elsewhere = [{"url": f"https://host/{n}.mp4"} for n in range(2)]
    write(place, "vtt", "a", *elsewhere)
    write(place, "vtt", "a-1", elsewhere[0])
    write(place, "vtt", "a%1", elsewhere[0])
    assert len(list((tmp_path / "out" / "subtitles").iterdir())) == 4
