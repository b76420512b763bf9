"""Counters of an engine, read from other threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.engine import answers, ask, single
from support.models import clip

from videoqa_worker.engine import Engine, Stats
from videoqa_worker.settings import EngineConfig


@pytest.fixture
def start(checkpoint: Callable[[str], Path]) -> Callable[[str], Engine]:
    def of(batching: str) -> Engine:
        folder = str(checkpoint("interleave"))
        config = EngineConfig(
            model=folder,
            device="cpu",
            cpu_threads=1,
            pack_from_tokens=1,
            batching=batching,  # type: ignore[arg-type]
        )
        return Engine(config)

    return of


def test_ten_questions_about_one_video_show_one_prompt(start: Callable[[str], Engine]) -> None:
    with start("slots") as engine:
        before = engine.stats
        requests = [
            ask(engine, [clip(1, 8)], f"What is number {n}?", max_new_tokens=6) for n in range(10)
        ]
        told = answers(engine, requests)
        after = engine.stats
    prefix = int((requests[0].inputs.input_ids[0] == 4).nonzero()[-1]) + 1
    rest = sum(request.inputs.length - prefix for request in requests)
    assert after.prompt_tokens - before.prompt_tokens == prefix + rest
    assert after.packed - before.packed + after.prefixes.hits - before.prefixes.hits == 9
    assert after.packed > before.packed
    assert after.prefixes.misses - before.prefixes.misses == 1
    assert after.features.misses - before.features.misses == 1
    # The first token of each comes with its prompt.
    assert after.rows - before.rows == sum(answer.output_tokens - 1 for answer in told)
    assert 0 < after.steps - before.steps < after.rows - before.rows
    assert after.output_tokens - before.output_tokens == sum(one.output_tokens for one in told)
    assert (after.kv_used, after.max_batch) == (0, EngineConfig(model="x").max_batch)
    assert (after.kv_positions or 0) > max(request.inputs.length for request in requests)


@pytest.mark.parametrize("batching", ["slots", "generate"])
def test_a_stuck_sequence_shows_by_an_old_last_step(
    batching: str, start: Callable[[str], Engine]
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def stuck(tokens: int) -> None:
        if tokens == 5:
            reached.set()
            go_on.wait(30)

    with start(batching) as engine:
        begun_s = time.monotonic()
        future = engine.submit(ask(engine, [clip(1, 2)], "What?", on_progress=stuck))
        assert reached.wait(30)
        first, _, second = engine.stats, time.sleep(0.05), engine.stats
        assert first.running == second.running == 1
        assert begun_s < first.last_step_at == second.last_step_at < time.monotonic() - 0.05
        go_on.set()
        future.result(30)
        single(engine, ask(engine, [clip(2, 1)], "Next?"))
        late_s = time.monotonic() + 30  # a batch ends after its rows are delivered
        while engine.stats.running and time.monotonic() < late_s:
            time.sleep(0.01)
        assert engine.stats.running == 0
        assert engine.stats.last_step_at > second.last_step_at


def test_an_engine_that_was_not_started_has_done_nothing() -> None:
    assert Engine(EngineConfig(model="some/model")).stats == Stats()
