"""Fused decoder layers compute what the checkpoint's own do, on the same memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from videoqa_worker.engine.model import attention, fused_layers
from videoqa_worker.engine.model.fused_layers import FusedLayer

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
KINDS: dict[str, Any] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}


def _make_model(kind: str, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    config, model_class = KINDS[kind]
    model = model_class(config(**SIZES)).eval()
    with torch.no_grad():
        for weight in model.parameters():  # biases and norms that count
            weight.add_(torch.randn_like(weight) / 5)
    model = model.to(dtype)
    attention.install(model)
    return model


@torch.inference_mode()
@pytest.mark.parametrize("joins_gate", [False, True])
@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2"])
def test_logits_of_a_prompt_and_of_a_step_are_those_of_the_own_layers(
    kind: str, joins_gate: bool
) -> None:
    model = _make_model(kind)
    tokens = torch.randint(50, (2, 9))

    def run() -> torch.Tensor:
        cache = DynamicCache(config=model.config)
        prompt = model(tokens[:, :8], past_key_values=cache).logits
        return torch.cat([prompt, model(tokens[:, 8:], past_key_values=cache).logits], dim=1)

    expected = run()
    assert fused_layers.install(model, joins_gate=joins_gate) is not None
    assert all(isinstance(layer.forward, FusedLayer) for layer in model.model.layers)
    assert torch.allclose(run(), expected, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("kept", [[8], [2, 5, 8]])
def test_kept_rows_have_the_logits_of_a_whole_pass(kept: list[int]) -> None:
    model = _make_model("qwen2")
    rows = fused_layers.install(model)
    assert rows is not None
    tokens = torch.randint(50, (1, 9))
    # Without a mask the last row is the only one that may be kept.
    mask = None if kept == [8] else torch.ones(9, 9, dtype=torch.bool).tril()[None, None]
    whole = model(tokens, attention_mask=mask).logits[:, kept]
    with rows.keep(torch.tensor(kept)):
        found = model(tokens, attention_mask=mask, logits_to_keep=torch.tensor(kept)).logits
    assert torch.allclose(found, whole, atol=1e-4)


@torch.inference_mode()
def test_bfloat16_differs_by_its_rounding_only() -> None:
    model = _make_model("qwen2", torch.bfloat16)
    tokens = torch.randint(50, (1, 9))
    expected = model(tokens).logits
    assert fused_layers.install(model) is not None
    difference = (model(tokens).logits - expected).abs().max()
    assert difference <= 8 * torch.finfo(torch.bfloat16).eps * expected.abs().max()


def test_joined_weights_are_the_modules_own_and_no_copies() -> None:
    model = _make_model("qwen2")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    fused_layers.install(model, joins_gate=True)
    layer = model.model.layers[0]
    for parts in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
        owner = layer.self_attn if "q_proj" in parts else layer.mlp
        weights = [getattr(owner, part).weight for part in parts]
        assert len({weight.untyped_storage().data_ptr() for weight in weights}) == 1
    after = model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_unknown_and_different_layers_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fused_layers.install(_make_model("qwen3")) is None  # its queries have norms
    monkeypatch.setattr(fused_layers, "_CLASSES", {"Qwen3DecoderLayer"})
    model = _make_model("qwen3")
    assert fused_layers.install(model) is None
    assert not any(isinstance(layer.forward, FusedLayer) for layer in model.model.layers)


def test_a_model_is_prepared_once() -> None:
    model = _make_model("llama")
    assert fused_layers.install(model) is fused_layers.install(model)
