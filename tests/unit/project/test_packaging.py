"""The two distributions go together."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import videoqa
import videoqa_worker

ROOT = Path(__file__).parents[3]


def test_both_distributions_have_one_version_and_the_worker_asks_for_it() -> None:
    project = tomllib.loads((ROOT / "worker/pyproject.toml").read_text())["project"]
    assert videoqa.__version__ == videoqa_worker.__version__
    assert f"videoqa=={videoqa.__version__}" in project["dependencies"]


def test_every_pinned_tool_is_pinned_once() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    names = [line.partition("==")[0].lower() for line in lines]
    assert len(names) == len(set(names))
    assert "torch==2.13.0" in lines


def test_ctrl_c_while_the_command_is_imported_is_quiet(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "producer/pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["videoqa"].partition(":")
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, "-c", f"from {module} import {name}; {name}()"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_every_file_of_tests_has_a_name_of_its_own() -> None:
    """Otherwise one run of pytest cannot collect them all."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
