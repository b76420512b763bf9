"""The last layer computes only the rows whose logits are asked for, and those as before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from videoqa_worker.engine.model import attention, last_layer


def _make_model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval()


@torch.inference_mode()
@pytest.mark.parametrize("kept", [[8], [2, 5, 8]])
def test_kept_rows_have_the_logits_of_a_whole_pass(kept: list[int]) -> None:
    model = _make_model()
    attention.install(model)
    rows = last_layer.install(model)
    assert rows is not None
    tokens = torch.randint(50, (1, 9))
    # Without a mask the last row is the only one that may be kept.
    mask = None if kept == [8] else torch.ones(9, 9, dtype=torch.bool).tril()[None, None]
    computed: list[int] = []
    model.model.layers[-1].mlp.gate_proj.register_forward_hook(
        lambda module, args, output: computed.append(output.shape[1])
    )
    whole = model(tokens, attention_mask=mask).logits[:, kept]
    with rows.keep(torch.tensor(kept)):
        found = model(tokens, attention_mask=mask, logits_to_keep=torch.tensor(kept)).logits
    assert computed == [9, len(kept)]
    assert torch.allclose(found, whole, atol=1e-5)
    assert rows.indices is None


def test_a_model_is_prepared_once_and_others_are_left_alone() -> None:
    model = _make_model()
    rows = last_layer.install(model)
    assert last_layer.install(model) is rows
    other = _make_model()
    other.model.layers[-1].mlp = None
    assert last_layer.install(other) is None


@torch.inference_mode()
def test_a_part_that_returns_more_than_rows_computes_all_of_them_once() -> None:
    model = _make_model()
    attention.install(model)
    part = model.model.layers[-1].mlp
    plain, computed = part.forward, []

    def route(hidden: torch.Tensor) -> tuple[torch.Tensor, None]:
        computed.append(hidden.shape[1])
        return plain(hidden), None

    part.forward = route
    rows = last_layer.install(model)
    assert rows is not None
    for hidden in torch.ones(2, 1, 9, 32):
        with rows.keep(torch.tensor([8])):
            assert part(hidden)[0].shape == (1, 9, 32)
    assert computed == [1, 9, 9]
