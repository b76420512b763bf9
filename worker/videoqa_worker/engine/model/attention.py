"""Grouped-query attention of few queries over many keys, without copies of the keys.

Where heads share KV, transformers' SDPA repeats it for each head before any pass with a mask, single
queries excepted: the 0.5B reads its keys eight times and writes them seven times. Here each group's
keys are read as they are: by torch where it can, else the heads of a group are stacked as queries of one
head, which is the same arithmetic. Everything else is left to transformers' own.

An integer mask stands for lengths: how many keys each sequence attends to, with its queries as the last of
them. On CUDA kernels without masks read it: `kernels` for single queries, SDPA's own for more.
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

from videoqa_worker.engine.model.kernels import KERNELS, DecodeQueries
from videoqa_worker.engine.model.last_layer import KEPT_ROWS

__all__ = ["NAME", "encode_lengths", "install"]

NAME = "videoqa"
"""Name that it is registered under in transformers; a kernel's name is appended."""
_MAX_STACKED = 1024
"""Stacked queries of a group. With more, arithmetic and the repeated mask are what costs."""


def install(model: Any, kernel: str | None = None) -> None:
    """Gives the text model of `model` this attention; its vision encoder stays as it is.

    Arguments:
        kernel: a name of `KERNELS`, for single queries with lengths.
    """
    name = f"{NAME}_{kernel}" if kernel else NAME
    # transformers takes a name with `flash` for its own flash-attn, with masks of another kind.
    name = name.replace("flash", "fast")
    AttentionInterface.register(name, partial(_attention, kernel=kernel))
    AttentionMaskInterface.register(name, sdpa_mask)
    text = model.config.get_text_config()
    for module in model.modules():
        if getattr(module, "config", None) is text:
            module.config._attn_implementation = name


def encode_lengths(lengths: torch.Tensor) -> torch.Tensor:
    """Returns lengths, int[batch], in place of a mask: models pass on whatever has four dimensions."""
    return lengths.to(torch.int32)[:, None, None, None]


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
    """Implements transformers' attention interface.

    Arguments:
        query: [batch, heads, queries, dim]; key and value [batch, KV heads, keys, dim].
        attention_mask: bool[batch, 1, queries, keys], or the result of `encode_lengths`.
    """
    kept = getattr(module, KEPT_ROWS, None)
    counts_keys = attention_mask is not None and attention_mask.dtype == torch.int32
    if kept is not None and kept.indices is not None and not counts_keys:
        # Without a mask the only row kept is the last one, which attends to all keys.
        mask = attention_mask if attention_mask is None else attention_mask[:, :, kept.indices]
        few = query[:, :, kept.indices], key, value, mask
        found, _ = _attend(module, *few, dropout, scaling, kernel, **more)
        whole = found.new_zeros(found.shape[0], query.shape[2], *found.shape[2:])
        whole[:, kept.indices] = found
        return whole, None
    return _attend(module, query, key, value, attention_mask, dropout, scaling, kernel, **more)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float,
    scaling: float | None,
    kernel: str | None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    if attention_mask is not None and attention_mask.dtype == torch.int32:
        return _attend_varlen(query, key, value, attention_mask.flatten(), scaling, kernel), None
    batch, heads, queries, dim = query.shape
    groups = heads // key.shape[1]
    cpu = _is_on_cpu(query)
    if attention_mask is None or groups == 1 or (groups * queries > _MAX_STACKED and not cpu):
        inputs = query, key, value, attention_mask, dropout, scaling
        whole: tuple[torch.Tensor, None] = sdpa_attention_forward(module, *inputs, **more)
        return whole
    if cpu and queries > 1:  # on GPUs a mask and groups leave only the slow kernel
        grouped = scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True
        )
        return grouped.transpose(1, 2).contiguous(), None
    stacked = scaled_dot_product_attention(
        query.reshape(batch, key.shape[1], groups * queries, dim),
        key,
        value,
        attn_mask=attention_mask if queries == 1 else attention_mask.repeat(1, 1, groups, 1),
        scale=scaling,
    )
    return stacked.reshape(batch, heads, queries, dim).transpose(1, 2).contiguous(), None


def _attend_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: torch.Tensor,
    scaling: float | None,
    kernel: str | None,
) -> torch.Tensor:
    """Returns [batch, queries, heads, dim]."""
    queries, keys = query.shape[2], key.shape[2]
    if kernel is not None and queries == 1:
        cached = key.transpose(1, 2), value.transpose(1, 2)
        return KERNELS[kernel](DecodeQueries(query[:, :, 0], *cached, lengths, scaling))[:, None]
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and not _has_flash(query, key, value):
        # Else all attention scores would lie in memory at once: the other kernels need keys for each head.
        key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
        groups = 1
    mask = causal_lower_right(queries, keys)
    found = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling, enable_gqa=groups > 1
    )
    return found.transpose(1, 2).contiguous()


def _has_flash(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Returns True if torch's FlashAttention serves this device and dtype."""
    return can_use_flash_attention(SDPAParams(query, key, value, None, 0.0, False, True))


def _is_on_cpu(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu"
