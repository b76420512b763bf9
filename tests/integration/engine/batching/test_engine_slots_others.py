"""Models outside of the LLaVA family in slots: token by token what their own `generate` writes alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.architectures import ARCHITECTURES, BEGINNING, WINDOWS
from support.engine import TOGETHER, Reference, answers, ask, staggered
from support.models import clip, picture
from support.other_models import write_model
from transformers import AutoModelForImageTextToText

from videoqa_worker.engine import Engine, GenerationRequest, load_processor
from videoqa_worker.engine.device.cuda_graphs import CudaGraphs
from videoqa_worker.engine.execution.continuous import ContinuousRunner
from videoqa_worker.engine.model import features_apart, layer_masks
from videoqa_worker.engine.model.rotary_positions import RotaryPositions, find_positions
from videoqa_worker.prompt import ModelInputs, Prompter
from videoqa_worker.settings import EngineConfig

WIDE = {"height": 60, "width": 100}
"""Size of pictures whose axes differ in length."""
SMALL_CHUNKS = {
    **TOGETHER,
    "pixels": "reference",
    "prefill_chunk_tokens": 16,
    "pack_from_tokens": 1,
}
ROTARY = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v")
WINDOW = ("gemma3", "llava_window", "mistral3_window")
NAMES = (*ROTARY, *WINDOW, "video_llama_3")


@pytest.fixture(scope="module", params=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: dict[str, Any] = {**ARCHITECTURES, **WINDOWS}
    name: str = request.param
    return write_model(made[name], tmp_path_factory.mktemp(name), bos=name in BEGINNING)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with Engine(
        EngineConfig(model=str(folder), device="cpu", cpu_threads=1, **SMALL_CHUNKS)
    ) as engine:
        assert isinstance(engine._runner, ContinuousRunner)
        yield engine


def make_requests(engine: Engine, **options: Any) -> list[GenerationRequest]:
    """Questions about pictures of several shapes, some of them about the same, each with its own limit."""
    texts = ("Why?", "What is it?", "Who runs, and where to?", "And then?")
    several = [
        ask(engine, [clip(n // 2, 1 + n % 3, **WIDE)], text, max_new_tokens=6 + 4 * n, **options)
        for n, text in enumerate(texts)
    ]
    media = [clip(9, 2, **WIDE), picture(3, height=100, width=60)]
    same = [
        ask(engine, media, f"What is {'very ' * n}red?", max_new_tokens=5 + 4 * n, **options)
        for n in range(4)
    ]
    return several + same


def test_sequences_that_join_share_and_leave_write_what_each_writes_alone(
    engine: Engine, folder: Path
) -> None:
    requests = make_requests(engine)
    expected = [Reference(folder).tokens(request) for request in requests]
    assert len({*expected}) > 4
    packed = engine.stats.packed
    assert [answer.tokens for answer in answers(engine, requests)] == expected
    assert engine.stats.packed > packed
    hits = engine.stats.prefixes.hits
    texts: dict[int, str] = {}
    streamed = [
        replace(one, on_text=lambda text, n=n: texts.__setitem__(n, texts.get(n, "") + text))
        for n, one in enumerate(requests)
    ]
    again = [one.result(60) for one in staggered(engine, streamed, [0, 2, 4, 4, 6, 7, 9, 12])]
    assert [answer.tokens for answer in again] == expected
    assert [texts.get(n, "").strip() for n in range(len(again))] == [
        answer.text for answer in again
    ]
    assert engine.stats.prefixes.hits > hits


@pytest.mark.parametrize("folder", ["qwen2_vl", "video_llama_3"], indirect=True)
def test_questions_about_the_same_video_are_computed_in_one_pass(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their answers would be right too if the pass failed and each was asked again alone."""
    config = EngineConfig(model=str(folder), device="cpu", cpu_threads=1, pack_from_tokens=1)
    with Engine(config) as engine:
        requests = make_requests(engine)[4:]
        expected = [Reference(folder).tokens(request) for request in requests]
        runner: Any = engine._runner
        passes: list[tuple[int, int]] = []
        compute = runner.forward.prefill_packed

        def note(prefills: Any, positions: Any) -> torch.Tensor:
            logits: torch.Tensor = compute(prefills, positions)
            passes.append((len(prefills), len(logits)))
            return logits

        monkeypatch.setattr(runner.forward, "prefill_packed", note)
        assert [answer.tokens for answer in answers(engine, requests)] == expected
        assert passes == [(3, 3)]


def test_prompts_padded_as_for_graphs_have_their_positions(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CudaGraphs, "_capture", lambda *_: None)
    runner: Any = engine._runner
    monkeypatch.setattr(runner.forward._graphs, "enabled", True)
    engine.clear_caches()
    requests = make_requests(engine)[:3]
    expected = [Reference(folder).tokens(request) for request in requests]
    alone = [answers(engine, [request])[0].tokens for request in requests]
    assert alone == expected


def shift_answer(positions: RotaryPositions) -> RotaryPositions:
    return replace(positions, delta=positions.delta + 1)


def swap_axes(positions: RotaryPositions) -> RotaryPositions:
    return replace(positions, prompt=positions.prompt[[0, 2, 1]])


@pytest.mark.parametrize("folder", ROTARY, indirect=True)
def test_the_trial_finds_a_wrong_position(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16, whose rounding hides in the logits what a shifted position changes."""
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16).eval()
    prompter = Prompter(load_processor(str(folder), model.config, "reference"), model.config)
    masks = layer_masks.LayerMasks()
    assert features_apart.takes_features_apart(model, prompter, masks)
    for spoil in (shift_answer, swap_axes):

        def find_spoilt(model: Any, inputs: ModelInputs, spoil: Any = spoil) -> RotaryPositions:
            return spoil(find_positions(model, inputs))

        monkeypatch.setattr(features_apart, "find_positions", find_spoilt)
        assert not features_apart.takes_features_apart(model, prompter, masks)


@pytest.mark.parametrize("folder", WINDOW, indirect=True)
def test_the_trial_finds_a_window_that_is_one_off(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16).eval()
    prompter = Prompter(load_processor(str(folder), model.config, "reference"), model.config)

    def build() -> ModelInputs:
        return next(features_apart.build_trials(prompter))

    found = layer_masks.find_layer_masks(model, build)
    assert found is not None
    assert not found.is_plain
    plain = layer_masks._read_windows
    monkeypatch.setattr(
        layer_masks,
        "_read_windows",
        lambda text: {kind: window and window - 1 for kind, window in (plain(text) or {}).items()},
    )
    assert layer_masks.find_layer_masks(model, build) is None
