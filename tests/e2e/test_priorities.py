"""Interactive jobs come first, and bulk jobs go on beside them."""

from __future__ import annotations

from pathlib import Path

from support.scenes import Scene, write_clip
from support.stack import WorkerProcess

from videoqa.client import Client
from videoqa.settings import Settings


def test_bulk_jobs_go_on_while_interactive_ones_keep_coming(
    stack_settings: Settings, tmp_path: Path
) -> None:
    settings = stack_settings.model_copy(update={"prefix": "priorities"})
    clip = write_clip(Scene.single("red", "circle", "right"), tmp_path / "clip.mp4")

    def submit(client: Client, priority: str) -> str:
        return client.submit(
            inputs=[clip.as_uri()],
            questions=["What is moving?"],
            sampling={"frames": 2},
            priority=priority,
        ).id

    with Client(settings=settings) as client:
        bulk = [submit(client, "bulk") for _ in range(8)]
        interactive = [submit(client, "interactive") for _ in range(40)]
        with WorkerProcess(settings, tmp_path / "worker", VIDEOQA_SLOTS="1"):
            for job_id in (*bulk, *interactive):
                assert client.wait(job_id, timeout_s=60).state == "succeeded"
        jobs = [client.get(job_id) for job_id in (*bulk, *interactive)]
    order = sorted(jobs, key=lambda job: job.started_at or job.created_at)
    kinds = [job.priority for job in order]
    last = max(n for n, kind in enumerate(kinds) if kind == "interactive")
    beside = kinds[:last].count("bulk")
    assert 3 <= beside <= 7, kinds
    assert kinds[:20].count("interactive") >= 15, kinds
