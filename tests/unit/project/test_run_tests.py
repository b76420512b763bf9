"""A second run forgives a few tests that fail beside others and pass alone, and nothing else."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]

ONCE = """
import pathlib, pytest
def is_first(name):
    mark = pathlib.Path(name)
    first = not mark.exists()
    mark.touch()
    return first
def test_once():
    assert not is_first("once"), "the machine was busy"
"""
OTHERS = """
def test_twice():
    raise ValueError("a defect")
@pytest.fixture
def broken():
    yield
    raise ValueError("not cleaned up")
def test_teardown(broken): ...
def test_skipped():
    assert not is_first("skipped")
    pytest.skip("away")
"""
SKIPPED = (
    ONCE
    + """
    pytest.skip("away")
"""
)
LANE_ENDS = "import os\ndef test_exit():\n    os._exit(0)\n"
NO_TESTS = "import no_such_module\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Loads the script, with one part of one lane in an empty project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
        monkeypatch.delenv(name)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p xdist -p support.failures\n")
    (tmp_path / "test_good.py").write_text("def test_good(): ...\n")
    found = runpy.run_path(str(ROOT / ".ci/run_tests.py"))
    monkeypatch.setitem(found, "PYTEST_PARTS", {"computing": ["-n", "1"]})
    monkeypatch.setitem(found, "BIN", Path(sys.executable).parent)
    return found


@pytest.mark.parametrize(
    ("source", "status", "said"),
    [
        pytest.param(
            ONCE,
            0,
            [
                "FAILED BESIDE OTHERS, NOT ALONE test_it.py::test_once: AssertionError: the machine was busy"
            ],
            id="alone",
        ),
        pytest.param(
            ONCE + OTHERS,
            1,
            [
                "FAILED BESIDE OTHERS, NOT ALONE test_it.py::test_once: AssertionError: the machine was busy",
                "FAILED TWICE test_it.py::test_twice: ValueError: a defect",
                "FAILED TWICE test_it.py::test_teardown: ValueError: not cleaned up",
                "FAILED, AND WAS NOT RUN AGAIN test_it.py::test_skipped: ",
                "1 of 4 passed in the second run",
            ],
            id="twice",
        ),
        pytest.param(SKIPPED, 1, ["0 of 1 passed in the second run"], id="skipped alone"),
        pytest.param(
            LANE_ENDS, 1, ["computing ended with status 3; no second run"], id="a lane ends"
        ),
        pytest.param(
            NO_TESTS, 1, ["computing ended with status 3; no second run"], id="not collected"
        ),
    ],
)
def test_only_tests_that_pass_alone_are_forgiven(
    run: dict[str, Any],
    capfd: pytest.CaptureFixture[str],
    source: str,
    status: int,
    said: list[str],
) -> None:
    Path("test_it.py").write_text(source)
    assert run["main"](["computing"]) == status
    output = capfd.readouterr().out
    assert [each for each in said if each not in output] == []


def test_many_failed_tests_are_not_repeated(run: dict[str, Any]) -> None:
    failed = {f"a.py::test_{each}": "late" for each in range(6)}
    reason = run["find_breakage"]({"computing": run["Outcome"](1, failed)})
    assert reason.startswith("6 tests failed")
    del failed["a.py::test_0"]
    assert run["find_breakage"]({"computing": run["Outcome"](1, failed)}) is None


@pytest.mark.parametrize(
    ("part", "status", "failed"),
    [
        ("check", 1, {}),
        ("waiting", 5, {}),
        ("waiting", -9, {"a.py::test_a": "killed"}),
        ("waiting", 1, {}),
    ],
)
def test_what_no_test_explains_is_not_forgiven(
    run: dict[str, Any], part: str, status: int, failed: dict[str, str]
) -> None:
    outcomes = {
        "computing": run["Outcome"](1, {"b.py::test_b": "late"}),
        part: run["Outcome"](status, failed),
    }
    assert run["find_breakage"](outcomes).startswith(part)
    del outcomes[part]
    assert run["find_breakage"](outcomes) is None
