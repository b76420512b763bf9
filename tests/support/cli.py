"""The installed `videoqa` command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from videoqa.settings import Settings

__all__ = ["COMMAND", "Run"]

COMMAND = Path(sys.executable).parent / "videoqa"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment(settings: Settings, tmp_path: Path) -> dict[str, str]:
    clean = {name: text for name, text in os.environ.items() if not name.startswith("VIDEOQA_")}
    return clean | {
        "VIDEOQA_REDIS_URL": settings.redis_url,
        "VIDEOQA_PREFIX": settings.prefix,
        "VIDEOQA_HOME": str(tmp_path / "home"),
        "NO_COLOR": "1",
    }


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    def run(*args: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [COMMAND, *args],
            env=environment | variables,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
        return done

    return run
