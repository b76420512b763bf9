"""Tiny checkpoints of further architectures for images and text: the rows of the table of architectures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers
from transformers import PreTrainedTokenizerFast

from support.other_models import OTHERS, TEXT, VISION, Files, add_tokens

__all__ = [
    "ARCHITECTURES",
    "BEGINNING",
    "QWEN_IMAGE",
    "QWEN_PIXELS",
    "ROPE",
    "WINDOWS",
    "Made",
    "make_model",
    "qwen_tokens",
    "write_files",
]

SIGLIP = {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False}
SQUARE = {"size": {"height": 56, "width": 56}}
Made = tuple[Any, Files, str]


def make_model(
    name: str,
    tokenizer: PreTrainedTokenizerFast,
    *,
    text: dict[str, Any],
    vision: dict[str, Any],
    model: str = "",
    **settings: Any,
) -> Any:
    """Makes the model of a configuration class, with a text model of the tests' size."""
    text = {**TEXT, "vocab_size": len(tokenizer), **text}
    config = getattr(transformers, f"{name}Config")(
        text_config=text, vision_config=vision, tie_word_embeddings=False, **settings
    )
    return getattr(transformers, model or f"{name}ForConditionalGeneration")(config)


def write_files(processor: str, images: str, pixels: dict[str, Any], **settings: Any) -> Files:
    return {
        "preprocessor_config.json": {"image_processor_type": images, **pixels},
        "processor_config.json": {"processor_class": processor, **settings},
    }


def _llava_files() -> Files:
    """LLaVA's processor of pictures of 56 x 56 pixels: 16 tokens each."""
    sizes = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    return write_files(
        "LlavaProcessor",
        "CLIPImageProcessor",
        sizes,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def _image_token(tokenizer: PreTrainedTokenizerFast) -> int:
    token: int = tokenizer.convert_tokens_to_ids("<image>")
    return token


def _vipllava(tokenizer: PreTrainedTokenizerFast) -> Made:
    """LLaVA's processor, and features of several layers side by side."""
    model = make_model(
        "VipLlava",
        tokenizer,
        text={"model_type": "llama"},
        vision={**VISION, "model_type": "clip_vision_model", "projection_dim": 32},
        image_token_index=_image_token(tokenizer),
        vision_feature_layer=[-2, -1],
        image_seq_length=16,
    )
    return model, _llava_files(), "<image>"


def _aya_vision(tokenizer: PreTrainedTokenizerFast) -> Made:
    """Tiles whose names stand between them as text."""
    tokens = add_tokens(
        tokenizer, "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>"
    )
    model = make_model(
        "AyaVision",
        tokenizer,
        text={"model_type": "cohere"},
        vision=SIGLIP,
        image_token_index=tokens[2],
    )
    pixels = {**SQUARE, "crop_to_patches": True, "max_patches": 4}
    files = write_files(
        "AyaVisionProcessor",
        "GotOcr2ImageProcessor",
        pixels,
        patch_size=14,
        img_size=56,
        downsample_factor=2,
    )
    return model, files, "<image>"


def _internvl(tokenizer: PreTrainedTokenizerFast) -> Made:
    """Tiles, and tokens for the begin and end of a picture that its tokenizer names."""
    start, end, context = "<img>", "</img>", "<IMG_CONTEXT>"
    *_, token = add_tokens(tokenizer, start, end, context)
    tokenizer.init_kwargs |= {
        "start_image_token": start,
        "end_image_token": end,
        "context_image_token": context,
        "video_token": "<video>",
    }
    vision = {**VISION, "image_size": [56, 56], "patch_size": [14, 14]}
    model = make_model(
        "InternVL",
        tokenizer,
        text={"model_type": "qwen2"},
        vision=vision,
        image_token_id=token,
        image_seq_length=4,
    )
    pixels = {**SQUARE, "crop_to_patches": True, "max_patches": 4}
    files = write_files("InternVLProcessor", "GotOcr2ImageProcessor", pixels, image_seq_length=4)
    return model, files, f"{context}\n"


def qwen_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    start, end, image, video = add_tokens(
        tokenizer, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
    )
    return {
        "image_token_id": image,
        "video_token_id": video,
        "vision_start_token_id": start,
        "vision_end_token_id": end,
    }


QWEN_PIXELS = {"size": {"shortest_edge": 56 * 56, "longest_edge": 84 * 84}}
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10_000.0}


def _qwen2_5_vl(tokenizer: PreTrainedTokenizerFast) -> Made:
    """Positions of three numbers, and windows in the vision encoder."""
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "window_size": 56,
        "fullatt_block_indexes": [1],
    }
    tokens = qwen_tokens(tokenizer)
    text = {"rope_parameters": ROPE}
    model = make_model("Qwen2_5_VL", tokenizer, text=text, vision=vision, **tokens)
    files = write_files("Qwen2_5_VLProcessor", "Qwen2VLImageProcessor", QWEN_PIXELS)
    return model, files, QWEN_IMAGE


