"""The code blocks of README and docs, run against a real worker with the demo model, Valkey and S3."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.testing
from support.gateway import serve_gateway
from support.pages import LIBRARY_PAGE, PAGES, Block, blocks_of, command_line, commands_of
from support.processes import GENEROUS_S
from support.scenes import Scene, write_clip
from support.servers import HttpServer, Route
from support.shown_output import find_difference
from support.stack import WorkerProcess

from videoqa import Client, Settings
from videoqa.gateway import GatewayServer
from videoqa.gateway.access.keys import KeyStore
from videoqa.jobs import connect
from videoqa_worker.embedded import S3Server
from videoqa_worker.embedded.redis_server import RedisServer

PYTHON = [
    block
    for page in PAGES
    if page != LIBRARY_PAGE
    for block in blocks_of(page)
    if block.language == "python" and (block.not_run is None or page.parent.name != "internals")
]
SHELL = [
    block
    for page in PAGES
    for block in blocks_of(page)
    if block.language == "sh" and block.not_run is None
]
COMMANDS = [command for page in PAGES for command in commands_of(page)]
ELSEWHERE = ("git ", "make ", ". ")
"""Commands that prepare the shell or install: `make test` itself is the proof that they work."""


@dataclass(frozen=True)
class Stack:
    """A worker that answers, and the folder and the environment of its user."""

    folder: Path
    client: Client
    environ: Mapping[str, str]


@pytest.fixture(scope="module")
def stack(
    redis_server: RedisServer, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("pages")
    settings = Settings(redis_url=redis_server.url, prefix="videoqa")
    _write_clips(folder, s3_server)
    environ = {
        **s3_server.environment(),
        "VIDEOQA_REDIS_URL": settings.redis_url,
        "VIDEOQA_OUTPUT_ROOTS": str(folder),
        "VIDEOQA_CPU_THREADS": "1",
        "NO_COLOR": "1",
    }
    with (
        Client(settings=settings) as client,
        WorkerProcess(settings, folder / "worker", **environ) as worker,
    ):
        worker.wait_ready(client)
        yield Stack(folder, client, environ | {"VIDEOQA_MODEL": "demo"})


def _write_clips(folder: Path, s3_server: S3Server) -> None:
    """Clips under the names that the pages use, on this machine and in the bucket."""
    circle, square = Scene.single("red", "circle", "right"), Scene.single("blue", "square", "up")
    clip = write_clip(circle, folder / "clip.mp4")
    write_clip([circle, square], folder / "lecture.mp4")
    (folder / "videos").mkdir()
    for name in ("a.mp4", "b.mp4"):
        write_clip(square, folder / "videos" / name, duration_s=1)
    s3 = s3_server.client()
    s3.create_bucket(Bucket="videos")
    for name in ("cat.mp4", "lecture.mp4", *(f"{number}.mp4" for number in range(20))):
        s3.upload_file(str(clip), "videos", name)


@pytest.fixture(autouse=True)
def _user(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stack.folder)
    for name in [name for name in os.environ if name.startswith("VIDEOQA_")]:
        monkeypatch.delenv(name)
    for name, value in stack.environ.items():
        monkeypatch.setenv(name, value)


def make_key(stack: Stack) -> str:
    """Makes an API key of a tenant."""
    settings = stack.client.settings
    with connect(settings) as redis:
        store = KeyStore(redis, url=settings.redis_url, prefix=settings.prefix)
        return store.create("guide", ["submit", "read"], tenant="acme").text


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_a_python_block_runs(
    block: Block, stack: Stack, gateway: GatewayServer, http_server: HttpServer
) -> None:
    assert block.not_run is None
    http_server.routes["/cat.mp4"] = Route((stack.folder / "clip.mp4").read_bytes())
    code = block.code
    for shown, real in {
        "redis://127.0.0.1:6379/0": stack.client.settings.redis_url,
        "https://videoqa.example.org": gateway.url,
        "https://videos.example.org": http_server.url(""),
        "vqa_...": make_key(stack),
    }.items():
        code = code.replace(shown, real)
    job = stack.client.submit(
        inputs=["s3://videos/cat.mp4"],
        questions=["What is moving?"],
        sampling={"method": "segment", "segment_s": 2},
    )
    stack.client.wait(job.id, timeout_s=60)
    exec(compile(code, str(block), "exec"), {"client": stack.client, "job": job})


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_a_shell_block_runs(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = ""
    for line in block.code.splitlines():
        if not line or line.startswith(ELSEWHERE):
            continue
        kept = re.fullmatch(r"id=\$\((?P<command>.*)\)", line)
        command = kept["command"] if kept else line
        words = shlex.split(command.replace("$id", job_id), comments=True)
        monkeypatch.setattr(sys, "argv", words)
        done = typer.testing.CliRunner().invoke(command_line(), words[1:])
        assert done.exit_code == 0, f"{line}: {done.output}"
        if kept:
            job_id = done.stdout.strip()


@pytest.fixture
def gateway(stack: Stack) -> Iterator[GatewayServer]:
    """A gateway before the worker, which knows where its sheets lie."""
    sheets = (stack.folder / "worker" / "sheets").as_uri() + "/{job_id}.jpg"
    files = str(stack.folder / "files")
    with serve_gateway(stack.client.settings, sheet_output=sheets, gateway_files=files) as server:
        yield server


@pytest.mark.parametrize(
    "page", sorted({one.block.page for one in COMMANDS}), ids=lambda page: page.name
)
def test_the_curl_lines_of_a_page_print_what_it_shows(
    page: Path, stack: Stack, gateway: GatewayServer, http_server: HttpServer
) -> None:
    """All blocks of a page run in one bash, so that a variable of one is there in the next."""
    commands = commands_of(page)
    http_server.routes["/cat.mp4"] = Route((stack.folder / "clip.mp4").read_bytes())
    script = "set -euo pipefail\n" + "".join(
        f"{{\n{one.block.code}}} > printed-{n}\n" for n, one in enumerate(commands)
    )
    folder = stack.folder / page.stem
    folder.mkdir()
    done = subprocess.run(
        ["bash", "-c", script.replace("https://videos.example.org", http_server.url(""))],
        cwd=folder,
        env=os.environ | {"VIDEOQA_URL": gateway.url, "VIDEOQA_API_KEY": make_key(stack)},
        capture_output=True,
        text=True,
        timeout=GENEROUS_S,
        check=False,
    )
    printed = sorted(folder.glob("printed-*"))
    last = commands[max(0, len(printed) - 1)].block
    assert done.returncode == 0, f"{last} ended with {done.returncode}: {done.stderr}"
    for n, one in enumerate(commands):
        if one.shown is not None:
            found = (folder / f"printed-{n}").read_text()
            wrong = find_difference(one.shown.language, one.shown.code, found)
            assert wrong is None, f"{one.shown}: {wrong}"
