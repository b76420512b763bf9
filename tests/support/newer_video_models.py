"""Further tiny checkpoints whose processors take videos: hybrids, experts, and processors with a part for sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from PIL import ImageFont
from transformers import PreTrainedTokenizerFast

from support.architectures import (
    ARCHITECTURES,
    QWEN_IMAGE,
    QWEN_PIXELS,
    ROPE,
    Made,
    make_model,
    qwen_tokens,
    write_files,
)
from support.other_models import VISION, Files, add_tokens

__all__ = ["ALIKE", "KIMI", "NEWER"]

Tokenizer = PreTrainedTokenizerFast
QWEN3_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "patch_size": 14,
    "out_hidden_size": 64,
    "num_position_embeddings": 16,
}
QWEN2_5_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": 64,
    "window_size": 56,
    "fullatt_block_indexes": [1],
}
QWEN3_ROPE = {**ROPE, "mrope_interleaved": True, "partial_rotary_factor": 1.0}
DELTA = {
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
    "rope_parameters": QWEN3_ROPE,
}
"""A layer with a gated delta net, and one with attention."""
EXPERTS = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
SHARED_EXPERT = {**EXPERTS, "shared_expert_intermediate_size": 32}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
GEMMA_PIXELS = {"patch_size": 8, "pooling_kernel_size": 2, "max_soft_tokens": 70}


def _make_qwen3(name: str, text: dict[str, Any], **vision: Any) -> Callable[[Tokenizer], Made]:
    """Makes a type that has Qwen3-VL's processor."""

    def make(tokenizer: Tokenizer) -> Made:
        tokens = qwen_tokens(tokenizer)
        model = make_model(name, tokenizer, text=text, vision={**QWEN3_VISION, **vision}, **tokens)
        pixels = {**QWEN_PIXELS, "patch_size": 14}
        files = write_files("Qwen3VLProcessor", "Qwen2VLImageProcessor", pixels)
        return model, files, QWEN_IMAGE

    return make


INDEXED = {
    **DELTA,
    **SHARED_EXPERT,
    "layer_types": ["linear_attention", "indexed_attention"],
    "hc_count": 2,
    "hc_lowrank": 8,
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 64,
    "indexer_compress_ratio": 4,
}


def _glm4v_moe(tokenizer: Tokenizer) -> Made:
    """GLM-4V with experts."""
    plain, files, image = ARCHITECTURES["glm4v"](tokenizer)
    stated = plain.config.to_dict()
    names = [
        f"{kind}{part}_token_id" for kind in ("image", "video") for part in ("", "_start", "_end")
    ]
    experts = {"moe_intermediate_size": 32, "n_routed_experts": 4, "num_experts_per_tok": 2}
    vision = {
        name: value for name, value in stated["vision_config"].items() if name != "model_type"
    }
    model = make_model(
        "Glm4vMoe",
        tokenizer,
        text={"rope_parameters": {**ROPE, "partial_rotary_factor": 1.0}, "head_dim": 16, **experts},
        vision=vision,
        **{name: stated[name] for name in names},
    )
    return model, files, image


def _make_qwen2(
    name: str, processor: str, text: dict[str, Any], **vision: Any
) -> Callable[[Tokenizer], Made]:
    """Makes a type with Qwen2.5-VL's pixels and positions of one number."""

    def make(tokenizer: Tokenizer) -> Made:
        tokens = qwen_tokens(tokenizer)
        model = make_model(
            name,
            tokenizer,
            text=text,
            vision={**QWEN2_5_VISION, **vision},
            image_token_id=tokens["image_token_id"],
            video_token_id=tokens["video_token_id"],
        )
        return model, write_files(processor, "Qwen2VLImageProcessor", QWEN_PIXELS), QWEN_IMAGE

    return make


