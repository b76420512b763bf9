"""Faults of the model, of memory and of the worker, and how the engine handles them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.engine import (
    Check,
    answers,
    ask,
    batch_sizes,
    before_each_forward,
    single,
    small_device,
    submitted,
)
from support.models import clip

from videoqa.errors import EngineStopped, JobCanceled, ModelError, NanLogits, OutOfMemory
from videoqa_worker.engine import Engine
from videoqa_worker.settings import EngineConfig


@pytest.fixture(params=["slots", "generate"])
def engine(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> Iterator[Engine]:
    """Its own engine for each test: these leave traces in it."""
    config = EngineConfig(
        model=str(checkpoint("interleave")),
        device="cpu",
        cpu_threads=1,
        batch_wait_s=0.3,
        batching=request.param,
    )
    with Engine(config) as running:
        yield running


def requests_of(engine: Engine, count: int) -> list[Any]:
    return [ask(engine, [clip(n, 2)], f"What is number {n}?") for n in range(count)]


@pytest.mark.parametrize("fits", [1, 2, 3])
def test_a_batch_that_runs_out_of_memory_is_answered_in_smaller_ones(
    engine: Engine, fits: int
) -> None:
    requests = requests_of(engine, 8)
    alone = [single(engine, request) for request in requests]
    with before_each_forward(engine, small_device(fits)):
        assert answers(engine, requests) == alone


def test_batches_stay_small_after_one_ran_out_of_memory(engine: Engine) -> None:
    with batch_sizes(engine) as rows, before_each_forward(engine, small_device(2)):
        answers(engine, requests_of(engine, 8))
        assert max(rows) > 2
        rows.clear()
        answers(engine, requests_of(engine, 8))
        assert max(rows) == 2


def test_memory_that_runs_out_while_decoding_costs_no_answer(engine: Engine) -> None:
    requests = requests_of(engine, 6)
    alone = [single(engine, request) for request in requests]
    steps: list[int] = []

    def check(input_ids: torch.Tensor) -> None:
        steps.append(input_ids.shape[0])
        if len(steps) == 10:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with before_each_forward(engine, check):
        assert answers(engine, requests) == alone
    assert max(steps) > 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        MemoryError("no"),
    ],
)
def test_a_request_that_does_not_fit_alone_fails_as_out_of_memory(
    engine: Engine, error: Exception
) -> None:
    def check(input_ids: torch.Tensor) -> None:
        raise error

    request = ask(engine, [clip(1, 5)], "What?")
    with before_each_forward(engine, check), pytest.raises(OutOfMemory, match="5 frames"):
        engine.submit(request).result(60)
    assert single(engine, request).output_tokens > 0


def poison(engine: Engine) -> Check:
    token = engine._loaded.tokenizer("~", add_special_tokens=False)["input_ids"][0]

    embedding = engine._loaded.model.get_input_embeddings().weight[token]

    def check(tokens: torch.Tensor) -> None:
        same = tokens == (embedding if tokens.is_floating_point() else token)
        if (same.all(dim=-1) if tokens.is_floating_point() else same).any():
            raise IndexError("index 7 is out of bounds")

    return check


def test_a_sequence_that_makes_the_model_raise_fails_alone(engine: Engine) -> None:
    requests = requests_of(engine, 4)
    alone = [single(engine, request) for request in requests]
    guilty = ask(engine, [clip(9, 2)], "What is ~ ?")
    with before_each_forward(engine, poison(engine)):
        futures = submitted(engine, [*requests[:2], guilty, *requests[2:]])
        assert [futures[n].result(60) for n in (0, 1, 3, 4)] == alone
        with pytest.raises(ModelError, match="IndexError: index 7 is out of bounds"):
            futures[2].result(60)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_sequence_with_nan_logits_fails_alone(engine: Engine, temperature: float) -> None:
    requests = requests_of(engine, 4)
    alone = [single(engine, request) for request in requests]
    bad = ask(engine, [clip(9, 2)], "What is ~ ?", temperature=temperature)
    token = engine._loaded.tokenizer("~", add_special_tokens=False)["input_ids"][0]
    engine._loaded.model.get_input_embeddings().weight.data[token] = torch.nan
    futures = submitted(engine, [*requests[:2], bad, *requests[2:]])
    assert [futures[n].result(60) for n in (0, 1, 3, 4)] == alone
    with pytest.raises(NanLogits, match="NaN or infinite logits"):
        futures[2].result(60)


def test_a_repeated_batch_still_asks_who_wants_to_stop(engine: Engine) -> None:
    """A cancel that arrives between the failed batch and the retry is heard."""
    prefills: list[int] = []

    def check(input_ids: torch.Tensor) -> None:
        prefills.append(input_ids.shape[0])
        if input_ids.shape[0] > 1:
            raise IndexError("together")

    leaving = ask(engine, [clip(1, 2)], "What?", should_stop=lambda: 2 in prefills)
    staying = ask(engine, [clip(2, 2)], "What?", max_new_tokens=3)
    with before_each_forward(engine, check):
        futures = submitted(engine, [leaving, staying])
        assert futures[1].result(60).output_tokens == 3
        with pytest.raises(JobCanceled):
            futures[0].result(60)


def test_a_broken_device_stops_the_engine_instead_of_failing_job_after_job(
    engine: Engine,
) -> None:
    """After a device-side assertion every later call on that device fails as well."""

    def check(input_ids: torch.Tensor) -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    begun: list[bool] = []
    with before_each_forward(engine, check):
        futures = [engine.submit(request) for request in requests_of(engine, 3)]
        for future in futures:
            with pytest.raises(EngineStopped) as stopped:
                future.result(60)
            begun.append(stopped.value.had_begun)
    assert begun[0]
    engine._thread.join(60)
    assert not engine.ready
    with pytest.raises(EngineStopped) as late:
        engine.submit(ask(engine, [clip(1, 2)], "What?")).result(0)
    assert not late.value.had_begun


def test_closing_ends_running_and_waiting_requests(engine: Engine) -> None:
    started = threading.Event()

    def stay(tokens: int) -> None:
        started.set()
        while engine.ready:
            time.sleep(0.001)

    running = ask(engine, [clip(1, 2)], "Long?", max_new_tokens=1000, on_progress=stay)
    futures = [engine.submit(running)]
    assert started.wait(60)
    futures.append(engine.submit(ask(engine, [clip(1, 2)], "Late?")))
    engine.close()
    for future in futures:
        with pytest.raises(EngineStopped):
            future.result(0)
    assert not engine.ready


def test_a_closed_engine_refuses_and_may_be_closed_again(engine: Engine) -> None:
    request = ask(engine, [clip(1, 2)], "What?")
    engine.close()
    with pytest.raises(EngineStopped):
        engine.submit(request).result(0)
    engine.close()


def test_an_engine_that_was_never_started_closes() -> None:
    engine = Engine(EngineConfig(model="some/model"))
    assert not engine.ready
    engine.close()


def test_the_engines_thread_ends_with_it(engine: Engine) -> None:
    before = [thread for thread in threading.enumerate() if thread.name == "videoqa-engine"]
    engine.close()
    after = [thread for thread in threading.enumerate() if thread.name == "videoqa-engine"]
    assert len(after) == len(before) - 1
