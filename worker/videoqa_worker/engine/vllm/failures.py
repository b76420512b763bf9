"""Turns failures of vLLM into our errors."""

from __future__ import annotations

from videoqa.errors import ConfigurationError, EngineStopped
from videoqa_worker.engine.failures import STOPPED

__all__ = ["explain_start", "make_stopped"]

_MEMORY = ("memory", "KV cache", "cache blocks")
_MORE_MEMORY = (
    "; lower VIDEOQA_MAX_CONTEXT, or raise VIDEOQA_MAX_BATCH_TOKENS (the KV cache) or VIDEOQA_GPU_MEMORY_SHARE; for a "
    "model that is too large, take a larger GPU, VIDEOQA_TENSOR_PARALLEL or quantization"
)
_OTHER = "; set VIDEOQA_ENGINE=transformers if vLLM does not have this model"


def explain_start(error: BaseException, reported: str, model: str) -> ConfigurationError:
    """Returns the error for an engine that did not start.

    Arguments:
        reported: the exception in one of vLLM's processes; empty: there was none.
    """
    if isinstance(error, ConfigurationError):
        return error
    reason = reported or f"{type(error).__name__}: {error}"
    step = _MORE_MEMORY if any(word in reason for word in _MEMORY) else _OTHER
    return ConfigurationError(
        f"vLLM cannot start with {model}: {_shorten(reason)}{step}", param="model"
    )


def make_stopped(*, had_begun: bool, reported: str = "") -> EngineStopped:
    """Returns the error for a question of an engine that was closed, or that died for a reported reason."""
    error = EngineStopped(f"{STOPPED} (vLLM: {_shorten(reported)})" if reported else STOPPED)
    error.had_begun = had_begun
    return error


def _shorten(reason: str) -> str:
    return reason if len(reason) <= 500 else reason[:497] + "..."
