"""Tiny checkpoints outside of the LLaVA family, as the hub has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from support.models import END, PAD, WRITABLE, tiny_tokenizer

__all__ = ["OTHERS", "TEXT", "VISION", "Files", "add_tokens", "write_model", "write_other"]

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
"""Sizes of a tiny vision encoder."""
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": None,
    "eos_token_id": END,
    "pad_token_id": PAD,
}
TURNS = (
    "{%% for m in messages %%}<|im_start|>{{ m['role'] }}\n{%% for c in m['content'] %%}"
    "{%% if c['type'] == 'image' %%}%s{%% else %%}{{ c['text'] }}{%% endif %%}{%% endfor %%}"
    "<|im_end|>\n{%% endfor %%}{%% if add_generation_prompt %%}<|im_start|>assistant\n{%% endif %%}"
)

Files = dict[str, dict[str, Any]]


def _qwen2_vl(tokenizer: PreTrainedTokenizerFast, **text: Any) -> tuple[Any, Files, str]:
    """Pixels as patches with a grid beside them, and three numbers for a position."""
    start, end, image, video = add_tokens(
        tokenizer, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
    )
    sizes = {**TEXT, **text}
    unit = sizes["hidden_size"] // sizes["num_attention_heads"] // 16
    sections = [2 * unit, 3 * unit, 3 * unit]
    rope = {"rope_type": "default", "mrope_section": sections, "rope_theta": 10_000.0}
    config = Qwen2VLConfig(
        text_config={**sizes, "vocab_size": len(tokenizer), "rope_parameters": rope},
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 64,
            "num_heads": 2,
            "patch_size": 14,
            "mlp_ratio": 2,
        },
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=False,
    )
    pixels = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "min_pixels": 56 * 56,
        "max_pixels": 84 * 84,
    }
    files = {
        "preprocessor_config.json": pixels,
        "processor_config.json": {"processor_class": "Qwen2VLProcessor"},
    }
    return (
        Qwen2VLForConditionalGeneration(config),
        files,
        "<|vision_start|><|image_pad|><|vision_end|>",
    )


def _gemma3(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Files, str]:
    """Sliding windows, and another token for an image than the one that the model sees."""
    start, end, image = add_tokens(
        tokenizer, "<start_of_image>", "<end_of_image>", "<image_soft_token>"
    )
    tokenizer.init_kwargs |= {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    text = {**TEXT, "vocab_size": len(tokenizer), "head_dim": 16, "sliding_window": 16}
    text["query_pre_attn_scalar"] = 1  # else all positions count alike
    text["layer_types"] = ["sliding_attention", "full_attention"]
    config = Gemma3Config(
        text_config=text,
        vision_config=VISION,
        mm_tokens_per_image=4,
        boi_token_index=start,
        eoi_token_index=end,
        image_token_index=image,
    )
    files = {
        "preprocessor_config.json": {
            "image_processor_type": "Gemma3ImageProcessor",
            "size": {"height": 56, "width": 56},
        },
        "processor_config.json": {"processor_class": "Gemma3Processor", "image_seq_length": 4},
    }
    return Gemma3ForConditionalGeneration(config), files, "<start_of_image>"


def _idefics3(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Files, str]:
    """A picture is cut into tiles, each between tokens of its own."""
    add_tokens(tokenizer, "<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
    text = {**TEXT, "model_type": "llama", "vocab_size": len(tokenizer)}
    config = Idefics3Config(
        text_config=text,
        vision_config=VISION,
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=False,
        pad_token_id=PAD,
    )
    files = {
        "preprocessor_config.json": {
            "image_processor_type": "Idefics3ImageProcessor",
            "size": {"longest_edge": 112},
            "max_image_size": {"longest_edge": 56},
        },
        "processor_config.json": {"processor_class": "Idefics3Processor", "image_seq_len": 4},
    }
    return Idefics3ForConditionalGeneration(config), files, "<image>"


PIXTRAL_TOKENS = ("[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]")
PIXTRAL_TURNS = (
    "{{ bos_token }}{% for m in messages %}[INST]{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}[IMG]{% else %}{{ c['text'] }}{% endif %}{% endfor %}[/INST]"
    "{% endfor %}"
)


def _pixtral(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Files, str]:
    """LLaVA's type with another encoder and processor: pictures keep their shape, each line of tokens ends."""
    image = add_tokens(tokenizer, *PIXTRAL_TOKENS)[2]
    config = LlavaConfig(
        vision_config=_PIXTRAL_VISION,
        text_config={**TEXT, "model_type": "mistral", "sliding_window": None},
        image_token_index=image,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=1,
        tie_word_embeddings=False,
    )
    config.text_config.vocab_size = len(tokenizer)
    return (
        LlavaForConditionalGeneration(config),
        _write_pixtral_files(patch=16, merge=1),
        PIXTRAL_TURNS,
    )


