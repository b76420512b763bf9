"""New processes that have the packages of the worker's extra `models`, which lie beside the installation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["FETCHED", "needs_torchvision", "run_python"]

REPOSITORY = Path(__file__).parents[2]
FETCHED = REPOSITORY / ".venv" / "torchvision"
needs_torchvision = pytest.mark.skipif(
    not FETCHED.joinpath("complete").exists(),
    reason="sh .ci/fetch_torchvision.sh brings its packages",
)


def run_python(*arguments: str, path: Path = FETCHED) -> list[str]:
    """Returns the lines that a new Python prints, with `path` among its packages."""
    folders = os.pathsep.join(map(str, (REPOSITORY / "tests", path)))
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": folders},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()
