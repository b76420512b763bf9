"""A worker with a profile reports the stages of some jobs, and the worker beside its engine alone; then it ends."""

from __future__ import annotations

import json
from pathlib import Path

from support.scenes import Scene, write_clip
from support.stack import WorkerProcess

from videoqa.client import Client
from videoqa.settings import Settings
from videoqa_worker.embedded.redis_server import RedisServer


def test_a_worker_writes_its_profile_and_ends(redis_server: RedisServer, tmp_path: Path) -> None:
    settings = Settings(redis_url=redis_server.url, prefix="profile")
    clip = write_clip([Scene.single("red", "circle", "right")], tmp_path / "clip.mp4")
    with Client(settings=settings) as client:
        for n in range(4):
            client.submit(inputs=[clip.as_uri()], questions=[f"What is moving? {n}"], cache="off")
        client.submit(inputs=[(tmp_path / "missing.mp4").as_uri()], questions=["What?"])
    path = tmp_path / "profile.json"
    arguments = (
        "from pathlib import Path\n"
        "from videoqa_worker.__main__ import main\n"
        f"main.__defaults__ = Path({str(path)!r}), 5\n"
    )
    with WorkerProcess(settings, tmp_path / "worker", before=arguments) as worker:
        assert worker.wait() == 0, worker.log_tail()
        log = worker.log_path.read_text()
    report = json.loads(path.read_text())
    assert report["attempts"] == 5
    assert report["outcomes"] == {"succeeded": 4, "failed": 1}
    stages = report["stages"]
    assert {name: row["count"] for name, row in stages.items()} == {
        "queued": 5, "fetching": 5, "sampling": 4, "generating": 4, "storing": 4, "attempt": 5,
    }  # fmt: skip
    assert all(
        0 <= row["p50_s"] <= row["p99_s"] <= row["total_s"] + 1e-3 for row in stages.values()
    )
    engine = report["engine"]
    assert engine["questions"] == engine["questions_asked_again"] == 4
    assert engine["in_worker"]["output_tokens"] == engine["alone"]["output_tokens"] > 0
    assert engine["fed"] > 0
    flame = report["flame_graph"]
    assert Path(flame["file"]).exists() if flame["file"] else "py-spy" in flame["why"]
    assert "of what its engine alone does" in log
    assert f"report: {path}" in log
