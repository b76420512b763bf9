"""A training run that is stopped goes on as if it never was: the same bytes at the end."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

TRAINING = Path(__file__).parents[3] / "training" / "demo_model"
STEPS = ["--warmup-steps", "3", "--steps", "3"]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with small batches."""
    monkeypatch.syspath_prepend(TRAINING)
    module = importlib.import_module("train")
    monkeypatch.setattr(module, "_ROWS", 4)
    monkeypatch.setattr(importlib.import_module("warmup"), "_SCENES", 16)
    return module


class StopAfter(list[int]):
    """A list of signals that is empty for so many looks at it."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def __bool__(self) -> bool:
        self._left -= 1
        return self._left < 0


def read_weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("sittings", [(1, 1), (3, 2), (4, 1)])
def test_a_run_of_several_sittings_gives_the_bytes_of_one(
    train: ModuleType, tmp_path: Path, sittings: tuple[int, ...]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train.Training(train.parse(["--out", str(whole), *STEPS])).run([])
    plan = train.parse(["--out", str(parts), *STEPS])
    for steps in sittings:
        assert not train.Training(plan).run(StopAfter(steps))
    last = train.Training(plan)
    assert last.state.sittings == len(sittings) + 1
    assert last.run([])
    assert read_weights(parts) == read_weights(whole)


def test_a_folder_of_another_run_is_refused(train: ModuleType, tmp_path: Path) -> None:
    plan = train.parse(["--out", str(tmp_path), *STEPS])
    assert not train.Training(plan).run(StopAfter(1))
    other = train.parse(["--out", str(tmp_path), *STEPS, "--seed", "1"])
    with pytest.raises(ValueError, match="seed 0, not 1; go on with the same options"):
        train.Training(other)
