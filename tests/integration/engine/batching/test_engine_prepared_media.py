"""Further questions about the same pictures prepare them once, and get the very same inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.models import FAMILIES, clip, picture
from transformers import AutoConfig

from videoqa_worker.engine import load_processor
from videoqa_worker.prompt import (
    FrameInput,
    ModelInputs,
    PreparedMedia,
    Prompter,
    build_chat_content,
    prepared_media,
)

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
def test_their_pixels_are_one_tensor_and_have_one_digest(
    checkpoint: Callable[[str], Path], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(family)
    config = AutoConfig.from_pretrained(folder)
    prompter = Prompter(load_processor(str(folder), config), config)
    digested: list[int] = []
    plain = prepared_media._compute_digest

    def count(tensor: torch.Tensor) -> bytes:
        digested.append(tensor.numel())
        return plain(tensor)

    monkeypatch.setattr(prepared_media, "_compute_digest", count)
    prepared = PreparedMedia([clip(1, 3)])
    rows = [prompter.build(prepared, question) for question in ("What?", "Where?", "When?")]
    first = rows[0].digest_media()
    once = len(digested)
    assert {row.digest_media() for row in rows} == {first}
    assert len(digested) == once > 0
    again = prompter.build([clip(1, 3)], "What?")
    assert again.digest_media() == first
    assert prompter.build([clip(2, 3)], "What?").digest_media() != first
    assert len(digested) == 3 * once


def test_prepared_pictures_are_not_taken_for_later_ones(
    checkpoint: Callable[[str], Path],
) -> None:
    """Other jobs' pictures may lie where these lay in memory."""
    folder = checkpoint("interleave")
    config = AutoConfig.from_pretrained(folder)
    prompter = Prompter(load_processor(str(folder), config), config)
    for shade in range(0, 250, 10):
        frame = np.full((40, 40, 3), shade, np.uint8)
        inputs = prompter.build(PreparedMedia([FrameInput("image", (frame,))]), "What?")
        assert int(inputs.images["pixel_values"].float().mean()) == shade


def test_pictures_are_encoded_once_for_a_server(
    media: list[FrameInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [build_chat_content(PreparedMedia(media), question) for question in QUESTIONS]
    encoded: list[object] = []
    plain = build_chat_content.__globals__["_encode_data_uri"]
    monkeypatch.setitem(
        build_chat_content.__globals__,
        "_encode_data_uri",
        lambda frame, images: encoded.append(frame) or plain(frame, images),
    )
    prepared = PreparedMedia(media)
    assert [build_chat_content(prepared, question) for question in QUESTIONS] == alone
    assert len(encoded) == 5
