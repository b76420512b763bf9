"""Our attention is transformers', whatever heads share, and copies no keys."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.utils.generic import is_flash_attention_requested

from videoqa_worker.engine.model import attention
from videoqa_worker.engine.model.attention import _attention, encode_lengths, install
from videoqa_worker.engine.model.kernels import KERNELS


@pytest.mark.parametrize("groups", [1, 2, 7])
@pytest.mark.parametrize("queries", [1, 2, 40])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("device", ["cpu", "as on a GPU"])
def test_every_head_attends_as_with_its_own_copy_of_the_keys(
    groups: int, queries: int, rows: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(groups * 100 + queries)
    heads, keys, dim = 2, 50, 16
    query = torch.randn(rows, heads * groups, queries, dim)
    key, value = torch.randn(2, rows, heads, keys, dim)
    mask = torch.rand(rows, 1, queries, keys) < 0.5
    mask[..., 0] = True
    module: Any = SimpleNamespace(num_key_value_groups=groups, is_causal=True)
    expected, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    if device != "cpu":
        monkeypatch.setattr("videoqa_worker.engine.model.attention._is_on_cpu", lambda _: False)
    found, _ = _attention(module, query, key, value, mask, scaling=0.3)
    assert found.shape == expected.shape == (rows, queries, heads * groups, dim)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("flash", [False, True])
@pytest.mark.parametrize("groups", [1, 7])
def test_chunks_without_masks_share_keys_only_where_a_kernel_can(
    groups: int, flash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other kernel would hold all attention scores in memory."""
    query, (key, value) = torch.randn(1, 2 * groups, 5, 16), torch.randn(2, 1, 2, 12, 16)
    seen = torch.ones(5, 12, dtype=torch.bool).tril(7)[None, None]
    module: Any = SimpleNamespace(num_key_value_groups=groups, is_causal=True)
    expected, _ = sdpa_attention_forward(module, query, key, value, seen, scaling=0.3)
    heads: list[tuple[int, bool]] = []
    plain = attention.scaled_dot_product_attention

    def look(query: Any, key: Any, value: Any, **settings: Any) -> torch.Tensor:
        heads.append((key.shape[1], settings["enable_gqa"]))
        return plain(query, key, value, **settings)

    monkeypatch.setattr(attention, "can_use_flash_attention", lambda _: flash)
    monkeypatch.setattr(attention, "scaled_dot_product_attention", look)
    found, _ = _attention(
        module, query, key, value, encode_lengths(torch.tensor([12])), scaling=0.3
    )
    assert torch.allclose(found, expected, atol=1e-5)
    assert heads == [(2, groups > 1) if flash else (2 * groups, False)]


@pytest.mark.parametrize("kernel", [None, *KERNELS])
def test_transformers_takes_none_for_its_own_flash_attention(kernel: str | None) -> None:
    size = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "vocab_size": 8}
    model = LlamaModel(LlamaConfig(**size, num_hidden_layers=1))
    install(model, kernel)
    assert model.config._attn_implementation.startswith("videoqa")
    assert not is_flash_attention_requested(model.config)
    tokens = torch.ones(1, 3, dtype=torch.int64)
    assert model(tokens).last_hidden_state.shape == (1, 3, 8)
