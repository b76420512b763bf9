"""What is made of a tensor is made once, and goes with it."""

from __future__ import annotations

import gc
import weakref

import torch

from videoqa_worker.prompt import PerTensor


class Made:
    pass


def test_it_is_made_once_for_a_tensor_and_not_for_an_equal_one() -> None:
    seen: list[torch.Tensor] = []

    def make(tensor: torch.Tensor) -> int:
        seen.append(tensor)
        return len(seen)

    per = PerTensor(make)
    one, equal = torch.zeros(3), torch.zeros(3)
    assert [per(one), per(one), per(equal), per(one)] == [1, 1, 2, 1]
    assert len(seen) == 2


def test_it_lives_as_long_as_the_tensor() -> None:
    per = PerTensor(lambda _: Made())
    tensor = torch.zeros(3)
    made = weakref.ref(per(tensor))
    gc.collect()
    assert made() is per(tensor)
    del tensor
    gc.collect()
    assert made() is None


def test_a_tensor_of_which_nothing_else_is_made_is_not_kept() -> None:
    per = PerTensor(lambda tensor: tensor)
    tensor = torch.zeros(3)
    assert per(tensor) is tensor
    gone = weakref.ref(tensor)
    del tensor
    gc.collect()
    assert gone() is None
