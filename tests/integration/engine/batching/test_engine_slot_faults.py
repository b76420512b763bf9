"""Faults cost the neighbours nothing: neither decoding sequences nor a prompt in prefill."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.engine import (
    answers,
    ask,
    batch_sizes,
    before_each_forward,
    single,
    small_device,
    submitted,
)
from support.models import clip

from videoqa.errors import JobCanceled, NanLogits, OutOfMemory
from videoqa_worker.engine import Engine, GenerationRequest
from videoqa_worker.engine.device.cuda_graphs import CudaGraphs
from videoqa_worker.engine.execution import continuous
from videoqa_worker.engine.execution.continuous import ContinuousRunner
from videoqa_worker.engine.kvcache.slot_cache import SlotCache
from videoqa_worker.engine.scheduling import recovery, scheduler
from videoqa_worker.engine.sequence.sampler import Sampler
from videoqa_worker.settings import EngineConfig


@pytest.fixture
def engine(checkpoint: Callable[[str], Path]) -> Iterator[Engine]:
    """Starts an engine with prefill chunks of 16 tokens and without caches."""
    config = EngineConfig(
        model=str(checkpoint("interleave")),
        device="cpu",
        cpu_threads=1,
        prefill_chunk_tokens=16,
        feature_cache_bytes=0,
        prefix_cache_bytes=0,
    )
    with Engine(config) as running:
        yield running


def runner(engine: Engine) -> ContinuousRunner:
    assert isinstance(engine._runner, ContinuousRunner)
    return engine._runner


def company(engine: Engine, rows: int) -> list[GenerationRequest]:
    """Returns so many requests that decode for long, and one with a long prompt."""
    short = [ask(engine, [clip(n, 2)], "What?", max_new_tokens=40) for n in range(rows)]
    return [*short, ask(engine, [clip(5, 12)], "Long?", max_new_tokens=4)]


class Once:
    """Raises at the first decode step beside a prompt in prefill."""

    def __init__(self, engine: Engine, rows: int, error: Exception) -> None:
        self.raised = False
        self._runner, self._rows, self._error = runner(engine), rows, error

    def __call__(self, tokens: torch.Tensor) -> None:
        decoding, prefilling = self._runner._table.decoding, self._runner._table.prefilling
        is_step = tokens.shape[:2] == (self._rows, 1) and len(decoding) == self._rows
        if not self.raised and is_step and prefilling and prefilling[0].length > 16:
            self.raised = True
            raise self._error


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize(
    "error", [IndexError("together"), torch.OutOfMemoryError("CUDA out of memory.")]
)
def test_a_failed_step_costs_the_prompt_in_prefill_nothing(
    engine: Engine, rows: int, error: Exception
) -> None:
    begun: list[int] = []

    def told(n: int) -> Callable[[int], None]:
        return lambda count: begun.append(n) if count == 1 and n < rows else None

    requests = [
        replace(request, on_progress=told(n)) for n, request in enumerate(company(engine, rows))
    ]
    alone = [single(engine, request) for request in requests]
    begun.clear()
    once = Once(engine, rows, error)
    with before_each_forward(engine, once):
        futures = submitted(engine, requests)
        assert futures[-1].result(60) == alone[-1]
        failed = [n for n, future in enumerate(futures) if future.exception(60) is not None]
    assert once.raised
    if isinstance(error, torch.OutOfMemoryError):
        assert begun == list(range(rows)), "the prompt gives way, not a row that runs"
    # A single row that makes the model raise is guilty; memory is nobody's guilt.
    assert failed == ([0] if rows == 1 and isinstance(error, IndexError) else [])
    assert all(futures[n].result() == alone[n] for n in range(rows + 1) if n not in failed)


def test_the_youngest_sequence_is_preempted_when_memory_runs_out(engine: Engine) -> None:
    """Preempts the sequence in the first slot, which took the place of one that ended."""
    restarted: list[int] = []

    def told(n: int) -> Callable[[int], None]:
        return lambda count: restarted.append(n) if count == 1 else None

    leaving = ask(engine, [clip(9, 1)], "Go?", max_new_tokens=20)
    staying = [
        ask(engine, [clip(n, 1)], "What?", max_new_tokens=50, on_progress=told(n)) for n in range(3)
    ]
    alone = [single(engine, request) for request in staying]
    restarted.clear()
    seen = False

    def check(tokens: torch.Tensor) -> None:
        nonlocal seen
        slots = runner(engine)._table.slots
        first = slots[0].sequences[0] if slots else None
        left = first is not None and first.pending.request.inputs is staying[2].inputs
        if tokens.shape[:2] == (3, 1) and left and not seen:
            seen = True
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with before_each_forward(engine, check):
        assert answers(engine, [leaving, *staying])[1:] == alone
    assert seen
    assert restarted == [0, 1, 2, 2]


def in_decode(engine: Engine, rows: int, step: int, error: Exception) -> Callable[..., None]:
    """Raises once, at the given step of so many sequences."""
    steps = 0

    def check(tokens: torch.Tensor) -> None:
        nonlocal steps
        if tokens.shape[:2] == (rows, 1) and len(runner(engine)._table.decoding) == rows:
            steps += 1
            if steps == step:
                raise error

    return check


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), KeyError("x")])
def test_a_sequence_that_is_repeated_goes_on_with_the_story_it_has_begun(
    engine: Engine, error: Exception
) -> None:
    """Holds without a seed as well: streamed text cannot be taken back."""
    told: list[list[str]] = [[], []]
    requests = [
        ask(
            engine,
            [clip(n, 2)],
            "Story?",
            max_new_tokens=30,
            temperature=1.5,
            on_text=told[n].append,
        )
        for n in range(2)
    ]
    with before_each_forward(engine, in_decode(engine, 2, 12, error)):
        texts = [answer.text for answer in answers(engine, requests)]
    assert ["".join(pieces).strip() for pieces in told] == texts
    assert len(set(texts)) == 2


def test_a_repeated_step_draws_the_same_tokens(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out between the draws of two sequences, the caches are cleared, and the step is repeated."""
    config = EngineConfig(model=str(checkpoint("interleave")), device="cpu", cpu_threads=1)
    with Engine(config) as engine:
        requests = [
            ask(engine, [clip(n, 2)], "Story?", max_new_tokens=20, temperature=1.5, seed=n)
            for n in range(2)
        ]
        alone = [single(engine, request) for request in requests]
        plain, draws = Sampler.draw, 0

        def draw(sampler: Sampler, scores: torch.Tensor) -> torch.Tensor:
            nonlocal draws
            draws += len(runner(engine)._table.decoding) == 2
            if draws == 10:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return plain(sampler, scores)

        monkeypatch.setattr(Sampler, "draw", draw)
        assert answers(engine, requests) == alone
    assert draws > 10


