"""The option that makes answers in half precision independent of company, bit by bit."""

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
from videoqa_worker.engine.execution.continuous import SlotRunner
from videoqa_worker.engine.request import Ticket


@contextmanager
def scores_seen() -> Iterator[dict[int, list[torch.Tensor]]]:
    """All scores of each row, under the `id` of its inputs."""
    seen: dict[int, list[torch.Tensor]] = {}
    plain: Any = SlotRunner._drawn

    def look(self: SlotRunner, scores: torch.Tensor, seats: Any) -> list[int]:
        for row, seat in zip(scores, seats, strict=True):
            ticket: Ticket = seat.ticket
            seen.setdefault(id(ticket.request.inputs), []).append(row.clone())
        drawn: list[int] = plain(self, scores, seats)
        return drawn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlotRunner, "_drawn", look)
        yield seen


def mixed(engine: Engine) -> list[GenerationRequest]:
    """Short and long, some about the same pictures, one longer than a usual slot."""
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
def test_no_score_of_a_row_depends_on_who_runs_beside_it(
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
    with scores_seen() as seen:
        for request in requests:
            alone.append(answers(engine, [replace(request, alone=True)])[0])
        right = dict(seen)
    for seed in range(3):
        steps = [random.Random(seed).choice([0, 0, 2, 7]) for _ in requests]
        with scores_seen() as seen:
            futures = staggered(engine, requests, steps)
            assert [future.result(60) for future in futures] == alone
        for request in requests:
            ours, theirs = seen[id(request.inputs)], right[id(request.inputs)]
            assert len(ours) == len(theirs)
            assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


def test_without_the_option_scores_do_depend_on_it(engine_of: Callable[..., Engine]) -> None:
    """Else the test above would say nothing."""
    engine = engine_of("interleave", max_batch=6)
    requests = mixed(engine)[:8]
    with scores_seen() as seen:
        for request in requests:
            answers(engine, [replace(request, alone=True)])
        right = dict(seen)
    with scores_seen() as seen:
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
