"""How the device's memory is shared out: weights come first, then keys and values, then what is kept."""

from __future__ import annotations

import gc

import torch

__all__ = ["choose_cache_bytes", "fit_kv_tokens", "free_memory"]

_CUDA_KV_SHARE = 0.7
"""Of the memory that is free beside the weights: small devices have no room for what is asked."""
_CPU_KEPT_BYTES, _CUDA_KEPT_SHARE = 256 << 20, 0.05
"""What each of the two caches may take if the settings say nothing; the share is of all memory."""


def fit_kv_tokens(wanted: int, bytes_each: int, device: torch.device) -> int:
    """Positions, as many as wanted if that leaves the device room for the caches and for passes."""
    if device.type != "cuda":
        return wanted
    free, _ = torch.cuda.mem_get_info(device)
    return min(wanted, max(1, int(free * _CUDA_KV_SHARE) // bytes_each))


def choose_cache_bytes(configured: int | None, device: torch.device) -> int:
    """What a cache of things that were computed before may take."""
    if configured is not None:
        return configured
    if device.type != "cuda":
        return _CPU_KEPT_BYTES
    return int(torch.cuda.get_device_properties(device).total_memory * _CUDA_KEPT_SHARE)


def free_memory() -> None:
    """After a pass that failed, outside of every `except` clause: only there is the last reference to
    its tensors gone."""
    gc.collect()
    torch.cuda.empty_cache()  # nothing where CUDA is not used
