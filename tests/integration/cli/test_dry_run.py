"""A dry run: what an archive would take, by headers alone, beside what its jobs then took."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.servers import HttpServer, Route
from support.stack import WorkerProcess
from support.videos import Recipe

from videoqa.bulk import Estimate, Manifest, OutputDir, ProgressReporter, estimate_manifest
from videoqa.client import Client
from videoqa.contract import JobRequest
from videoqa.storage import ObjectStore
from videoqa_worker.cli.dry_run import probe
from videoqa_worker.cli.dry_run.__main__ import TimeOver, estimate
from videoqa_worker.cli.dry_run.preview import Preview, TooLarge
from videoqa_worker.cli.dry_run.probe import open_probe
from videoqa_worker.cli.frames.command import load_settings
from videoqa_worker.cli.frames.take import take_frames
from videoqa_worker.settings import WorkerSettings

ENVIRON = {"VIDEOQA_MODEL": "demo", "VIDEOQA_DOWNLOAD_BELOW_BYTES": "100000"}
NOTHING = OutputDir("/nowhere/output", ObjectStore())
QUESTIONS = ["What is it?", "What color is it, and where does it go?"]


def dry_run(*sources: Path | str, environ: dict[str, str] = ENVIRON, **fields: Any) -> Estimate:
    defaults = {"questions": QUESTIONS} | fields
    with Manifest([*map(str, sources)], defaults=defaults, store=ObjectStore()) as manifest:
        return estimate_manifest(
            manifest, probe(environ) if environ else None, ProgressReporter(quiet=True), NOTHING
        )


def test_headers_say_how_much_an_archive_takes(
    make_clip: Callable[[Recipe], Path], tmp_path: Path
) -> None:
    names = ("a.mp4", "b.mkv", "c.avi", "d.webm")
    for name in names:
        codec = "libvpx-vp9" if name == "d.webm" else "libx264"
        make_clip(Recipe(name=name, codec=codec, frames=75, b_frames=0))
    (tmp_path / "bad.mp4").write_bytes(b"<html>nothing</html>" * 99)
    (tmp_path / "empty.mp4").write_bytes(b"")
    found = dry_run(tmp_path, sampling={"frames": 4})
    assert (found.rows, found.videos, found.failed, found.unknown) == (6, 6, 2, 0), found
    codes = {text.rpartition("(")[2] for text in found.problems}
    assert codes == {"not_a_video)", "source_empty)"}
    assert found.frames == 16
    assert found.hours == pytest.approx(4 * 3 / 3600, rel=0.02)
    assert found.fetched_bytes == 0, "files of this machine"


def test_frames_and_tokens_are_those_of_the_jobs(
    make_clip: Callable[[Recipe], Path], stack_client: Client, worker: WorkerProcess
) -> None:
    clip = make_clip(Recipe(frames=50))
    samplings: list[dict[str, Any]] = [
        {"frames": 5},
        {"method": "fps", "fps": 4},
        {"method": "times", "times": [1]},
        {"method": "segment", "segment_s": 0.8, "overlap_s": 0.2, "frames": 3},
    ]
    for sampling in samplings:
        found = dry_run(clip, sampling=sampling)
        job = stack_client.submit(inputs=[clip.as_uri()], questions=QUESTIONS, sampling=sampling)
        assert stack_client.wait(job.id, timeout_s=60).state == "succeeded"
        usage = stack_client.result(job.id).usage
        assert (found.frames, found.prompt_tokens) == (usage.frames, usage.input_tokens), sampling


def test_too_many_segments_are_a_problem_before_anything_is_submitted(
    make_clip: Callable[[Recipe], Path],
) -> None:
    environ = ENVIRON | {"VIDEOQA_MAX_SEGMENTS": "3"}
    sampling = {"method": "segment", "segment_s": 0.5}
    found = dry_run(make_clip(Recipe(frames=50)), sampling=sampling, environ=environ)
    assert found.failed == 1
    assert found.problems[0].endswith("(too_many_segments)")


def test_without_the_models_processor_tokens_are_unknown(
    make_clip: Callable[[Recipe], Path],
) -> None:
    clip = make_clip(Recipe())
    assert dry_run(clip, model="org/other").prompt_tokens is None
    assert dry_run(clip, environ={"VIDEOQA_MODEL": "org/none"}).prompt_tokens is None


def test_of_a_large_remote_file_only_the_header_is_read_and_the_planned_bytes_are_told(
    make_clip: Callable[[Recipe], Path], http_server: HttpServer
) -> None:
    large = {"preset": "ultrafast", "qp": "0"}  # 130 bytes a picture instead of 33
    clip = make_clip(Recipe(frames=5_000, size=(64, 48), gop=50, codec_options=large))
    body = clip.read_bytes()
    route = http_server.routes["/long.mp4"] = Route(body)
    url = http_server.url("/long.mp4")
    found = dry_run(url, sampling={"frames": 4})
    probed = sum(end - start + 1 for start, end in map(_span, route.ranges_seen))
    settings = load_settings(ENVIRON)
    view = take_frames(url, {"frames": 4}, None, None, settings, lambda received, total: None)
    assert found.hours == pytest.approx(5_000 / 25 / 3600)
    assert found.frames == 4
    assert found.fetched_bytes == pytest.approx(view.fetched_bytes, rel=0.1)
    assert probed < view.fetched_bytes < len(body)


def _span(header: str | None) -> tuple[int, int]:
    first, _, last = (header or "0-0").partition("-")
    return int(first), int(last)


def test_without_the_worker_it_says_what_to_install(
    make_clip: Callable[[Recipe], Path],
) -> None:
    found = dry_run(make_clip(Recipe()), environ={})
    assert (found.rows, found.videos, found.hours, found.frames) == (1, 1, None, None)
    assert "pip install ./worker" in found.note


def test_a_request_of_a_gateway_ends_in_its_time(http_server: HttpServer) -> None:
    """A source that says nothing would hold one of a few threads for minutes."""
    hanging = threading.Event()
    http_server.routes["/x.mp4"] = Route(b"x" * 1000, on_request=lambda route: hanging.wait(20))
    request = JobRequest.model_validate(
        {"inputs": [http_server.url("/x.mp4")], "questions": ["What?"]}
    )
    settings = WorkerSettings.from_environment(ENVIRON, private_addresses=True)
    begun = time.monotonic()

    def check() -> None:
        if time.monotonic() > begun + 1.0:
            raise TimeOver

    with open_probe(settings) as found, pytest.raises(TimeOver):
        estimate(found, request, check)
    hanging.set()
    assert time.monotonic() - begun < 10


def test_a_preview_fetches_no_more_than_it_may(
    make_clip: Callable[[Recipe], Path], http_server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = make_clip(Recipe(frames=300, size=(320, 240))).read_bytes()
    http_server.routes["/x.mp4"] = Route(body)
    url = http_server.url("/x.mp4")
    asked = {"inputs": [url], "questions": ["?"], "sampling": {"frames": 8}}
    request = JobRequest.model_validate(asked)
    settings = WorkerSettings.from_environment(ENVIRON, private_addresses=True)
    with open_probe(settings) as found:
        answer = estimate(found, request, lambda: None, Preview())
        assert (answer["taken"], len(answer["shown"])) == (8, 8)
        module = sys.modules["videoqa_worker.cli.dry_run.probe"]
        monkeypatch.setattr(module, "MOST_FETCHED_BYTES", len(body) // 4)
        with pytest.raises(TooLarge):
            estimate(found, request, lambda: None, Preview())


def test_a_dry_run_starts_without_torch() -> None:
    """Gateways start one for each preview process: with torch it takes five times as long."""
    code = "import sys, videoqa_worker.cli.dry_run.__main__; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
