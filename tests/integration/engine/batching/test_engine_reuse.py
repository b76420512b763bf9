"""The prefix cache: the next question about the same pictures costs little."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.engine import answers, ask, single
from support.models import clip

from videoqa_worker.engine import Engine
from videoqa_worker.engine.execution.continuous import ContinuousRunner
from videoqa_worker.engine.kvcache.lru import LruCache
from videoqa_worker.settings import EngineConfig

QUESTIONS = [f"What is number {n}?" for n in range(10)]


@pytest.fixture
def engine_with(checkpoint: Callable[[str], Path]) -> Callable[..., Engine]:
    def start(**settings: Any) -> Engine:
        config = EngineConfig(
            model=str(checkpoint("interleave")),
            device="cpu",
            cpu_threads=1,
            max_batch=4,
            **settings,
        )
        return Engine(config)

    return start


def runner(engine: Engine) -> ContinuousRunner:
    assert isinstance(engine._runner, ContinuousRunner)
    return engine._runner


def test_ten_questions_about_one_video_compute_its_prompt_once(
    engine_with: Callable[..., Engine],
) -> None:
    with engine_with() as engine:
        requests = [ask(engine, [clip(1, 8)], question) for question in QUESTIONS]
        before = runner(engine).prompt_tokens
        answers(engine, requests)
        computed = runner(engine).prompt_tokens - before
        prompts, features = (
            cache.counts
            for cache in (
                runner(engine).prefix_cache.prefixes,
                runner(engine).prefix_cache.features,
            )
        )
    longest = max(request.inputs.length for request in requests)
    assert computed < longest + 9 * 40
    assert computed < sum(request.inputs.length for request in requests) / 2.5
    assert (prompts.hits + runner(engine).packed, prompts.entries) == (9, 1)
    assert features.entries == 1


def test_the_caches_change_no_answer(engine_with: Callable[..., Engine]) -> None:
    with (
        engine_with() as engine,
        engine_with(feature_cache_bytes=0, prefix_cache_bytes=0) as forgetful,
    ):
        for media in ([clip(1, 8)], [clip(2, 8)], [clip(1, 8), clip(2, 3)]):
            requests = [ask(engine, media, question) for question in QUESTIONS[:4]]
            assert answers(engine, requests) == [single(forgetful, one) for one in requests]
        assert runner(engine).prefix_cache.prefixes.counts.hits + runner(engine).packed == 9
        assert runner(forgetful).prefix_cache.prefixes.counts.entries == 0


def test_pictures_that_differ_in_one_pixel_are_not_taken_for_each_other(
    engine_with: Callable[..., Engine],
) -> None:
    one, other = clip(1, 4), clip(1, 4)
    changed = [frame.copy() for frame in other.frames]
    changed[2][0, 0] = 255 - changed[2][0, 0]
    other = type(other)("video", tuple(changed), other.pts_s)
    with engine_with(pixels="reference") as engine:
        answers(engine, [ask(engine, [one], "What?"), ask(engine, [other], "What?")])
        counts = runner(engine).prefix_cache.prefixes.counts
    assert (counts.hits, counts.entries) == (0, 2)


def test_the_least_recently_used_goes_when_bytes_run_out() -> None:
    kept: LruCache[str] = LruCache(100)
    kept.put(b"a", "A", 40)
    kept.put(b"b", "B", 40)
    assert kept.get(b"a") == "A"
    kept.put(b"c", "C", 40)
    assert (kept.get(b"a"), kept.get(b"b"), kept.get(b"c")) == ("A", None, "C")
    kept.put(b"d", "D", 101)
    assert kept.get(b"d") is None
    counts = kept.counts
    assert (counts.hits, counts.misses, counts.evictions) == (3, 2, 1)
    assert (counts.entries, counts.size_bytes) == (2, 80)
    assert kept.clear()
    assert not kept.clear()
    assert kept.counts.size_bytes == 0


def test_answers_stay_right_with_small_caches(engine_with: Callable[..., Engine]) -> None:
    with engine_with(prefix_cache_bytes=60_000) as engine:
        requests = [ask(engine, [clip(n % 3, 4)], QUESTIONS[n]) for n in range(9)]
        alone = [single(engine, request) for request in requests]
        assert answers(engine, requests) == alone
        counts = runner(engine).prefix_cache.prefixes.counts
    assert counts.evictions > 0
    assert 0 < counts.size_bytes <= 60_000
