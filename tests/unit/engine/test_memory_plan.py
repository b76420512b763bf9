"""Sizes of an engine by the memory of its device. No GPU is here: its memory is read from a list of numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from videoqa.errors import ConfigurationError
from videoqa_worker.engine.device.memory import (
    Room,
    measure_cpu_room,
    measure_cuda_room,
    plan_memory,
)
from videoqa_worker.engine.kvcache.slot_cache import SlotCache
from videoqa_worker.machine import Memory
from videoqa_worker.settings import EngineConfig

GIB = 1 << 30
TOKEN = 1 << 20
"""Bytes of KV of a token."""


class Gpu:
    """A GPU of 80 GiB with weights of 14 GiB, on which the largest pass takes 2 GiB."""

    def __init__(self, free: int = 65 * GIB, passes: int = 2 * GIB) -> None:
        self.free, self.passes, self.ran = free, passes, False

    def measure_free(self) -> tuple[int, int]:
        return self.free, 80 * GIB

    def count_allocated(self) -> int:
        return 14 * GIB

    def measure_peak(self, run: Callable[[], None]) -> int:
        run()
        return 14 * GIB + self.passes


def run() -> None:
    pass


def plan(config: EngineConfig, room: Room) -> Any:
    return plan_memory(config, room, token_bytes=TOKEN, question_tokens=1000, max_context=32_768)


@pytest.mark.parametrize(
    ("share", "graphs", "gpu", "expected_gib"),
    [
        (0.9, False, Gpu(), 72 - 14 - 2),
        (0.9, True, Gpu(), 72 - 14 - 4),
        (0.45, False, Gpu(), 36 - 14 - 2),
        (0.9, False, Gpu(free=20 * GIB), 20 - 2),  # another process has the rest
    ],
)
def test_a_gpus_room_is_its_share_less_weights_and_passes(
    share: float, graphs: bool, gpu: Gpu, expected_gib: int
) -> None:
    room = measure_cuda_room(share, run, gpu, graphs=graphs)
    assert room.size_bytes // GIB == expected_gib
    assert "14.0 GiB of weights" in room.reason


def test_a_gpu_without_room_is_refused_with_the_setting() -> None:
    with pytest.raises(ConfigurationError, match="VIDEOQA_GPU_MEMORY_SHARE") as refused:
        measure_cuda_room(0.15, run, Gpu(), graphs=True)
    assert refused.value.param == "gpu_memory_share"


def test_a_gpu_has_as_many_tokens_as_fit_and_rows_for_usual_questions() -> None:
    room = Room(40 * GIB, 80 * GIB, "", is_cuda=True)
    found = plan(EngineConfig(), room)
    caches = found.feature_cache_bytes + found.prefix_cache_bytes
    assert found.feature_cache_bytes == found.prefix_cache_bytes == 4 * GIB
    assert caches + found.max_batch_tokens * TOKEN <= room.size_bytes
    assert found.max_batch_tokens == 32 * 1024
    assert found.max_batch == 32
    assert plan(EngineConfig(), Room(4 * GIB, 80 * GIB, "", is_cuda=True)).max_batch == 8
    assert plan(EngineConfig(), Room(200 * GIB, 800 * GIB, "", is_cuda=True)).max_batch == 64
    assert plan(EngineConfig(batch_invariant=True), room).max_batch == 8


def test_settings_win_as_far_as_a_gpu_has_memory() -> None:
    room = Room(40 * GIB, 80 * GIB, "", is_cuda=True)
    given = EngineConfig(
        max_batch=8, max_batch_tokens=5000, feature_cache_bytes=0, prefix_cache_bytes=7
    )
    found = plan(given, room)
    assert found.apply(given) == given
    assert "VIDEOQA_MAX_BATCH_TOKENS=5000" in found.reason
    assert plan(EngineConfig(max_batch_tokens=10**9), room).max_batch_tokens == 32 * 1024


def test_a_cpu_gives_half_of_what_is_available_and_no_more_than_the_default() -> None:
    small = plan(EngineConfig(), measure_cpu_room(Memory(8 * GIB, 4 * GIB)))
    assert small.max_batch_tokens == 2048 - 2 * 256
    assert small.max_batch == 8
    assert (
        plan(EngineConfig(), measure_cpu_room(Memory(900 * GIB, 800 * GIB))).max_batch_tokens
        == 65_536
    )
    # A machine that is full keeps its caches small, and a sequence alone gets what it needs.
    full = plan(EngineConfig(), measure_cpu_room(Memory(8 * GIB, 0)))
    assert (full.max_batch_tokens, full.feature_cache_bytes) == (1, 0)
    assert (
        plan(EngineConfig(max_batch_tokens=9999), measure_cpu_room(Memory(GIB, 0))).max_batch_tokens
        == 9999
    )


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="reads Linux's own count of pages"
)
def test_a_cpus_cache_takes_memory_for_what_is_written_and_gives_it_back() -> None:
    before = _resident_bytes()
    cache = SlotCache((4, 8, 64), 65_536, torch.float32, torch.device("cpu"))  # 1 GiB
    cache.arrange(8192, [])
    keys = torch.ones(1, 8, 512, 64)
    for slot in range(8):
        for layer in range(4):
            cache.for_prefill(slot, 0).update(keys, keys, layer)
    written = 8 * 4 * 2 * keys.numel() * 4
    slack = 30 << 20
    assert written <= _resident_bytes() - before + slack
    assert _resident_bytes() - before < written + slack
    cache.release()
    assert _resident_bytes() - before < slack
    assert not cache.save(7, 512)[3].any()
