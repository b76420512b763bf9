"""The example for Daft, with the real library: `make test-examples` installs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.processes import GENEROUS_S

import videoqa_worker

pytest.importorskip("daft", reason="`make test-examples` installs Daft")
ROOT = Path(__file__).parents[2]
CLIPS = Path(videoqa_worker.__file__).parent / "demo" / "clips"


def test_a_table_becomes_captions_and_a_second_run_takes_what_is_new(tmp_path: Path) -> None:
    table, output = tmp_path / "videos", tmp_path / "captions"
    table.mkdir()
    _write(table / "0.parquet", {0: CLIPS / "circle.mp4", 1: Path("/missing.mp4")})
    _run(table, output)
    first = {path.name for path in output.glob("*.parquet")}
    assert _read(output) == {0: ("a red circle moves right", None), 1: (None, "source_not_found")}
    _write(table / "1.parquet", {2: CLIPS / "square.mp4"})
    _run(table, output)
    assert _read(output) == {
        0: ("a red circle moves right", None),
        1: (None, "source_not_found"),
        2: ("a blue square moves up", None),
    }
    new = [path for path in output.glob("*.parquet") if path.name not in first]
    assert [row["id"] for path in new for row in pq.read_table(path).to_pylist()] == [2]


def _run(table: Path, output: Path) -> None:
    program = [sys.executable, str(ROOT / "examples" / "daft_captions.py")]
    given = [f"{table}/*.parquet", str(output), "--model", "demo", "--gpus", "0"]
    done = subprocess.run(
        [*program, *given], capture_output=True, text=True, timeout=GENEROUS_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def _write(path: Path, videos: dict[int, Path]) -> None:
    pq.write_table(pa.table({"id": [*videos], "video": [*map(str, videos.values())]}), path)


def _read(folder: Path) -> dict[int, tuple[Any, Any]]:
    rows = [row for path in folder.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    found = {row["id"]: (row["caption"], row["error"]) for row in rows}
    assert len(found) == len(rows)
    return found
