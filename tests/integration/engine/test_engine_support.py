"""Models that fit into slots, and others, which answer by `generate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.engine import answers, ask
from support.models import clip
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    Qwen2Config,
    SiglipVisionConfig,
)

from videoqa_worker.engine import Engine
from videoqa_worker.engine.execution.continuous import ContinuousRunner
from videoqa_worker.engine.execution.padded import PaddedRunner
from videoqa_worker.engine.model.kv_shape import find_kv_shape
from videoqa_worker.engine.model.loading import LoadedModel, load
from videoqa_worker.settings import EngineConfig

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
}


def shape_of(text: Any) -> tuple[int, int, int] | None:
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    with torch.device("meta"):
        return find_kv_shape(
            LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text))
        )


def test_slots_hold_keys_and_values_of_models_that_attend_to_everything() -> None:
    assert shape_of(LlamaConfig(**SMALL)) == (3, 2, 16)
    assert shape_of(MistralConfig(**SMALL, sliding_window=None, head_dim=8)) == (3, 2, 8)
    assert shape_of(Qwen2Config(**SMALL, sliding_window=32, use_sliding_window=False)) == (3, 2, 16)


@pytest.mark.parametrize(
    "text",
    [
        MistralConfig(**SMALL, sliding_window=32),
        Qwen2Config(**SMALL, sliding_window=32, use_sliding_window=True, max_window_layers=1),
    ],
    ids=["all layers", "some layers"],
)
def test_slots_hold_whole_sequences_of_models_with_a_window(text: Any) -> None:
    assert shape_of(text) == (3, 2, 16)


def test_slots_hold_no_model_with_recurrent_layers() -> None:
    kinds = ["linear_attention", "linear_attention", "full_attention"]
    assert shape_of(Qwen2Config(**SMALL, layer_types=kinds)) is None


def told(
    folder: Path, loader: Callable[..., LoadedModel] = load, **settings: Any
) -> tuple[type, list[tuple[int, ...]]]:
    """Returns the runner that an engine chooses for a model, and its answers."""
    config = EngineConfig(model=str(folder), device="cpu", cpu_threads=1, **settings)
    with Engine(config, loader=loader) as engine:
        requests = [ask(engine, [clip(n, 2 + n)], "What? " * (n + 1)) for n in range(4)]
        return type(engine._runner), [answer.tokens for answer in answers(engine, requests)]


def test_attention_that_takes_no_masks_of_booleans_runs_by_generate(
    checkpoint: Callable[[str], Path],
) -> None:
    folder = checkpoint("interleave")
    runner, by_slots = told(folder)
    assert (runner, len(set(by_slots))) == (ContinuousRunner, 4)
    assert told(folder, attn_implementation="eager") == (PaddedRunner, by_slots)


def changed(change: Callable[[Any], None]) -> Callable[..., LoadedModel]:
    def loader(config: EngineConfig, on_state: Callable[[str], None]) -> LoadedModel:
        loaded = load(config, on_state)
        change(loaded.model)
        return loaded

    return loader


def spread(model: Any) -> None:
    model.hf_device_map = {"model.vision_tower": "cpu", "model.language_model": "disk"}


def stubborn(model: Any) -> None:
    """A model that slots seem to suit, until one runs."""

    def refuse(_: Any, args: Any, kwargs: Any) -> None:
        if not hasattr(kwargs["past_key_values"], "layers"):
            raise AttributeError("'SlotCache' object has no attribute 'layers'")

    model.model.language_model.register_forward_pre_hook(refuse, with_kwargs=True)


@pytest.mark.parametrize("change", [spread, stubborn])
def test_a_model_that_does_not_run_in_slots_runs_by_generate(
    change: Callable[[Any], None], checkpoint: Callable[[str], Path]
) -> None:
    folder = checkpoint("interleave")
    assert told(folder, changed(change)) == (PaddedRunner, told(folder)[1])
