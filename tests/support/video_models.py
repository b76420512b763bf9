"""Tiny checkpoints whose processors take videos; reading the video part needs the worker's extra `models`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from support.architectures import ARCHITECTURES, make_model
from support.extra_models import EXTRAS
from support.other_models import Files, add_tokens, write_model

__all__ = ["VIDEOS", "WITH_EXTRA", "write_video_model"]

WITH_EXTRA = "a video (extra `models`)"
"""What the table of models says of those that get images without the extra."""

TURNS = (
    "{%% for m in messages %%}<|im_start|>{{ m['role'] }}\n{%% for c in m['content'] %%}"
    "{%% if c['type'] == 'image' %%}%s{%% elif c['type'] == 'video' %%}%s{%% else %%}{{ c['text'] }}{%% endif %%}"
    "{%% endfor %%}<|im_end|>\n{%% endfor %%}{%% if add_generation_prompt %%}<|im_start|>assistant\n{%% endif %%}"
)
Made = tuple[Any, Files, str]
PIXELS = {"size": {"shortest_edge": 56 * 56, "longest_edge": 84 * 84}}
QWEN_VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10_000.0}


def _glm4v(tokenizer: PreTrainedTokenizerFast, name: str = "Glm4v") -> Made:
    """A video is pictures with their times in seconds behind each; all stand as tokens of images."""
    names = ("begin_of_image", "end_of_image", "image", "begin_of_video", "end_of_video", "video")
    tokens = add_tokens(tokenizer, *(f"<|{token}|>" for token in names))
    ids = dict(zip(names, tokens, strict=True))
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 14,
        "out_hidden_size": 64,
        "image_size": 56,
    }
    if name == "Glm46V":
        vision["model_type"] = "glm4v_vision"
    model = make_model(
        name,
        tokenizer,
        text={
            "rope_parameters": {**ROPE, "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
        },
        vision=vision,
        image_token_id=ids["image"],
        video_token_id=ids["video"],
        image_start_token_id=ids["begin_of_image"],
        image_end_token_id=ids["end_of_image"],
        video_start_token_id=ids["begin_of_video"],
        video_end_token_id=ids["end_of_video"],
    )
    files = {
        "preprocessor_config.json": {"image_processor_type": f"{name}ImageProcessor", **PIXELS},
        "processor_config.json": {"processor_class": f"{name}Processor"},
    }
    return model, files, "<|begin_of_image|><|image|><|end_of_image|>"


def _glm46v(tokenizer: PreTrainedTokenizerFast) -> Made:
    """Times in tenths of a second."""
    return _glm4v(tokenizer, "Glm46V")


VIDEOS: dict[str, tuple[Callable[[PreTrainedTokenizerFast], Made], dict[str, Any], str]] = {
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
        _glm4v,
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
}
"""Maker, settings of the video part, and what the chat template writes for a video; SmolVLM2's writes nothing."""


def write_video_model(name: str, folder: Path) -> Path:
    make, settings, video = VIDEOS[name]

    def made(tokenizer: PreTrainedTokenizerFast) -> Made:
        model, files, image = make(tokenizer)
        files = {**files, "video_preprocessor_config.json": settings}
        return model, files, TURNS % (image, video)

    return write_model(made, folder)
