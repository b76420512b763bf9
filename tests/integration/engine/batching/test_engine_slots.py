"""Rows join and leave at every step, and each says what it says alone.

Alone means: plain `generate` of transformers where that is said (`reference`), else the same
engine with nobody else in it, which the other engine tests compare with the guide's recipe.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.engine import (
    Reference,
    answers,
    ask,
    batch_sizes,
    canceled_after,
    is_left,
    single,
    staggered,
    submitted,
    varied,
)
from support.models import FAMILIES, clip

from videoqa.errors import JobCanceled, NanLogits, OutOfMemory
from videoqa_worker.engine import Engine, Generated, GenerationRequest
from videoqa_worker.engine.device.cuda_graphs import CudaGraphs
from videoqa_worker.engine.kvcache.slot_cache import SlotCache
from videoqa_worker.settings import EngineConfig

UNKEPT = {"feature_cache_bytes": 0, "prefix_cache_bytes": 0}


@pytest.fixture
def engine(engine_of: Callable[..., Engine]) -> Engine:
    return engine_of("interleave", max_batch=16)


@pytest.fixture(scope="module")
def reference_of(checkpoint: Callable[[str], Path]) -> Callable[[str], Reference]:
    return lambda family: Reference(checkpoint(family))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kept", ["kept", "not kept"])
def test_every_family_says_in_company_what_generate_says_alone(
    family: str,
    kept: str,
    engine_of: Callable[..., Engine],
    reference_of: Callable[[str], Reference],
) -> None:
    caches = {} if kept == "kept" else UNKEPT
    engine = engine_of(family, max_batch=6, **caches)
    requests = [
        ask(engine, [clip(n % 2, 4)], "What is it " * (n + 1) + "?", max_new_tokens=20)
        for n in range(6)
    ]
    reference = reference_of(family)
    expected = [reference.tokens(request) for request in requests]
    with batch_sizes(engine) as rows:
        told = [answer.tokens for answer in answers(engine, requests)]
    assert told == expected
    assert len(set(expected)) > 2
    assert max(rows) == 6


@pytest.mark.parametrize("chunk", [1, 7, 64, 8192])
@pytest.mark.parametrize("caches", [{}, UNKEPT], ids=["kept", "not kept"])
def test_chunked_prefill_gives_the_same_answers(
    chunk: int,
    caches: dict[str, int],
    engine_of: Callable[..., Engine],
    reference_of: Callable[[str], Reference],
) -> None:
    engine = engine_of("interleave", max_batch=16, prefill_chunk_tokens=chunk, **caches)
    requests = varied(engine, 6 if chunk == 1 else 16, seed=3)
    reference = reference_of("interleave")
    assert [answer.tokens for answer in answers(engine, requests)] == [
        reference.tokens(request) for request in requests
    ]


def test_prefill_chunks_alternate_with_decode_steps(
    engine_of: Callable[..., Engine],
) -> None:
    engine = engine_of("interleave", prefill_chunk_tokens=16, **UNKEPT)
    first = ask(engine, [clip(1, 1)], "What?", max_new_tokens=60)
    second = ask(engine, [clip(2, 12)], "Where?", max_new_tokens=2)
    pieces = -(-second.inputs.length // 16)
    assert pieces > 5
    tokens_then: list[int] = []
    progress: list[int] = []
    requests = [
        replace(first, on_progress=progress.append),
        replace(second, on_progress=lambda _: tokens_then.append(len(progress))),
    ]
    answers(engine, requests)
    assert tokens_then[0] >= pieces


def test_passes_whose_shapes_are_rounded_up_give_the_same_answers(
    checkpoint: Callable[[str], Path],
    reference_of: Callable[[str], Reference],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pads prompts, batches and frames as CUDA graphs do, without a graph."""
    monkeypatch.setattr(CudaGraphs, "_capture", lambda *_: None)
    shapes: set[Any] = set()
    plain = CudaGraphs.run

    def run(self: CudaGraphs, key: Any, function: Any, *tensors: torch.Tensor) -> torch.Tensor:
        shapes.add(key[:4])
        return plain(self, key, function, *tensors)

    monkeypatch.setattr(CudaGraphs, "run", run)
    config = EngineConfig(
        model=str(checkpoint("interleave")),
        device="cpu",
        cpu_threads=1,
        pack_from_tokens=1,
        **UNKEPT,
    )
    with Engine(config) as engine:
        engine._runner.forward._graphs.enabled = True  # type: ignore[union-attr]
        others = [ask(engine, [clip(9 + n, 2)], "What?", max_new_tokens=40) for n in range(4)]
        requests = [*varied(engine, 12, seed=8), *others]
        reference = reference_of("interleave")
        assert [answer.tokens for answer in answers(engine, requests)] == [
            reference.tokens(request) for request in requests
        ]
    rows = [key[1:] for key in shapes if key[0] == "decode"]
    assert {slots for slots, _, _ in rows} == {1, 2, 4, 8}
    assert {each for _, each, _ in rows} >= {1, 2}
    assert {first for _, _, first in rows} == {0}
    assert {key[0] for key in shapes} == {"decode", "prefill", "frames"}
    assert all(key[1] % 64 == 0 for key in shapes if key[0] == "prefill")


