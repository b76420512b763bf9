"""Torch's threads on a CPU: one, unless a setting or OMP_NUM_THREADS says another number."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from videoqa_worker.engine.model.loading import load
from videoqa_worker.settings import DEMO_MODEL, EngineConfig

OF_TORCH = 3
"""The number that torch would choose by itself."""


@pytest.fixture(autouse=True)
def _own_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(OF_TORCH)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("setting", "variable", "expected"),
    [(None, None, 1), (None, "", 1), (None, "3", OF_TORCH), (2, None, 2), (2, "3", 2)],
)
def test_a_model_on_the_cpu_uses_so_many_threads(
    setting: int | None, variable: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    load(EngineConfig(model=DEMO_MODEL, device="cpu", cpu_threads=setting), lambda state: None)
    assert torch.get_num_threads() == expected
