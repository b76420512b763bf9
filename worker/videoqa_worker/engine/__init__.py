"""The resident model: loads it, batches requests, generates, delivers.

`Engine` owns the model on one thread. Callers submit a request and get a future; nothing
outside this package touches the model. `VllmEngine` replaces it where vLLM in the worker runs
the model, and `ServerEngine` where a server does; `Answering` is the interface of all.
"""

from videoqa_worker.engine.device.memory import DeviceMemory
from videoqa_worker.engine.engine import Engine
from videoqa_worker.engine.generation import (
    AnswerOptions,
    Generated,
    GenerationRequest,
    MediaQuestion,
)
from videoqa_worker.engine.interface import Answering
from videoqa_worker.engine.model.device_choice import choose_device, choose_dtype
from videoqa_worker.engine.model.loading import inspect_checkpoint
from videoqa_worker.engine.model.processing.processor import load_processor
from videoqa_worker.engine.server_engine import ServerEngine
from videoqa_worker.engine.stats import Stats
from videoqa_worker.engine.vllm import VllmEngine

__all__ = [
    "AnswerOptions",
    "Answering",
    "DeviceMemory",
    "Engine",
    "Generated",
    "GenerationRequest",
    "MediaQuestion",
    "ServerEngine",
    "Stats",
    "VllmEngine",
    "choose_device",
    "choose_dtype",
    "inspect_checkpoint",
    "load_processor",
]
