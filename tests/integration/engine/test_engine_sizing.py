"""Engines sized for a GPU: the largest pass runs on real, small models; the GPU's memory is a list of numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.models import write_checkpoint
from support.other_models import write_other

from videoqa.errors import ConfigurationError
from videoqa_worker.engine.execution.sizing import size_engine
from videoqa_worker.engine.model.kv_shape import find_kv_shape
from videoqa_worker.engine.model.loading import load
from videoqa_worker.settings import EngineConfig

GIB = 1 << 30


class Gpu:
    """A GPU of 24 GiB. Tells what ran on it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.ran = 0

    def measure_free(self) -> tuple[int, int]:
        return 20 * GIB, 24 * GIB

    def count_allocated(self) -> int:
        return GIB

    def measure_peak(self, run: Callable[[], None]) -> int:
        if self.error is not None:
            raise self.error
        with torch.inference_mode():
            run()
        self.ran += 1
        return 2 * GIB


@pytest.mark.parametrize("family", ["interleave", "onevision", "qwen2_vl"])
def test_the_largest_pass_of_a_model_is_measured(family: str, tmp_path: Path) -> None:
    write = write_other if family == "qwen2_vl" else write_checkpoint
    config = EngineConfig(model=str(write(family, tmp_path / family)), device="cpu")
    loaded = load(config, lambda state: None)
    shape = find_kv_shape(loaded.model)
    assert shape is not None
    lengths: list[int] = []
    loaded.model.register_forward_pre_hook(
        lambda _, args, given: lengths.append(given["inputs_embeds"].shape[1]), with_kwargs=True
    )
    gpu = Gpu()
    plan = size_engine(loaded, shape, config, gpu)
    assert gpu.ran == 1
    assert lengths == [min(config.prefill_chunk_tokens, loaded.prompter.max_context)]
    assert plan.max_batch == 64  # its sequences are tiny
    assert plan.max_batch_tokens == 64 * loaded.prompter.max_context
    with pytest.raises(ConfigurationError, match="VIDEOQA_PREFILL_CHUNK_TOKENS"):
        size_engine(loaded, shape, config, Gpu(torch.OutOfMemoryError("out of memory")))
