"""Tiny checkpoints of each LLaVA family, written as the hub has them, and engines on them.

Weights are random, and larger than a training would start with: a model initialised the
usual way says the same whatever it is asked and shown, and would prove nothing. The output
layer can only write letters, spaces and the end token, so answers are readable text.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)

import videoqa_worker
from videoqa_worker.engine import Engine
from videoqa_worker.prompt import FrameInput
from videoqa_worker.settings import EngineConfig

DEMO = Path(videoqa_worker.__file__).parent / "demo" / "model"
"""The bundled trained model."""

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "<image>", "<video>"]
PAD, END, IMAGE, VIDEO = 0, 2, 4, 5
WRITABLE = string.ascii_letters + " "
HALF = [0.5, 0.5, 0.5]

IMAGES_FIRST = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{# Render all images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}"
    "{{ '<video>' }}{% endfor %}"
    "{# Render all text next #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ '\n' + content['text'] }}{% endfor %}"
    "{{'<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
IN_ORDER = (
    "{% for message in messages %}{{ '[INST] ' }}{% for content in message['content'] %}"
    "{% if content['type'] == 'text' %}{{ content['text'] }}"
    "{% else %}{{ '<' + content['type'] + '>\n' }}{% endif %}{% endfor %}"
    "{{ ' [/INST]' }}{% endfor %}"
)
FAMILIES = ("interleave", "next", "next_video", "onevision", "video_llava")


def tiny_tokenizer(*, bos: bool) -> PreTrainedTokenizerFast:
    """Bytes as tokens: any text can be written, and a word is many tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: n for n, text in enumerate([*SPECIAL, *letters])}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 3)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        bos_token="<s>" if bos else None,
        additional_special_tokens=["<|im_start|>", "<image>", "<video>"],
    )


def _text(kind: type, **more: Any) -> Any:
    sizes = {
        "vocab_size": len(SPECIAL) + 256,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
    }
    return kind(
        **{**sizes, **more},
        eos_token_id=END,
        pad_token_id=PAD,
        bos_token_id=None,
        tie_word_embeddings=False,
    )


def _vision(kind: type, size: int, **more: Any) -> Any:
    return kind(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=size,
        patch_size=14,
        **more,
    )


def _siglip(size: int) -> Any:
    return _vision(SiglipVisionConfig, size, vision_use_head=False)


def _clip(size: int) -> Any:
    return _vision(CLIPVisionConfig, size, projection_dim=32)


def _square(size: int) -> dict[str, int]:
    return {"height": size, "width": size}


def _config(family: str, **text: Any) -> Any:
    tokens = {"image_token_index": IMAGE, "tie_word_embeddings": False}
    both = {**tokens, "video_token_index": VIDEO}
    if family in ("interleave", "base"):
        return LlavaConfig(
            vision_config=_siglip(42),
            text_config=_text(Qwen2Config, **text),
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            image_seq_length=9,
            **tokens,
        )
    if family == "next":
        return LlavaNextConfig(
            vision_config=_clip(28),
            text_config=_text(LlamaConfig, **text),
            image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]],
            **tokens,
        )
    if family == "next_video":
        return LlavaNextVideoConfig(
            vision_config=_clip(56),
            text_config=_text(LlamaConfig, **text),
            image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]],
            **both,
        )
    if family == "onevision":
        return LlavaOnevisionConfig(
            vision_config=_siglip(42),
            text_config=_text(Qwen2Config, **text),
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            image_grid_pinpoints=[[42, 42], [42, 84], [84, 42], [84, 84]],
            **both,
        )
    return VideoLlavaConfig(vision_config=_clip(28), text_config=_text(LlamaConfig, **text), **both)


MODELS = {
    "interleave": LlavaForConditionalGeneration,
    "base": LlavaForConditionalGeneration,
    "next": LlavaNextForConditionalGeneration,
    "next_video": LlavaNextVideoForConditionalGeneration,
    "onevision": LlavaOnevisionForConditionalGeneration,
    "video_llava": VideoLlavaForConditionalGeneration,
}


