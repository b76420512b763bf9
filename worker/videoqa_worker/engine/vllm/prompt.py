"""Turns a question about media into a prompt of vLLM: token ids, raw frames, and the digest of each item.

vLLM's processor puts the media where their tokens stand. By the digests it finds prepared pixels, features and
KV of earlier prompts.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from videoqa.errors import FrameLimitUnmet, UnsupportedInput
from videoqa_worker.prompt import PreparedMedia, Prompter, PromptPart, describe_video

__all__ = ["build_prompt"]


def build_prompt(
    prompter: Prompter,
    prepared: PreparedMedia,
    question: str,
    *,
    system: str = "",
    max_new_tokens: int,
) -> dict[str, Any]:
    """Returns a `TokensPrompt` of vLLM; called on the thread of the job.

    Raises:
        SystemUnsupported, UnsupportedInput, MarkMismatch, PromptTooLong: as `Prompter.build`.
        FrameLimitUnmet: the media have limits.
    """
    if any(item.limits for item in prepared.media):
        raise FrameLimitUnmet(
            "got max_pixels or max_tokens_per_frame, which vLLM does not get from the worker: leave them out, or have "
            "a worker with VIDEOQA_ENGINE=transformers answer"
        )
    rendered = prompter.render(prepared, question, system=system, max_new_tokens=max_new_tokens)
    data: dict[str, list[Any]] = {}
    digests: dict[str, list[str]] = {}
    for part in rendered.media:
        key = (part.kind, *map(id, part.frames))
        make = _make_image if part.kind == "image" else _make_video
        item = prepared.compute_once(("vllm", *key), partial(make, part))
        digest = prepared.compute_once(("vllm digest", *key), partial(_compute_digest, part))
        data.setdefault(part.kind, []).append(item)
        digests.setdefault(part.kind, []).append(digest)
    prompt: dict[str, Any] = {"prompt_token_ids": list(rendered.token_ids)}
    if data:
        prompt |= {"multi_modal_data": data, "multi_modal_uuids": digests}
    return prompt


def _make_image(part: PromptPart) -> Image.Image:
    # vLLM could not tell rows from channels in an array with three rows.
    return Image.fromarray(part.frames[0])


def _make_video(part: PromptPart) -> tuple[np.ndarray, dict[str, Any]]:
    """Returns the frames, uint8[T, H, W, 3], RGB, with their times: they are sampled already."""
    if len({frame.shape for frame in part.frames}) > 1:
        raise UnsupportedInput("got frames of several sizes in one video, expected one size")
    height, width = part.frames[0].shape[:2]
    times_s = part.times_s or tuple(map(float, range(len(part.frames))))
    told = describe_video(times_s, part.duration_s, height, width)
    return np.stack(part.frames), {**asdict(told), "do_sample_frames": False}


def _compute_digest(part: PromptPart) -> str:
    times = f"{part.kind} {part.times_s} {part.duration_s}"  # they may stand in the prompt
    digest = hashlib.blake2b(times.encode(), digest_size=20)
    for frame in part.frames:
        digest.update(repr(frame.shape).encode())
        pixels: Any = np.ascontiguousarray(frame)
        digest.update(memoryview(pixels).cast("B"))
    return digest.hexdigest()
