"""The resident model: load it, batch what waits, generate, deliver.

`Engine` owns the model on one thread. Callers submit a request and get a future; nothing
outside this package touches the model. `ServerEngine` stands in its place where another server
has the model; `Answering` is what both are.
"""

from videoqa_worker.engine.engine import Engine
from videoqa_worker.engine.interface import Answering
from videoqa_worker.engine.model.loading import device_of, dtype_of, look
from videoqa_worker.engine.model.processor import load_processor
from videoqa_worker.engine.remote import ServerEngine
from videoqa_worker.engine.request import Generated, GenerationRequest
from videoqa_worker.engine.stats import Stats
from videoqa_worker.settings import EngineConfig, ServerConfig

__all__ = [
    "Answering",
    "Engine",
    "EngineConfig",
    "Generated",
    "GenerationRequest",
    "ServerConfig",
    "ServerEngine",
    "Stats",
    "device_of",
    "dtype_of",
    "load_processor",
    "look",
]