def _lfm3_vl(tokenizer: Tokenizer) -> Made:
    """Convolutions in the text model and in the vision encoder."""
    tokens = qwen_tokens(tokenizer)
    layers = ["conv", "full_attention"]
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "patch_size": 14}
    model = make_model(
        "Lfm3Vl",
        tokenizer,
        text={"model_type": "lfm3", "layer_types": layers, "head_dim": 16},
        vision={**sizes, "num_attention_heads": 2, "num_key_value_heads": 2, "layer_types": layers},
        projector_hidden_size=64,
        **tokens,
    )
    pixels = {**QWEN_PIXELS, "patch_size": 14}
    return model, write_files("Lfm3VlProcessor", "Qwen2VLImageProcessor", pixels), QWEN_IMAGE


def _write_gemma(kind: str, **sound: Any) -> Callable[[Tokenizer], Made]:
    """Makes Gemma 4, or its kind without encoders: layers of two shapes of KV, and a part for sound."""

    def make(tokenizer: Tokenizer) -> Made:
        names = {
            "boi": "<|image>",
            "eoi": "<image|>",
            "image": "<|image|>",
            "video": "<|video|>",
            "boa": "<|audio>",
            "eoa": "<audio|>",
            "audio": "<|audio|>",
        }
        ids = dict(zip(names, add_tokens(tokenizer, *names.values()), strict=True))
        tokenizer.init_kwargs |= {f"{name}_token": token for name, token in names.items()}
        text: dict[str, Any] = {
            "head_dim": 16,
            "global_head_dim": 32,
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention"],
            "use_bidirectional_attention": "vision",
        }
        if kind == "Gemma4":
            text |= {"vocab_size_per_layer_input": len(tokenizer), "hidden_size_per_layer_input": 8}
        pixels = {"patch_size": 8, "pooling_kernel_size": 2}
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        model = make_model(
            kind,
            tokenizer,
            text=text,
            vision={**HEADS, **sizes, **pixels, "position_embedding_size": 64},
            eoa_token_index=ids["eoa"],
            **{f"{name}_token_id": token for name, token in ids.items()},
            **sound,
        )
        images = {"image_processor_type": f"{kind}ImageProcessor", **GEMMA_PIXELS}
        settings: Files = {
            "processor_config.json": {
                "processor_class": f"{kind}Processor",
                "feature_extractor": {"feature_extractor_type": f"{kind}AudioFeatureExtractor"},
                "image_processor": {**images, "max_soft_tokens": 140},
            }
        }
        return model, settings, "<|image|>"

    return make


SOUND = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "output_proj_dims": 32,
    "subsampling_conv_channels": [8, 4],
}


def _ernie(tokenizer: Tokenizer) -> Made:
    """Experts of their own for pictures, and times that are drawn into the frames."""
    names = [
        f"<|{kind}_{part}|>"
        for kind in ("IMAGE", "VIDEO")
        for part in ("PLACEHOLDER", "START", "END")
    ]
    keys = [f"{kind}{part}_token" for kind in ("image", "video") for part in ("", "_start", "_end")]
    ids = add_tokens(tokenizer, *names)
    tokenizer.init_kwargs |= dict(zip(keys, names, strict=True))
    model = make_model(
        "Ernie4_5_VLMoe",
        tokenizer,
        text={
            "moe_intermediate_size": [32, 32],
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_num_shared_experts": 1,
            "rope_parameters": {**ROPE, "mrope_section": [3, 3, 2]},
        },
        vision={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2},
        **{f"{key}_id": token for key, token in zip(keys, ids, strict=True)},
    )
    files = write_files(
        "Ernie4_5_VLMoeProcessor", "Ernie4_5_VLMoeImageProcessor", {**QWEN_PIXELS, "patch_size": 14}
    )
    return model, files, f"{names[1]}{names[0]}{names[2]}"


def write_font() -> str:
    """Writes Pillow's own font to a file: a checkpoint of this type brings one."""
    path = Path(gettempdir(), "videoqa-test-font.ttf")
    font: Any = ImageFont.load_default(size=10)
    path.write_bytes(font.font_bytes)
    return str(path)


