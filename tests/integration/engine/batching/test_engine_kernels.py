"""Steps that read each row as far as it is long, and prompts by pieces without masks.

The kernels need a GPU, and none is here: in their places stand plain functions that take what the documentation of
torch's `varlen_attn` and of flash-attn's `flash_attn_with_kvcache` says, and refuse what it does not.
What is shown is that rows are described to them rightly, whoever comes and goes; not that they are right.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from support.engine import Reference, answers, ask, canceled_after, questions, staggered, varied
from support.models import FAMILIES, clip
from torch.nn.functional import scaled_dot_product_attention

from videoqa.errors import JobCanceled
from videoqa_worker.engine import Engine
from videoqa_worker.engine.device.cuda_graphs import CudaGraphs
from videoqa_worker.engine.execution import forward as passes
from videoqa_worker.engine.model import attention, kernels
from videoqa_worker.engine.model.layer_masks import LayerMasks
from videoqa_worker.settings import EngineConfig

UNKEPT = {"feature_cache_bytes": 0, "prefix_cache_bytes": 0}
HEADS = kernels.Heads(4, 2, 16)
CPU = torch.device("cpu")


def one_row(query: Any, keys: Any, values: Any, scale: float | None) -> torch.Tensor:
    """[heads, dim] over [positions, key heads, dim]."""
    found = scaled_dot_product_attention(
        query[None, :, None],
        keys.transpose(0, 1)[None],
        values.transpose(0, 1)[None],
        scale=scale,
        enable_gqa=True,
    )
    return found[0, :, 0]


class StandIns:
    """Stand-ins for both kernels; `calls` are the rows of each call."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def varlen_attn(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seq_q: torch.Tensor,
        cu_seq_k: torch.Tensor | None,
        max_q: int,
        max_k: int,
        *,
        scale: float | None,
        enable_gqa: bool,
        seqused_k: torch.Tensor,
        block_table: torch.Tensor,
        num_splits: int,
    ) -> torch.Tensor:
        rows, heads, _ = query.shape
        pages, page, key_heads, _ = key.shape
        assert cu_seq_q.dtype == seqused_k.dtype == block_table.dtype == torch.int32
        assert cu_seq_q.tolist() == [*range(rows + 1)]
        assert cu_seq_k is None
        assert (max_q, num_splits) == (1, 1)
        assert page % 256 == 0
        assert max_k == page
        assert block_table.shape == (rows, 1)
        assert block_table.max() < pages
        assert enable_gqa == (heads != key_heads)
        assert 1 <= seqused_k.min() <= seqused_k.max() <= max_k
        assert query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
        self.calls.append(rows)
        return torch.stack(
            [
                one_row(query[n], key[at, :long], value[at, :long], scale)
                for n, (at, long) in enumerate(
                    zip(block_table[:, 0].tolist(), seqused_k.tolist(), strict=True)
                )
            ]
        )

    def flash_attn_with_kvcache(
        self,
        q: torch.Tensor,
        k_cache: torch.Tensor,
        v_cache: torch.Tensor,
        *,
        cache_seqlens: torch.Tensor,
        softmax_scale: float | None,
    ) -> torch.Tensor:
        rows, queries, _, _ = q.shape
        assert queries == 1
        assert cache_seqlens.dtype == torch.int32
        assert cache_seqlens.shape == (rows,)
        assert k_cache.shape[0] == rows
        assert q.stride(-1) == k_cache.stride(-1) == v_cache.stride(-1) == 1
        self.calls.append(rows)
        return torch.stack(
            [
                one_row(q[n, 0], k_cache[n, :long], v_cache[n, :long], softmax_scale)[None]
                for n, long in enumerate(cache_seqlens.tolist())
            ]
        )


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> StandIns:
    found = StandIns()
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", found.varlen_attn)
    package = ModuleType("flash_attn")
    package.flash_attn_with_kvcache = found.flash_attn_with_kvcache  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    return found


Start = Callable[..., Engine]


@pytest.fixture
def start(
    checkpoint: Callable[[str], Path], stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Start]:
    """An engine as on a GPU where this kernel is the fastest."""
    running: list[Engine] = []

    def of(family: str, kernel: str, **settings: Any) -> Engine:
        monkeypatch.setattr(passes.ForwardPass, "_can_skip_masks", lambda *_: True)
        monkeypatch.setattr(kernels, "choose_fastest", lambda *_, **__: kernel)
        monkeypatch.setattr(passes, "_REACH", {"cpu": kernels.PAGE})
        folder = str(checkpoint(family))
        given = {"device": "cpu", "cpu_threads": 1, "pack_from_tokens": 1, **settings}
        running.append(Engine(EngineConfig(model=folder, **given)))
        running[-1].start()
        return running[-1]

    yield of
    for engine in running:
        engine.close()


