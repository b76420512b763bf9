"""Questions about the same pictures sit behind one copy of what their prompts begin with.

Each answer is the one given alone, whoever of them is canceled, fails, or comes late.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.engine import (
    answers,
    ask,
    before_each_forward,
    canceled_after,
    is_left,
    questions,
    single,
    staggered,
    submitted,
)
from support.models import FAMILIES, clip, picture

from videoqa.errors import JobCanceled, NanLogits
from videoqa_worker.engine import Engine, GenerationRequest
from videoqa_worker.engine.execution.continuous import ContinuousRunner
from videoqa_worker.engine.execution.forward import ForwardPass
from videoqa_worker.settings import EngineConfig

UNKEPT = {"feature_cache_bytes": 0, "prefix_cache_bytes": 0}


@pytest.fixture
def engine(checkpoint: Callable[[str], Path]) -> Iterator[Engine]:
    """Nothing is kept: what is shared is shared by rows that run at the same time."""
    config = EngineConfig(
        model=str(checkpoint("interleave")),
        device="cpu",
        cpu_threads=1,
        pack_from_tokens=1,
        **UNKEPT,
    )
    with Engine(config) as running:
        yield running


def runner(engine: Engine) -> ContinuousRunner:
    assert isinstance(engine._runner, ContinuousRunner)
    return engine._runner


def cost(engine: Engine, requests: list[GenerationRequest]) -> tuple[list[Any], int]:
    """The answers, and the positions that were computed for their prompts."""
    before = engine.stats.prompt_tokens
    told = answers(engine, requests)
    return told, engine.stats.prompt_tokens - before


@pytest.mark.parametrize(
    ("family", "tokens"), [("interleave", 1), *((family, 20) for family in FAMILIES)]
)
def test_questions_of_one_job_compute_their_pictures_once_and_say_what_they_say_alone(
    family: str, tokens: int, engine_of: Callable[..., Engine]
) -> None:
    packed = engine_of(family, **UNKEPT)
    apart = engine_of(family, pack_from_tokens=None, **UNKEPT)
    for media in ([clip(1, 5)], [picture(2)], [clip(3, 2), picture(4)]):
        if family == "video_llava" and len(media) > 1:
            continue
        requests = questions(packed, 7, media, max_new_tokens=tokens)
        alone, whole = cost(apart, [*requests])
        told, shared = cost(packed, requests)
        assert told == alone
        prompts = [request.inputs.length for request in requests]
        assert whole == sum(prompts)
        beginning = (whole - shared) / 6
        assert 0 < beginning < min(prompts)
        assert tokens == 1 or len({answer.tokens for answer in told}) > 1


def test_a_step_reads_a_shared_prefix_from_one_slot(engine: Engine) -> None:
    slots: list[int] = []
    plain = ForwardPass.decode

    def decode(self: ForwardPass, first: int, rows: Any, **more: Any) -> torch.Tensor:
        slots.append(len(rows))
        return plain(self, first, rows, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ForwardPass, "decode", decode)
        answers(engine, questions(engine, 8, max_new_tokens=10))
    assert set(slots) == {1}
    assert engine.stats.packed == 7


def test_jobs_of_several_questions_and_of_one_run_side_by_side(
    engine_of: Callable[..., Engine],
) -> None:
    """Sequences come and go in any order, with slots that grow and change places."""
    engine = engine_of("interleave", max_batch=12, prefill_chunk_tokens=40, **UNKEPT)
    draw = random.Random(3)
    for _ in range(12):
        requests, expected, ends = [], [], []
        for _ in range(draw.randint(2, 5)):
            job = questions(
                engine,
                draw.choice([1, 1, 2, 5]),
                [clip(draw.randrange(4), draw.choice([1, 3, 9]))],
                max_new_tokens=draw.choice([1, 2, 9, 30]),
                temperature=draw.choice([0.0, 1.2]),
                seed=4,
            )
            for request in job:
                right = single(engine, request)
                end = draw.choice([None, None, None, 0, 2])
                requests.append(canceled_after(request, end))
                expected.append(right)
                ends.append(end)
        order = list(range(len(requests)))
        draw.shuffle(order)
        steps = [draw.choice([0, 0, 1, 4, 9]) for _ in order]
        futures = staggered(engine, [requests[n] for n in order], steps)
        for n, future in zip(order, futures, strict=True):
            if is_left(ends[n], expected[n]):
                with pytest.raises(JobCanceled):
                    future.result(60)
            else:
                assert future.result(60) == expected[n]
    assert engine.stats.packed > 20


def test_a_prefix_whose_writer_is_canceled_is_written_by_the_next_sequence(engine: Engine) -> None:
    requests = questions(engine, 4)
    alone = [single(engine, request) for request in requests]
    begun = False

    def canceled() -> bool:
        return begun

    def check(_: torch.Tensor) -> None:
        nonlocal begun
        begun = True

    requests[0] = replace(requests[0], should_stop=canceled)
    neighbour = ask(engine, [clip(8, 2)], "Long?", max_new_tokens=60)
    with before_each_forward(engine, check):
        futures = submitted(engine, [neighbour, *requests])
        with pytest.raises(JobCanceled):
            futures[1].result(60)
        assert [future.result(60) for future in futures[2:]] == alone[1:]


@pytest.mark.parametrize("error", [KeyError("x"), torch.OutOfMemoryError("CUDA out of memory.")])
@pytest.mark.parametrize("method", ["prefill_chunk", "prefill_packed", "decode"])
def test_a_pass_that_fails_once_costs_no_answer(
    engine: Engine, method: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails only a sequence that ran alone, and so is to blame."""
    requests = questions(engine, 5)
    alone = [single(engine, request) for request in requests]
    plain = getattr(ForwardPass, method)
    raised = False

    def once(self: ForwardPass, *args: Any, **kwargs: Any) -> Any:
        nonlocal raised
        if not raised and (method != "decode" or len(runner(engine)._table.decoding) > 1):
            raised = True
            raise error
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(ForwardPass, method, once)
    futures = submitted(engine, requests)
    guilty = method == "prefill_chunk"  # the first of them, whose prompt comes in by itself
    for n, future in enumerate(futures):
        if n == 0 and guilty:
            assert future.exception(60) is not None
        else:
            assert future.result(60) == alone[n]
    assert raised


