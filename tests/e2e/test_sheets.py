"""A sheet has the pictures that the model saw, for a job at once and for one in segments."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.scenes import Scene, write_clip
from support.stack import WorkerProcess

from videoqa.client import Client
from videoqa.settings import Settings


@pytest.fixture
def client(stack_settings: Settings, worker: WorkerProcess) -> Iterator[Client]:
    """A client that knows where the worker's sheets lie."""
    place = (worker.log_path.parent / "sheets").as_uri() + "/{job_id}.jpg"
    with Client(settings=stack_settings.model_copy(update={"sheet_output": place})) as client:
        yield client


def test_the_frames_of_a_job_are_on_its_sheet(client: Client, tmp_path: Path) -> None:
    red, blue = Scene.single("red", "circle", "right"), Scene.single("blue", "square", "up")
    clip = write_clip([red, blue], tmp_path / "clip.mp4")
    plain = client.submit(inputs=[clip.as_uri()], questions=["What is moving?"], cache="off")
    cut = client.submit(
        inputs=[clip.as_uri()],
        questions=["What is moving?"],
        sampling={"method": "segment", "segment_s": 2, "frames": 4},
        sheet=True,
    )
    kept = client.submit(inputs=[clip.as_uri()], questions=["What is moving?"], sheet=True)
    for job in (plain, cut, kept):
        assert client.wait(job.id, timeout_s=60).state == "succeeded"
    assert client.result(plain.id).sheet_url is None
    for job in (cut, kept):
        result = client.result(job.id)
        frames = [*result.frames, *(frame for part in result.segments for frame in part.frames)]
        layout = result.sheet
        assert layout is not None
        assert layout.frames == tuple(range(len(frames)))
        sheet = np.asarray(Image.open(io.BytesIO(client.sheet(job.id)))).astype(int)
        for n, frame in zip(layout.frames, frames, strict=True):
            left = n % layout.columns * layout.tile_width
            top = n // layout.columns * layout.tile_height
            tile = sheet[top : top + layout.tile_height, left : left + layout.tile_width]
            reddest = (tile[..., 0] - tile[..., 2]).max()
            bluest = (tile[..., 2] - tile[..., 0]).max()
            is_first = frame.pts_s < frames[-1].pts_s / 2
            assert (reddest > bluest) == is_first, frame