def test_sequences_come_back_after_memory_had_run_out(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "_RAISE_LIMIT_AFTER", 3)
    requests = [ask(engine, [clip(n, 1)], "What?", max_new_tokens=40) for n in range(8)]
    with before_each_forward(engine, small_device(2)):
        answers(engine, requests)
    with batch_sizes(engine) as rows:
        answers(engine, requests)
        assert max(rows) < 6  # one more after every three answers
        answers(engine, requests)
    assert max(rows) >= 6


def test_no_sequence_reads_nan_of_a_canceled_prompt(engine: Engine) -> None:
    embedding = engine._loaded.model.get_input_embeddings().weight.data
    token = engine._loaded.tokenizer("~", add_special_tokens=False)["input_ids"][0]
    neighbour = ask(engine, [clip(1, 2)], "What?", max_new_tokens=60)
    after = ask(engine, [clip(3, 1)], "Now?")
    alone = single(engine, after)

    def should_stop() -> bool:
        prefilling = runner(engine)._table.prefilling
        return bool(prefilling) and prefilling[0].length > 60

    bad = ask(engine, [clip(2, 2)], "~ " * 40, should_stop=should_stop)
    assert bad.inputs.length > 80 > after.inputs.length + 24
    before = embedding[token].clone()
    embedding[token] = torch.nan
    try:
        futures = submitted(engine, [neighbour, bad, after])
        with pytest.raises(JobCanceled):
            futures[1].result(60)
        assert futures[2].result(60) == alone
        assert futures[0].result(60).output_tokens > 10
    finally:
        embedding[token] = before


def test_no_sequence_reads_nan_where_a_prompt_was_before_it_moved(engine: Engine) -> None:
    """A sequence that ends makes the slots behind it move up, one in prefill with them."""
    embedding = engine._loaded.model.get_input_embeddings().weight.data
    token = engine._loaded.tokenizer("~", add_special_tokens=False)["input_ids"][0]
    bad = ask(engine, [clip(2, 2)], "~ " * 40)

    def half_way() -> bool:
        prefilling = runner(engine)._table.prefilling
        return bool(prefilling) and prefilling[0].pending.prompt_tokens == bad.inputs.length <= (
            prefilling[0].length + 60
        )

    leaving = ask(engine, [clip(0, 2)], "What?", max_new_tokens=200, should_stop=half_way)
    staying = ask(engine, [clip(1, 2)], "What?", max_new_tokens=200)
    after = [ask(engine, [clip(3 + n, 1)], "Now?") for n in range(2)]
    alone = [single(engine, request) for request in after]
    before = embedding[token].clone()
    embedding[token] = torch.nan
    try:
        futures = submitted(engine, [leaving, staying, bad, *after])
        with pytest.raises(JobCanceled):
            futures[0].result(60)
        with pytest.raises(NanLogits, match="NaN or infinite logits"):
            futures[2].result(60)
        assert [future.result(60) for future in futures[3:]] == alone
        assert futures[1].result(60).output_tokens > 40
    finally:
        embedding[token] = before


