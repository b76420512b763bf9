"""A long video in segments: each is answered rightly, and a killed worker's successor goes on behind it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from support.cli import Run
from support.scenes import describe, sample_scene, write_clip
from support.stack import WorkerProcess

from videoqa.client import Client
from videoqa.contract import Result, TextPiece
from videoqa.settings import Settings
from videoqa_worker.job.segments import AHEAD

SCENES = [sample_scene(random.Random(seed), "single") for seed in range(20)]
SCENE_S = 4.0
TRUTHS = [describe(scene) for scene in SCENES]
QUESTION = "Describe the video."
IN_SCENES = {"method": "segment", "segment_s": SCENE_S}
NOTED = """
import os, time
from videoqa_worker.job import segments
from videoqa_worker.engine.execution.forward import ForwardPass
decode, ask = ForwardPass.decode, segments.Segments._ask_about
def slow(*args, **more):
    time.sleep(0.02)
    return decode(*args, **more)
def noted(self, segment):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{segment.number}\\n")
    return ask(self, segment)
ForwardPass.decode, segments.Segments._ask_about = slow, noted
"""


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 s, a scene each 4 s."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return write_clip(SCENES, path, fps=10, duration_s=SCENE_S)


def request(film: Path, **fields: Any) -> dict[str, Any]:
    sampling = IN_SCENES | fields.pop("sampling", {})
    return {"inputs": [film.as_uri()], "questions": [QUESTION], "sampling": sampling, **fields}


def told(result: Result) -> list[str]:
    return [part.text for part in result.segments]


def test_each_segment_is_answered_with_its_own_times_and_frames(
    worker: WorkerProcess, stack_client: Client, film: Path
) -> None:
    job = stack_client.submit(request(film, sampling={"frames": 4}))
    assert stack_client.wait(job.id, timeout_s=60).state == "succeeded"
    result = stack_client.result(job.id)
    assert told(result) == TRUTHS
    assert (result.answers, result.frames) == ((), ())
    for n, part in enumerate(result.segments):
        assert (part.number, part.start, part.end) == (n, n * SCENE_S, (n + 1) * SCENE_S)
        assert [frame.pts_s for frame in part.frames] == [part.start + k for k in range(4)]
    assert result.usage.frames == 4 * len(SCENES)
    assert result.usage.output_tokens == sum(
        answer.output_tokens for part in result.segments for answer in part.answers
    )
    (source,) = result.sources
    assert source.duration_s == SCENE_S * len(SCENES)


def test_segments_come_as_they_are_answered_and_the_summary_at_the_end(
    worker: WorkerProcess, stack_client: Client, film: Path
) -> None:
    clip = {"url": film.as_uri(), "start": SCENE_S, "end": 4 * SCENE_S}
    fields = request(film, inputs=[clip], summary=True, stream=True)
    job = stack_client.submit(fields)
    pieces = list(stack_client.stream(job.id, timeout_s=60))
    result = stack_client.result(job.id)
    assert [(piece.start, piece.text) for piece in pieces[:3]] == [
        (n * SCENE_S, TRUTHS[n]) for n in range(1, 4)
    ]
    assert [piece.question_id for piece in pieces[3:]] == ["summary"]
    assert pieces[3].text == result.answers[0].text
    assert result.answers[0].question.startswith("Summarize")
    assert [warning.code for warning in result.warnings] == ["summary_unsupported"]
    again = stack_client.submit(fields)
    found = list(stack_client.stream(again.id, timeout_s=60))
    assert stack_client.result(again.id).cached
    assert [piece.text for piece in found] == [piece.text for piece in pieces]
    other = stack_client.submit(fields | {"summary": "What came first?"})
    stack_client.wait(other.id, timeout_s=60)
    assert not stack_client.result(other.id).cached


def test_the_command_prints_segments_and_subtitles(
    worker: WorkerProcess, stack_settings: Settings, film: Path, run: Run
) -> None:
    where = {"VIDEOQA_REDIS_URL": stack_settings.redis_url, "VIDEOQA_PREFIX": stack_settings.prefix}
    asked = run("ask", str(film), QUESTION, "--segments", "4", "--end", "12", "--json", **where)
    job_id = Result.model_validate_json(asked.stdout).job_id
    text = run("result", job_id, **where)
    assert text.stdout.splitlines() == [f"00:00:0{n * 4}.000  {TRUTHS[n]}" for n in range(3)]
    assert "saw 24 frames in 3 segments" in text.stderr
    for cached in ("", ", from the cache"):
        done = run(
            "ask", str(film), QUESTION, "--segments", "4", "--end", "12", "--summary", **where
        )
        assert f"saw 24 frames in 3 segments{cached};" in done.stderr
        assert done.stderr.count("the model demo cannot summarize") == 2, "at the start and the end"
    vtt = run("result", job_id, "--format", "vtt", **where).stdout
    assert vtt.split("\n\n")[:2] == ["WEBVTT", f"00:00:00.000 --> 00:00:04.000\n{TRUTHS[0]}"]
    srt = run("result", job_id, "--format", "srt", **where).stdout
    assert srt.startswith(f"1\n00:00:00,000 --> 00:00:04,000\n{TRUTHS[0]}\n\n2\n")
    assert Result.model_validate_json(
        run("result", job_id, "--format", "json", **where).stdout
    ).segments
    wrong = run("result", job_id, "--format", "ass", **where)
    assert (wrong.returncode, "text or json or vtt or srt" in wrong.stderr) == (2, True)


@pytest.fixture
def killed(settings: Settings) -> Iterator[tuple[Settings, Client]]:
    settings = settings.model_copy(update={"prefix": "kill-segments"})
    with Client(settings=settings) as client:
        yield settings, client


def test_a_killed_workers_successor_goes_on_behind_the_last_answered_segment(
    killed: tuple[Settings, Client], film: Path, tmp_path: Path, redis_client: redis.Redis
) -> None:
    settings, client = killed
    notes = [tmp_path / "first", tmp_path / "second"]
    first = WorkerProcess(settings, tmp_path / "1", before=NOTED, NOTES=str(notes[0]))
    with first:
        first.wait_ready(client)
        job = client.submit(request(film, stream=True))
        for event in client.events(job.id, timeout_s=60):
            if event.type == "progress" and (event.done or 0) >= 3:
                first.kill()
                break
    kept = {
        int(field)
        for field in redis_client.hkeys(f"kill-segments:segments:{job.id}")
        if field != "of"
    }
    assert kept == set(range(len(kept)))
    assert 3 <= len(kept) < len(SCENES)
    with WorkerProcess(settings, tmp_path / "2", before=NOTED, NOTES=str(notes[1])) as second:
        second.wait_ready(client)
        ended = client.wait(job.id, timeout_s=60)
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    asked = [[int(line) for line in path.read_text().split()] for path in notes]
    assert asked[1] == list(range(len(kept), len(SCENES)))
    assert len(set(asked[0]) & set(asked[1])) <= AHEAD
    result = client.result(job.id)
    assert told(result) == TRUTHS
    texts = [TextPiece.of(event) for event in client.events(job.id)]
    starts = [piece.start for piece in texts if piece is not None]
    assert sorted(set(starts)) == [n * SCENE_S for n in range(len(SCENES))]
    assert not redis_client.exists(f"kill-segments:segments:{job.id}"), "the result has them all"
