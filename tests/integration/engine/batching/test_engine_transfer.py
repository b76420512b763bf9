"""Transfer of pictures to the device. No GPU is here: page-locked memory is told apart by a mark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.engine import answers, ask
from support.models import clip, picture

from videoqa_worker.engine import Engine
from videoqa_worker.engine.model import vision
from videoqa_worker.prompt import Normalisation


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


def test_pictures_whose_pages_cannot_be_locked_leave_no_equal_question_waiting(
    engine_of: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of("onevision", feature_cache_bytes=0, prefix_cache_bytes=0)
    request = ask(engine, [clip(1, 3)], "What?")
    expected = answers(engine, [request])

    def full(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_device_type", "cuda")
        patch.setattr(torch.Tensor, "pin_memory", full)
        with pytest.raises(RuntimeError, match="out of memory"):
            engine.submit(request).result(5)
    assert answers(engine, [request]) == expected


def test_tokens_and_places_go_to_a_gpu_without_waiting_for_it(
    engine_of: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that blocks waits for all that the device has to do before."""
    engine = engine_of("onevision", feature_cache_bytes=0, prefix_cache_bytes=0)
    model, inputs = engine._loaded.model, ask(engine, [clip(1, 3)], "What?").inputs
    waits: list[bool] = []
    plain: Any = torch.Tensor.to

    def look(self: torch.Tensor, *given: Any, non_blocking: bool = False) -> torch.Tensor:
        if not self.is_floating_point():  # features are there already
            waits.append(not non_blocking)
        found: torch.Tensor = plain(self, *given, non_blocking=non_blocking)
        return found

    with torch.inference_mode():
        features = vision.flatten_features(vision.encode(model, inputs))
        monkeypatch.setattr(torch.Tensor, "to", look)
        vision.embed(model, inputs, features)
    assert waits
    assert not any(waits)
