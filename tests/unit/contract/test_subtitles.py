"""Cues of subtitles: they cover the clip, and text cannot break out of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest

from videoqa.contract import Cue, FrameUsed, Result, Segment, as_srt, as_vtt, make_cues

URL = "s3://b/a.mp4"


def result(text: str = "A cat.", **about: float | None) -> Result:
    source = {"url": URL, "kind": "video", "size_bytes": 1, "width": 2, "height": 2}
    answer = {
        "question_id": "q1", "question": "?", "text": text, "finish_reason": "stop",
        "input_tokens": 1, "output_tokens": 1,
    }  # fmt: skip
    fields: dict[str, Any] = {
        "job_id": "job_1", "answers": [answer], "sources": [source | about],
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
    (cue,) = make_cues(result(**clip, duration_s=duration_s))
    assert (cue.start_s, cue.end_s) == (start_s, end_s)


@pytest.mark.parametrize("clip", [{}, {"start": 2.5, "end": 4.0}])
def test_cues_are_on_the_clock_of_a_player(clip: dict[str, float]) -> None:
    """Sound begins 2.5 s before the first picture, from which the times of a request and its result count."""
    (cue,) = make_cues(result(**clip, duration_s=8.0, start_offset_s=2.5))
    assert (cue.start_s, cue.end_s) == (clip.get("start", 0.0) + 2.5, clip.get("end", 8.0) + 2.5)
    part = {"number": 0, "start": 2.0, "end": 4.0, "frames": [], "answers": []}
    found = result(duration_s=8.0, start_offset_s=2.5)
    (cue,) = make_cues(found.model_copy(update={"segments": (Segment.model_validate(part),)}))
    assert (cue.start_s, cue.end_s) == (4.5, 6.5)


def test_text_neither_ends_its_cue_nor_is_markup() -> None:
    found = [Cue(3599.9996, 3661.25, "a <b> & c\n\n00:00 --> 00:01\n")]
    assert as_vtt(found, "about x").splitlines() == [
        "WEBVTT", "", "NOTE about x", "",
        "01:00:00.000 --> 01:01:01.250", "a &lt;b&gt; &amp; c", "00:00 --&gt; 00:01",
    ]  # fmt: skip
    assert as_srt(found).splitlines() == [
        "1", "01:00:00,000 --> 01:01:01,250", "a <b> & c", "00:00 -> 00:01",
    ]  # fmt: skip


@pytest.mark.parametrize("arrow", ["-->", "--->", "-----> -->", "--\u2028>", "-->->"])
def test_no_arrow_in_a_subrip_text_is_one_of_its_times(arrow: str) -> None:
    written = as_srt([Cue(0, 1, f"00:00:05,000 {arrow} 00:00:06,000"), Cue(1, 2, "b")])
    assert written.count("-->") == 2


def test_segments_have_a_cue_each_with_their_own_times() -> None:
    answer = result().answers[0]
    parts = [
        Segment(
            number=n, start=n * 2.5, end=n * 2.5 + 4, frames=(),
            answers=(answer.model_copy(update={"text": f" {n} "}), answer),
        )
        for n in range(2)
    ]  # fmt: skip
    found = make_cues(result().model_copy(update={"segments": tuple(parts)}))
    assert found == [Cue(0.0, 4.0, "0\nA cat."), Cue(2.5, 6.5, "1\nA cat.")]


def test_a_result_without_a_note_begins_with_its_first_cue() -> None:
    assert as_vtt([Cue(0, 1, "x")]) == "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nx\n"


@pytest.mark.parametrize("kind", ["vtt", "srt"])
def test_ffmpeg_reads_the_cues_that_were_written(kind: str, tmp_path: Path) -> None:
    texts = ["a cat", "two\nlines", "\n\n", "1 --> 2", "NOTE nothing", "a & b < c", "00:01.000"]
    found = [Cue(2.5 * n, 2.5 * n + 2.25, text) for n, text in enumerate(texts)]
    path = tmp_path / f"film.{kind}"
    path.write_text(as_vtt(found, "by us") if kind == "vtt" else as_srt(found))
    with av.open(str(path)) as container:
        (stream,) = container.streams.subtitles
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
        times = [
            (float(p.pts * p.time_base), float(p.duration * p.time_base))  # type: ignore[operator]
            for p in packets
        ]
    shown = [cue for cue in found if kind == "vtt" or cue.text.strip()]  # SubRip has no empty ones
    assert times == [(cue.start_s, 2.25) for cue in shown]
    assert [bytes(packet) for packet in packets[:2]] == [b"a cat", b"two\nlines"]
