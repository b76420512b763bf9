"""Divides the memory beside the weights: the KV cache, and the caches of features and prefixes.

On a CPU it is a share of what the machine or the container has left. On a GPU it is a share of the
device, less the weights and what the largest pass was measured to need, as serving engines do it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from videoqa.errors import ConfigurationError
from videoqa_worker.machine import Memory
from videoqa_worker.settings import EngineConfig

__all__ = [
    "CudaMemory",
    "DeviceMemory",
    "MemoryPlan",
    "MemoryReader",
    "Room",
    "free_memory",
    "measure_cpu_room",
    "measure_cuda_room",
    "measure_device",
    "plan_memory",
]

_CPU_SHARE = 0.5
"""Share of what is available beside the weights: passes, frames, decoders and others need the rest."""
_CPU_CACHE_BYTES = 256 << 20
_CUDA_CACHE_SHARE = 0.05
"""Size of each of the two caches where none is set; the share is of all memory."""
_LARGEST_CACHE_SHARE = 0.125
"""Most of the room for each of them: sequences come first."""
_CUDA_MAX_SEQUENCES = 64
"""A 0.5B on an H200 gained 17 % from 16 to 64 sequences, a 7B 7 %: more would only hold more jobs."""


@dataclass(frozen=True)
class DeviceMemory:
    """The name of a device, and its memory."""

    name: str
    used_bytes: int
    """Memory that this and other processes use."""
    total_bytes: int


@dataclass(frozen=True)
class Room:
    """Memory for the KV cache and the caches of features and prefixes together."""

    size_bytes: int
    total_bytes: int
    """Memory of the device."""
    reason: str
    is_cuda: bool = False


@dataclass(frozen=True)
class MemoryPlan:
    """The sizes of an engine, as they fit its device."""

    max_batch: int
    max_batch_tokens: int
    feature_cache_bytes: int
    prefix_cache_bytes: int
    reason: str
    """Origin of the sizes, for the log."""
    most_pass_tokens: int | None = None
    """Positions of the largest pass that there is memory for; None: of any prompt."""

    def apply(self, config: EngineConfig) -> EngineConfig:
        """Returns the settings with these sizes."""
        return config.model_copy(
            update={
                "max_batch": self.max_batch,
                "max_batch_tokens": self.max_batch_tokens,
                "feature_cache_bytes": self.feature_cache_bytes,
                "prefix_cache_bytes": self.prefix_cache_bytes,
            }
        )


class MemoryReader(Protocol):
    """A GPU's memory as torch counts it; tests inject one of their own."""

    def measure_free(self) -> tuple[int, int]:
        """Returns the free and the total bytes of the device."""

    def count_allocated(self) -> int:
        """Returns the bytes of this process's tensors."""

    def measure_peak(self, run: Callable[[], None]) -> int:
        """Returns the most bytes of tensors while it runs."""


class CudaMemory:
    """The memory of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def measure_free(self) -> tuple[int, int]:
        torch.cuda.empty_cache()  # else what torch holds back for its next tensors is not free
        return torch.cuda.mem_get_info(self._device)

    def count_allocated(self) -> int:
        return torch.cuda.memory_allocated(self._device)

    def measure_peak(self, run: Callable[[], None]) -> int:
        torch.cuda.reset_peak_memory_stats(self._device)
        run()
        return torch.cuda.max_memory_allocated(self._device)


def measure_device(device: torch.device) -> DeviceMemory | None:
    """Returns the name and memory of a device; None: torch does not know it, or the device is broken."""
    if device.type != "cuda":
        return None
    try:
        free, total = torch.cuda.mem_get_info(device)
        return DeviceMemory(torch.cuda.get_device_name(device), total - free, total)
    except RuntimeError:
        return None


def measure_cpu_room(memory: Memory) -> Room:
    """Returns the room in the machine's memory, once the weights are loaded."""
    size = int(memory.available_bytes * _CPU_SHARE)
    return Room(
        size,
        memory.total_bytes,
        f"{_CPU_SHARE:.0%} of the {_gib(memory.available_bytes)} that are available beside the weights, of "
        f"{_gib(memory.total_bytes)} in all",
    )


def measure_cuda_room(
    share: float, run_largest: Callable[[], None], memory: MemoryReader, *, graphs: bool
) -> Room:
    """Returns the room on a GPU: its share, less the weights and the passes.

    Arguments:
        share: of the GPU's memory, for all that this process has on it.
        run_largest: runs the pass that needs the most memory.
        graphs: passes run as CUDA graphs as well, which hold memory of their own.

    Raises:
        ConfigurationError: there is none.
    """
    weights = memory.count_allocated()
    passes = memory.measure_peak(run_largest) - weights
    # Graphs share one pool, which is as large as the largest of them; other passes run without.
    needed = passes * (2 if graphs else 1)
    free, total = memory.measure_free()
    size = min(int(total * share) - weights, free) - needed
    reason = (
        f"{share:.0%} of {_gib(total)}, {_gib(free)} of them free, less {_gib(weights)} of weights and "
        f"{_gib(needed)} for passes"
    )
    if size <= 0:
        raise ConfigurationError(
            f"the GPU has no memory for questions beside the model: {reason}; raise VIDEOQA_GPU_MEMORY_SHARE, end "
            "what else uses this GPU, lower VIDEOQA_PREFILL_CHUNK_TOKENS, or set VIDEOQA_QUANTIZATION=4bit",
            param="gpu_memory_share",
        )
    return Room(size, total, reason, is_cuda=True)


def plan_memory(
    config: EngineConfig, room: Room, *, token_bytes: int, question_tokens: int, max_context: int
) -> MemoryPlan:
    """Returns the sizes that are set, and for the others those that fit.

    Arguments:
        token_bytes: KV of one position in all layers.
        question_tokens: prompt and answer of a usual question.
        max_context: most tokens of prompt and answer.
    """
    default = _CPU_CACHE_BYTES
    if room.is_cuda:
        default = int(room.total_bytes * _CUDA_CACHE_SHARE)
    default = min(default, int(room.size_bytes * _LARGEST_CACHE_SHARE))
    features = default if config.feature_cache_bytes is None else config.feature_cache_bytes
    prefixes = default if config.prefix_cache_bytes is None else config.prefix_cache_bytes
    fitting = max(1, (room.size_bytes - features - prefixes) // token_bytes)
    tokens, batch = config.max_batch_tokens, config.max_batch
    reason = room.reason
    if "max_batch_tokens" in config.model_fields_set:
        reason = f"VIDEOQA_MAX_BATCH_TOKENS={tokens}"
        if room.is_cuda and fitting < tokens:
            tokens, reason = fitting, f"{reason}, of which {fitting} fit: {room.reason}"
    elif room.is_cuda:
        tokens = min(fitting, _CUDA_MAX_SEQUENCES * max_context)
    else:
        tokens = min(fitting, tokens)
    # A row of a batch costs a GPU little; with fixed shapes each step costs that of all rows.
    if room.is_cuda and "max_batch" not in config.model_fields_set and not config.batch_invariant:
        batch = max(batch, min(_CUDA_MAX_SEQUENCES, tokens // question_tokens))
    measured = config.prefill_chunk_tokens if room.is_cuda else None
    return MemoryPlan(batch, tokens, features, prefixes, reason, measured)


def free_memory() -> None:
    """Frees the memory of a failed pass.

    Call it outside of every `except` clause: only there is the last reference to the tensors gone.
    """
    gc.collect()
    torch.cuda.empty_cache()  # nothing where CUDA is not used


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"
