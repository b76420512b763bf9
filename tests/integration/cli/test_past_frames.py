"""`videoqa frames --job`: the pictures that the model saw, or the reason why they cannot be shown.

Jobs are answered by the session's worker, so that record and result are real.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.cli import call_command, clean_environment
from support.scenes import Scene, write_clip
from support.stack import WorkerProcess

from videoqa import Client, Result
from videoqa_worker.cli.frames import past_job

Show = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(Scene.single("green", "triangle", "down"), tmp_path / "clip.mp4")


@pytest.fixture
def show(stack_client: Client, tmp_path: Path) -> Show:
    environment = clean_environment(
        VIDEOQA_REDIS_URL=stack_client.settings.redis_url,
        VIDEOQA_PREFIX=stack_client.settings.prefix,
    )
    return lambda *args: call_command("frames", *args, environment=environment, cwd=tmp_path)


def answer(client: Client, **fields: Any) -> Result:
    job = client.submit(questions=["What is moving?"], cache="off", **fields)
    assert client.wait(job.id, timeout_s=60).state == "succeeded"
    return client.result(job.id)


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"frames": 3},
        {"method": "times", "times": (0.5, 1.5)},
        {"method": "keyframe", "frames": 4},
        {"method": "segment", "segment_s": 1, "frames": 2},
    ],
    ids=lambda sampling: str(sampling.get("method")),
)
def test_the_frames_of_the_result_are_taken_again(
    stack_client: Client, worker: WorkerProcess, show: Show, clip: Path, sampling: dict[str, Any]
) -> None:
    video = {"url": clip.as_uri(), "start": 0.5, "end": 3.0}
    result = answer(stack_client, inputs=[video], sampling=sampling)
    seen = [*result.frames, *(frame for part in result.segments for frame in part.frames)]
    done = show("--job", result.job_id, "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["inputs"]
    assert [(frame["index"], frame["pts_s"]) for frame in found["frames"]] == [
        (frame.index, frame.pts_s) for frame in seen
    ]
    assert "other_frames" not in [warning["code"] for warning in found["warnings"]]


def test_the_frames_of_all_inputs_are_on_one_sheet(
    stack_client: Client, worker: WorkerProcess, show: Show, clip: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (64, 48), "red").save(tmp_path / "red.png")
    inputs = [clip.as_uri(), (tmp_path / "red.png").as_uri(), clip.as_uri()]
    result = answer(stack_client, inputs=inputs, sampling={"budget": 5})
    done = show("--job", result.job_id, "--sheet", "seen.png", "--out", "frames")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote seen.png") == 1
    assert len(list((tmp_path / "frames").iterdir())) == len(result.frames) == 6
    with Image.open(tmp_path / "seen.png") as sheet:
        assert sheet.width >= 720


def test_what_cannot_be_shown_is_refused_with_the_reason(
    stack_client: Client, worker: WorkerProcess, show: Show, clip: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    result = answer(stack_client, inputs=[clip.as_uri()])
    (source,) = result.sources
    monkeypatch.setattr(past_job, "MOST_FRAMES", 7)
    refused = show("--job", result.job_id)
    assert refused.returncode == 2
    assert "got a job of 8 frames, expected at most 7" in refused.stderr
    monkeypatch.undo()
    shutil.copy(clip, tmp_path / "kept.mp4")
    os.utime(clip, (1, 1))
    refused = show("--job", result.job_id)
    assert refused.returncode == 1
    assert f"is another file than the job saw (ETag {source.etag}, now" in refused.stderr
    assert refused.stderr.rstrip().endswith("(input_changed)")
    clip.unlink()
    refused = show("--job", result.job_id)
    assert refused.returncode == 1
    assert refused.stderr.rstrip().endswith("(source_not_found)")
    for wrong in (["--job", result.job_id, "kept.mp4"], ["--job", result.job_id, "-n", "3"], []):
        assert show(*wrong).returncode == 2
    assert show("--job", "job_unknown").returncode == 3


def test_of_a_job_without_a_result_the_frames_that_it_asks_for_are_shown(
    stack_client: Client, show: Show, clip: Path
) -> None:
    stack_client.pause("org/none")
    job = stack_client.submit(inputs=[clip.as_uri()], questions=["What?"], model="org/none")
    done = show("--job", job.id)
    assert done.returncode == 0, done.stderr
    assert "note: this job has no result: these are the frames that it asks for" in done.stderr
    stack_client.cancel(job.id)
    stack_client.resume("org/none")
