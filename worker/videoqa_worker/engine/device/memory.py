"""Divides the device's memory: weights first, then the KV cache, then the feature and prefix caches."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import torch

__all__ = ["DeviceMemory", "choose_cache_bytes", "fit_kv_tokens", "free_memory", "measure_device"]

_CUDA_KV_SHARE = 0.7
"""Share of the memory that is free beside the weights: small devices have no room for the configured cache."""
_CPU_CACHE_BYTES, _CUDA_CACHE_SHARE = 256 << 20, 0.05
"""Default size of each of the two caches; the share is of all memory."""


@dataclass(frozen=True)
class DeviceMemory:
    """The name of a device, and its memory."""

    name: str
    used_bytes: int
    """Memory that this and other processes use."""
    total_bytes: int


def measure_device(device: torch.device) -> DeviceMemory | None:
    """Returns the name and memory of a device; None: torch does not know it, or the device is broken."""
    if device.type != "cuda":
        return None
    try:
        free, total = torch.cuda.mem_get_info(device)
        return DeviceMemory(torch.cuda.get_device_name(device), total - free, total)
    except RuntimeError:
        return None


def fit_kv_tokens(wanted: int, bytes_each: int, device: torch.device) -> int:
    """Returns as many positions as wanted, or fewer so that the caches and passes fit beside them."""
    if device.type != "cuda":
        return wanted
    free, _ = torch.cuda.mem_get_info(device)
    return min(wanted, max(1, int(free * _CUDA_KV_SHARE) // bytes_each))


def choose_cache_bytes(configured: int | None, device: torch.device) -> int:
    """Returns the size limit of the feature or the prefix cache."""
    if configured is not None:
        return configured
    if device.type != "cuda":
        return _CPU_CACHE_BYTES
    return int(torch.cuda.get_device_properties(device).total_memory * _CUDA_CACHE_SHARE)


def free_memory() -> None:
    """Frees the memory of a failed pass.

    Call it outside of every `except` clause: only there is the last reference to the tensors gone.
    """
    gc.collect()
    torch.cuda.empty_cache()  # nothing where CUDA is not used