def _qwen3_vl(tokenizer: PreTrainedTokenizerFast) -> Made:
    """Features that also go into deeper layers."""
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 14,
        "out_hidden_size": 64,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    tokens = qwen_tokens(tokenizer)
    text = {"rope_parameters": {**ROPE, "mrope_interleaved": True}, "head_dim": 16}
    model = make_model("Qwen3VL", tokenizer, text=text, vision=vision, **tokens)
    files = write_files(
        "Qwen3VLProcessor", "Qwen2VLImageProcessor", {**QWEN_PIXELS, "patch_size": 14}
    )
    return model, files, QWEN_IMAGE


def _glm4v(tokenizer: PreTrainedTokenizerFast) -> Made:
    """Positions of three numbers, and one token for pictures and for frames of videos."""
    begin, end, image, video, *ends = add_tokens(
        tokenizer,
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|image|>",
        "<|video|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
    )
    tokenizer.init_kwargs |= {"image_token": "<|image|>", "video_token": "<|video|>"}
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "image_size": 56,
        "patch_size": 14,
    }
    model = make_model(
        "Glm4v",
        tokenizer,
        text={"rope_parameters": {**ROPE, "partial_rotary_factor": 1.0}},
        vision=vision,
        image_token_id=image,
        video_token_id=video,
        image_start_token_id=begin,
        image_end_token_id=end,
        video_start_token_id=ends[0],
        video_end_token_id=ends[1],
    )
    pixels = {"size": {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}}
    files = write_files("Glm4vProcessor", "Glm4vImageProcessor", pixels)
    return model, files, "<|begin_of_image|><|image|><|end_of_image|>"


def _llava_window(tokenizer: PreTrainedTokenizerFast) -> Made:
    """LLaVA with a sliding window in its last layer."""
    window = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}
    model = make_model(
        "Llava",
        tokenizer,
        text={"model_type": "qwen2", **window},
        vision={**VISION, "model_type": "clip_vision_model", "projection_dim": 32},
        image_token_index=_image_token(tokenizer),
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
    )
    return model, _llava_files(), "<image>"


def _mistral3_window(tokenizer: PreTrainedTokenizerFast) -> Made:
    """A sliding window in all layers."""
    model, files, template = OTHERS["mistral3"](tokenizer)
    model.config.text_config.sliding_window = 24
    return model, files, template


def _idefics2(tokenizer: PreTrainedTokenizerFast) -> Made:
    """A picture of any shape becomes the same number of tokens."""
    add_tokens(tokenizer, "<fake_token_around_image>", "<end_of_utterance>")
    perceiver = {
        "hidden_size": 64,
        "resampler_n_latents": 4,
        "resampler_depth": 1,
        "resampler_n_heads": 2,
        "resampler_head_dim": 16,
        "num_key_value_heads": 1,
    }
    model = make_model(
        "Idefics2",
        tokenizer,
        text={"model_type": "mistral", "sliding_window": None},
        vision=VISION,
        perceiver_config=perceiver,
        image_token_id=_image_token(tokenizer),
    )
    pixels = {"size": {"longest_edge": 56, "shortest_edge": 28}, "do_image_splitting": False}
    files = write_files("Idefics2Processor", "Idefics2ImageProcessor", pixels, image_seq_len=4)
    return model, files, "<image>"


def _paligemma(tokenizer: PreTrainedTokenizerFast) -> Made:
    """Attention in both directions over picture and question."""
    model = make_model(
        "PaliGemma",
        tokenizer,
        text={"model_type": "gemma", "head_dim": 16},
        vision=SIGLIP,
        image_token_index=_image_token(tokenizer),
        projection_dim=64,
        hidden_size=64,
    )
    files = write_files(
        "PaliGemmaProcessor", "SiglipImageProcessor", {**SQUARE, "image_seq_length": 16}
    )
    return model, files, "<image>"


def _ovis2(tokenizer: PreTrainedTokenizerFast) -> Made:
    """A picture is written with six tokens of several meanings."""
    atom, *indicators = add_tokens(
        tokenizer,
        "<IMG_ATOM>",
        "<IMG_START>",
        "<IMG_GRID>",
        "<IMG_COL>",
        "<IMG_ROW>",
        "<IMG_END>",
    )
    model = make_model(
        "Ovis2",
        tokenizer,
        text={"model_type": "qwen2"},
        vision={**VISION, "vocab_size": 64},
        image_token_id=atom,
        visual_indicator_token_ids=indicators,
        vocab_size=len(tokenizer),
        hidden_size=64,
    )
    files = write_files("Ovis2Processor", "Ovis2ImageProcessor", SQUARE, image_seq_length=16)
    return model, files, "<image>"