def _mistral3(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Files, str]:
    """Pixtral's prompts with a type of its own; four patches are merged to one token."""
    image = add_tokens(tokenizer, *PIXTRAL_TOKENS)[2]
    config = Mistral3Config(
        vision_config={**_PIXTRAL_VISION, "patch_size": 8},
        text_config={**TEXT, "model_type": "mistral", "sliding_window": None},
        image_token_index=image,
        vision_feature_layer=-1,
        spatial_merge_size=2,
        tie_word_embeddings=False,
    )
    config.text_config.vocab_size = len(tokenizer)
    return (
        Mistral3ForConditionalGeneration(config),
        _write_pixtral_files(patch=8, merge=2),
        PIXTRAL_TURNS,
    )


_PIXTRAL_VISION = {
    "model_type": "pixtral",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 16,
}


def _write_pixtral_files(patch: int, merge: int) -> Files:
    pixels = {
        "image_processor_type": "PixtralImageProcessor",
        "processor_class": "PixtralProcessor",
        "patch_size": {"height": patch, "width": patch},
        "size": {"longest_edge": 64},
    }
    settings = {"processor_class": "PixtralProcessor", "patch_size": patch}
    return {
        "preprocessor_config.json": pixels,
        "processor_config.json": {**settings, "spatial_merge_size": merge},
    }


OTHERS: dict[str, Callable[..., tuple[Any, Files, str]]] = {
    "qwen2_vl": _qwen2_vl,
    "gemma3": _gemma3,
    "idefics3": _idefics3,
    "pixtral": _pixtral,
    "mistral3": _mistral3,
}


def add_tokens(tokenizer: PreTrainedTokenizerFast, *tokens: str) -> list[int]:
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    found: list[int] = tokenizer.convert_tokens_to_ids(list(tokens))
    return found


def write_other(family: str, folder: Path, **text: Any) -> Path:
    """Writes a checkpoint of `family`.

    Arguments:
        text: settings of the text model that differ; only `qwen2_vl` has them.
    """
    make = partial(OTHERS[family], **text) if text else OTHERS[family]
    return write_model(make, folder, bos=family in ("pixtral", "mistral3"))


def write_model(
    make: Callable[[PreTrainedTokenizerFast], tuple[Any, Files, str]],
    folder: Path,
    *,
    bos: bool = False,
) -> Path:
    """Writes a checkpoint whose answers depend on all of its input, and are readable text."""
    tokenizer = tiny_tokenizer(bos=bos)
    torch.manual_seed(0)
    model, files, image = make(tokenizer)
    for name, weight in model.named_parameters():
        if weight.ndim >= 2:
            std = 0.05 if "embed" in name else 1.6 * weight[0].numel() ** -0.5
            torch.nn.init.normal_(weight, std=std)
    output = model.get_output_embeddings().weight.data
    letters = [END, *tokenizer(WRITABLE, add_special_tokens=False)["input_ids"]]
    silent = torch.ones(len(output), dtype=torch.bool)
    silent[letters] = False
    output[silent] = 0.0
    model.generation_config = GenerationConfig(eos_token_id=END, pad_token_id=PAD)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    template = image if "{%" in image else TURNS % image
    (folder / "chat_template.jinja").write_text(template)
    return folder
