"""Tiny checkpoints whose processors take videos; reading the video part needs the worker's extra `models`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import (
    Glm46VConfig,
    Glm46VForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from support.architectures import ARCHITECTURES
from support.extra_models import EXTRAS
from support.newer_video_models import KIMI, NEWER, write_font
from support.other_models import Files, write_model

__all__ = ["VIDEOS", "WITH_EXTRA", "write_video_model"]

WITH_EXTRA = "a video (extra `models`)"
"""Words of the table of models for those that get images without the extra."""

TURNS = (
    "{%% for m in messages %%}<|im_start|>{{ m['role'] }}\n{%% for c in m['content'] %%}"
    "{%% if c['type'] == 'image' %%}%s{%% elif c['type'] == 'video' %%}%s{%% else %%}{{ c['text'] }}{%% endif %%}"
    "{%% endfor %%}<|im_end|>\n{%% endfor %%}{%% if add_generation_prompt %%}<|im_start|>assistant\n{%% endif %%}"
)
Made = tuple[Any, Files, str]
PIXELS = {"size": {"shortest_edge": 56 * 56, "longest_edge": 84 * 84}}
QWEN_VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"


def _glm46v(tokenizer: PreTrainedTokenizerFast) -> Made:
    """GLM-4V's model with a processor that writes tenths of a second."""
    model, files, image = ARCHITECTURES["glm4v"](tokenizer)
    settings = {**model.config.to_dict(), "model_type": "glm46v"}
    model = Glm46VForConditionalGeneration(Glm46VConfig.from_dict(settings))
    files["preprocessor_config.json"]["image_processor_type"] = "Glm46VImageProcessor"
    return model, {**files, "processor_config.json": {"processor_class": "Glm46VProcessor"}}, image


VIDEOS: dict[str, tuple[Callable[..., Made], dict[str, Any], str]] = {
    "qwen2_vl": (
        ARCHITECTURES["qwen2_vl"],
        {"video_processor_type": "Qwen2VLVideoProcessor", **PIXELS},
        QWEN_VIDEO,
    ),
    "qwen2_5_vl": (
        ARCHITECTURES["qwen2_5_vl"],
        {"video_processor_type": "Qwen2VLVideoProcessor", **PIXELS},
        QWEN_VIDEO,
    ),
    "qwen3_vl": (
        ARCHITECTURES["qwen3_vl"],
        {
            "video_processor_type": "Qwen3VLVideoProcessor",
            "patch_size": 14,
            "size": {"shortest_edge": 56 * 56, "longest_edge": 6 * 84 * 84},
        },
        QWEN_VIDEO,
    ),
    "internvl": (
        ARCHITECTURES["internvl"],
        {"video_processor_type": "InternVLVideoProcessor", "size": {"height": 56, "width": 56}},
        "<video>\n",
    ),
    "smolvlm": (
        EXTRAS["smolvlm"],
        {
            "video_processor_type": "SmolVLMVideoProcessor",
            "size": {"longest_edge": 112},
            "max_image_size": {"longest_edge": 56},
            "video_sampling": {"max_frames": 8, "fps": 1, "video_size": {"longest_edge": 112}},
        },
        "",
    ),
    "glm4v": (
        ARCHITECTURES["glm4v"],
        {
            "video_processor_type": "Glm4vVideoProcessor",
            "size": {"shortest_edge": 56 * 56, "longest_edge": 6 * 84 * 84},
        },
        "<|begin_of_video|><|video|><|end_of_video|>",
    ),
    "glm46v": (
        _glm46v,
        {
            "video_processor_type": "Glm46VVideoProcessor",
            "size": {"shortest_edge": 56 * 56, "longest_edge": 6 * 84 * 84},
        },
        "<|begin_of_video|><|video|><|end_of_video|>",
    ),
    "video_llama_3": (
        ARCHITECTURES["video_llama_3"],
        {
            "video_processor_type": "VideoLlama3VideoProcessor",
            "size": {"shortest_edge": 28 * 28, "longest_edge": 8 * 84 * 84},
        },
        "<|video_pad|>",
    ),
    "perception_lm": (
        EXTRAS["perception_lm"],
        {"video_processor_type": "PerceptionLMVideoProcessor", "size": {"height": 56, "width": 56}},
        "<video>",
    ),
    **NEWER,
}
"""Maker, settings of the video part, and what the chat template writes for a video; SmolVLM2's writes nothing."""


def write_video_model(name: str, folder: Path, **text: Any) -> Path:
    """Writes a checkpoint of `name`.

    Arguments:
        text: settings of the text model that differ; only `qwen2_vl` has them.
    """
    make, settings, video = {**VIDEOS, "kimi_k25": KIMI}[name]
    if name == "ernie4_5_vl_moe":
        settings = {**settings, "font": write_font()}

    def made(tokenizer: PreTrainedTokenizerFast) -> Made:
        model, files, image = make(tokenizer, **text)
        files = {**files, "video_preprocessor_config.json": settings}
        return model, files, TURNS % (image, video)

    return write_model(made, folder)
