"""A checkpoint comes from the hub, and says how far it is; a real HTTP server plays the hub.

The loads run in a process of its own, since the hub's client reads its endpoint once.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.models import DEMO

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOAD = """
import sys
from videoqa.errors import ConfigurationError
from videoqa_worker.engine.model import loading_progress as progress
from videoqa_worker.engine import Engine
from videoqa_worker.settings import EngineConfig
progress.REPORT_EVERY_S = 0.0
for wanted in sys.argv[1:]:
    name, _, revision = wanted.partition("@")
    config = EngineConfig(model=name, revision=revision or None, device="cpu", cpu_threads=1)
    try:
        with Engine(config, on_state=print) as engine:
            print("revision", engine.revision)
    except ConfigurationError as error:
        print("refused", error)
    print("---")
"""


class Hub(ThreadingHTTPServer):
    """Serves the files of the demo model as `some/llava`; `some/gated` is behind a licence."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Files)
        self.got: list[str] = []


class _Files(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        repository, _, rest = self.path.partition("/resolve/")
        revision, _, name = rest.partition("/")
        path = DEMO / name
        known = repository == "/some/llava" and revision in ("main", COMMIT) and path.is_file()
        if repository == "/some/gated":
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        elif not known:
            wrong = "EntryNotFound" if "some/llava" in self.path else "RepoNotFound"
            self._send(404, b"", {"X-Error-Code": wrong})
        else:
            body = path.read_bytes()
            etag = f'"{hashlib.sha1(body, usedforsecurity=False).hexdigest()}"'
            self.server.got += [name] if self.command == "GET" else []
            self._send(200, body, {"X-Repo-Commit": COMMIT, "ETag": etag})

    do_HEAD = do_GET  # noqa: N815

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()


def load(hub: Hub, home: Path, *wanted: str) -> list[list[str]]:
    """Returns the lines that are printed while each of these checkpoints loads."""
    env = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(home)}
    env.pop("HF_HUB_OFFLINE", None)
    run = subprocess.run(
        [sys.executable, "-c", LOAD, *wanted],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert "%|" not in run.stderr  # no bars
    return [said.strip().splitlines() for said in run.stdout.split("---\n")[:-1]]


def test_a_checkpoint_is_downloaded_once_and_says_how_far_it_is(hub: Hub, tmp_path: Path) -> None:
    wanted = ("some/llava", f"some/llava@{COMMIT}", "some/llava@v9", "nobody/nothing", "some/gated")
    said, again, no_revision, nothing, gated = load(hub, tmp_path, *wanted)
    assert [line for line in said if line.startswith("downloading model.safetensors: ")]
    assert [line for line in said if line.startswith("loading weights: ")][-1].endswith("100%")
    assert said[-2:] == ["ready", f"revision {COMMIT}"]
    assert again[-1] == f"revision {COMMIT}"
    assert not [line for line in again if line.startswith("downloading")]
    assert hub.got.count("model.safetensors") == 1
    assert no_revision[-1].startswith("refused cannot load some/llava")
    assert nothing[-1].startswith("refused cannot load nobody/nothing")
    assert "check the name" in nothing[-1]
    assert gated[-1].startswith("refused")
    assert "HF_TOKEN" in gated[-1], "a licence is to be accepted"
