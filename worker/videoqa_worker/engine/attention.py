"""Attention of few queries over many keys, without copies of the keys.

Where heads share keys and values (grouped-query attention), transformers' SDPA repeats them for
each head before any pass with a mask, but for single queries: the 0.5B reads its keys eight times
and writes them seven times. Here each group's keys are read as they are: by torch where it can,
else the heads of a group stand in one row of queries, which is the same arithmetic. Everything else
is left to transformers' own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

__all__ = ["NAME", "install"]

NAME = "videoqa"
"""What transformers knows it by."""
_FEW = 1024
"""Queries of a group's heads together. With more, arithmetic is what costs, and the mask of each."""


def install(model: Any) -> None:
    """Makes the text model of `model` attend so; its encoders of pictures stay as they are."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    text = model.config.get_text_config()
    for module in model.modules():
        if getattr(module, "config", None) is text:
            module.config._attn_implementation = NAME


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """[rows, heads, queries, dim] and [rows, key heads, keys, dim]; bool[rows, 1, queries, keys]."""
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


def _on_cpu(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu"
