"""Matrices that quantisation leaves as they are, by their names in known models."""

from __future__ import annotations

import pytest
from transformers.quantizers.quantizers_utils import should_convert_module

from videoqa_worker.engine.model.checkpoint.weights import _UNQUANTIZED


@pytest.mark.parametrize(
    "name",
    [
        "model.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj",
        "model.image_tower.vision_model.encoder.layers.0.mlp.fc1",
        "model.multi_modal_projector.linear_1",
        "model.visual.merger.mlp.0",  # Qwen2-VL
        "model.connector.modality_projection.proj",  # Idefics3
        "model.embed_vision.embedding_projection",  # Gemma 3n and 4
        "model.vision_encoder.transformer.layers.0.attention.q_proj",  # LightOnOCR
        "model.vision_projection.linear_1",
        "model.vision_adapter.fc1",
        "model.vision_embed_tokens",  # Fuyu
        "model.high_res_vision_model.layers.0.mlp.lin1",  # DeepSeek-VL
        "model.aligner.fc1",  # Janus
        "model.projector.linear_1",  # VideoLLaMA 3
        "model.mm_projector.proj.0",
        "model.merger.mlp.linear_1",  # MiniCPM-V
        "model.resampler_model.mlp",  # ERNIE 4.5 VL
        "model.perceiver_resampler.blocks.0.0.q_proj",  # IDEFICS
        "model.encoder.vision_tower.encoder.layers.0.mlp.fc1",  # T5Gemma 2
        "qformer.encoder.layer.0.attention.attention.query",  # BLIP-2
        "language_projection",
        "image_to_text_projection.dense",  # Kosmos-2
        "git.image_encoder.vision_model.encoder.layers.0.mlp.fc1",
        "git.visual_projection.visual_projection.0",
        "lm_head",
        "language_model.lm_head",
        "output",  # GIT
        "text_decoder.cls.predictions.decoder",  # BLIP
    ],
)
def test_vision_and_output_layers_keep_all_bits(name: str) -> None:
    assert not should_convert_module(name, _UNQUANTIZED)


@pytest.mark.parametrize(
    "name",
    [
        "model.language_model.layers.0.self_attn.q_proj",
        "model.language_model.layers.11.mlp.down_proj",
        "model.text_model.layers.0.self_attn.o_proj",  # Idefics3, SmolVLM
        "model.layers.0.mlp.gate_proj",
        "language_model.model.decoder.layers.0.fc1",  # BLIP-2
        "model.language_model.layers.0.mlp.vision_moe.shared_experts.up_proj",  # ERNIE 4.5 VL
        "model.language_model.per_layer_model_projection",  # Gemma 3n
        "model.language_model.layers.0.per_layer_projection",
        "git.encoder.layer.0.output.dense",
        "text_decoder.bert.encoder.layer.0.attention.output.dense",
    ],
)
def test_the_text_model_does_not(name: str) -> None:
    assert should_convert_module(name, _UNQUANTIZED)