@pytest.mark.parametrize("kernel", kernels.KERNELS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_what_generate_says(
    family: str, kernel: str, start: Start, checkpoint: Any, stand_ins: StandIns
) -> None:
    engine = start(family, kernel, max_batch=6, **UNKEPT)
    requests = [
        ask(engine, [clip(n, 1 + n)], "What is it " * (n + 1) + "?", max_new_tokens=4 + 3 * n)
        for n in range(6)
    ]
    reference = Reference(checkpoint(family))
    expected = [reference.tokens(request) for request in requests]
    assert [answer.tokens for answer in answers(engine, requests)] == expected
    assert len(set(expected)) > 2
    assert max(stand_ins.calls) > 3


@pytest.mark.parametrize("chunk", [7, 64, 8192])
@pytest.mark.parametrize("as_graphs", [True, False], ids=["filled up", "as they are"])
def test_chunked_prefill_and_sequences_of_all_lengths_say_what_generate_says(
    chunk: int,
    as_graphs: bool,
    start: Start,
    checkpoint: Any,
    stand_ins: StandIns,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`filled up`: what CUDA graphs do to a pass, without a graph; rows in scratch fill it up."""
    pieces: list[tuple[int, int]] = []
    monkeypatch.setattr(CudaGraphs, "_capture", lambda *_: None)
    lower_right = attention.causal_lower_right

    def look(queries: int, keys: int) -> Any:
        pieces.append((queries, keys))
        return lower_right(queries, keys)

    monkeypatch.setattr(attention, "causal_lower_right", look)
    apart = {"pack_from_tokens": None, **UNKEPT}
    engine = start("interleave", "varlen", max_batch=16, prefill_chunk_tokens=chunk, **apart)
    engine._runner.forward._graphs.enabled = as_graphs  # type: ignore[union-attr]
    requests = varied(engine, 20, seed=3)
    reference = Reference(checkpoint("interleave"))
    assert [answer.tokens for answer in answers(engine, requests)] == [
        reference.tokens(request) for request in requests
    ]
    assert max(stand_ins.calls) > (1 if chunk == 7 else 4)
    assert {*stand_ins.calls} <= {1, 2, 4, 8, 16} or not as_graphs
    assert chunk == 8192 or any(1 < queries < keys for queries, keys in pieces)


def test_sequences_behind_a_shared_prefix_are_read_with_masks(
    start: Start, checkpoint: Any, stand_ins: StandIns
) -> None:
    engine = start("interleave", "varlen", **UNKEPT)
    requests = questions(engine, 5, max_new_tokens=20)
    reference = Reference(checkpoint("interleave"))
    expected = [reference.tokens(request) for request in requests]
    assert [answer.tokens for answer in answers(engine, requests)] == expected
    assert engine.stats.packed == 4
    packed = sum(stand_ins.calls)
    beside = ask(engine, [clip(8, 3)], "What?", max_new_tokens=30)
    mixed = [beside, *questions(engine, 5, max_new_tokens=20)]
    assert [answer.tokens for answer in answers(engine, mixed)] == [
        reference.tokens(beside),
        *expected,
    ]
    assert sum(stand_ins.calls) > packed


def test_who_comes_and_goes_changes_nobodys_answer(
    start: Start, checkpoint: Any, stand_ins: StandIns
) -> None:
    engine = start("interleave", "varlen", max_batch=5)
    reference = Reference(checkpoint("interleave"))
    requests = varied(engine, 12, seed=11)
    expected = [reference.tokens(request) for request in requests]
    left = {n for n in (1, 4, 9) if len(expected[n]) > 3}
    asked = [
        canceled_after(request, 1 if n in left else None) for n, request in enumerate(requests)
    ]
    for n, future in enumerate(staggered(engine, asked, steps=[3 * n for n in range(12)])):
        if n in left:
            with pytest.raises(JobCanceled):
                future.result(60)
        else:
            assert future.result(60).tokens == expected[n]
    assert left
    assert stand_ins.calls


# --- which one it is


def test_the_fastest_of_those_that_are_right_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(seconds: dict[str, float]) -> str | None:
        monkeypatch.setattr(kernels, "time_kernels", lambda *_, **__: seconds)
        return kernels.choose_fastest(HEADS, torch.bfloat16, torch.device("cuda"), as_graphs=True)

    assert of({"sdpa": 2.0, "varlen": 1.0}) == "varlen"
    assert of({"sdpa": 2.0, "varlen": 1.0, "flash_attn": 0.5}) == "flash_attn"
    assert of({"sdpa": 1.0, "varlen": 2.0}) is None
    assert of({"sdpa": 1.0}) is None


@pytest.mark.parametrize(
    ("device", "dtype"), [("cpu", torch.bfloat16), ("cuda", torch.float32), ("mps", torch.float16)]
)
def test_none_is_tried_where_none_can_be(
    device: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "time_kernels", lambda *_, **__: pytest.fail("tried"))
    assert kernels.choose_fastest(HEADS, dtype, torch.device(device), as_graphs=True) is None


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError("no kernel image")])
def test_a_trial_that_fails_leaves_masks(
    error: type[Exception] | Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(kernels, "time_kernels", fail)
    assert (
        kernels.choose_fastest(HEADS, torch.bfloat16, torch.device("cuda"), as_graphs=True) is None
    )


def test_a_kernel_that_breaks_the_device_leaves_a_hint_how_to_start_without_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken: list[bool] = []

    def breaks(*_: Any) -> torch.Tensor:
        broken.append(True)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def finish(_: torch.device) -> None:
        if broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    tried = kernels.time_kernels
    monkeypatch.setattr(kernels, "KERNELS", {"varlen": breaks})
    monkeypatch.setattr(kernels, "_finish", finish)
    monkeypatch.setattr(
        kernels, "time_kernels", lambda *_, **__: tried(HEADS, torch.bfloat16, CPU, as_graphs=False)
    )
    assert (
        kernels.choose_fastest(HEADS, torch.bfloat16, torch.device("cuda"), as_graphs=True) is None
    )
    assert "VIDEOQA_ATTN_IMPLEMENTATION=sdpa tries none: CUDA error" in caplog.text


def test_the_memory_of_a_trial_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(True))
    for tried in ({"sdpa": 1.0}, {}):
        monkeypatch.setattr(kernels, "time_kernels", lambda *_, tried=tried, **__: tried)
        kernels.choose_fastest(HEADS, torch.bfloat16, torch.device("cuda"), as_graphs=True)
    assert len(given_back) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("heads", [HEADS, kernels.Heads(3, 3, 8)])
def test_only_kernels_with_right_results_are_used(
    dtype: torch.dtype,
    heads: kernels.Heads,
    stand_ins: StandIns,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def tried() -> set[str]:
        found = kernels.time_kernels(heads, dtype, CPU, as_graphs=False, batch=2, positions=256)
        assert all(taken > 0 for taken in found.values())
        return set(found)

    assert tried() == {"sdpa", "varlen", "flash_attn"}
    plain = kernels._attend_varlen

    def a_key_too_many(rows: kernels.DecodeQueries) -> torch.Tensor:
        most = rows.keys.shape[1]
        return plain(rows._replace(lengths=(rows.lengths + 1).clamp(max=most)))

    def not_a_number(rows: kernels.DecodeQueries) -> torch.Tensor:
        return plain(rows) * float("nan")

    def absent(_: kernels.DecodeQueries) -> torch.Tensor:
        raise ImportError("flash_attn")

    def slots_as_long_as_the_reach(rows: kernels.DecodeQueries) -> torch.Tensor:
        shape = rows.keys.shape
        _, positions, heads, dim = shape
        close = (positions * dim * heads, dim, positions * dim, 1)
        keys, values = (each.as_strided(shape, close) for each in (rows.keys, rows.values))
        return plain(rows._replace(keys=keys, values=values))

    for wrong in (a_key_too_many, slots_as_long_as_the_reach, not_a_number, absent):
        monkeypatch.setattr(kernels, "KERNELS", {"varlen": plain, "flash_attn": wrong})
        assert tried() == {"sdpa", "varlen"}


def test_settings_that_fix_what_attention_is_try_nothing() -> None:
    wanted = {"attn_implementation": "sdpa"}, {"batch_invariant": True}, {}
    found = []
    for settings in wanted:
        bare = passes.ForwardPass.__new__(passes.ForwardPass)
        bare._device, bare._masks = torch.device("cuda"), LayerMasks()
        found.append(bare._can_skip_masks(EngineConfig(model="m", **settings)))  # type: ignore[arg-type]
    assert found == [False, False, True]