def _processor_files(family: str) -> dict[str, dict[str, Any]]:
    """The JSON files of the family's repositories on the hub."""
    clip = {"do_resize": True, "do_center_crop": True, "do_rescale": True, "do_normalize": True}

    def cropped(size: int) -> dict[str, Any]:
        return {**clip, "size": {"shortest_edge": size}, "crop_size": _square(size)}

    def plain(size: int) -> dict[str, Any]:
        return {"size": _square(size), "image_mean": HALF, "image_std": HALF}

    common = {"patch_size": 14, "vision_feature_select_strategy": "default"}
    if family in ("interleave", "base"):
        return {
            "preprocessor_config.json": {
                "image_processor_type": "SiglipImageProcessor",
                **plain(42),
            },
            "processor_config.json": {
                "processor_class": "LlavaProcessor",
                "patch_size": 14,
                "vision_feature_select_strategy": "full",
                "num_additional_image_tokens": 0,
            },
        }
    if family == "next":
        return {
            "preprocessor_config.json": {
                "image_processor_type": "LlavaNextImageProcessor",
                "image_grid_pinpoints": _config(family).image_grid_pinpoints,
                **cropped(28),
            },
            "processor_config.json": {
                "processor_class": "LlavaNextProcessor",
                "num_additional_image_tokens": 1,
                **common,
            },
        }
    if family == "next_video":
        return {
            "preprocessor_config.json": {
                "image_processor_type": "LlavaNextImageProcessor",
                "image_grid_pinpoints": _config(family).image_grid_pinpoints,
                **cropped(56),
            },
            "video_preprocessor_config.json": {
                "video_processor_type": "LlavaNextVideoVideoProcessor",
                **cropped(56),
            },
            "processor_config.json": {
                "processor_class": "LlavaNextVideoProcessor",
                "num_additional_image_tokens": 1,
                **common,
            },
        }
    if family == "onevision":
        return {
            "preprocessor_config.json": {
                "image_processor_type": "LlavaOnevisionImageProcessor",
                "image_grid_pinpoints": _config(family).image_grid_pinpoints,
                **plain(42),
            },
            "video_preprocessor_config.json": {
                "video_processor_type": "LlavaOnevisionVideoProcessor",
                **plain(42),
            },
            "processor_config.json": {
                "processor_class": "LlavaOnevisionProcessor",
                "num_image_tokens": 9,
                "vision_feature_select_strategy": "full",
            },
        }
    return {
        "preprocessor_config.json": {
            "image_processor_type": "VideoLlavaImageProcessor",
            **cropped(28),
        },
        "processor_config.json": {
            "processor_class": "VideoLlavaProcessor",
            "num_additional_image_tokens": 1,
            **common,
        },
    }


def _enlarge(model: Any) -> None:
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if weight.ndim >= 2:
            std = 1.0 if "embed" in name else 1.6 / weight[0].numel() ** 0.5
            torch.nn.init.normal_(weight, std=std)
    output = model.get_output_embeddings().weight.data
    letters = model.writable_ids
    silent = torch.ones(len(output), dtype=torch.bool)
    silent[letters] = False
    output[silent] = 0.0
    output[END] *= 0.8


def write_checkpoint(family: str, folder: Path, **text: Any) -> Path:
    """A checkpoint of `family`: `base` is `interleave` without a chat template.

    Arguments:
        text: settings of the text model that differ.
    """
    tokenizer = tiny_tokenizer(bos=family in ("next", "next_video", "video_llava"))
    tokenizer.save_pretrained(folder)
    model = MODELS[family](_config(family, **text))
    model.writable_ids = [END, *tokenizer(WRITABLE, add_special_tokens=False)["input_ids"]]
    _enlarge(model)
    model.generation_config = GenerationConfig(
        eos_token_id=END,
        pad_token_id=PAD,
        do_sample=True,
        temperature=0.7,
        top_k=5,
        repetition_penalty=1.1,
        max_length=50,
    )
    model.save_pretrained(folder)
    for name, content in _processor_files(family).items():
        (folder / name).write_text(json.dumps(content))
    if family != "base":
        template = IN_ORDER if family in ("next", "video_llava") else IMAGES_FIRST
        (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny checkpoint of a family, written at its first use."""
    written: dict[str, Path] = {"demo": DEMO}

    def of(family: str) -> Path:
        if family not in written:
            written[family] = write_checkpoint(family, tmp_path_factory.mktemp(family))
        return written[family]

    return of


@pytest.fixture(scope="session")
def engine_of(checkpoint: Callable[[str], Path]) -> Iterator[Callable[..., Engine]]:
    """A running engine, shared by the tests that ask for the same family and settings."""
    running: dict[Any, Engine] = {}
    with ExitStack() as stack:

        def of(family: str, **settings: Any) -> Engine:
            key = (family, *sorted(settings.items()))
            if key not in running:
                config = EngineConfig(
                    model=str(checkpoint(family)),
                    **{"cpu_threads": 1, "device": "cpu", "pack_from_tokens": 1, **settings},
                )
                running[key] = stack.enter_context(Engine(config))
            return running[key]

        yield of


def clip(seed: int, frames: int, *, height: int = 48, width: int = 64) -> FrameInput:
    """A video of coarse random blocks that change from frame to frame."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (frames, height // 8, width // 8, 3), dtype=np.uint8)
    pixels = blocks.repeat(8, axis=1).repeat(8, axis=2)
    return FrameInput("video", tuple(pixels), tuple(float(n) for n in range(frames)))


def picture(seed: int, *, height: int = 48, width: int = 64) -> FrameInput:
    """An image of the same sort."""
    return FrameInput("image", clip(seed, 1, height=height, width=width).frames)
