"""Packed weights multiply as the others do, and are no second copy of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.engine import answers, questions, single
from support.models import clip
from torch import nn

from videoqa_worker.engine import Engine
from videoqa_worker.engine.model import packed_linear
from videoqa_worker.engine.model.packed_linear import PackedLinear, pack_linears
from videoqa_worker.settings import EngineConfig

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
    reason="this torch has no oneDNN",
)


class Own(nn.Linear):
    """A linear layer that another library has changed, as quantized ones are."""


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 24)
        self.head = nn.Linear(24, 40, bias=False)
        self.head.weight = self.embedding.weight
        self.plain, self.bare = nn.Linear(24, 40), nn.Linear(24, 40, bias=False)
        self.own, self.small = Own(24, 40), nn.Linear(4, 4)
        self.device = torch.device("cpu")


@pytest.fixture
def packs_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_linear, "_MIN_WEIGHTS", 24 * 40)


@torch.inference_mode()
@pytest.mark.usefixtures("packs_all")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_layers_multiply_as_before(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Model().to(dtype)
    rows = torch.randn(7, 2, 24, dtype=dtype)
    before = [model.plain(rows), model.bare(rows)]
    assert pack_linears(model) == 2
    after = [model.plain(rows), model.bare(rows.transpose(0, 1).contiguous()).transpose(0, 1)]
    for found, expected in zip(after, before, strict=True):
        assert torch.allclose(found, expected, atol=30 * torch.finfo(dtype).eps)
    assert model.plain.weight.layout is torch._mkldnn  # type: ignore[attr-defined]
    assert (model.plain.weight.dtype, model.plain.weight.shape) == (dtype, (40, 24))


@pytest.mark.usefixtures("packs_all")
def test_tied_small_and_changed_layers_are_left_alone() -> None:
    model = Model()
    pack_linears(model)
    assert [type(one) for one in (model.head, model.own, model.small)] == [
        nn.Linear,
        Own,
        nn.Linear,
    ]
    assert model.head.weight is model.embedding.weight


def test_operators_that_fail_or_multiply_wrongly_are_not_used(
    packs_all: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in (_raise, lambda rows, packed, bias: rows.new_zeros(len(rows), 40)):
        monkeypatch.setattr(packed_linear, "_multiply", wrong)
        model = Model()
        assert pack_linears(model) == 0
        assert type(model.plain) is nn.Linear


def _raise(*_: object) -> torch.Tensor:
    raise RuntimeError("not for this machine")


def test_answers_with_packed_weights_are_those_with_plain_ones(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(checkpoint("interleave"))
    with Engine(EngineConfig(model=path, device="cpu", cpu_threads=1)) as plain:
        asked = questions(plain, 5, [clip(1, 5)], max_new_tokens=20)
        expected = [single(plain, one).tokens for one in asked]
    monkeypatch.setattr(packed_linear, "_MIN_WEIGHTS", 1)
    with Engine(EngineConfig(model=path, device="cpu", cpu_threads=1)) as packed:
        assert any(isinstance(one, PackedLinear) for one in packed._loaded.model.modules())
        found = [answer.tokens for answer in answers(packed, asked)]
    assert found == expected
    assert len(set(found)) > 1
