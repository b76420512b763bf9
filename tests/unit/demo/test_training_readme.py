"""The commands that the training's README gives are ones that the script takes."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path

import pytest

TRAINING = Path(__file__).parents[3] / "training" / "demo_model"


def test_its_commands_to_train_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TRAINING)
    train = importlib.import_module("train")
    start = "python training/demo_model/train.py "
    lines = [line.strip() for line in (TRAINING / "README.md").read_text().splitlines()]
    given = [line.removeprefix(start) for line in lines if line.startswith(start)]
    assert given
    for arguments in given:
        assert train.parse(shlex.split(arguments)).steps > 0
