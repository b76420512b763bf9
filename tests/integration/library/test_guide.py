"""The sampling method `guide`: the frames and answers of Hugging Face's guide, whose own steps run beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from support.videos import Recipe
from transformers import AutoProcessor, LlavaForConditionalGeneration

import videoqa_worker.decoding.launch
import videoqa_worker.frames as frames_module
from videoqa.contract import Sampling, parse_request
from videoqa.errors import (
    FramesTooLarge,
    GuideFailed,
    GuideUnavailable,
    InvalidRequest,
    NotAVideo,
    PictureTooLarge,
)
from videoqa_worker import VideoQA
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.frames import CompleteFile
from videoqa_worker.settings import FrameLimits

MakeClip = Callable[[Recipe], Path]
BASE = Recipe(frames=50)
CLIPS = {
    "mp4": BASE,
    "mp4, not a multiple": replace(BASE, frames=47),
    "mp4, turned": replace(BASE, turned_degrees=90),
    "mkv": replace(BASE, name="clip.mkv"),
    "ts": replace(BASE, name="clip.ts"),
    "avi": replace(BASE, name="clip.avi", codec="mpeg4", b_frames=0),
    "webm": replace(BASE, name="clip.webm", codec="libvpx-vp9", b_frames=0),
    "uneven times": replace(
        BASE, frames=40, times_s=tuple(Fraction(n * n, 100) for n in range(40))
    ),
}


def sample_frames(path: str, num_frames: int) -> list[Image.Image]:
    """The guide's own function, less its download."""
    video = cv2.VideoCapture(path)
    total_frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    interval = total_frames // num_frames
    frames = []
    for i in range(total_frames):
        ret, frame = video.read()
        pil_img = Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        if not ret:
            continue
        if i % interval == 0:
            frames.append(pil_img)
    video.release()
    return frames[:num_frames]


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders(FrameLimits(max_pixels=640 * 480), processes=1) as decoders:
        yield decoders


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("count", [1, 6])
def test_frames_are_those_of_the_guide_to_the_bit(
    name: str, count: int, decoders: Decoders, make_clip: MakeClip
) -> None:
    path = make_clip(CLIPS[name])
    theirs = sample_frames(str(path), count)
    ours = decoders.sample(CompleteFile(path), Sampling(method="guide", frames=count))
    for frame, image in zip(ours.frames, theirs, strict=True):
        assert np.array_equal(frame.pixels, np.asarray(image))
    times = [frame.pts_s for frame in ours.frames]
    assert times == sorted(set(times))
    assert ours.frames[0].index == 0
    assert len(ours.frames) == count


def test_a_decoding_process_is_confined_with_opencv_as_without(
    decoders: Decoders, make_clip: MakeClip
) -> None:
    path = make_clip(BASE)
    decoders.start()
    decoders.sample(CompleteFile(path), Sampling(method="guide", frames=2))
    assert decoders._with_opencv is not None
    layers = {
        process.confinement
        for process in (*decoders._all, *decoders._with_opencv._all)
        if process.commands
    } | {process.confinement for process in decoders._all}
    assert len(layers) == 1


@pytest.mark.parametrize(
    ("recipe", "frames", "limits", "error"),
    [
        (replace(BASE, frames=5), 6, {}, GuideFailed),
        (BASE, 2, {"max_pixels": 64}, PictureTooLarge),
        (BASE, 40, {"max_frames_bytes": 1 << 16}, FramesTooLarge),
    ],
)
def test_what_the_guide_cannot_do_and_what_is_too_large_is_refused(
    recipe: Recipe, frames: int, limits: dict[str, int], error: type, make_clip: MakeClip
) -> None:
    with pytest.raises(error):
        frames_module.sample_frames(
            make_clip(recipe),
            Sampling(method="guide", frames=frames),
            limits=FrameLimits(**limits),
        )


def test_a_playlist_is_no_video_to_the_guide_either(decoders: Decoders, tmp_path: Path) -> None:
    path = tmp_path / "list.mp4"
    path.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
    with pytest.raises(NotAVideo):
        decoders.sample(CompleteFile(path), Sampling(method="guide", frames=2))


def test_without_opencv_the_refusal_names_the_extra(
    make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('not installed')")
    make_environment = videoqa_worker.decoding.launch.make_environment
    monkeypatch.setattr(
        "videoqa_worker.decoding.decoder_process.make_environment",
        lambda: {**make_environment(), "PYTHONPATH": str(tmp_path)},
    )
    with (
        Decoders(FrameLimits(), processes=1) as decoders,
        pytest.raises(GuideUnavailable, match=r"worker\[guide\]"),
    ):
        decoders.sample(CompleteFile(make_clip(BASE)), Sampling(method="guide", frames=2))


def test_a_clip_of_a_video_is_refused_with_the_request() -> None:
    with pytest.raises(InvalidRequest, match="expected whole videos"):
        parse_request(
            {
                "inputs": [{"url": "s3://b/k", "start": 1}],
                "questions": "What?",
                "sampling": {"method": "guide"},
            }
        )


def test_answers_are_those_of_the_guide_token_by_token(
    checkpoint: Callable[[str], Path], make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(checkpoint("interleave"))
    first = make_clip(replace(BASE, name="first.mp4"))
    second = make_clip(replace(BASE, name="second.mkv", frames=47, first_number=100))
    question = "Are these two videos the same?"

    processor = AutoProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    videos = sample_frames(str(first), 6) + sample_frames(str(second), 6)
    prompt = f"<|im_start|>user{'<image>' * 12}\n{question}<|im_end|><|im_start|>assistant"
    inputs = processor(text=prompt, images=videos, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    theirs = output[0, inputs["input_ids"].shape[1] :].tolist()

    with VideoQA(
        folder, chat_template="guide", pixels="reference", decoders=1, max_batch=1, device="cpu"
    ) as qa:
        engine = qa._start()._parts.engine
        ask, futures = engine.ask, []

        def note(asked: Any) -> Any:
            futures.append(ask(asked))
            return futures[-1]

        monkeypatch.setattr(engine, "ask", note)
        result = qa.ask(
            [first, second],
            question,
            sampling={"method": "guide", "frames": 6},
            generation={"max_new_tokens": 24},
        )
    assert list(futures[0].result().tokens) == theirs
    assert result.answers[0].output_tokens == len(theirs)
    assert [frame.index for frame in result.frames] == [
        *range(0, 48, 8),
        *range(0, 42, 7),
    ]
