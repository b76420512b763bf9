"""Sizes an engine for its device: runs the largest pass where its memory can be measured, then plans.

Runs before there is a KV cache. The plan itself is made by `device.memory`.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from videoqa.contract import Generation
from videoqa.errors import ConfigurationError, PromptTooLong
from videoqa_worker.engine.device.memory import (
    CudaMemory,
    MemoryPlan,
    MemoryReader,
    Room,
    free_memory,
    measure_cpu_room,
    measure_cuda_room,
    plan_memory,
)
from videoqa_worker.engine.model import vision
from videoqa_worker.engine.model.kv_shape import KVShape, count_token_bytes
from videoqa_worker.engine.model.loading import LoadedModel
from videoqa_worker.engine.model.rotary_positions import find_positions, shape_position_ids
from videoqa_worker.machine import measure_memory
from videoqa_worker.prompt import FrameInput, ModelInputs, Prompter
from videoqa_worker.settings import EngineConfig

__all__ = ["size_engine"]

_HEIGHT, _WIDTH = 720, 1280
"""A usual video; processors that do not resize give larger frames more tokens."""
_FRAMES = 8
_QUESTION = "What is happening in this video?"


def size_engine(
    loaded: LoadedModel, shape: KVShape, config: EngineConfig, memory: MemoryReader | None = None
) -> MemoryPlan:
    """Returns the sizes of the batch and of the caches for a loaded model.

    Arguments:
        memory: reads a GPU's memory; None: that of the model's device, if it is one.

    Raises:
        ConfigurationError: the GPU's memory does not hold a question beside the model.
    """
    device: torch.device = loaded.model.device
    if memory is None and device.type == "cuda":
        memory = CudaMemory(device)
    question: ModelInputs | None = None
    if memory is None:
        room = measure_cpu_room(measure_memory())
    else:
        question = _make_question(loaded.prompter)
        room = _measure_gpu(loaded, question, config, memory)
    return plan_memory(
        config,
        room,
        token_bytes=count_token_bytes(shape, loaded.model.dtype),
        question_tokens=question.length + Generation().max_new_tokens if question else 1,
        max_context=loaded.prompter.max_context,
    )


def _measure_gpu(
    loaded: LoadedModel, question: ModelInputs, config: EngineConfig, memory: MemoryReader
) -> Room:
    run = partial(_run_largest_pass, loaded, question, config)
    try:
        return measure_cuda_room(config.gpu_memory_share, run, memory, graphs=config.cuda_graphs)
    except torch.OutOfMemoryError as error:
        raise ConfigurationError(
            f"the GPU has no memory for a prompt of {config.prefill_chunk_tokens} tokens beside the model: "
            f"{str(error).splitlines()[0]}; lower VIDEOQA_PREFILL_CHUNK_TOKENS, end what else uses this GPU, or set "
            "VIDEOQA_QUANTIZATION=4bit",
            param="prefill_chunk_tokens",
        ) from error
    finally:
        free_memory()


def _make_question(prompter: Prompter) -> ModelInputs:
    """Returns the prompt of a usual question about black frames, fewer of them if the context is short."""
    black = np.zeros((_HEIGHT, _WIDTH, 3), np.uint8)
    frames = prompter.stated_sampling[0] or _FRAMES
    while True:
        try:
            return prompter.build([FrameInput("video", (black,) * frames)], _QUESTION)
        except PromptTooLong:
            if frames == 1:
                raise
            frames = max(1, frames // 2)


def _run_largest_pass(loaded: LoadedModel, question: ModelInputs, config: EngineConfig) -> None:
    """Encodes the frames of a question, then computes the longest chunk of a prompt beside their features."""
    model = loaded.model
    features = vision.flatten_features(vision.encode(model, question))
    length = min(config.prefill_chunk_tokens, loaded.prompter.max_context)
    width = model.get_input_embeddings().embedding_dim
    axes = len(find_positions(model, question).prompt)
    model(
        inputs_embeds=torch.zeros(1, length, width, dtype=model.dtype, device=model.device),
        position_ids=shape_position_ids(torch.arange(length, device=model.device).expand(axes, -1)),
        use_cache=False,
        logits_to_keep=1,
    )
    del features
