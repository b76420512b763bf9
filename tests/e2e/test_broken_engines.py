"""A worker whose engine hangs or whose device breaks ends itself, and its jobs are answered elsewhere.

No GPU is here to break, so the model's decoding is replaced by what it would do.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.scenes import Scene, write_clip
from support.stack import WorkerProcess

from videoqa.client import Client
from videoqa.settings import Settings
from videoqa_worker.service.watchdog import BROKEN_STATUS

BREAKS = """
import time, torch
from videoqa_worker.engine.execution.forward import ForwardPass
answered = ForwardPass.decode
def decode(passes, first, rows, **more):
    if max(row.at for slot in rows for row in slot) > 100:  # not the warm-up
        {fault}
    return answered(passes, first, rows, **more)
ForwardPass.decode = decode
"""
FAULTS = {
    "hangs": "time.sleep(1000)",
    "breaks": 'raise torch.AcceleratorError("CUDA error: device-side assert triggered")',
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_job_of_a_broken_engine_is_answered_by_another(
    stack_settings: Settings, tmp_path: Path, fault: str
) -> None:
    settings = stack_settings.model_copy(update={"prefix": f"engine-{fault}"})
    clip = write_clip(Scene.single("red", "circle", "right"), tmp_path / "clip.mp4")
    before = BREAKS.format(fault=FAULTS[fault])
    broken = WorkerProcess(settings, tmp_path / "broken", before=before, VIDEOQA_STEP_TIMEOUT_S="1")
    with Client(settings=settings) as client, broken:
        broken.wait_ready(client)
        job = client.submit(inputs=[clip.as_uri()], questions=["Describe the video."])
        assert broken.wait() == BROKEN_STATUS, broken.log_tail()
        waiting = client.get(job.id)
        assert (waiting.state, waiting.attempt) == ("queued", 1)
        assert waiting.failure is not None
        assert waiting.failure.code == "engine_stopped"
        assert client.workers() == []
        sound = WorkerProcess(settings, tmp_path / "sound")
        with sound:
            done = client.wait(job.id, timeout_s=60)
            assert (done.state, done.attempt) == ("succeeded", 2)
            assert "red circle" in client.result(job.id).answers[0].text
