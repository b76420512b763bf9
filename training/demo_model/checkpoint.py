"""The demo model before training: tokenizer, processor, chat template, random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from demo_world import COLORS, DIRECTIONS, SHAPES, vocabulary
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.utils import logging

IMAGE_PX = 48
PATCH_PX = 12
TOKENS_PER_FRAME = (IMAGE_PX // PATCH_PX) ** 2
CONTEXT_TOKENS = 4096

_PAD, _START, _END, _IMAGE, _UNKNOWN = _SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<image>",
    "<unk>",
)
_TEMPLATE_WORDS = ("\n", "user", "assistant", "system")
_PUNCTUATION = ("?", ".", ",", ":", "!", "'")
_ANSWER_WORDS = (
    *("a", "an", "and", "then", "moves", "stays", "still", "it", "on", "at", "the"),
    *("left", "right", "top", "bottom", "yes", "no", "so", "nothing", "one", "two", "three"),
    *("first", "second", "is", "shows", "that", "1", "2", "video", "clip"),
)

#: Content in its order, a line break before every text but the assistant's, nothing after `user` and
#: `assistant`: for media first and text after, this is the prompt of the Hugging Face guide to video
#: question answering. An earlier answer stands as it was generated, so its keys and values serve a
#: follow-up question (the tokenizer drops the space).
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] -}}
{%- set before_text = ' ' if message['role'] == 'assistant' else '\\n' -%}
{%- if message['content'] is string -%}
{{- before_text + message['content'] -}}
{%- else -%}
{%- for item in message['content'] -%}
{%- if item['type'] == 'image' -%}{{- '<image>' -}}
{%- elif item['type'] == 'text' -%}{{- before_text + item['text'] -}}
{%- else -%}
{{- raise_exception('got content of type ' + item['type'] + ', expected image or text') -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant' -}}{%- endif -%}
"""


def new_tokenizer() -> PreTrainedTokenizerFast:
    """Builds a tokenizer of whole words in lower case; an unknown word is `<unk>`."""
    words = sorted({*vocabulary(), *_ANSWER_WORDS, *COLORS, *SHAPES, *DIRECTIONS, "s"})
    vocab = {
        token: index
        for index, token in enumerate([*_SPECIAL, *_TEMPLATE_WORDS, *_PUNCTUATION, *words])
    }
    if len(vocab) != len(set(vocab)):
        raise ValueError("a word is in the vocabulary twice")
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=_UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n"), "isolated"),
            pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed"),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    # found in a text before it is lower-cased and split
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in _SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=_UNKNOWN,
        pad_token=_PAD,
        eos_token=_END,
        padding_side="left",
        model_max_length=CONTEXT_TOKENS,
        extra_special_tokens={"image_token": _IMAGE},
        chat_template=CHAT_TEMPLATE,
    )


def new_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Builds a processor with SigLIP pixels: bicubic to 48x48 at any aspect, -1..1."""
    images = SiglipImageProcessorPil(
        size={"height": IMAGE_PX, "width": IMAGE_PX}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH_PX,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=CHAT_TEMPLATE,
    )


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlavaForConditionalGeneration:
    """Builds a model with 1.4 million random weights: SigLIP of 3 layers, Qwen2 of 4."""
    torch.manual_seed(seed)
    image_token = tokenizer.convert_tokens_to_ids(_IMAGE)
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=IMAGE_PX,
            patch_size=PATCH_PX,
            vision_use_head=False,
        ),
        text_config=Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT_TOKENS,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        ),
        image_token_index=image_token,
        image_seq_length=TOKENS_PER_FRAME,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        projector_hidden_act="gelu",
        tie_word_embeddings=True,
    )
    config._attn_implementation = "sdpa"
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        max_new_tokens=48,
    )
    return model


def save(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """Writes the files that `from_pretrained` reads."""
    logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
