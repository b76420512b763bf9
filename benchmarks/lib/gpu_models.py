"""LLaVA-Interleave 0.5B and 7B as they are on the hub, with random weights, built on the device.

Four smaller models of the same kind are for the CPU; `narrow` has as many tokens a frame.

Their answers mean nothing; their time is that of the real ones. Knows nothing of what is measured.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from videoqa_worker.engine import load_processor
from videoqa_worker.engine.model.checkpoint.generation_config import CheckpointGeneration
from videoqa_worker.engine.model.loading import LoadedModel
from videoqa_worker.prompt import Prompter

__all__ = ["SHAPES", "Shape", "build", "write"]

_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"]
_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% for item in message['content'] if item['type'] == 'image' %}{{ '<image>' }}{% endfor %}"
    "{% for item in message['content'] if item['type'] == 'text' %}{{ '\n' + item['text'] }}"
    "{% endfor %}{{'<|im_end|>\n'}}{% endfor %}{{ '<|im_start|>assistant\n' }}"
)


@dataclass(frozen=True)
class Shape:
    """The text model's sizes, and the tower's: SigLIP so400m/14 at 384 pixels, unless said."""

    hidden: int
    layers: int
    heads: int
    inner: int
    tied: bool
    vocabulary: int = 152_000
    tower: tuple[int, int, int, int] = (1152, 4304, 26, 16)
    """Width, inner width, layers, heads."""
    side: int = 384
    """Pixels of a picture, each way."""

    @property
    def frame_tokens(self) -> int:
        return (self.side // 14) ** 2

    @property
    def kv_bytes(self) -> int:
        """KV bytes of a token, in 16 bits."""
        return 2 * self.layers * self.hidden * 2


SHAPES = {
    "0.5b": Shape(hidden=1024, layers=24, heads=16, inner=2816, tied=True),
    "7b": Shape(hidden=4096, layers=32, heads=32, inner=11008, tied=False),
    "medium": Shape(512, 8, 8, 1376, False, vocabulary=512, tower=(256, 1024, 4, 4), side=84),
    # 109 M parameters, 64 tokens a frame.
    "mid": Shape(768, 12, 12, 2048, False, vocabulary=8192, tower=(384, 1536, 6, 6), side=112),
    "narrow": Shape(128, 4, 4, 512, False, vocabulary=512, tower=(64, 128, 2, 4)),
    "small": Shape(128, 4, 4, 512, False, vocabulary=512, tower=(64, 128, 2, 4), side=84),
}
"""Qwen1.5-0.5B-Chat and Qwen1.5-7B-Chat, by the configurations of llava-interleave-qwen-*-hf."""


def _config(shape: Shape, layers: int | None) -> LlavaConfig:
    width, inner, depth, heads = shape.tower
    text = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=layers or shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=32_768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=shape.tied,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=0,
    )
    vision = SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers or depth,
        num_attention_heads=heads,
        image_size=shape.side,
        patch_size=14,
        vision_use_head=False,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=_SPECIAL.index("<image>"),
        image_seq_length=shape.frame_tokens,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=shape.tied,
    )


def write(name: str, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes the model as a checkpoint."""
    loaded, _ = build(name, torch.device("cpu"), dtype)
    loaded.model.save_pretrained(folder)
    _write(folder, loaded.model.config)


def build(
    name: str, device: torch.device, dtype: torch.dtype, *, layers: int | None = None
) -> tuple[LoadedModel, Any]:
    """The model on its device, and the checkpoint's own processor for those who use that.

    No token ends an answer, so that all are of the length asked for.

    Arguments:
        layers: of tower and text model, if not the model's own number.
    """
    config = _config(SHAPES[name], layers)
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model: Any = LlavaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    _spread(model)
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0)  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), config)
        fast, own = (load_processor(folder, config, pixels) for pixels in ("fast", "reference"))
    prompter = Prompter(fast, config)
    loaded = LoadedModel(
        model.eval(), fast.tokenizer, prompter, CheckpointGeneration(), True, True, "random"
    )
    return loaded, own


def _spread(model: Any) -> None:
    """Weights so large that an answer depends on the pictures and does not repeat itself."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2:
                # Small embeddings: a tied head would otherwise repeat the last token for ever.
                std = 0.05 if "embed_tokens" in name else 1.0 / weight[0].numel() ** 0.5
                weight.normal_(std=std)


def _write(folder: Path, config: LlavaConfig) -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: n for n, text in enumerate([*_SPECIAL, *letters])}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<image>"],
    ).save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    files: dict[str, dict[str, Any]] = {
        "preprocessor_config.json": {
            "image_processor_type": "SiglipImageProcessor",
            "size": {
                "height": config.vision_config.image_size,
                "width": config.vision_config.image_size,
            },
            "image_mean": half,
            "image_std": half,
        },
        "processor_config.json": {
            "processor_class": "LlavaProcessor",
            "patch_size": 14,
            "vision_feature_select_strategy": "full",
            "num_additional_image_tokens": 0,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "chat_template.jinja").write_text(_TEMPLATE)
    config.save_pretrained(folder)
