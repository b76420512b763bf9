"""The settings of a worker: one model for each part that reads them, all read from one environment.

They lie here and not in the packages that use them, since importing the engine takes seconds.
"""

from videoqa_worker.settings.engine import DEMO_MODEL, DEMO_MODEL_PATH, EngineConfig, ServerConfig
from videoqa_worker.settings.frames import DEFAULT_LIMITS, FrameLimits, HdrMode
from videoqa_worker.settings.sources import SourceConfig
from videoqa_worker.settings.worker import WorkerSettings

__all__ = [
    "DEFAULT_LIMITS",
    "DEMO_MODEL",
    "DEMO_MODEL_PATH",
    "EngineConfig",
    "FrameLimits",
    "HdrMode",
    "ServerConfig",
    "SourceConfig",
    "WorkerSettings",
]
