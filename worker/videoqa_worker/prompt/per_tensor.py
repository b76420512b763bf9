"""What is made of a tensor once, for as long as it lives: questions about the same pictures share theirs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["PerTensor"]

T = TypeVar("T")


class PerTensor(Generic[T]):
    """Safe to use from many threads. The tensors must not be written to, and what is made of one must not hold
    it, or both stay for good; the tensor itself, as of one whose pages are locked already, may be made of it."""

    def __init__(self, make: Callable[[torch.Tensor], T]) -> None:
        self._make = make
        self._made: Any = WeakIdKeyDictionary()
        self._lock = threading.Lock()

    def __call__(self, tensor: torch.Tensor) -> T:
        with self._lock:
            found: T | None = self._made.get(tensor)
        if found is None:
            found = self._make(tensor)
            if found is not tensor:
                with self._lock:
                    self._made[tensor] = found
        return found