def _mllama(tokenizer: PreTrainedTokenizerFast) -> Made:
    """Llama 3.2: cross-attention to pictures instead of features among the text."""
    (image,) = add_tokens(tokenizer, "<|image|>")
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "vision_output_dim": 64,
        "intermediate_layers_indices": [0],
        "image_size": 56,
        "patch_size": 14,
    }
    rope = {"rope_type": "default", "rope_theta": 1e4}
    text = {"cross_attention_layers": [1], "rope_parameters": rope, "bos_token_id": 3}
    model = make_model("Mllama", tokenizer, text=text, vision=vision, image_token_index=image)
    files = write_files("MllamaProcessor", "MllamaImageProcessor", {**SQUARE, "max_image_tiles": 4})
    return model, files, "<|image|>"


def _lighton_ocr(tokenizer: PreTrainedTokenizerFast) -> Made:
    """Pixtral's encoder without tokens between the lines."""
    vision = {**VISION, "model_type": "pixtral", "image_size": 64, "patch_size": 8}
    vision["head_dim"] = 16
    tokens = add_tokens(tokenizer, "<|image_pad|>", "<|vision_pad|>", "<|vision_end|>")
    tokenizer.init_kwargs |= {
        "image_token": "<|image_pad|>",
        "image_break_token": "<|vision_pad|>",
        "image_end_token": "<|vision_end|>",
    }
    model = make_model(
        "LightOnOcr",
        tokenizer,
        text={"model_type": "qwen3", "head_dim": 16},
        vision=vision,
        image_token_id=tokens[0],
    )
    pixels = {"patch_size": {"height": 8, "width": 8}, "size": {"longest_edge": 64}}
    files = write_files("LightOnOcrProcessor", "PixtralImageProcessor", pixels, patch_size=8)
    return model, files, "<|image_pad|>"


def _deepseek_vl(tokenizer: PreTrainedTokenizerFast) -> Made:
    """SigLIP's features as they are."""
    tokenizer.init_kwargs |= {"image_token": "<image>"}
    model = make_model(
        "DeepseekVL",
        tokenizer,
        text={"model_type": "llama"},
        vision=SIGLIP,
        image_token_id=_image_token(tokenizer),
    )
    pixels = {**SQUARE, "min_size": 14}
    files = write_files(
        "DeepseekVLProcessor", "DeepseekVLImageProcessor", pixels, num_image_tokens=16
    )
    return model, files, "<image>"


def _aria(tokenizer: PreTrainedTokenizerFast) -> Made:
    """Experts, and one size of pictures."""
    tokenizer.init_kwargs |= {"image_token": "<image>"}
    model = make_model(
        "Aria",
        tokenizer,
        text={"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1},
        vision={**VISION, "model_type": "idefics3_vision", "image_size": 490, "patch_size": 70},
        projector_patch_to_query_dict={49: 128, 196: 256},
        image_token_index=_image_token(tokenizer),
    )
    pixels = {"max_image_size": 490, "min_image_size": 336, "split_image": False}
    return model, write_files("AriaProcessor", "AriaImageProcessor", pixels), "<image>"


def _video_llama_3(tokenizer: PreTrainedTokenizerFast) -> Made:
    """Qwen's pixels with positions of one number."""
    _, image, video = add_tokens(tokenizer, "<|vision_start|>", "<|image_pad|>", "<|video_pad|>")
    vision = {key: value for key, value in VISION.items() if key != "image_size"}
    model = make_model(
        "VideoLlama3",
        tokenizer,
        text={"model_type": "qwen2"},
        vision=vision,
        image_token_id=image,
        video_token_id=video,
    )
    pixels = {"min_tokens": 4, "max_tokens": 64, "patch_size": 14, "merge_size": 1}
    files = write_files(
        "VideoLlama3Processor", "VideoLlama3ImageProcessor", {**pixels, **QWEN_PIXELS}
    )
    return model, files, "<|image_pad|>"


ARCHITECTURES: dict[str, Callable[[PreTrainedTokenizerFast], Made]] = {
    **OTHERS,
    "aria": _aria,
    "aya_vision": _aya_vision,
    "deepseek_vl": _deepseek_vl,
    "glm4v": _glm4v,
    "idefics2": _idefics2,
    "internvl": _internvl,
    "lighton_ocr": _lighton_ocr,
    "mllama": _mllama,
    "ovis2": _ovis2,
    "paligemma": _paligemma,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "video_llama_3": _video_llama_3,
    "vipllava": _vipllava,
}
WINDOWS: dict[str, Callable[[PreTrainedTokenizerFast], Made]] = {
    "llava_window": _llava_window,
    "mistral3_window": _mistral3_window,
}
"""Models whose layers look back only so far; other models of types that are in the table."""
BEGINNING = ("pixtral", "mistral3", "mistral3_window", "mllama", "paligemma")
"""Those whose processor needs a token for the begin of a text."""
