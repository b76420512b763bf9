"""Further questions about the same pictures prepare them once, and get the very same inputs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from support.models import FAMILIES, clip, picture
from transformers import AutoConfig

from videoqa.contract import Generation
from videoqa_worker.engine import Engine, MediaQuestion, load_processor
from videoqa_worker.prompt import (
    ChatForm,
    FrameInput,
    ModelInputs,
    PreparedMedia,
    Prompter,
    build_chat_content,
)
from videoqa_worker.settings import EngineConfig

QUESTIONS = [
    "What is it?",
    "<image> or <video> or <image>?",
    "And before?",
    "<video> after <image> and <image>?",
    "What is it?",
]


@pytest.fixture
def media() -> list[FrameInput]:
    return [picture(1), clip(2, 3), picture(5)]


@pytest.fixture
def prompter_of(checkpoint: Callable[[str], Path]) -> Callable[[str], Prompter]:
    def of(family: str) -> Prompter:
        folder = checkpoint(family)
        config = AutoConfig.from_pretrained(folder)
        processor = load_processor(str(folder), config)
        return Prompter(processor, config, pixel_cache_bytes=1 << 20)

    return of


def same(one: ModelInputs, other: ModelInputs) -> bool:
    return (
        torch.equal(one.input_ids, other.input_ids)
        and one.images.keys() == other.images.keys()
        and all(torch.equal(one.images[name], other.images[name]) for name in one.images)
        and len(one.videos) == len(other.videos)
        and all(map(torch.equal, one.videos, other.videos))
        and (one.frames, one.media_tokens) == (other.frames, other.media_tokens)
    )


@pytest.mark.parametrize("pixels", ["fast", "reference"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_question_gets_what_it_would_get_by_itself(
    checkpoint: Callable[[str], Path],
    family: str,
    pixels: str,
    media: list[FrameInput],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = checkpoint(family)
    config = AutoConfig.from_pretrained(folder)
    processor = load_processor(str(folder), config, pixels)  # type: ignore[arg-type]
    prompter = Prompter(processor, config)
    alone = [prompter.build(media, question) for question in QUESTIONS]
    resized = 0
    for part in {
        type(processor.image_processor),
        type(getattr(processor, "video_processor", None)),
    }:
        if hasattr(part, "resize"):
            plain = part.resize

            def counted(
                self: object, *args: object, _plain: object = plain, **kw: object
            ) -> object:
                nonlocal resized
                resized += 1
                return _plain(self, *args, **kw)  # type: ignore[operator]

            monkeypatch.setattr(part, "resize", counted)
    prepared = PreparedMedia(media)
    together = [prompter.build(prepared, QUESTIONS[0])]
    first = resized
    together += [prompter.build(prepared, question) for question in QUESTIONS[1:]]
    assert all(map(same, together, alone))
    assert first > 0
    # Marks may bring the pictures in another order, which is another set to the processor.
    assert resized < 3 * first


@pytest.mark.parametrize("family", FAMILIES)
def test_another_job_about_the_same_frames_prepares_nothing(
    prompter_of: Callable[[str], Prompter], family: str
) -> None:
    """Its frames are arrays of its own, as another decoding makes them."""
    prompter = prompter_of(family)
    first = prompter.build(PreparedMedia([clip(1, 3)]), "What?")
    computed = prompter.pixel_cache.counts.computed
    again = prompter.build(PreparedMedia([clip(1, 3)]), "What?")
    assert same(again, first)
    assert again.media_digest == first.media_digest != b""
    assert prompter.pixel_cache.counts.computed == computed > 0
    other = clip(1, 3)
    other.frames[-1][0, 0] ^= 1
    changed = prompter.build(PreparedMedia([other]), "What?")
    fewer = prompter.build(PreparedMedia([FrameInput("video", clip(1, 3).frames[:2])]), "What?")
    picture = prompter.build(PreparedMedia([FrameInput("image", clip(1, 3).frames[:1])]), "What?")
    digests = {each.media_digest for each in (first, changed, fewer, picture)}
    assert len(digests) == 4
    assert prompter.build((), "What?").media_digest == b""


def test_jobs_at_the_same_time_prepare_the_same_frames_once(
    prompter_of: Callable[[str], Prompter], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompter = prompter_of("interleave")
    begun, waits = threading.Event(), threading.Event()
    plain = type(prompter._processor.image_processor).resize

    def hold(self: object, *args: object, **settings: object) -> object:
        begun.set()
        assert waits.wait(30)
        return plain(self, *args, **settings)

    monkeypatch.setattr(type(prompter._processor.image_processor), "resize", hold)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(prompter.build, PreparedMedia([clip(8, 2)]), "What?")
        assert begun.wait(30)
        other = PreparedMedia([clip(8, 2)], check=waits.set)
        second = threads.submit(prompter.build, other, "Where?")
        one, two = first.result(30), second.result(30)
    assert one.images["pixel_values"] is two.images["pixel_values"]
    assert prompter.pixel_cache.counts.awaited == 1


def test_features_are_found_though_the_pixels_were_evicted(
    checkpoint: Callable[[str], Path],
) -> None:
    config = EngineConfig(
        model=str(checkpoint("interleave")), device="cpu", cpu_threads=1, prefix_cache_bytes=0
    )
    with Engine(config) as engine:
        tokens = []
        for _ in range(3):
            media = PreparedMedia([clip(6, 3)])
            question = MediaQuestion(media, "What?", generation=Generation(max_new_tokens=12))
            tokens.append(engine.ask(question).result(60).tokens)
            engine.prompter.pixel_cache.clear()
        assert engine.stats.features.hits == 2
        assert tokens[0] == tokens[1] == tokens[2]


def test_prepared_pictures_are_not_taken_for_later_ones(
    checkpoint: Callable[[str], Path],
) -> None:
    """Other jobs' pictures may lie where these lay in memory."""
    folder = checkpoint("interleave")
    config = AutoConfig.from_pretrained(folder)
    prompter = Prompter(load_processor(str(folder), config), config, pixel_cache_bytes=1 << 20)
    for shade in range(0, 250, 10):
        frame = np.full((40, 40, 3), shade, np.uint8)
        inputs = prompter.build(PreparedMedia([FrameInput("image", (frame,))]), "What?")
        assert int(inputs.images["pixel_values"].float().mean()) == shade


def test_pictures_are_encoded_once_for_a_server(
    media: list[FrameInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [
        build_chat_content(PreparedMedia(media), question, ChatForm()) for question in QUESTIONS
    ]
    encoded: list[object] = []
    plain = build_chat_content.__globals__["_encode"]
    monkeypatch.setitem(
        build_chat_content.__globals__,
        "_encode",
        lambda frame, images: encoded.append(frame) or plain(frame, images),
    )
    prepared = PreparedMedia(media)
    assert [build_chat_content(prepared, question, ChatForm()) for question in QUESTIONS] == alone
    assert len(encoded) == 5
