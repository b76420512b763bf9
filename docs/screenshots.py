"""Draws the pictures of the dashboard's guide: each page of a real `videoqa up` in Chromium.

    python docs/screenshots.py [FOLDER]

Everything in them happened: jobs about the demo's clips, a film in segments, failures, an archive run, a queue that
is paused and one without a worker. Needs the packages of `make test` and Debian's `chromium`; takes some two minutes.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.browser import SIZES, find_chromium, launch  # noqa: E402
from support.scenes import Scene, write_clip  # noqa: E402

from videoqa.client import Client  # noqa: E402

FOLDER = ROOT / "docs" / "images" / "dashboard"
VIDEOQA = str(Path(sys.executable).with_name("videoqa"))
CLIPS = ROOT / "worker" / "videoqa_worker" / "demo" / "clips"
PAGES = {
    "overview": "/",
    "jobs": "/jobs",
    "job": "/jobs/{answered}",
    "job-failed": "/jobs/{failed}",
    "job-segments": "/jobs/{film}",
    "ask": "/ask?from={answered}",
    "runs": "/runs",
    "run": "/runs/{run}",
    "dead": "/dead",
    "workers": "/workers",
    "queues": "/queues",
    "keys": "/keys",
    "webhooks": "/webhooks",
    "audit": "/audit",
}
"""Name of a picture, and the page that it shows."""
NOBODY = "llava-hf/llava-onevision-qwen2-7b-ov-hf"
"""A model that no worker serves."""
THEMES = ("light", "dark")


@contextmanager
def running(home: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Starts `videoqa up`; yields the link that logs a browser in, and the environment of other commands."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VIDEOQA_")}
    environ = clean | {
        "VIDEOQA_HOME": str(home),
        "VIDEOQA_CPU_THREADS": "1",
        "VIDEOQA_WEBHOOK_NETWORKS": "127.0.0.0/8",
        "HOME": str(home),
    }
    process = subprocess.Popen(
        [VIDEOQA, "up"], cwd=home, env=environ, stdout=subprocess.PIPE, text=True
    )
    link = ""
    try:
        for line in process.stdout or ():
            if line.startswith("in a browser"):
                link = line.split()[-1]
            if "Ctrl-C stops everything" in line:
                break
        yield link, environ
    finally:
        process.terminate()
        process.wait(60)


def command(environ: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [VIDEOQA, *arguments], env=environ, capture_output=True, text=True, check=False
    )
    return done.stdout


def make_film(path: Path) -> Path:
    """Writes a film of a minute, out of clips whose shapes differ."""
    clips = [
        write_clip(Scene.single(color, shape, way), path.with_name(f"{n}.mp4"), duration_s=4.0)
        for n, (color, shape, way) in enumerate(
            (color, shape, way)
            for color in ("red", "green", "blue")
            for shape, way in (("circle", "left"), ("square", "down"), ("triangle", "right"))
        )
    ]
    parts = path.with_suffix(".txt")
    parts.write_text("".join(f"file '{clip.name}'\n" for clip in clips))
    import av

    with av.open(str(path), "w") as out:
        stream = None
        shift = 0
        for clip in clips:
            with av.open(str(clip)) as source:
                video = source.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                last = 0
                for packet in source.demux(video):
                    if packet.dts is None:
                        continue
                    packet.dts, packet.pts = packet.dts + shift, (packet.pts or 0) + shift
                    last = max(last, packet.pts + (packet.duration or 0))
                    packet.stream = stream
                    out.mux(packet)
                shift = last
    for clip in clips:
        clip.unlink()
    parts.unlink()
    return path


def fill(home: Path, environ: dict[str, str]) -> dict[str, str]:
    """Has the worker do what the pictures show; returns the names that the pages' paths need."""
    videos = home / "videos"
    videos.mkdir()
    for clip in CLIPS.glob("*.mp4"):
        shutil.copy(clip, videos)
    broken = videos / "broken.mp4"
    broken.write_bytes((videos / "circle.mp4").read_bytes()[:900])
    film = make_film(home / "film.mp4")
    found: dict[str, str] = {}
    with Client.from_environment(environ) as client:
        ids = []
        for n, clip in enumerate(sorted(videos.glob("*.mp4")) * 3):
            questions = [
                ["What is moving?"],
                ["What color is it?", "How many shapes are there?"],
                ["What happens in this video?"],
            ][n % 3]
            job = client.submit(
                inputs=[clip], questions=questions, tags=["demo", f"batch-{n % 3}"], cache="off",
                priority="bulk" if n % 3 == 2 else "interactive", max_attempts=1,
            )  # fmt: skip
            ids.append((clip.name, job.id))
        missing = client.submit(
            inputs=[videos / "none.mp4"], questions=["What is moving?"], max_attempts=1
        )
        segments = client.submit(
            inputs=[film],
            questions=["What is moving?"],
            sampling={"method": "segment", "segment_s": 4, "frames": 4},
            stream=True,
            webhook={"url": "http://127.0.0.1:9/hook"},
        )
        for job_id in (*(job_id for _, job_id in ids), missing.id, segments.id):
            client.wait(job_id, timeout_s=300)
        for n in range(7):
            client.submit(inputs=[film], questions=[f"What is scene {n} about?"], model=NOBODY)
        client.cancel(client.submit(inputs=[film], questions=["Never mind?"], model=NOBODY).id)
        found |= {
            "answered": [job_id for name, job_id in ids if name == "parade.mp4"][-1],
            "failed": next(job_id for name, job_id in ids if name == "broken.mp4"),
            "film": segments.id,
        }
    command(environ, "caption", str(videos), "-q", "What is moving?", "-o", str(home / "captions"))
    command(environ, "queue", "pause", NOBODY, "--priority", "bulk", "--yes")
    command(environ, "keys", "create", "backend", "--role", "submit", "--role", "read")
    command(environ, "keys", "create", "on-call", "--role", "operate")
    return found


def find_run(page: Page, url: str) -> str:
    answer = page.request.get(f"{url}/v1/runs").json()
    return str(next(iter(answer["runs"]), {"id": ""})["id"])


def draw(browser: Browser, link: str, found: dict[str, str], folder: Path) -> None:
    """Draws each page in both themes and at both widths."""
    url = link.partition("/login")[0]
    context = browser.new_context()
    page = context.new_page()
    page.goto(link)
    found["run"] = find_run(page, url)
    for name, path in PAGES.items():
        answer = page.goto(url + path.format(**found))
        if answer is None or not answer.ok:
            sys.exit(f"{name}: {answer and answer.status} at {page.url}")
        for size, (width, height) in SIZES.items():
            for theme in THEMES:
                page.set_viewport_size({"width": width, "height": height})
                page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
                time.sleep(0.4)  # until local times and pictures are there
                save(
                    page.screenshot(full_page=size == "phone"),
                    folder / f"{name}-{size}-{theme}.png",
                )
    context.close()


def save(data: bytes, path: Path) -> None:
    """Writes a picture with 256 colours, a third of the bytes."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image = image.crop((0, 0, image.width, min(image.height, 3000)))
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name} {path.stat().st_size:,} bytes")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    program = find_chromium()
    if program is None:
        sys.exit("no Chromium: `sh .ci/fetch_chromium.sh` unpacks Debian's")
    with tempfile.TemporaryDirectory() as home, running(Path(home)) as (link, environ):
        found = fill(Path(home), environ)
        httpx.get(link.partition("/login")[0] + "/livez")
        with launch(program) as browser:
            draw(browser, link, found, folder)


if __name__ == "__main__":
    main()
