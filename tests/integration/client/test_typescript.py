"""The TypeScript client of `examples/typescript`: generated from the OpenAPI document, compiled, run on Node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.gateway import make_key, serve_gateway
from support.processes import wait_until
from support.worker import begin, finish

from videoqa import Client
from videoqa.jobs import Ledger
from videoqa.settings import Settings

ROOT = Path(__file__).parents[3]
MODULES = Path(sys.prefix, "typescript", "node_modules")

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (MODULES / ".bin/tsc").exists(),
    reason="with Node and npm at hand, `sh .ci/fetch_typescript.sh` installs what examples/typescript needs",
)


def run(folder: Path, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_example_is_generated_compiled_and_gets_an_answer(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    example = tmp_path / "examples/typescript"
    left_out = shutil.ignore_patterns("node_modules", "dist")
    shutil.copytree(ROOT / "examples/typescript", example, ignore=left_out)
    (tmp_path / "docs/reference").mkdir(parents=True)
    shutil.copy(ROOT / "docs/reference/openapi.json", tmp_path / "docs/reference")
    (example / "node_modules").symlink_to(MODULES)
    built = run(example, "npm", "run", "build")
    assert built.returncode == 0, built.stdout + built.stderr

    def work() -> None:
        with Client(settings=settings) as client:
            wait_until(lambda: client.list().jobs)
        finish(ledger, begin(ledger, "t1"), q1="a cat")

    with serve_gateway(settings) as gateway:
        own = {"VIDEOQA_URL": gateway.url, "VIDEOQA_API_KEY": make_key(settings, "submit", "read")}
        worker = threading.Thread(target=work)
        worker.start()
        ask = ("node", "dist/ask.js", "https://h/a.mp4", "What is it?")
        asked = run(example, *ask, **own)
        worker.join()
        assert (asked.returncode, asked.stdout, asked.stderr) == (0, "a cat\n", "")
        refused = run(example, *ask, **own | {"VIDEOQA_API_KEY": "vqa_wrong"})
        assert (refused.returncode, refused.stderr.partition(":")[0]) == (1, "wrong_key")