def _minicpm(tokenizer: Tokenizer) -> Made:
    """Slices of pictures, and Qwen3.5's text model."""
    names = {
        "image": "<image_pad>",
        "video": "<video_pad>",
        "image_start": "<image_s>",
        "image_end": "<image_e>",
        "slice_start": "<slice>",
        "slice_end": "</slice>",
        "image_id_start": "<image_id>",
        "image_id_end": "</image_id>",
    }
    image, video, *_ = add_tokens(tokenizer, *names.values())
    tokenizer.init_kwargs |= {f"{name}_token": token for name, token in names.items()}
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}
    model = make_model(
        "MiniCPMV4_6",
        tokenizer,
        text={**DELTA, "model_type": "qwen3_5_text", "rope_parameters": rope},
        vision={**VISION, "image_size": 112, "insert_layer_id": 0},
        image_token_id=image,
        video_token_id=video,
        insert_layer_id=0,
        image_size=112,
    )
    slices = {"scale_resolution": 112, "patch_size": 14, "max_slice_nums": 4}
    return (
        model,
        write_files("MiniCPMV4_6Processor", "MiniCPMV4_6ImageProcessor", slices),
        names["image"],
    )


def _molmo2(tokenizer: Tokenizer) -> Made:
    """Features of two layers, and one video in a prompt."""
    names = [
        "<im_patch>",
        "<im_col>",
        "<im_start>",
        "<low_res_im_start>",
        "<frame_start>",
        "<im_end>",
        "<frame_end>",
    ]
    ids = dict(
        zip(
            names, add_tokens(tokenizer, *names, "<im_low>", "<|image|>", "<|video|>"), strict=False
        )
    )
    tokenizer.init_kwargs |= {"image_token": "<|image|>", "video_token": "<|video|>"}
    layers = {"hidden_size": 32, "intermediate_size": 64, **HEADS}
    model = make_model(
        "Molmo2",
        tokenizer,
        text={"head_dim": 16, "additional_vocab_size": 0},
        vision={**layers, "num_hidden_layers": 2, "image_size": [56, 56], "patch_size": 14},
        adapter_config={**layers, "vision_feature_layer": [1, 0], "text_hidden_size": 64},
        image_start_token_id=ids["<im_start>"],
        low_res_image_start_token_id=ids["<low_res_im_start>"],
        image_end_token_id=ids["<im_end>"],
        image_patch_id=ids["<im_patch>"],
        frame_start_token_id=ids["<frame_start>"],
        frame_end_token_id=ids["<frame_end>"],
    )
    crops = {**MOLMO_PIXELS, "max_crops": 4, "overlap_margins": [0, 0]}
    return model, write_files("Molmo2Processor", "Molmo2ImageProcessor", crops), "<|image|>"


MOLMO_PIXELS = {"size": {"height": 56, "width": 56}, "patch_size": 14, "pooling_size": [2, 2]}


def _kimi(tokenizer: Tokenizer) -> Made:
    """A processor whose videos its own model cannot take, in transformers 5.23."""
    image, video, begin, _, end = add_tokens(
        tokenizer,
        "<|media_pad|>",
        "<|kimi_k25_video_placeholder|>",
        "<|media_begin|>",
        "<|media_content|>",
        "<|media_end|>",
    )
    latent = {
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 16,
    }
    experts = {
        "moe_intermediate_size": 32,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
    }
    groups = {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "num_key_value_heads": 4}
    vision = {**VISION, "pos_emb_height": 8, "pos_emb_width": 8}
    del vision["image_size"]
    model = make_model(
        "Kimi_K25",
        tokenizer,
        text={"model_type": "deepseek_v3", **experts, **latent, **groups},
        vision=vision,
        projection_hidden_size=32,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=begin,
        vision_end_token_id=end,
    )
    files = write_files("Kimi_K25Processor", "Kimi_K25ImageProcessor", KIMI_PIXELS)
    return model, files, "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>"


