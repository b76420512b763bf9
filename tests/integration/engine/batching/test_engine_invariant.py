"""Batch invariance: answers in half precision are bitwise the same whatever else is in the batch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.engine import answers, ask, staggered
from support.models import clip

from videoqa_worker.engine import Engine, GenerationRequest
from videoqa_worker.engine.execution.continuous import ContinuousRunner
from videoqa_worker.engine.generation import PendingRequest


@contextmanager
def logits_seen() -> Iterator[dict[int, list[torch.Tensor]]]:
    """Collects all logits of each sequence, under the `id` of its inputs."""
    seen: dict[int, list[torch.Tensor]] = {}
    plain: Any = ContinuousRunner._draw_tokens

    def look(self: ContinuousRunner, logits: torch.Tensor, sequences: Any) -> list[int]:
        for row, sequence in zip(logits, sequences, strict=True):
            pending: PendingRequest = sequence.pending
            seen.setdefault(id(pending.request.inputs), []).append(row.clone())
        sampled: list[int] = plain(self, logits, sequences)
        return sampled

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContinuousRunner, "_draw_tokens", look)
        yield seen


def mixed(engine: Engine) -> list[GenerationRequest]:
    """Returns short and long requests, some about the same pictures, one longer than a standard slot."""
    draw = random.Random(2)
    requests = [
        ask(
            engine,
            [clip(n % 5, draw.choice([1, 4, 12]))],
            "What is it " * draw.randint(1, 9) + "?",
            max_new_tokens=draw.choice([3, 20, 40]),
        )
        for n in range(11)
    ]
    return [*requests, ask(engine, [clip(6, 60)], "What?", max_new_tokens=8)]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("caches", [{}, {"feature_cache_bytes": 0, "prefix_cache_bytes": 0}])
def test_no_logit_of_a_sequence_depends_on_the_rest_of_the_batch(
    dtype: str, caches: dict[str, int], engine_of: Callable[..., Engine]
) -> None:
    engine = engine_of(
        "interleave",
        max_batch=6,
        max_batch_tokens=3000,
        prefill_chunk_tokens=50,
        dtype=dtype,
        batch_invariant=True,
        **caches,
    )
    requests = mixed(engine)
    alone = []
    with logits_seen() as seen:
        for request in requests:
            alone.append(answers(engine, [replace(request, own_batch=True)])[0])
        right = dict(seen)
    for seed in range(3):
        steps = [random.Random(seed).choice([0, 0, 2, 7]) for _ in requests]
        with logits_seen() as seen:
            futures = staggered(engine, requests, steps)
            assert [future.result(60) for future in futures] == alone
        for request in requests:
            ours, theirs = seen[id(request.inputs)], right[id(request.inputs)]
            assert len(ours) == len(theirs)
            assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


def test_without_the_option_logits_do_depend_on_it(engine_of: Callable[..., Engine]) -> None:
    """Shows that the test above proves something."""
    engine = engine_of("interleave", max_batch=6)
    requests = mixed(engine)[:8]
    with logits_seen() as seen:
        for request in requests:
            answers(engine, [replace(request, own_batch=True)])
        right = dict(seen)
    with logits_seen() as seen:
        answers(engine, requests)
    assert any(
        not torch.equal(ours, theirs)
        for request in requests
        for ours, theirs in zip(seen[id(request.inputs)], right[id(request.inputs)], strict=False)
    )


def test_models_without_slots_run_one_request_at_a_time(
    engine_of: Callable[..., Engine],
) -> None:
    engine = engine_of("interleave", batching="generate", batch_invariant=True)
    requests = [ask(engine, [clip(n, 2)], "What?") for n in range(4)]
    rows: list[int] = []

    def look(_: Any, __: Any, kwargs: Any) -> None:
        rows.append(kwargs["input_ids"].shape[0])

    hook = engine._loaded.model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        answers(engine, requests)
    finally:
        hook.remove()
    assert set(rows) == {1}