def test_no_sequence_reads_nan_in_the_padding_of_a_prompt(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA graphs pad a prompt: the padding is computed from it, and lies behind its region."""
    monkeypatch.setattr(CudaGraphs, "_capture", lambda *_: None)
    runner(engine).forward._graphs.enabled = True
    after = ask(engine, [clip(3, 1)], "Now?", max_new_tokens=60)
    alone = single(engine, after)
    embedding = engine._loaded.model.get_input_embeddings().weight.data
    token = engine._loaded.tokenizer("~", add_special_tokens=False)["input_ids"][0]
    bad = ask(engine, [clip(2, 1)], "~ " * 20, max_new_tokens=2)
    assert after.inputs.length <= 64 < bad.inputs.length < 120
    assert after.inputs.length + alone.output_tokens > 70
    before = embedding[token].clone()
    embedding[token] = torch.nan
    try:
        with pytest.raises(NanLogits, match="NaN or infinite logits"):
            single(engine, bad)
    finally:
        embedding[token] = before
    assert single(engine, after) == alone


def test_a_prompt_without_memory_to_cache_its_prefix_is_answered(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EngineConfig(model=str(checkpoint("interleave")), device="cpu", cpu_threads=1)
    with Engine(config) as engine:
        requests = [ask(engine, [clip(n, 2)], "What?") for n in range(3)]
        alone = [single(engine, request) for request in requests]
        runner(engine).prefix_cache.clear()

        def full(*_: object) -> list[torch.Tensor]:
            raise torch.OutOfMemoryError("CUDA out of memory.")

        monkeypatch.setattr(SlotCache, "save", full)
        assert answers(engine, requests) == alone
        assert engine.stats.prefixes.entries == 0
        monkeypatch.undo()
        assert answers(engine, requests) == alone
        assert engine.stats.prefixes.entries == 3


@pytest.mark.parametrize("beside", [0, 2])
def test_a_sequence_without_memory_to_begin_waits_for_it(
    engine: Engine, beside: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [
        *(ask(engine, [clip(n, 2)], "What?", max_new_tokens=30) for n in range(beside)),
        ask(engine, [clip(7, 2)], "Story?", temperature=1.5, seed=2),
    ]
    alone = [single(engine, request) for request in requests]
    plain, refused = Sampler.__init__, 0

    def full(sampler: Sampler, *args: Any) -> None:
        nonlocal refused
        if len(runner(engine)._table) > 1 or not beside:
            refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory.")
        plain(sampler, *args)

    monkeypatch.setattr(Sampler, "__init__", full)
    futures = submitted(engine, requests)
    if beside:
        assert [future.result(60) for future in futures] == alone
    else:
        with pytest.raises(OutOfMemory):
            futures[0].result(60)
    assert refused
    monkeypatch.undo()
    assert answers(engine, requests) == alone


def test_memory_of_a_prompt_that_failed_is_free_before_it_is_tried_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[weakref.ref[Any]] = []
    left: list[bool] = []
    plain = continuous.begin_prefill
    free = recovery.free_memory

    def watched(*args: Any, **kwargs: Any) -> Any:
        prefill = plain(*args, **kwargs)
        begun.append(weakref.ref(prefill))
        return prefill

    def freed() -> None:
        left.append(begun[-1]() is not None)
        free()

    def full(tokens: torch.Tensor) -> None:
        if not left:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    request = ask(engine, [clip(1, 4)], "What?", max_new_tokens=4)
    runner(engine).prefix_cache.features.put(b"kept", {}, 0)  # so that it is tried again
    monkeypatch.setattr(continuous, "begin_prefill", watched)
    monkeypatch.setattr(recovery, "free_memory", freed)
    with before_each_forward(engine, full):
        assert answers(engine, [request])[0].output_tokens > 0
    assert left == [False]
    assert len(begun) == 2


@pytest.mark.parametrize("rows", [1, 3])
def test_memory_that_runs_out_takes_the_graphs_with_it(
    engine: Engine, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph holds all memory of its pass. Without a GPU the test sees that graphs are dropped."""
    forgotten: list[int] = []
    requests = [ask(engine, [clip(n, 2)], "What?", max_new_tokens=40) for n in range(rows)]
    alone = [single(engine, request) for request in requests]
    full = in_decode(engine, rows, 3, torch.OutOfMemoryError("CUDA out of memory."))
    monkeypatch.setattr(CudaGraphs, "clear", lambda _: forgotten.append(engine.stats.running))
    runner(engine).prefix_cache.features.put(b"kept", {}, 0)  # so that the step is tried again
    with before_each_forward(engine, full):
        assert answers(engine, requests) == alone
    assert rows in forgotten