KIMI_PIXELS = {"size": {"max_height": 112, "max_width": 112}, "patch_size": 14, "max_patches": 64}
QWEN3_VIDEO = {
    "video_processor_type": "Qwen3VLVideoProcessor",
    "patch_size": 14,
    "size": {"shortest_edge": 56 * 56, "longest_edge": 6 * 84 * 84},
}
QWEN2_VIDEO = {"video_processor_type": "Qwen2VLVideoProcessor", **QWEN_PIXELS}
GLM_VIDEO = {**QWEN3_VIDEO, "video_processor_type": "Glm4vVideoProcessor"}
IN_VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
Entry = tuple[Callable[[Tokenizer], Made], dict[str, Any], str]
NEWER: dict[str, Entry] = {
    "qwen3_5": (_make_qwen3("Qwen3_5", DELTA), QWEN3_VIDEO, IN_VIDEO),
    "qwen3_5_moe": (_make_qwen3("Qwen3_5Moe", {**DELTA, **SHARED_EXPERT}), QWEN3_VIDEO, IN_VIDEO),
    "qwen3_vl_moe": (
        _make_qwen3(
            "Qwen3VLMoe",
            {**EXPERTS, "rope_parameters": QWEN3_ROPE, "head_dim": 16},
            deepstack_visual_indexes=[0],
        ),
        QWEN3_VIDEO,
        IN_VIDEO,
    ),
    "qwen4_exp": (_make_qwen3("Qwen4Exp", INDEXED), QWEN3_VIDEO, IN_VIDEO),
    "glm4v_moe": (_glm4v_moe, GLM_VIDEO, "<|begin_of_video|><|video|><|end_of_video|>"),
    "exaone4_5": (
        _make_qwen2(
            "Exaone4_5_",
            "Exaone4_5_Processor",
            {
                "model_type": "exaone4",
                "sliding_window": 24,
                "sliding_window_pattern": 2,
                "head_dim": 16,
            },
            num_key_value_heads=2,
        ),
        QWEN2_VIDEO,
        IN_VIDEO,
    ),
    "hyperclovax_vision_v2": (
        _make_qwen2(
            "HyperCLOVAXVisionV2",
            "HyperCLOVAXVisionV2Processor",
            {"model_type": "hyperclovax", "head_dim": 16},
            model_type="qwen2_5_vl_vision",
        ),
        QWEN2_VIDEO,
        IN_VIDEO,
    ),
    "lfm3_vl": (_lfm3_vl, QWEN3_VIDEO, IN_VIDEO),
    "gemma4": (
        _write_gemma("Gemma4", audio_config=SOUND),
        {"video_processor_type": "Gemma4VideoProcessor", **GEMMA_PIXELS},
        "<|video|>",
    ),
    "gemma4_unified": (
        _write_gemma("Gemma4Unified"),
        {"video_processor_type": "Gemma4UnifiedVideoProcessor", **GEMMA_PIXELS},
        "<|video|>",
    ),
    "ernie4_5_vl_moe": (
        _ernie,
        {"video_processor_type": "Ernie4_5_VLMoeVideoProcessor", "patch_size": 14, **QWEN_PIXELS},
        "<|VIDEO_START|><|VIDEO_PLACEHOLDER|><|VIDEO_END|>",
    ),
    "minicpmv4_6": (
        _minicpm,
        {
            "video_processor_type": "MiniCPMV4_6VideoProcessor",
            "scale_resolution": 112,
            "patch_size": 14,
            "max_slice_nums": 1,
        },
        "<video_pad>",
    ),
    "molmo2": (
        _molmo2,
        {"video_processor_type": "Molmo2VideoProcessor", **MOLMO_PIXELS},
        "<|video|>",
    ),
}
"""Maker, settings of the video part, and what the chat template writes for a video."""
ALIKE = frozenset(
    {
        "qwen3_5_moe",
        "qwen3_vl_moe",
        "qwen4_exp",
        "glm4v_moe",
        "hyperclovax_vision_v2",
        "gemma4_unified",
    }
)
"""Those with the processor of another type, or one like it: `video_parity` compares them when it is asked to."""
KIMI: Entry = (
    _kimi,
    {"video_processor_type": "Kimi_K25VideoProcessor", **KIMI_PIXELS},
    "<|kimi_k25_video_placeholder|>",
)