def test_nan_in_one_question_costs_the_others_nothing(engine: Engine) -> None:
    """It comes through to the others of its slot, who are asked again by themselves."""
    requests = questions(engine, 5)
    alone = [single(engine, request) for request in requests]
    bad = ask(engine, [clip(1, 6)], "What is ~ ?")
    embedding = engine._loaded.model.get_input_embeddings().weight.data
    token = engine._loaded.tokenizer("~", add_special_tokens=False)["input_ids"][0]
    before = embedding[token].clone()
    embedding[token] = torch.nan
    try:
        for place in (0, 1, 4):
            futures = submitted(engine, [*requests[:place], bad, *requests[place:]])
            with pytest.raises(NanLogits, match="NaN or infinite logits"):
                futures.pop(place).result(60)
            assert [future.result(60) for future in futures] == alone
    finally:
        embedding[token] = before
    assert single(engine, bad).output_tokens > 0


@pytest.mark.parametrize("running", [1, 3])
def test_nan_in_chunked_prefill_costs_decoding_sequences_nothing(
    engine_of: Callable[..., Engine], running: int
) -> None:
    """They read it before its own prompt is complete."""
    engine = engine_of("interleave", prefill_chunk_tokens=16, **UNKEPT)
    requests = questions(engine, running, max_new_tokens=30)
    alone = [single(engine, request) for request in requests]
    bad = ask(engine, [clip(1, 6)], "~ " * 40)
    embedding = engine._loaded.model.get_input_embeddings().weight.data
    token = engine._loaded.tokenizer("~", add_special_tokens=False)["input_ids"][0]
    before = embedding[token].clone()
    embedding[token] = torch.nan
    try:
        futures = submitted(engine, [*requests, bad])
        with pytest.raises(NanLogits, match="NaN or infinite logits"):
            futures.pop().result(60)
        assert [future.result(60) for future in futures] == alone
    finally:
        embedding[token] = before


def test_a_group_too_long_for_one_slot_uses_several(engine_of: Callable[..., Engine]) -> None:
    engine = engine_of("interleave", max_batch=8, max_batch_tokens=500, **UNKEPT)
    requests = questions(engine, 8, max_new_tokens=40)
    alone = [single(engine, request) for request in requests]
    assert sum(request.inputs.length + 40 for request in requests) > 500
    assert answers(engine, requests) == alone


def test_what_a_restored_prompt_begins_with_is_shared_as_well(
    engine_of: Callable[..., Engine],
) -> None:
    engine = engine_of("interleave")
    requests = questions(engine, 6, [clip(31, 6)])
    alone = [single(engine, request) for request in requests]
    before = engine.stats
    assert answers(engine, requests) == alone
    after = engine.stats
    assert (after.prefixes.hits - before.prefixes.hits, after.packed - before.packed) == (1, 5)


def test_short_prefixes_are_not_shared(engine_of: Callable[..., Engine]) -> None:
    engine = engine_of("interleave", pack_from_tokens=50, **UNKEPT)
    for frames, packed in ((3, 0), (6, 3)):
        before = engine.stats.packed
        requests = questions(engine, 4, [clip(40 + frames, frames)])
        alone = [single(engine, request) for request in requests]
        assert answers(engine, requests) == alone
        assert engine.stats.packed - before == packed
