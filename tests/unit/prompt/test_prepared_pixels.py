"""Page-locked copies are made once for a tensor, and go with the job's pixels."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from videoqa_worker.prompt import PreparedPixels


def test_each_is_made_once_for_a_tensor_and_not_for_an_equal_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    pixels = PreparedPixels()
    one, equal = torch.zeros(3), torch.zeros(3)
    asked = (one, one, equal, one)
    copies = [pixels.pin(tensor) for tensor in asked]
    assert copies[0] is copies[1] is copies[3] is not copies[2]
    assert [id(tensor) for tensor in pinned] == [id(one), id(equal)]


def test_they_live_as_long_as_the_pixels_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    pixels = PreparedPixels()
    pinned = weakref.ref(pixels.pin(torch.zeros(3)))
    gc.collect()
    assert pinned() is not None
    del pixels
    gc.collect()
    assert pinned() is None


def test_a_tensor_that_is_page_locked_already_goes_with_the_pixels_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    pixels, tensor = PreparedPixels(), torch.zeros(3)
    assert pixels.pin(tensor) is tensor
    gone = weakref.ref(tensor)
    del tensor, pixels
    gc.collect()
    assert gone() is None
