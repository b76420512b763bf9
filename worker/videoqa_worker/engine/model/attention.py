"""Attention of few queries over many keys, without copies of the keys.

Where heads share keys and values (grouped-query attention), transformers' SDPA repeats them for
each head before any pass with a mask, but for single queries: the 0.5B reads its keys eight times
and writes them seven times. Here each group's keys are read as they are: by torch where it can,
else the heads of a group stand in one row of queries, which is the same arithmetic. Everything else
is left to transformers' own.

A mask of integers is none: it says how many keys each row sees, and its queries are the last of them. On
CUDA that is read by kernels that need no mask: `kernels` for single queries, SDPA's own for more.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.backends.cuda import SDPAParams, can_use_flash_attention
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from videoqa_worker.engine.model.kernels import KERNELS, Rows

__all__ = ["NAME", "install", "lengths"]

NAME = "videoqa"
"""What transformers knows it by; that with a kernel is another one."""
_FEW = 1024
"""Queries of a group's heads together. With more, arithmetic is what costs, and the mask of each."""


def install(model: Any, kernel: str | None = None) -> None:
    """Makes the text model of `model` attend so; its encoders of pictures stay as they are.

    Arguments:
        kernel: of `KERNELS`, for single queries where lengths are given.
    """
    name = f"{NAME}_{kernel}" if kernel else NAME
    # What has `flash` in its name is to transformers its own flash-attn, with masks of another kind.
    name = name.replace("flash", "fast")
    AttentionInterface.register(name, partial(_attention, kernel=kernel))
    AttentionMaskInterface.register(name, sdpa_mask)
    text = model.config.get_text_config()
    for module in model.modules():
        if getattr(module, "config", None) is text:
            module.config._attn_implementation = name


def lengths(rows: torch.Tensor) -> torch.Tensor:
    """What stands for a mask where each row sees so many keys, int[rows]; models hand on what has four
    dimensions."""
    return rows.to(torch.int32)[:, None, None, None]


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    kernel: str | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """[rows, heads, queries, dim] and [rows, key heads, keys, dim]; bool[rows, 1, queries, keys], or
    `lengths`."""
    if attention_mask is not None and attention_mask.dtype == torch.int32:
        return _by_length(query, key, value, attention_mask.flatten(), scaling, kernel), None
    rows, heads, queries, dim = query.shape
    groups = heads // key.shape[1]
    cpu = _on_cpu(query)
    if attention_mask is None or groups == 1 or (groups * queries > _FEW and not cpu):
        given = query, key, value, attention_mask, dropout, scaling
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(module, *given, **more)
        return found
    if cpu and queries > 1:  # on GPUs, a mask and groups leave only the slow kernel
        whole = scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True
        )
        return whole.transpose(1, 2).contiguous(), None
    stacked = scaled_dot_product_attention(
        query.reshape(rows, key.shape[1], groups * queries, dim),
        key,
        value,
        attn_mask=attention_mask if queries == 1 else attention_mask.repeat(1, 1, groups, 1),
        scale=scaling,
    )
    return stacked.reshape(rows, heads, queries, dim).transpose(1, 2).contiguous(), None


def _by_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rows: torch.Tensor,
    scaling: float | None,
    kernel: str | None,
) -> torch.Tensor:
    """[rows, queries, heads, dim]."""
    queries, keys = query.shape[2], key.shape[2]
    if kernel is not None and queries == 1:
        seen = key.transpose(1, 2), value.transpose(1, 2)
        return KERNELS[kernel](Rows(query[:, :, 0], *seen, rows, scaling))[:, None]
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and not _by_flash(query, key, value):
        # Else all scores would lie in memory at once: the other kernels want a head's keys for each.
        key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
        groups = 1
    mask = causal_lower_right(queries, keys)
    found = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling, enable_gqa=groups > 1
    )
    return found.transpose(1, 2).contiguous()


def _by_flash(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether torch's FlashAttention is for this device and dtype."""
    return can_use_flash_attention(SDPAParams(query, key, value, None, 0.0, False, True))


def _on_cpu(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu"
