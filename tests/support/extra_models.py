"""Tiny checkpoints of models whose processor or vision part needs the worker's extra `models`.

Written from configurations alone, so that they can be made without the extra; only reading them needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import (
    Lfm2VlConfig,
    Lfm2VlForConditionalGeneration,
    Llama4Config,
    Llama4ForConditionalGeneration,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from support.other_models import TEXT, Files, add_tokens, write_model

__all__ = ["EXTRAS", "write_extra"]

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 14,
}


def _smolvlm(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Files, str]:
    """SmolVLM2: tiles as of Idefics3; its processor asks for num2words."""
    add_tokens(tokenizer, "<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
    config = SmolVLMConfig(
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
        vision_config={**VISION, "image_size": 56},
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    files = {
        "preprocessor_config.json": {
            "image_processor_type": "SmolVLMImageProcessor",
            "size": {"longest_edge": 112},
            "max_image_size": {"longest_edge": 56},
        },
        "processor_config.json": {"processor_class": "SmolVLMProcessor", "image_seq_len": 4},
    }
    return SmolVLMForConditionalGeneration(config), files, "<image>"


def _lfm2_vl(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Files, str]:
    """LFM2-VL: convolutions between the layers with attention, and pictures as padded patches."""
    add_tokens(tokenizer, "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>")
    config = Lfm2VlConfig(
        text_config={
            **TEXT,
            "vocab_size": len(tokenizer),
            "layer_types": ["conv", "full_attention"],
            "block_auto_adjust_ff_dim": False,
            "tie_word_embeddings": False,
        },
        vision_config={**VISION, "num_patches": 16, "patch_size": 14, "vision_use_head": False},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        projector_hidden_size=64,
        tie_word_embeddings=False,
    )
    files = {
        "preprocessor_config.json": {
            "image_processor_type": "Lfm2VlImageProcessor",
            "encoder_patch_size": 14,
            "tile_size": 56,
            "min_image_tokens": 2,
            "max_image_tokens": 16,
            "max_num_patches": 64,
            "do_image_splitting": False,
        },
        "processor_config.json": {"processor_class": "Lfm2VlProcessor"},
    }
    return Lfm2VlForConditionalGeneration(config), files, "<image>"


def _llama4(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Files, str]:
    """Llama 4: pixels in bfloat16, experts, and attention in windows."""
    *_, patch = add_tokens(
        tokenizer,
        "<|image|>",
        "<|image_start|>",
        "<|image_end|>",
        "<|tile_x_separator|>",
        "<|tile_y_separator|>",
        "<|patch|>",
    )
    config = Llama4Config(
        text_config={
            **TEXT,
            "vocab_size": len(tokenizer),
            "head_dim": 16,
            "intermediate_size_mlp": 128,
            "num_local_experts": 2,
            "attention_chunk_size": 64,
            "tie_word_embeddings": False,
        },
        vision_config={
            **VISION,
            "image_size": 56,
            "vision_output_dim": 32,
            "projector_input_dim": 32,
            "projector_output_dim": 32,
            "intermediate_size": 128,
        },
        image_token_index=patch,
        boi_token_index=tokenizer.convert_tokens_to_ids("<|image_start|>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<|image_end|>"),
    )
    files = {
        "preprocessor_config.json": {
            "image_processor_type": "Llama4ImageProcessor",
            "size": {"height": 56, "width": 56},
            "max_patches": 4,
        },
        "processor_config.json": {"processor_class": "Llama4Processor", "patch_size": 14},
    }
    return Llama4ForConditionalGeneration(config), files, "<|image|>"


def _perception_lm(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Files, str]:
    """PerceptionLM: its vision part is one of timm's, so that writing it needs the extra as well."""
    from transformers import PerceptionLMConfig, PerceptionLMForConditionalGeneration

    tokenizer.init_kwargs |= {"image_token": "<image>", "video_token": "<video>"}
    vision = {
        "architecture": "vit_pe_core_tiny_patch16_384",
        "model_args": {
            "embed_dim": 32,
            "depth": 2,
            "num_heads": 2,
            "img_size": [56, 56],
            "patch_size": 14,
            "ref_feat_shape": [4, 4],
            "global_pool": "",
            "use_post_transformer_norm": False,
        },
    }
    config = PerceptionLMConfig(
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
        vision_config={**vision, "model_type": "timm_wrapper", "do_pooling": True},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<video>"),
        projector_pooling_ratio=2,
        vision_use_cls_token=True,
        tie_word_embeddings=False,
    )
    files = {
        "preprocessor_config.json": {
            "image_processor_type": "PerceptionLMImageProcessor",
            "tile_size": 56,
            "max_num_tiles": 4,
            "vision_input_type": "thumb+tile",
        },
        "processor_config.json": {
            "processor_class": "PerceptionLMProcessor",
            "patch_size": 14,
            "pooling_ratio": 2,
        },
    }
    return PerceptionLMForConditionalGeneration(config), files, "<image>"


EXTRAS: dict[str, Callable[[PreTrainedTokenizerFast], tuple[Any, Files, str]]] = {
    "lfm2_vl": _lfm2_vl,
    "llama4": _llama4,
    "perception_lm": _perception_lm,
    "smolvlm": _smolvlm,
}


def write_extra(family: str, folder: Path) -> Path:
    return write_model(EXTRAS[family], folder)
