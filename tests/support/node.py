"""OpenAI's client on Node, as a process that makes calls; `.ci/fetch_openai_node.sh` installs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import pytest

__all__ = ["NodeClient", "needs_openai_node"]

MODULES = Path(sys.prefix, "openai_node", "node_modules")
needs_openai_node = pytest.mark.skipif(
    shutil.which("node") is None or not (MODULES / "openai").is_dir(),
    reason="OpenAI's client for Node is not installed; with Node at hand, `sh .ci/fetch_openai_node.sh` puts it "
    "into .venv/openai_node",
)


class NodeClient:
    """One process of Node with OpenAI's client; a context manager."""

    def __init__(self, url: str, key: str) -> None:
        own = {
            "NODE_PATH": str(MODULES),
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENAI_API_KEY": key,
        }
        self._process = subprocess.Popen(
            ["node", str(Path(__file__).parent / "openai_client.cjs")],
            env=os.environ | own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def call(self, name: str, **fields: Any) -> Any:
        """Makes a call; returns its outcome, `{"ok": ...}` or `{"error": ...}`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"name": name, **fields}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "Node has ended"
        return json.loads(line)
