"""Settings, sampling, prompts, turns and failures of ours become those of vLLM; without vLLM."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.models import clip, picture
from transformers import AutoConfig

from videoqa.contract import Generation
from videoqa.errors import ConfigurationError, FrameLimitUnmet
from videoqa_worker.engine import Engine, VllmEngine
from videoqa_worker.engine.model.checkpoint.generation_config import CheckpointGeneration
from videoqa_worker.engine.vllm.arguments import build_arguments, check_device, check_settings
from videoqa_worker.engine.vllm.environment import FailureReport, starting_processes
from videoqa_worker.engine.vllm.failures import explain_start
from videoqa_worker.engine.vllm.gate import Gate
from videoqa_worker.engine.vllm.prompt import build_prompt
from videoqa_worker.engine.vllm.sampling import build_sampling, check_checkpoint
from videoqa_worker.prompt import PictureLimits, PreparedMedia
from videoqa_worker.settings import EngineConfig
from videoqa_worker.vllm_process import _Reporter, guard


@pytest.mark.parametrize(
    "setting",
    [
        {"adapter": "./lora"},
        {"device_map": "auto"},
        {"quantization": "8bit"},
        {"batch_invariant": True},
        {"batching": "generate"},
        {"feature_cache_bytes": 0},
        {"frame_max_tokens": 100},
    ],
)
def test_a_setting_that_vllm_does_not_follow_is_refused_by_name(setting: dict[str, object]) -> None:
    (name,) = setting
    with pytest.raises(ConfigurationError, match=f"VIDEOQA_{name.upper()}="):
        VllmEngine(EngineConfig.model_validate({"engine": "vllm", **setting}))


def test_settings_left_alone_are_not_refused() -> None:
    check_settings(EngineConfig())
    check_settings(EngineConfig(adapter="none", batching="slots", quantization="4bit"))


def test_a_device_that_this_vllm_lacks_is_refused() -> None:
    check_device(EngineConfig(), "cuda")
    check_device(EngineConfig(device="cpu"), "cpu")
    with pytest.raises(ConfigurationError, match="runs on cpu"):
        check_device(EngineConfig(device="cuda"), "cpu")
    with pytest.raises(ConfigurationError, match="CUDA_VISIBLE_DEVICES"):
        check_device(EngineConfig(device="cuda:1"), "cuda")


def test_the_kv_cache_has_the_positions_that_are_asked_for(
    checkpoint: Callable[[str], Path],
) -> None:
    folder = checkpoint("interleave")
    model = AutoConfig.from_pretrained(folder)
    config = EngineConfig(model=str(folder), max_batch_tokens=1280, max_context=900)

    def arguments(device_type: str, config: EngineConfig = config) -> dict[str, object]:
        return build_arguments(config, device_type=device_type, model_config=model, commit=None)

    # 2 layers of keys and values, 2 heads of 16 numbers, for 10 blocks of 128 positions and one more.
    positions = 11 * 128
    assert arguments("cpu")["kv_cache_memory_bytes"] == 2 * 2 * 2 * 16 * 4 * positions
    assert arguments("cuda")["kv_cache_memory_bytes"] == 2 * 2 * 2 * 16 * 2 * positions
    split = config.model_copy(update={"tensor_parallel": 2})
    assert arguments("cuda", split)["kv_cache_memory_bytes"] == 2 * 2 * 16 * 2 * positions
    assert arguments("cpu")["max_model_len"] == 900
    assert "kv_cache_memory_bytes" not in arguments("cuda", EngineConfig(model=str(folder)))


def test_sampling_has_the_ends_and_penalties_of_the_checkpoint() -> None:
    shaping = {"repetition_penalty": 1.2, "min_new_tokens": 30}
    stated = CheckpointGeneration(eos=frozenset({7, 2, 999}), shaping=shaping, vocabulary=100)
    check_checkpoint(stated, "model")
    greedy = build_sampling(Generation(max_new_tokens=20), stated, seed=5)
    assert (greedy["stop_token_ids"], greedy["ignore_eos"]) == ([2, 7], True)
    assert (greedy["repetition_penalty"], greedy["min_tokens"]) == (1.2, 20)
    assert "seed" not in greedy
    drawn = Generation(temperature=0.5, top_k=3, repetition_penalty=1.5)
    sampled = build_sampling(drawn, stated, seed=5)
    assert (sampled["seed"], sampled["top_k"], sampled["repetition_penalty"]) == (5, 3, 1.5)


def test_a_checkpoint_with_settings_that_vllm_lacks_is_refused() -> None:
    stated = CheckpointGeneration(shaping={"no_repeat_ngram_size": 3, "suppress_tokens": [1]})
    with pytest.raises(ConfigurationError, match="no_repeat_ngram_size, suppress_tokens"):
        check_checkpoint(stated, "model")


def test_a_prompt_has_raw_frames_and_a_digest_of_each_item(
    engine_of: Callable[..., Engine],
) -> None:
    prompter = engine_of("onevision").prompter
    media = PreparedMedia([clip(1, 3), picture(2)])
    prompt = build_prompt(prompter, media, "Why?", max_new_tokens=8)
    ((frames, metadata),) = prompt["multi_modal_data"]["video"]
    assert frames.shape == (3, 48, 64, 3)
    assert metadata["do_sample_frames"] is False
    assert prompt["multi_modal_data"]["image"][0].size == (64, 48)
    again = build_prompt(
        prompter, PreparedMedia([clip(1, 3), picture(3)]), "Who?", max_new_tokens=8
    )
    digests, others = prompt["multi_modal_uuids"], again["multi_modal_uuids"]
    assert digests["video"] == others["video"]
    assert digests["image"] != others["image"]
    assert "multi_modal_data" not in build_prompt(
        prompter, PreparedMedia([]), "?", max_new_tokens=8
    )


def test_limits_of_a_frame_are_refused_rather_than_ignored(
    engine_of: Callable[..., Engine],
) -> None:
    limited = replace(clip(1, 3), limits=PictureLimits(max_pixels=5000))
    with pytest.raises(FrameLimitUnmet, match="max_pixels"):
        build_prompt(
            engine_of("onevision").prompter, PreparedMedia([limited]), "?", max_new_tokens=8
        )


def test_a_question_that_runs_alone_runs_beside_none() -> None:
    gate, log = Gate(), list[str]()

    async def run(name: str, *, alone: bool) -> None:
        async with gate.enter(alone=alone):
            log.append(f"{name} begins")
            for _ in range(3):
                await asyncio.sleep(0)
            log.append(f"{name} ends")

    async def all_of_them() -> None:
        first = [asyncio.create_task(run(name, alone=False)) for name in ("a", "b")]
        await asyncio.sleep(0)
        gone = asyncio.create_task(run("gone", alone=True))
        await asyncio.sleep(0)
        gone.cancel()  # one that waits to run alone and goes away holds nobody up
        second = [
            asyncio.create_task(run("c", alone=True)),
            asyncio.create_task(run("d", alone=False)),
        ]
        await asyncio.gather(gone, *first, *second, return_exceptions=True)

    asyncio.run(asyncio.wait_for(all_of_them(), 30))
    begun = [line for line in log if line.startswith(("c", "d"))]
    assert "gone begins" not in log
    assert begun == ["c begins", "c ends", "d begins", "d ends"]
    assert log.index("c begins") > log.index("a ends")


def test_the_first_failure_of_its_processes_is_the_reason_of_a_failed_start() -> None:
    report = FailureReport()
    logger = logging.Logger("vllm of a test")
    logger.addHandler(_Reporter(str(report.path)))
    for text in ("the KV cache is\ntoo small", "a worker failed"):
        try:
            raise ValueError(text)
        except ValueError:
            logger.exception("failed")
    logger.error("nothing raised")
    assert report.read() == "ValueError: the KV cache is too small"
    error = explain_start(RuntimeError("see above"), report.read(), "model")
    assert "the KV cache is too small; lower VIDEOQA_MAX_CONTEXT" in str(error)
    report.remove()
    assert report.read() == ""
    assert "see above" in str(explain_start(RuntimeError("see above"), "", "model"))


def test_only_its_processes_get_the_environment_of_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    before, report = dict(os.environ), FailureReport()
    with starting_processes(EngineConfig(cpu_threads=2), report):
        os.environ["LD_PRELOAD"] = "as vLLM does"
        assert os.environ["OMP_NUM_THREADS"] == "2"
        assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
        guard()  # this process has no parent of its kind, so nothing changes in it
    assert dict(os.environ) == before
    report.remove()
