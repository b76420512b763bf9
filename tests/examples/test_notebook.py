"""The example notebook, executed by nbclient: `make test-examples` installs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.processes import GENEROUS_S

nbclient = pytest.importorskip("nbclient", reason="`make test-examples` installs nbclient")
ROOT = Path(__file__).parents[2]


def test_the_notebook_runs_and_shows_answers_errors_and_segments() -> None:
    import nbformat

    notebook = nbformat.read(ROOT / "examples" / "notebook.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=GENEROUS_S, kernel_name="python3")
    client.execute()
    shown = [_text_of(cell) for cell in notebook.cells if cell.cell_type == "code"]
    assert "warming up" in shown[1]
    assert "a red circle moves right" in shown[1]
    assert "(0, 0.0)" in shown[1]
    assert "source_not_found" in shown[2]
    assert "a blue square moves up" in shown[2]
    assert "generating 2 2" in shown[3]


def _text_of(cell: object) -> str:
    outputs = cell.outputs  # type: ignore[attr-defined]
    return "".join(
        output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs
    )
