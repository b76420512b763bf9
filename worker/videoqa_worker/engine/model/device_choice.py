"""Chooses the device, the dtype and the number of threads of a model."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from videoqa.errors import ConfigurationError
from videoqa_worker.settings import EngineConfig

__all__ = ["choose_device", "choose_dtype", "choose_threads"]


def choose_threads(config: EngineConfig, environ: Mapping[str, str]) -> int | None:
    """Returns the number of torch's threads; None leaves it to torch, which reads OMP_NUM_THREADS.

    One by default: torch's threads spin while they wait for each other, on cores that the decoding
    processes and the other jobs' pixels need.
    """
    if config.cpu_threads is not None:
        return config.cpu_threads
    return None if environ.get("OMP_NUM_THREADS") else 1


def choose_device(config: EngineConfig) -> torch.device:
    """Returns the configured device, or the best one for `auto`.

    Raises:
        ConfigurationError: torch cannot use it.
    """
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(config.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(
            f"got device={config.device!r}, expected one that torch can use here: {error}; "
            'set it to "cpu" or install the driver',
            param="device",
        ) from error
    return device


def choose_dtype(config: EngineConfig, device: torch.device) -> torch.dtype:
    """Returns the configured dtype, or for `auto` the best one that the device supports."""
    if config.dtype != "auto":
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
        }[config.dtype]
    if device.type == "cpu":
        return torch.float32
    has_bfloat16 = device.type != "cuda" or torch.cuda.is_bf16_supported()
    return torch.bfloat16 if has_bfloat16 else torch.float16
