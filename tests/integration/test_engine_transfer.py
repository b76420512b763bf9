"""How pictures get to the device. No GPU is here: page-locked memory is told apart by a mark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fix_models import clip, picture
from test_engine import answers, ask

from videoqa_worker.engine import Engine
from videoqa_worker.prompt.normalisation import Normalisation


def test_pictures_go_to_a_gpu_from_page_locked_memory(
    engine_of: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of("onevision", feature_cache_bytes=0, prefix_cache_bytes=0)
    requests = [ask(engine, [clip(1, 3)], "What?"), ask(engine, [picture(2)], "What?")]
    expected = answers(engine, requests)
    locked: set[int] = set()
    moved: list[bool] = []
    plain: Any = Normalisation.__call__

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        copy = tensor.clone()
        locked.add(copy.data_ptr())
        return copy

    def look(self: Any, pixels: torch.Tensor, device: Any, dtype: Any) -> torch.Tensor:
        moved.append(pixels.data_ptr() in locked)
        found: torch.Tensor = plain(self, pixels, device, dtype)
        return found

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(Normalisation, "__call__", look)
    assert answers(engine, requests) == expected
    assert not any(moved), "there is no GPU"
    moved.clear()
    monkeypatch.setattr(Engine, "_device_type", "cuda")
    assert answers(engine, requests) == expected
    assert moved == [True, True]