# --- schedules


class Expected:
    """Answers that requests get alone; each is computed once."""

    def __init__(self) -> None:
        self._known: dict[Any, Generated] = {}

    def of(self, engine: Engine, key: Any, request: GenerationRequest) -> Generated:
        if key not in self._known:
            self._known[key] = single(engine, request)
        return self._known[key]


ALONE = Expected()

ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 3),  # the video
        st.sampled_from([1, 2, 5]),  # frames
        st.integers(1, 4),  # the question's length
        st.sampled_from([1, 3, 16]),  # tokens
        st.sampled_from([0.0, 0.0, 1.3]),  # temperature
        st.integers(0, 12),  # after how many steps it comes
        st.sampled_from([None, None, 0, 2, 5]),  # canceled after so many tokens
    ),
    min_size=1,
    max_size=12,
)


@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(arrivals=ARRIVALS)
def test_whatever_comes_and_goes_each_answer_is_the_one_given_alone(
    engine: Engine, arrivals: list[Any]
) -> None:
    expected, requests = [], []
    for video, frames, length, tokens, temperature, _, canceled in arrivals:
        key = video, frames, length, tokens, temperature
        request = ask(
            engine,
            [clip(video, frames)],
            "What is it " * length + "?",
            max_new_tokens=tokens,
            temperature=temperature,
            seed=5,
        )
        expected.append(ALONE.of(engine, key, request))
        requests.append(canceled_after(request, canceled))
    futures = staggered(engine, requests, [arrival[5] for arrival in arrivals])
    for future, right, arrival in zip(futures, expected, arrivals, strict=True):
        canceled = arrival[6]
        if is_left(canceled, right):
            with pytest.raises(JobCanceled):
                future.result(60)
        else:
            assert future.result(60) == right


def test_two_hundred_jobs_with_random_ends_get_the_answers_that_they_get_alone(
    engine_of: Callable[..., Engine],
) -> None:
    engine = engine_of("interleave", max_batch=16, prefill_chunk_tokens=64)
    draw = random.Random(11)
    expected, requests = [], []
    for _ in range(200):
        key = (
            draw.randrange(6),
            draw.choice([1, 3, 8]),
            draw.choice([1, 4, 12, 30]),
            draw.choice([0.0, 0.0, 0.8, 1.5]),
            draw.randrange(3),
            draw.choice([(), (), ("e",), ("ab", "zz", "o")]),
        )
        video, frames, tokens, temperature, seed, stop = key
        request = ask(
            engine,
            [clip(video, frames)],
            f"What is number {seed}?",
            max_new_tokens=tokens,
            temperature=temperature,
            seed=seed,
            stop=stop,
        )
        right = ALONE.of(engine, key, request)
        leaves = draw.random() < 0.3
        ended = draw.randrange(0, right.output_tokens) if leaves else None
        expected.append((right, ended))
        requests.append(canceled_after(request, ended))
    futures = submitted(engine, requests)
    left = 0
    for future, (right, ended) in zip(futures, expected, strict=True):
        if is_left(ended, right):
            left += 1
            with pytest.raises(JobCanceled):
                future.result(120)
        else:
            assert future.result(120) == right
    assert 30 < left < 90
    assert len({right.finish_reason for right, _ in expected}) == 3


