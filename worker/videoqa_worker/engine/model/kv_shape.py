"""Shape of a text model's KV cache, for models whose KV fits into slots."""

from __future__ import annotations

from typing import Any

import torch

from videoqa_worker.engine.model import attention

__all__ = ["KVShape", "count_token_bytes", "find_kv_shape"]

KVShape = tuple[int, int, int]
"""Layers, KV heads, dimension of a head."""


def find_kv_shape(model: Any) -> KVShape | None:
    """Returns the KV shape of a text model that can run in slots, else None.

    Every layer has to keep the KV of all positions, also of those that its window has left: recurrent layers keep
    other state. Only SDPA takes the slots' boolean masks: eager attention would add them to
    the attention scores. All layers have to be on one device.
    """
    text = model.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    heads = getattr(text, "num_attention_heads", None)
    sdpa = str(getattr(text, "_attn_implementation", None)).startswith(("sdpa", attention.NAME))
    devices = set((getattr(model, "hf_device_map", None) or {}).values())
    if (
        not kinds <= {"full_attention", "sliding_attention"}
        or not heads
        or not sdpa
        or len(devices) > 1
    ):
        return None
    dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    return text.num_hidden_layers, getattr(text, "num_key_value_heads", None) or heads, dim


def count_token_bytes(shape: KVShape, dtype: torch.dtype) -> int:
    """Returns the bytes of one position in all layers."""
    layers, heads, dim = shape
    return 2 * layers * heads * dim * dtype.itemsize
