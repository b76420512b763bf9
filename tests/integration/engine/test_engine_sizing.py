"""Engines sized for a GPU: the largest pass runs on real, small models; the GPU's memory is a list of numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from support.engine import Reference, answers, ask
from support.models import clip, write_checkpoint
from support.other_models import write_other

from videoqa.errors import ConfigurationError
from videoqa_worker.engine import Engine
from videoqa_worker.engine import engine as engine_module
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
    assert plan.most_pass_tokens == config.prefill_chunk_tokens
    assert plan.max_batch == 64  # its sequences are tiny
    assert plan.max_batch_tokens == 64 * loaded.prompter.max_context
    with pytest.raises(ConfigurationError, match="VIDEOQA_PREFILL_CHUNK_TOKENS"):
        size_engine(loaded, shape, config, Gpu(torch.OutOfMemoryError("out of memory")))


def test_no_pass_is_longer_than_the_one_that_memory_was_planned_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "size_engine", partial(size_engine, memory=Gpu()))
    path = write_checkpoint("interleave", tmp_path / "interleave")
    config = EngineConfig(model=str(path), device="cpu", cpu_threads=1, prefill_chunk_tokens=16)
    lengths: list[int] = []
    with Engine(config) as engine:
        engine._loaded.model.get_decoder().register_forward_pre_hook(
            lambda _, args, given: lengths.append(given["inputs_embeds"].shape[1]), with_kwargs=True
        )
        alone = ask(engine, [clip(1, 12)], "Where?", max_new_tokens=4)
        (told,) = answers(engine, [alone])
        together = [ask(engine, [clip(2, 12)], "Why? " * n, max_new_tokens=4) for n in (1, 30, 31)]
        answers(engine, together)
    assert alone.inputs.length > 100
    assert max(lengths) == 16
    assert told.tokens == Reference(path).tokens(alone)
