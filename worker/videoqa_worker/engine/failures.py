"""Classifies why a forward pass failed, without a reference to its tensors, which a traceback would hold."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from videoqa.errors import GenerationError, ModelError, NanLogits, NoTokenAllowed, OutOfMemory
from videoqa_worker.engine.generation import PendingRequest
from videoqa_worker.engine.structured.matcher import make_unwritable

__all__ = ["STOPPED", "Fault", "classify", "make_nan_error", "make_no_token_error"]

STOPPED = "the engine stopped before the answer was complete; submit it again"
_NO_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class Fault:
    """A failed pass: out of memory, or an error in the model."""

    is_memory: bool
    reason: str

    def as_error(self, pending: PendingRequest) -> GenerationError:
        """Returns the error for the caller of a request that fails alone as well."""
        if self.is_memory:
            inputs = pending.request.inputs
            return OutOfMemory(
                f"the device has no memory for {inputs.length} tokens ({inputs.frames} frames), "
                f"even alone: {self.reason}; sample fewer frames, or use a larger device or "
                "quantization"
            )
        return ModelError(f"the model raised while it generated: {self.reason}")


def make_nan_error() -> NanLogits:
    """Returns the error for a sequence whose logits are NaN or infinite."""
    return NanLogits(
        "the model produced NaN or infinite logits, expected numbers; run it in bfloat16 or float32 "
        "(VIDEOQA_DTYPE) if it runs in float16, or take another revision of the checkpoint"
    )


def make_no_token_error(*, is_free: bool = True) -> GenerationError:
    """Returns the error for a sequence in which every token is forbidden.

    Arguments:
        is_free: the answer has no form, so the settings alone forbid them.
    """
    if not is_free:
        return make_unwritable("the rest of an answer of this form")
    return NoTokenAllowed(
        "the generation settings forbid every token of the vocabulary at this place, expected one at least; "
        "correct suppress_tokens, bad_words_ids and the other settings in a copy of the checkpoint"
    )


def classify(error: Exception) -> Fault:
    """Returns the fault behind an error.

    Raises:
        torch.AcceleratorError: the device is broken until the process ends.
    """
    is_memory = _is_memory(error)
    if isinstance(error, torch.AcceleratorError) and not is_memory:
        raise error
    return Fault(is_memory, f"{type(error).__name__}: {error}")


def _is_memory(error: Exception) -> bool:
    """Returns True if memory ran out: CUDA has a class for it, the CPU allocator and cuBLAS raise RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)
    )
