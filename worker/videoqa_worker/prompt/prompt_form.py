"""Digest of the form in which a worker's model gets pictures and videos.

Workers with the same checkpoint may write different prompts: one without torchvision asks about a video's frames as
images, and another version of transformers may write other tokens. What a processor makes of small media of each
kind tells them apart, whatever the reason is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from videoqa.errors import VideoQAError
from videoqa_worker.prompt.prepared_media import FrameInput
from videoqa_worker.prompt.prompter import Prompter

__all__ = ["compute_form"]


def compute_form(prompter: Prompter) -> str:
    """Returns a SHA-256 that is the same on each machine where questions become the same prompts.

    Of the pixels only names and shapes count, since the last bit of a resized one depends on the CPU.
    """
    frame = np.zeros((64, 96, 3), np.uint8)
    image = FrameInput("image", (frame,))
    video = FrameInput("video", (frame,) * 4, (0.0, 1.0, 2.5, 3.0), duration_s=20.0)
    cases = ([image], [video], [image, video])
    parts = [prompter.pixels, *(_describe(prompter, media) for media in cases)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _describe(prompter: Prompter, media: Sequence[FrameInput]) -> list[object]:
    try:
        inputs = prompter.build(media, "What is this?")
    except VideoQAError as error:
        return [error.code]
    shapes = {name: tuple(value.shape) for name, value in inputs.images.items()}
    return [
        inputs.input_ids[0].tolist(),
        shapes,
        [tuple(video.shape) for video in inputs.videos],
    ]
