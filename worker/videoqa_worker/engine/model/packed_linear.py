"""Linear layers of the CPU with weights in the order in which its library (oneDNN) reads them.

torch's own product of float32 puts the weights in order at every call. Packed once, a product of 6 rows takes
between a third and two thirds of the time, one of 600 rows 80 to 95 %, and a row's result depends less on the
rows beside it (`benchmarks/RESULTS.md`). The packed weights take the place of the others, so memory stays the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import linear

__all__ = ["PackedLinear", "pack_linears"]

_MIN_WEIGHTS = 1 << 18
"""With fewer, a call's own overhead of some 10 us is more than packing saves at one or two rows."""
_ROWS = 512
"""Rows that the order is chosen for; with it few rows are as fast as in an order of their own."""
_DTYPES = (torch.float32, torch.bfloat16)


class PackedLinear(torch.nn.Linear):
    """A linear layer whose `weight` is packed: it has a shape and a dtype, but can be read by oneDNN only."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Returns [..., out_features] for [..., in_features]."""
        return _multiply(input, self.weight, self.bias)


def pack_linears(model: Any) -> int:
    """Packs the weights of the model's linear layers in place, if it is on a CPU; returns how many it packed.

    Left alone are small weights, those that another module holds too (tied embeddings: packing would double them),
    and layers of any other class, such as quantized ones.
    """
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if model.device.type != "cpu" or not available:
        return 0
    holders: dict[int, int] = {}
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            holders[id(weight)] = holders.get(id(weight), 0) + 1
    chosen = [
        module
        for module in model.modules()
        if type(module) is torch.nn.Linear  # a class of its own has a `forward` of its own
        and module.weight.device.type == "cpu"
        and module.weight.dtype in _DTYPES
        and module.weight.numel() >= _MIN_WEIGHTS
        and holders[id(module.weight)] == 1
    ]
    if not chosen or not _is_right(chosen[0]):
        return 0
    for module in chosen:
        module.weight = torch.nn.Parameter(_pack(module.weight), requires_grad=False)
        module.__class__ = PackedLinear
    return len(chosen)


@torch.inference_mode()
def _is_right(module: torch.nn.Linear) -> bool:
    """Returns True if this machine's torch has these operators, and they multiply as they should."""
    rows = torch.linspace(-1, 1, 3 * module.in_features, dtype=module.weight.dtype).view(3, -1)
    expected = linear(rows, module.weight, module.bias)
    try:
        found = _multiply(rows, _pack(module.weight), module.bias)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    # Both round, in another order of sums.
    allowed = 64 * torch.finfo(rows.dtype).eps * expected.abs().max()
    return bool((found - expected).abs().max() <= allowed)


def _pack(weight: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
    return packed


def _multiply(rows: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
    return product