# --- faults


def test_a_sequence_with_nan_logits_fails_alone(
    engine_of: Callable[..., Engine],
) -> None:
    engine = engine_of("interleave", max_batch=8)
    requests = varied(engine, 5, seed=4)
    alone = [single(engine, request) for request in requests]
    bad = ask(engine, [clip(9, 2)], "What is ~ ?", max_new_tokens=9)
    token = engine._loaded.tokenizer("~", add_special_tokens=False)["input_ids"][0]
    embedding = engine._loaded.model.get_input_embeddings()
    before = embedding.weight[token].clone()
    embedding.weight.data[token] = torch.nan
    try:
        futures = submitted(engine, [*requests[:2], bad, *requests[2:]])
        assert [futures[n].result(60) for n in (0, 1, 3, 4, 5)] == alone
        with pytest.raises(NanLogits, match="NaN or infinite logits"):
            futures[2].result(60)
    finally:
        embedding.weight.data[token] = before
    assert single(engine, bad).output_tokens > 0


def test_slots_grow_for_a_longer_prompt_while_others_run(
    engine_of: Callable[..., Engine],
) -> None:
    engine = engine_of("interleave", max_batch=4, max_batch_tokens=900, **UNKEPT)
    requests = [
        ask(engine, [clip(n, frames)], "What?", max_new_tokens=30)
        for n, frames in enumerate([1, 4, 16, 2, 32, 60])
    ]
    alone = [single(engine, request) for request in requests]
    assert answers(engine, requests) == alone
    assert requests[-1].inputs.length > 500


def test_a_request_too_long_for_the_memory_fails_and_the_next_is_answered(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EngineConfig(
        model=str(checkpoint("interleave")),
        device="cpu",
        cpu_threads=1,
        max_batch_tokens=300,
        **UNKEPT,
    )
    with Engine(config) as engine:
        small = ask(engine, [clip(1, 2)], "What?")
        alone = single(engine, small)
        plain = SlotCache._make_zeros

        def full(self: SlotCache, size: int) -> torch.Tensor:
            if size > 300 * 2 * 16:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return plain(self, size)

        monkeypatch.setattr(SlotCache, "_make_zeros", full)
        with pytest.raises(OutOfMemory, match="60 frames"):
            engine.submit(ask(engine, [clip(2, 60)], "What?")).result(60)
        assert answers(engine, [small, small]) == [alone, alone]
        monkeypatch.undo()
        assert single(engine, ask(engine, [clip(2, 60)], "What?")).output_tokens > 0


def test_memory_that_one_long_request_took_is_given_back(
    checkpoint: Callable[[str], Path],
) -> None:
    config = EngineConfig(
        model=str(checkpoint("interleave")),
        device="cpu",
        cpu_threads=1,
        max_batch_tokens=300,
        **UNKEPT,
    )
    with Engine(config) as engine:
        cache = engine._runner.forward.cache  # type: ignore[union-attr]
        requests = [ask(engine, [clip(n, 1)], "What?", max_new_tokens=40) for n in range(4)]
        alone = [single(engine, request) for request in requests]
        long = ask(engine, [clip(2, 60)], "What?")
        for _ in range(2):
            assert single(engine, long).input_tokens > 500
            with batch_sizes(engine) as rows:
                assert answers(engine, requests) == alone
            assert max(rows) > 1
            assert cache.slots * cache.length <= 300


def test_kv_memory_that_no_sequence_used_is_not_resident() -> None:
    before = psutil.Process().memory_info().rss
    cache = SlotCache((4, 8, 64), 1 << 18, torch.float32, torch.device("cpu"))
    cache.arrange(1 << 12, [])
    assert cache.tokens * cache.token_bytes == 4 << 30
    assert psutil.Process().memory_info().rss - before < 100 << 20
