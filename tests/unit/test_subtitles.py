"""Cues of subtitles: they cover the clip, and text cannot break out of them."""

from __future__ import annotations

from typing import Any

import pytest

from videoqa.bulk.subtitles import Cue, as_srt, as_vtt, cues
from videoqa.job import FrameUsed, Result, Video

URL = "s3://b/a.mp4"


def result(text: str = "A cat.", duration_s: float | None = 8.0) -> Result:
    source = {"url": URL, "kind": "video", "size_bytes": 1, "width": 2, "height": 2}
    answer = {
        "question_id": "q1", "question": "?", "text": text, "finish_reason": "stop",
        "input_tokens": 1, "output_tokens": 1,
    }  # fmt: skip
    fields: dict[str, Any] = {
        "job_id": "job_1", "answers": [answer], "sources": [source | {"duration_s": duration_s}],
        "frames": [FrameUsed(input=0, pts_s=6.5)], "model": "m", "sampling": {}, "generation": {},
        "usage": {}, "attempt": 1, "created_at": "2026-01-01T00:00:00Z",
        "finished_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    return Result.model_validate(fields)


@pytest.mark.parametrize(
    ("clip", "duration_s", "start_s", "end_s"),
    [
        ({}, 8.0, 0.0, 8.0),
        ({"start": 2.5}, 8.0, 2.5, 8.0),
        ({"start": 2.5, "end": 4.0}, 8.0, 2.5, 4.0),
        ({"end": 99.0}, 8.0, 0.0, 8.0),
        ({}, None, 0.0, 7.5),
    ],
)
def test_the_cue_covers_the_clip(
    clip: dict[str, float], duration_s: float | None, start_s: float, end_s: float
) -> None:
    (cue,) = cues(Video(url=URL, **clip), 0, result(duration_s=duration_s))
    assert (cue.start_s, cue.end_s) == (start_s, end_s)


def test_text_neither_ends_its_cue_nor_is_markup() -> None:
    found = [Cue(3599.9996, 3661.25, "a <b> & c\n\n00:00 --> 00:01\n")]
    assert as_vtt(found, "x/--> y").splitlines() == [
        "WEBVTT", "", "NOTE videoqa x%252F--%3E%20y", "",
        "01:00:00.000 --> 01:01:01.250", "a &lt;b&gt; &amp; c", "00:00 --&gt; 00:01",
    ]  # fmt: skip
    assert as_srt(found).splitlines() == [
        "1", "01:00:00,000 --> 01:01:01,250", "a <b> & c", "00:00 -> 00:01",
    ]  # fmt: skip
