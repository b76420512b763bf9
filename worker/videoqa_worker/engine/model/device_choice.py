"""Chooses the device, the dtype and the number of threads of a model."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import torch

from videoqa.errors import ConfigurationError
from videoqa_worker.settings import EngineConfig

__all__ = ["choose_device", "choose_dtype", "set_threads"]

_DIVIDED_PARAMETERS = 50_000_000
"""A pass of a smaller model is too short to be divided among cores."""


def set_threads(
    config: EngineConfig, environ: Mapping[str, str], model: Any, *, cores: int
) -> None:
    """Sets the threads of the model's operations, which run on the calling thread; OMP_NUM_THREADS is left alone.

    One core is left to the decoding processes and the jobs' pixels. Those are prepared on threads of
    their own, many at a time, so each of them has one.
    """
    if config.cpu_threads is None and environ.get("OMP_NUM_THREADS"):
        return
    threads = config.cpu_threads or _choose_threads(model, cores)
    # torch hands each thread the last number that was set, before its first operation; this one has to
    # have had its own by then.
    torch.get_num_threads()
    torch.set_num_threads(threads)
    others = threading.Thread(target=torch.set_num_threads, args=(1,))
    others.start()
    others.join()


def _choose_threads(model: Any, cores: int) -> int:
    if model.device.type != "cpu" or model.num_parameters() < _DIVIDED_PARAMETERS:
        return 1
    return max(1, cores - 1)


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
